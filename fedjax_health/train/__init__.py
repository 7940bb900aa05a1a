"""The compiled chunk, the host loop, checkpoints and metrics."""
