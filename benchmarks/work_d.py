"""Work D, with NumPy alone: 64 shadow models, a perceptron 16-64-64-1 each, 2,000 rows of 4,000, 20 epochs, batch 64, Adam."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import numpy as np

from benchmarks import work

MODELS, POOL, ROWS, EPOCHS, BATCH, RATE = 64, 4_000, 2_000, 20, 64, 1e-3


def make_pool(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """All rows and their labels: the first clients of work A. f32[4000, 16], f32[4000].

    Args:
      seed: of the records.
    """
    data = work.make_data(seed)
    return data.x.reshape(-1, work.FEATURES)[:POOL], data.y.reshape(-1)[:POOL]


def halves(seed: int = 3) -> np.ndarray:
    """Rows of each model, i32[64, 2000]: half of the pool, at random.

    Args:
      seed: of NumPy's default generator.
    """
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(POOL)[:ROWS] for _ in range(MODELS)]).astype(np.int32)


def print_rates(found: dict[str, list[float]], loss: float, versions: dict[str, str]) -> None:
    """The last line of a system's output.

    Args:
      found: of `measure`.
      loss: mean of all models on the rows they were trained on, nats.
      versions: of the packages that matter.
    """
    print(json.dumps({**found, "loss": loss, "versions": versions}), flush=True)


def measure(run: Callable[[], object], models: int, repeats: int) -> dict[str, list[float]]:
    """Of each repeat, after one that is not counted, models a second, and seconds of CPU a model, which other programs on the
    same cores disturb less.

    Args:
      run: trains them; waits for its result.
      models: how many.
      repeats: timed ones.
    """
    run()
    found: dict[str, list[float]] = {"rates": [], "cpu": []}
    for _ in range(repeats):
        before = time.process_time()
        found["rates"].append(models / work.timed(run)[0])
        found["cpu"].append((time.process_time() - before) / models)
    return found
