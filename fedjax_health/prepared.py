"""A domain with what its trainings share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fedjax_health.data.domain import Domain
from fedjax_health.data.representation import Fitted
from fedjax_health.federated.federation import Parts
from fedjax_health.models.base import OneShot

CATEGORIES = "categories"


class Prepared(NamedTuple):
    """A domain with what its trainings share.

    Attributes:
      domain: data.
      include: bool[N, K].
      shares: f32[N, L], class shares as the run may know them.
      parts: model name to federation.
      data: what its population reads: shared, or with a leading axis N where each seed has a representation of its own.
      fitted: representation of each seed, () with public scaling.
      one_shots: model name to generator that is not trained.
      categories: f32[L, D - numeric], shares of categories by class of each seed; () where nothing asked for them.
    """

    domain: Domain
    include: np.ndarray
    shares: np.ndarray
    parts: dict[str, Parts]
    data: Any = None
    fitted: tuple[Fitted, ...] = ()
    one_shots: dict[str, OneShot] = {}  # noqa: RUF012 - of an immutable tuple
    categories: tuple[np.ndarray, ...] = ()


def kept_of(prepared: Sequence[Prepared]) -> dict[str, np.ndarray]:
    """What `randomness.keep_shares` keeps of what clients were asked for.

    Args:
      prepared: all domains.
    """
    kept = {p.domain.name: p.shares for p in prepared}
    for p in prepared:
        for field in Fitted._fields if p.fitted else ():
            kept[f"{p.domain.name}/{field}"] = np.stack([np.asarray(getattr(f, field)) for f in p.fitted])
        if p.categories and p.categories[0].size:
            kept[f"{p.domain.name}/{CATEGORIES}"] = np.stack(p.categories)
    return kept
