"""Measurements: each module runs as `python -m benchmarks.NAME [--quick] [--out FILE]` and ends with one JSON line."""
