"""Accounting on the host in float64: epsilon of composed events and calibrated noise, with dp-accounting's PLDs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence

import dp_accounting
import numpy as np
import scipy.optimize
from dp_accounting import dp_event
from dp_accounting.pld import privacy_loss_distribution as pld

from fedjax_health.privacy import renyi, revealed
from fedjax_health.privacy.renyi import RenyiCurve
from fedjax_health.privacy.revealed import RevealedSampledDpEvent
from fedjax_health.types import UserError

ACCOUNTANT = "PLD (dp-accounting), value discretisation 1e-3, pessimistic"
RENYI_ACCOUNTANT = (
    "RDP (closed form; dp-accounting's conversion): distributed discrete noise is known by its zCDP bound only"
)
RELATION = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE
DISCRETIZATION = 1e-3
_TOLERANCE = 1e-3  # of a calibrated noise multiplier

Composition = Sequence[tuple[dp_accounting.DpEvent, int]]  # events and how often each happens


def _fault(event: dp_accounting.DpEvent) -> str | None:
    """What keeps an event from being accounted for: its name, with the reason where the name alone is none."""
    name = type(event).__name__
    if isinstance(event, (dp_event.PoissonSampledDpEvent, RevealedSampledDpEvent)):
        if renyi.is_concentrated(event):
            if not event.event.rho > 0.0 or event.event.xi != 0.0:  # pyright: ignore[reportAttributeAccessIssue]
                return f"{name} of {event.event}"
        elif not isinstance(event.event, dp_event.GaussianDpEvent):
            return f"{name} of {type(event.event).__name__}"
        probability, noise = event.sampling_probability, renyi.noise_of(event.event)
    elif isinstance(event, dp_event.TruncatedSubsampledGaussianDpEvent):
        probability, noise = event.sampling_probability, event.noise_multiplier
        if min(event.dataset_size, event.truncated_batch_size) < 1:
            return f"{name} of {event.dataset_size} clients in batches of {event.truncated_batch_size}"
    elif isinstance(event, dp_event.GaussianDpEvent):
        probability, noise = 1.0, event.noise_multiplier
    else:
        return name
    if not 0.0 < noise < np.inf:
        return f"{name} with noise multiplier {noise}"
    return None if 0.0 < probability <= 1.0 else f"{name} with sampling probability {probability}"


def _add(event: dp_accounting.DpEvent, count: int, counts: dict[dp_accounting.DpEvent, int]) -> None:
    if count < 0 or count != int(count):
        raise UserError(f"{type(event).__name__} happens {count} times in what is accounted for; give a whole number")
    if count == 0 or isinstance(event, dp_event.NoOpDpEvent):
        return
    if isinstance(event, dp_event.SelfComposedDpEvent):
        _add(event.event, count * event.count, counts)
    elif isinstance(event, dp_event.ComposedDpEvent):
        for part in event.events:
            _add(part, count, counts)
    elif fault := _fault(event):
        raise UserError(f"the accountant does not cover {fault}; the run stops rather than guess an epsilon")
    else:
        counts[event] = counts.get(event, 0) + int(count)


def merged(events: Composition) -> dict[dp_accounting.DpEvent, int]:
    """Takes compositions apart and merges equal events: event -> how often it happens.

    Args:
      events: (event, count) pairs; SelfComposedDpEvent and ComposedDpEvent may be nested, NoOpDpEvent costs nothing.

    Returns:
      Gaussian events alone, plain, Poisson-sampled, truncated or sampled with known participants (also zCDP ones), each at
      least once.

    Raises:
      UserError: an event that the accountant does not cover, by its name (the run fails closed); a count that is negative
        or not whole.
    """
    counts: dict[dp_accounting.DpEvent, int] = {}
    for event, count in events:
        _add(event, count, counts)
    return counts


@functools.lru_cache(maxsize=64)
def _distribution(
    event: dp_accounting.DpEvent, relation: dp_accounting.NeighboringRelation, interval: float
) -> pld.PrivacyLossDistribution:
    """Privacy loss distribution of one event; kept, since a subsampled one takes a quarter of a second."""
    if isinstance(event, dp_event.TruncatedSubsampledGaussianDpEvent):
        return pld.from_truncated_subsampled_gaussian_mechanism(
            dataset_size=event.dataset_size,
            sampling_probability=event.sampling_probability,
            truncated_batch_size=event.truncated_batch_size,
            noise_multiplier=event.noise_multiplier,
            value_discretization_interval=interval,
            neighboring_relation=relation,
        )
    noise, probability = gaussian_of(event)
    if isinstance(event, RevealedSampledDpEvent):
        replaced = relation == dp_accounting.NeighboringRelation.REPLACE_ONE  # the sum moves by twice the bound
        return revealed.distribution(noise / 2 if replaced else noise, probability, interval)
    return pld.from_gaussian_mechanism(
        noise, value_discretization_interval=interval, sampling_prob=probability, neighboring_relation=relation
    )


def gaussian_of(event: dp_accounting.DpEvent) -> tuple[float, float]:
    """(noise multiplier, sampling probability) of an event of `merged`; 1 where all clients take part."""
    if isinstance(event, (dp_event.PoissonSampledDpEvent, RevealedSampledDpEvent)):
        return renyi.noise_of(event.event), event.sampling_probability
    if isinstance(event, dp_event.TruncatedSubsampledGaussianDpEvent):
        return event.noise_multiplier, event.sampling_probability
    return event.noise_multiplier, 1.0  # pyright: ignore[reportAttributeAccessIssue]


def composed(
    parts: Iterable[tuple[pld.PrivacyLossDistribution, int]], interval: float = DISCRETIZATION
) -> pld.PrivacyLossDistribution:
    """Composition of privacy loss distributions, each as often as its count says.

    Args:
      parts: (distribution, count >= 1); none gives that of a constant.
      interval: the discretisation they share.
    """
    repeated = [one.self_compose(count) for one, count in parts]
    return functools.reduce(lambda a, b: a.compose(b), repeated, pld.identity(interval))


def accountant_of(events: Composition) -> str:
    """How `distribution_of` accounts for a composition, in words.

    Args:
      events: as in `merged`.
    """
    return RENYI_ACCOUNTANT if any(map(renyi.is_concentrated, merged(events))) else ACCOUNTANT


def distribution_of(
    events: Composition, relation: dp_accounting.NeighboringRelation = RELATION, interval: float = DISCRETIZATION
) -> pld.PrivacyLossDistribution | RenyiCurve:
    """Privacy loss distribution of the composition of all events; with a zCDP event among them their Renyi divergences.

    Args:
      events: as in `merged`.
      relation: of neighbours; for REPLACE_ONE both clients' updates are within the bound, so that the sum moves by twice it.
      interval: discretisation of the losses, rounded up.

    Raises:
      UserError: as `merged`.
    """
    counts = merged(events)
    if any(map(renyi.is_concentrated, counts)):
        replaced = relation == dp_accounting.NeighboringRelation.REPLACE_ONE  # the sum moves by twice the bound
        return renyi.curve_of(counts.items(), 2.0 if replaced else 1.0)
    return composed([(_distribution(event, relation, interval), count) for event, count in counts.items()], interval)


def epsilon_of(events: Composition, delta: float) -> float:
    """Epsilon of the composition of all events, add-or-remove-one client.

    Args:
      events: (event, count) pairs, as in `merged`; none gives 0.
      delta: in (0, 1).

    Raises:
      UserError: an event that the accountant does not cover (the run fails closed).
    """
    return float(distribution_of(events).get_epsilon_for_delta(delta))


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
    values = [epsilon_of([*before, (one_round, int(t))], delta) for t in at]
    return np.maximum.accumulate(np.asarray(values, np.float64))[np.searchsorted(at, np.arange(rounds + 1))]
