"""What is judged, and what every part of the evaluation needs to judge it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fedjax_health import rng
from fedjax_health.config import EvaluationConfig
from fedjax_health.data.domain import Domain
from fedjax_health.types import Table


class Subject(NamedTuple):
    """One generator under evaluation.

    Attributes:
      name: "vae", "wgan_gp", ...
      tables: N synthetic tables, one a seed, as many rows as the real training table.
      published: rows of each that are (or would be) published, from the top: what the attacker sees.
      score: (table, seed index) -> f64[M], the model's own membership score (white-box attacker).
      draw: (seed index, class shares f32[L], rows) -> fresh rows with labels of these shares; None where only the tables are
        at hand.
    """

    name: str
    tables: list[Table]
    published: int
    score: Callable[[Table, int], np.ndarray]
    draw: Callable[[int, np.ndarray, int], Table] | None = None


class Setting(NamedTuple):
    """What every part of the evaluation needs.

    Attributes:
      domain: tables and schema.
      include: bool[N, K], training clients of each seed.
      config: sizes and the operating point.
      seed: the run's seed.
      promise: (epsilon, delta) of the run, or None without a guarantee.
    """

    domain: Domain
    include: np.ndarray
    config: EvaluationConfig
    seed: int
    promise: tuple[float, float] | None

    def generator(self, stream: rng.Stream, *names: str) -> np.random.Generator:
        """Host randomness of a part, by its address."""
        return rng.host_rng(self.seed, stream, self.domain.name, *names)


def included(setting: Setting, seed: int, member: bool) -> np.ndarray:
    """Ids of stored training clients that are members (or not) in a seed, and hold records."""
    held = np.unique(setting.domain.train.client)
    return held[setting.include[seed][held] == member]
