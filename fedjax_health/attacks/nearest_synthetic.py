"""Distance attack: a generator that memorised puts records closer to its training records than chance does."""

from __future__ import annotations

import numpy as np

from fedjax_health.attacks.base import Attack, Published, public_space, require_synthetic
from fedjax_health.data.schema import Schema
from fedjax_health.neighbours import nearest_distance
from fedjax_health.types import Table

NAME = "nearest-synthetic"


def _score(published: Published, records: Table, schema: Schema, rng: np.random.Generator) -> np.ndarray:
    points = public_space(records, schema)
    to_synthetic = nearest_distance(points, public_space(require_synthetic(published, NAME), schema))
    to_reference = nearest_distance(points, public_space(published.reference, schema))
    total = to_reference + to_synthetic
    return np.divide(to_reference - to_synthetic, total, out=np.zeros(len(points)), where=total > 0)


def make_nearest_synthetic() -> Attack:
    """Score of a record x: (r - s) / (r + s), r and s its distances to the nearest reference and synthetic record.

    GAN-Leaks, calibrated with records of the attacker's own: a record in a sparse region is far from everything, and that
    alone says nothing about membership. The order is that of r / s, the ratio of nearest-neighbour densities of the
    synthetic and the reference table (the source subtracts r, and then a copy in a dense region is not told from a record
    in a sparse one). d is Euclidean in `public_space`.

    Returns:
      Attack; needs `Published.synthetic` and a non-empty reference; deterministic. In [-1, 1]: 1 for a copy of a record
      that is not in the reference, 0 for a record in both.

    Source: Chen et al. (2020), GAN-Leaks, arXiv 1909.03935.
    """
    return Attack(NAME, "the synthetic table, and real records of the attacker's own", _score)
