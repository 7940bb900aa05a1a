"""What a hyper-parameter sweep over real data costs when only its best trial is published."""

from __future__ import annotations

import math

import dp_accounting
from dp_accounting import dp_event

from fedjax_health.privacy import second_opinion
from fedjax_health.privacy.accounting import Composition
from fedjax_health.types import UserError


def tuned_epsilon(events: Composition, trials_mean: float, shape: float, delta: float) -> float:
    """Epsilon of the best of a random number of trials, by Renyi divergences, add-or-remove-one client.

    RDP of the sweep from that of one trial by Theorems 2 and 6 of Papernot & Steinke 2022, arXiv 2110.03620. The number
    of trials must really be drawn so, anew for each sweep, and the other trials stay secret. Truncated rounds are accounted
    for as in `second_opinion.rdp_epsilon_of`, with trials_mean times one trial's delta_overflow: ranked above all others,
    a trial that overflowed would be the selected one, so the bound for the selection covers that it never happens.

    Args:
      events: what one trial would publish, its score included, as in `accounting.merged`; none gives 0.
      trials_mean: expected number of trials, at least 1.
      shape: inf = Poisson, 1 = geometric, 0 = logarithmic, else truncated negative binomial, >= 0.
      delta: in (0, 1).

    Returns:
      Epsilon; inf where overflow takes up all of delta.

    Raises:
      UserError: a mean below 1, a negative shape, or an event that is not covered.
    """
    if not 1.0 <= trials_mean < math.inf:
        raise UserError(f"a sweep of {trials_mean} trials on average cannot be accounted for; give at least 1")
    if math.isnan(shape) or shape < 0.0:
        raise UserError(f"shape={shape} of the number of trials must be 0 or more; 1 = geometric, inf = Poisson")
    plain, overflow = second_opinion.without_truncation(events)
    if not plain:
        return 0.0
    trial: list[dp_accounting.DpEvent] = [dp_event.SelfComposedDpEvent(event, count) for event, count in plain.items()]
    sweep = dp_event.RepeatAndSelectDpEvent(dp_event.ComposedDpEvent(trial), trials_mean, shape)
    return second_opinion.renyi_epsilon([(sweep, 1)], delta - trials_mean * overflow)
