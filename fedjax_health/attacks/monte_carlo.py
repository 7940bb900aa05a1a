"""Counting attack: more synthetic records than usual stand close to a record that the generator has overfitted."""

from __future__ import annotations

import numpy as np

from fedjax_health.attacks.base import Attack, Published, at_most, public_space, require_synthetic
from fedjax_health.data.schema import Schema
from fedjax_health.neighbours import closeness, nearest_distance
from fedjax_health.types import Table

NAME = "monte-carlo"
MAX_ROWS = 1000  # of the reference, for the radius
LEAST = 1e-6  # public scales: below any published resolution


def _score(published: Published, records: Table, schema: Schema, rng: np.random.Generator) -> np.ndarray:
    synthetic = public_space(require_synthetic(published, NAME), schema)
    reference = at_most(public_space(published.reference, schema), MAX_ROWS, rng)
    radius = max(float(np.median(nearest_distance(reference, synthetic))), LEAST)
    return closeness(public_space(records, schema), synthetic, radius, LEAST) / len(synthetic)


def make_monte_carlo() -> Attack:
    """Score of a record x: 1/n sum over the synthetic records s with d(x, s) <= e of log((e + l) / (d(x, s) + l)).

    The source's estimate of the synthetic density around x, in its smooth form: the plain share of records within e has ties,
    and does not tell a copy from a neighbour. e is the median distance of a record to the nearest synthetic one, as there,
    but over (1,000 of) the attacker's reference: a radius from the targets would not be the same for members and others.
    l = 1e-6.

    Returns:
      Attack; needs `Published.synthetic` and a non-empty reference; deterministic in the generator's state. Not
      below 0.

    Source: Hilprecht, Härterich, Bernau (2019), Monte Carlo and Reconstruction Membership Inference Attacks against
    Generative Models, PoPETs 2019(4).
    """
    return Attack(NAME, "the synthetic table, and real records of the attacker's own", _score)
