"""Loss attack: a published model fits the records it was trained on better."""

from __future__ import annotations

import numpy as np

from fedjax_health.attacks.base import Attack, Published
from fedjax_health.data.schema import Schema
from fedjax_health.types import Table, UserError

NAME = "loss-threshold"


def _score(published: Published, records: Table, schema: Schema, rng: np.random.Generator) -> np.ndarray:
    if published.loss is None:
        raise UserError(f"attack {NAME!r} needs a published model's loss, and none is published; drop the attack")
    return -np.asarray(published.loss(records), np.float64)


def make_loss_threshold() -> Attack:
    """Score of a record: minus the published model's loss on it.

    Returns:
      Attack; needs `Published.loss`, uses neither the synthetic nor the reference table nor randomness.

    Source: Yeom et al. (2018), arXiv 1709.01604.
    """
    return Attack(NAME, "the published model and its loss on a record", _score)
