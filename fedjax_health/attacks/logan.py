"""Discriminator attack: what tells published records from others takes members for published."""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import ExtraTreesClassifier

from fedjax_health.attacks.base import Attack, Published, at_most, public_space, require_synthetic
from fedjax_health.data.schema import Schema
from fedjax_health.types import Table

NAME = "logan"
MAX_ROWS = 3000  # a side
TREES = 100


def _score(published: Published, records: Table, schema: Schema, rng: np.random.Generator) -> np.ndarray:
    synthetic = at_most(public_space(require_synthetic(published, NAME), schema), MAX_ROWS, rng)
    reference = at_most(public_space(published.reference, schema), MAX_ROWS, rng)
    trees = ExtraTreesClassifier(TREES, class_weight="balanced", random_state=int(rng.integers(2**31)))
    trees.fit(np.concatenate([reference, synthetic]), np.repeat([0, 1], [len(reference), len(synthetic)]))
    return np.asarray(trees.predict_proba(public_space(records, schema)))[:, 1]


def make_logan() -> Attack:
    """Score of a record: how sure a discriminator between synthetic and reference records is that it is synthetic.

    Black box: the attacker trains the discriminator (the source's discriminative setting). Fully grown trees, each over all
    rows, remember every row, as the source's overfitted network does; boosting stops long before it knows a single one.
    Whoever has a GAN's critic reads that (white box; `GenerativeModel.score` of the adversarial models).

    Returns:
      Attack; needs `Published.synthetic` and a non-empty reference; reads at most 3,000 rows of each, drawn by the
      generator, and so sees only as much of a larger table; deterministic in the generator's state. In [0, 1].

    Source: Hayes et al. (2019), LOGAN, arXiv 1705.07663.
    """
    return Attack(NAME, "the synthetic table, and real records of the attacker's own", _score)
