"""Engines: who runs the pieces of a sweep, and where."""
