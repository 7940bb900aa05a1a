"""Renyi accounting beside the privacy loss distributions: two computations that share no code but the events."""

from __future__ import annotations

from typing import NamedTuple

import dp_accounting
import numpy as np
import scipy.stats
from absl import logging
from dp_accounting import dp_event, rdp

from fedjax_health.privacy import accounting, renyi
from fedjax_health.privacy.accounting import Composition
from fedjax_health.privacy.revealed import RevealedSampledDpEvent
from fedjax_health.types import UserError

_FINER = (8, 64)  # times finer discretisations, before a contradiction counts as one


class Opinions(NamedTuple):
    """Two upper bounds of one guarantee, add-or-remove-one client, at the same delta.

    Attributes:
      pld: epsilon by privacy loss distributions, the tighter one, to which the run is held; where an event has none (see
        `renyi.is_concentrated`) that by Renyi divergences stands in its place.
      rdp: epsilon by Renyi divergences; inf where rounds that may overflow take up all of delta.
    """

    pld: float
    rdp: float


def overflow_of(event: dp_accounting.DpEvent) -> float:
    """Chance that one round's truncation can depend on a client: w = P(Bin(K - 1, q) >= B); 0 without truncation.

    B slots, K - 1 other clients. With fewer than B of them drawn, nobody is cut, whether the client is there or not.

    Args:
      event: of `accounting.merged`.
    """
    if not isinstance(event, dp_event.TruncatedSubsampledGaussianDpEvent):
        return 0.0
    slots, others = event.truncated_batch_size, event.dataset_size - 1
    return float(scipy.stats.binom.sf(slots - 1, others, event.sampling_probability))


def without_truncation(events: Composition) -> tuple[dict[dp_accounting.DpEvent, int], float]:
    """Truncated events as plain Poisson ones, and the delta that this takes: 1 - prod_i (1 - w_i)^count_i.

    How many others are drawn has the same distribution with and without the client, and may be revealed: the rounds in
    which it is below B are Poisson-sampled Gaussians, and the chance of any other round adds to delta, with no factor
    e^epsilon.

    Args:
      events: as in `accounting.merged`.

    Returns:
      (event -> count, delta_overflow in [0, 1]).

    Raises:
      UserError: as `accounting.merged`.
    """
    plain: dict[dp_accounting.DpEvent, int] = {}
    log_none = 0.0
    for event, count in accounting.merged(events).items():
        with np.errstate(divide="ignore"):
            log_none += count * float(np.log1p(-overflow_of(event)))
        if isinstance(event, dp_event.TruncatedSubsampledGaussianDpEvent):
            noise, probability = accounting.gaussian_of(event)
            event = dp_event.PoissonSampledDpEvent(probability, dp_event.GaussianDpEvent(noise))
        plain[event] = plain.get(event, 0) + count
    return plain, -float(np.expm1(log_none))


def renyi_epsilon(events: Composition, delta: float) -> float:
    """Epsilon by dp-accounting's RdpAccountant at its default orders, or by closed forms where participants are known.

    epsilon = min over orders a of RDP(a) + log(1 - 1/a) - log(a delta) / (a - 1); Canonne, Kamath & Steinke 2020,
    arXiv 2004.00010, Proposition 12.

    Args:
      events: (event, count) pairs.
      delta: below 1; inf for delta <= 0.
    """
    if delta <= 0.0:
        return float("inf")
    if any(isinstance(event, RevealedSampledDpEvent) for event, _ in events):
        return renyi.curve_of(events).get_epsilon_for_delta(delta)
    accountant = rdp.RdpAccountant(neighboring_relation=accounting.RELATION)
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # an order whose series does not converge is left out: the bound only rises
    try:
        with np.errstate(all="ignore"):
            for event, count in events:
                accountant.compose(event, count)
            return float(accountant.get_epsilon(delta))
    finally:
        logging.set_verbosity(verbosity)


def rdp_epsilon_of(events: Composition, delta: float) -> float:
    """Epsilon of the composition of all events by Renyi divergences, add-or-remove-one client.

    The truncated event, which RdpAccountant does not know, is accounted for by `without_truncation`: the Poisson-sampled
    one at delta - delta_overflow.

    Args:
      events: as in `accounting.merged`; none gives 0.
      delta: in (0, 1).

    Returns:
      Epsilon; inf where delta_overflow >= delta, so that nothing can be said this way.

    Raises:
      UserError: an event that is not covered.
    """
    plain, overflow = without_truncation(events)
    return renyi_epsilon(list(plain.items()), delta - overflow)


def opinions(events: Composition, delta: float) -> Opinions:
    """Both epsilons, after the check that they do not contradict each other.

    PLD accounting is exact but for its discretisation, and rounds up; Renyi accounting is an upper bound. So RDP below PLD
    by more than the discretisation says that one of them is wrong. Where rounds are very noisy and very many, the
    rounding up adds up: a contradiction must persist at finer discretisations to count.

    Args:
      events: as in `accounting.merged`.
      delta: in (0, 1).

    Raises:
      UserError: the accountants contradict each other, or do not cover an event (the run fails closed).
    """
    found = Opinions(accounting.epsilon_of(events, delta), rdp_epsilon_of(events, delta))
    if any(map(renyi.is_concentrated, accounting.merged(events))):
        return found
    exact = found.pld
    for factor in _FINER:
        if found.rdp >= exact - accounting.DISCRETIZATION:
            return found
        finer = accounting.distribution_of(events, interval=accounting.DISCRETIZATION / factor)
        exact = float(finer.get_epsilon_for_delta(delta))
    if found.rdp >= exact - accounting.DISCRETIZATION:
        return found
    raise UserError(
        f"the accountants contradict each other: epsilon is at most {found.rdp:.6g} by Renyi divergences but "
        f"{exact:.6g} by privacy loss distributions at delta={delta:.3g}; one of them is wrong, so publish nothing and "
        "check the installed version of dp-accounting"
    )
