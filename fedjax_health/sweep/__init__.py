"""Sweeps: many runs of neighbouring configs, those that differ in numbers alone by one compiled program."""
