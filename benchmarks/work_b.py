"""Work B, with NumPy alone: a VAE on 4,096 rows of 16 features, batches of 256, clip norm 1, noise multiplier 1, Adam.

Encoder 16-128-128-16 (mean and log variance of 8 latents), decoder 8-128-128-16; five epochs are a repeat.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import numpy as np

from benchmarks import work

ROWS, FEATURES, HIDDEN, LATENT, BATCH, EPOCHS = 4096, 16, 128, 8, 256, 5
CLIP, NOISE, RATE = 1.0, 1.0, 1e-3


def make_rows() -> np.ndarray:
    """Correlated normal rows, f32[4096, 16]."""
    mix = np.random.default_rng(1).normal(size=(FEATURES, FEATURES)) / 4
    return (np.random.default_rng(0).normal(size=(ROWS, FEATURES)) @ mix).astype(np.float32)


def measure(run: Callable[[], object], repeats: int) -> list[float]:
    """Examples a second of each repeat, after one that is not counted.

    Args:
      run: five epochs; waits for its result.
      repeats: timed ones.
    """
    run()
    return [ROWS * EPOCHS / work.timed(run)[0] for _ in range(repeats)]


def parse_arguments(description: str | None, modes: tuple[str, ...]) -> argparse.Namespace:
    """Command line of a peer: --mode and --repeats.

    Args:
      description: shown by --help.
      modes: what it can do.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--mode", choices=modes, default=modes[0])
    parser.add_argument("--repeats", type=int, default=1)
    return parser.parse_args()


def print_rates(rates: list[float], versions: dict[str, str]) -> None:
    """The rates as one JSON line, the last of the output.

    Args:
      rates: of `measure`.
      versions: of the packages that matter.
    """
    print(json.dumps({"rates": rates, "versions": versions}), flush=True)
