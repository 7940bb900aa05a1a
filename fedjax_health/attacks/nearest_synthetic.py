"""Distance attack: a generator that memorised puts records closer to its training records than chance does."""

from __future__ import annotations

import numpy as np

from fedjax_health.attacks.base import Attack, Published, require_synthetic
from fedjax_health.attacks.distances import Distance, to_nearest
from fedjax_health.data.schema import Schema
from fedjax_health.types import Table

NAME = "nearest-synthetic"


def make_nearest_synthetic(distance: Distance = to_nearest) -> Attack:
    """Score of a record x: (r - s) / (r + s), r and s its distances to the nearest reference and synthetic record.

    GAN-Leaks, calibrated with records of the attacker's own: a record in a sparse region is far from everything, and that
    alone says nothing about membership. The order is that of r / s, the ratio of nearest-neighbour densities of the
    synthetic and the reference table (the source subtracts r, and then a copy in a dense region is not told from a record
    in a sparse one). d is Euclidean in `public_space`.

    Args:
      distance: of records to the nearest of a table.

    Returns:
      Attack; needs `Published.synthetic` and a non-empty reference; deterministic. In [-1, 1]: 1 for a copy of a record
      that is not in the reference, 0 for a record in both.

    Source: Chen et al. (2020), GAN-Leaks, arXiv 1909.03935.
    """

    def score(published: Published, records: Table, schema: Schema, rng: np.random.Generator) -> np.ndarray:
        to_synthetic = distance(records, require_synthetic(published, NAME), schema)
        to_reference = distance(records, published.reference, schema)
        total = to_reference + to_synthetic
        return np.divide(to_reference - to_synthetic, total, out=np.zeros(len(total)), where=total > 0)

    return Attack(NAME, "the synthetic table, and real records of the attacker's own", score)
