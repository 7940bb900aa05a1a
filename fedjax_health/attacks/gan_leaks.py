"""Distance attack without a reference: what a generator copied is near its training records."""

from __future__ import annotations

import numpy as np

from fedjax_health.attacks.base import Attack, Published, public_space, require_synthetic
from fedjax_health.data.schema import Schema
from fedjax_health.neighbours import nearest_distance
from fedjax_health.types import Table

NAME = "gan-leaks"


def _score(published: Published, records: Table, schema: Schema, rng: np.random.Generator) -> np.ndarray:
    synthetic = public_space(require_synthetic(published, NAME), schema)
    return -nearest_distance(public_space(records, schema), synthetic)


def make_gan_leaks() -> Attack:
    """Score of a record x: -min_s d(x, s) over synthetic records s, d Euclidean in `public_space`.

    Not calibrated: a record in a sparse region scores low whether it took part or not; `nearest_synthetic` mends that with
    records of the attacker's own.

    Returns:
      Attack; needs `Published.synthetic` only; deterministic.

    Source: Chen et al. (2020), GAN-Leaks, arXiv 1909.03935, full black box.
    """
    return Attack(NAME, "the synthetic table", _score)
