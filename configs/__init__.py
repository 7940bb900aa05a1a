"""Run configurations: one small file per scenario."""
