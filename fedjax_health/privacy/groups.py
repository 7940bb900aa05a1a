"""Stronger neighbours than one client more or less: one client replaced by another, and groups of clients."""

from __future__ import annotations

from typing import NamedTuple

import dp_accounting
import numpy as np

from fedjax_health.privacy import accounting
from fedjax_health.privacy.accounting import Composition
from fedjax_health.privacy.renyi import RenyiCurve

REPLACE_ONE = dp_accounting.NeighboringRelation.REPLACE_ONE
DIRECT = "PLD, replace-one relation"
DIRECT_RENYI = "RDP, replace-one relation"
BY_STEPS = "group privacy over steps of one"
_POINTS = 4_000  # of the curve delta(epsilon) that are looked at
_FLOOR = 1e-13  # deltas below are what composing PLDs cuts off


class Bound(NamedTuple):
    """A guarantee for a relation other than add-or-remove-one.

    Attributes:
      epsilon: inf where nothing is proven.
      delta: as used.
      method: how it was found.
    """

    epsilon: float
    delta: float
    method: str


def group_privacy(epsilon: float, delta: float, clients: int) -> tuple[float, float]:
    """What a guarantee for one client gives a group: (g eps, delta (e^(g eps) - 1) / (e^eps - 1)), delta at most 1.

    Args:
      epsilon, delta: guarantee for adding or removing one client.
      clients: g >= 1; replacing one client is a group of two steps.

    Returns:
      (epsilon, delta), an upper bound; Vadhan 2017, "The complexity of differential privacy", Lemma 2.2.
    """
    log_factor = float(np.logaddexp.reduce(epsilon * np.arange(clients)))
    return clients * epsilon, min(1.0, delta * float(np.exp(min(log_factor, 700.0))))


def by_group_privacy(events: Composition, delta: float, clients: int) -> Bound:
    """The least group bound at a given delta, over the whole curve delta(epsilon) of the composition.

    g min { eps : delta(eps) (1 + e^eps + ... + e^((g - 1) eps)) <= delta }, which holds since the composition meets
    (eps, delta(eps)) for every eps at once.

    Args:
      events: as in `accounting.merged`.
      delta: of the group's guarantee, in (0, 1).
      clients: g >= 1.

    Returns:
      Bound at that delta; epsilon is inf where no point of the curve is low enough.

    Raises:
      UserError: an event that is not covered.
    """
    curve = accounting.distribution_of(events)
    top = float(curve.get_epsilon_for_delta(min(_FLOOR, delta)))
    if not np.isfinite(top):
        return Bound(float("inf"), delta, BY_STEPS)
    epsilon = np.linspace(0.0, top, _POINTS)
    spent = np.asarray(curve.get_delta_for_epsilon(epsilon.tolist()))
    log_factor = np.logaddexp.reduce(epsilon[:, None] * np.arange(clients)[None, :], axis=1)
    met = spent <= delta * np.exp(-log_factor)
    return Bound(clients * float(epsilon[np.argmax(met)]) if met.any() else float("inf"), delta, BY_STEPS)


def replace_one(events: Composition, delta: float) -> Bound:
    """Epsilon for replacing one client's data by another's: the smaller of two valid bounds, named.

    Direct: PLDs of dp-accounting's REPLACE_ONE relation, in which both clients' updates have norm at most C, so that the
    sum moves by up to 2C (a Gaussian of noise z then counts as one of z / 2; sampled, (1 - q) N(0, z^2) + q N(1, z^2)
    against (1 - q) N(0, z^2) + q N(-1, z^2)). By steps: `by_group_privacy` of removing one client and adding another.

    Args:
      events: as in `accounting.merged`.
      delta: in (0, 1).

    Returns:
      Bound at that delta. Where neither is finite, the one of `group_privacy` from the add-or-remove-one guarantee at its
      own, greater delta.

    Raises:
      UserError: an event that is not covered.
    """
    curve = accounting.distribution_of(events, REPLACE_ONE)
    direct = Bound(
        float(curve.get_epsilon_for_delta(delta)), delta, DIRECT_RENYI if isinstance(curve, RenyiCurve) else DIRECT
    )
    best = min(direct, by_group_privacy(events, delta, 2), key=lambda bound: bound.epsilon)
    if np.isfinite(best.epsilon):
        return best
    return Bound(*group_privacy(accounting.epsilon_of(events, delta), delta, 2), BY_STEPS)
