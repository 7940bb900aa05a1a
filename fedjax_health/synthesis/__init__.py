"""From a trained generator to published files."""
