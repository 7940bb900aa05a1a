"""Accounting on the host in float64: epsilon of composed events and calibrated noise, with dp-accounting's PLDs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import dp_accounting
import numpy as np
import scipy.optimize
from dp_accounting import dp_event
from dp_accounting.pld import privacy_loss_distribution as pld

from fedjax_health.types import UserError

ACCOUNTANT = "PLD (dp-accounting), value discretisation 1e-3, pessimistic"
RELATION = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE
_DISCRETIZATION = 1e-3
_TOLERANCE = 1e-3  # of a calibrated noise multiplier

Composition = Sequence[tuple[dp_accounting.DpEvent, int]]  # events and how often each happens


@functools.lru_cache(maxsize=64)
def _distribution(event: dp_accounting.DpEvent) -> pld.PrivacyLossDistribution:
    """Privacy loss distribution of one event; kept, since a subsampled one takes a quarter of a second."""
    if isinstance(event, dp_event.GaussianDpEvent):
        return pld.from_gaussian_mechanism(
            event.noise_multiplier, value_discretization_interval=_DISCRETIZATION, neighboring_relation=RELATION
        )
    if isinstance(event, dp_event.PoissonSampledDpEvent) and isinstance(event.event, dp_event.GaussianDpEvent):
        return pld.from_gaussian_mechanism(
            event.event.noise_multiplier,
            value_discretization_interval=_DISCRETIZATION,
            sampling_prob=event.sampling_probability,
            neighboring_relation=RELATION,
        )
    if isinstance(event, dp_event.TruncatedSubsampledGaussianDpEvent):
        return pld.from_truncated_subsampled_gaussian_mechanism(
            dataset_size=event.dataset_size,
            sampling_probability=event.sampling_probability,
            truncated_batch_size=event.truncated_batch_size,
            noise_multiplier=event.noise_multiplier,
            value_discretization_interval=_DISCRETIZATION,
            neighboring_relation=RELATION,
        )
    raise UserError(f"the accountant does not cover {type(event).__name__}; the run stops rather than guess an epsilon")


def _merged(events: Composition) -> dict[dp_accounting.DpEvent, int]:
    counts: dict[dp_accounting.DpEvent, int] = {}
    for event, count in events:
        if count:
            counts[event] = counts.get(event, 0) + count
    return counts


def _composed(counts: dict[dp_accounting.DpEvent, int]) -> pld.PrivacyLossDistribution:
    parts = [_distribution(event).self_compose(count) for event, count in counts.items()]
    return functools.reduce(lambda a, b: a.compose(b), parts, pld.identity(_DISCRETIZATION))


def epsilon_of(events: Composition, delta: float) -> float:
    """Epsilon of the composition of all events, add-or-remove-one client.

    Args:
      events: (event, count) pairs; equal events are merged; none gives 0.
      delta: in (0, 1).

    Raises:
      UserError: an event that the accountant does not cover (the run fails closed).
    """
    return float(_composed(_merged(events)).get_epsilon_for_delta(delta))


def replace_one(epsilon: float, delta: float) -> tuple[float, float]:
    """Replace-one figures by group privacy over two add/remove steps: (2 eps, delta (1 + e^eps)).

    Args:
      epsilon, delta: add-or-remove-one guarantee.

    Returns:
      (epsilon, delta) for replacing one client's data; an upper bound (Vadhan 2017, "The complexity of differential
      privacy", Lemma 2.2).
    """
    return 2.0 * epsilon, min(1.0, delta * (1.0 + float(np.exp(min(epsilon, 700.0)))))


def calibrate_noise(plan: Callable[[float], Composition], epsilon: float, delta: float) -> float:
    """Smallest noise multiplier, to 1e-3, for which the whole plan meets (epsilon, delta).

    Args:
      plan: noise multiplier -> everything the run publishes.
      epsilon, delta: target, add-or-remove-one client.

    Raises:
      UserError: no noise below 10,000 meets the target.
    """

    def excess(log_noise: float) -> float:
        return epsilon_of(plan(float(np.exp(log_noise))), delta) - epsilon

    low, high = np.log(0.3), np.log(1.0)
    while excess(high) > 0:
        low, high = high, high + 1.0
        if high > np.log(1e4):
            raise UserError(
                f"privacy.epsilon={epsilon:g} at delta={delta:.3g} cannot be met: even without training the class-share "
                "histograms spend it; raise privacy.epsilon or privacy.prior_noise_multiplier"
            )
    if excess(low) <= 0:
        return float(np.exp(low))
    root = float(np.exp(scipy.optimize.brentq(excess, low, high, xtol=_TOLERANCE)))  # pyright: ignore[reportArgumentType,reportCallIssue]
    while excess(float(np.log(root))) > 0:  # the root may lie a hair on the wrong side
        root *= 1.0 + _TOLERANCE
    return root


def epsilon_table(
    before: Composition, one_round: dp_accounting.DpEvent, rounds: int, delta: float, points: int = 12
) -> np.ndarray:
    """Epsilon spent after 0 ... T rounds, computed once and read in the loop.

    Between the points where it is computed the next point's value stands: an upper bound, never an under-statement.

    Args:
      before: what was published earlier in the run.
      one_round: event of one round.
      rounds: T.
      delta: in (0, 1).
      points: most composition points.

    Returns:
      f64[T + 1], non-decreasing.
    """
    at = np.unique(np.linspace(0, rounds, min(points, rounds) + 1).astype(int))
    counts = _merged(before)
    done = counts.pop(one_round, 0)
    rest = _composed(counts)
    values = []
    for t in at:
        trained = _composed({one_round: done + int(t)} if done + t else {})
        values.append(trained.compose(rest).get_epsilon_for_delta(delta))
    return np.maximum.accumulate(np.asarray(values, np.float64))[np.searchsorted(at, np.arange(rounds + 1))]
