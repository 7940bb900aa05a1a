"""Distance attack: a generator that memorised puts records closer to its training records than chance does."""

from __future__ import annotations

import numpy as np

from fedjax_health import neighbours
from fedjax_health.attacks.base import Attack, Published, public_space, require_synthetic
from fedjax_health.data.schema import Schema
from fedjax_health.types import Table

NAME = "nearest-synthetic"


def nearest(points: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Distance of every point to the nearest of `to`, f64[n]; an exact copy is at distance 0.

    Args:
      points: f64[n, D].
      to: f64[m, D], m > 0.
    """
    return neighbours.nearest(points, to)[0][:, 0]


def _score(published: Published, records: Table, schema: Schema, rng: np.random.Generator) -> np.ndarray:
    points = public_space(records, schema)
    synthetic = public_space(require_synthetic(published, NAME), schema)
    reference = public_space(published.reference, schema)
    return nearest(points, reference) - nearest(points, synthetic)


def make_nearest_synthetic() -> Attack:
    """Score of a record x: min_r d(x, r) - min_s d(x, s), over reference records r and synthetic records s.

    d is Euclidean in `public_space`. The first term calibrates: a record in a sparse region is far from everything, and
    that alone says nothing about membership.

    Returns:
      Attack; needs `Published.synthetic` and a non-empty reference; deterministic.

    Source: Chen et al. (2020), GAN-Leaks, arXiv 1909.03935.
    """
    return Attack(NAME, "the synthetic table, and real records of the attacker's own", _score)
