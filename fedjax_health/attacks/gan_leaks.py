"""Distance attack without a reference: what a generator copied is near its training records."""

from __future__ import annotations

import numpy as np

from fedjax_health.attacks.base import Attack, Published, require_synthetic
from fedjax_health.attacks.distances import Distance, to_nearest
from fedjax_health.data.schema import Schema
from fedjax_health.types import Table

NAME = "gan-leaks"


def make_gan_leaks(distance: Distance = to_nearest) -> Attack:
    """Score of a record x: -min_s d(x, s) over synthetic records s, d Euclidean in `public_space`.

    Not calibrated: a record in a sparse region scores low whether it took part or not; `nearest_synthetic` mends that with
    records of the attacker's own.

    Args:
      distance: of records to the nearest of a table.

    Returns:
      Attack; needs `Published.synthetic` only; deterministic.

    Source: Chen et al. (2020), GAN-Leaks, arXiv 1909.03935, full black box.
    """

    def score(published: Published, records: Table, schema: Schema, rng: np.random.Generator) -> np.ndarray:
        return -distance(records, require_synthetic(published, NAME), schema)

    return Attack(NAME, "the synthetic table", score)
