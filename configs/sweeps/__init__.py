"""Sweep configurations; see fedjax_health/sweep/design.py."""
