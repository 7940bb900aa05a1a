"""Rounds whose participants are known: a sampled Gaussian without amplification, as a record inside a client needs.

Sampling amplifies only what it hides. A record that is emptied leaves its client in the cohort as before, and the client's
other records may show that it takes part. So the two worlds are told apart by the round's Gaussian alone, in the rounds in
which the client takes part, and by nothing in the others:

    delta(eps) of T rounds = sum_m Binomial(m; T, q) delta_Gauss(eps; m rounds),

which is that of a mechanism that says who took part, and so holds against a server that knows.
"""

from __future__ import annotations

import math

import attr
import dp_accounting
import numpy as np
import scipy.stats
from dp_accounting.pld import pld_pmf
from dp_accounting.pld import privacy_loss_distribution as pld

_TAIL = 1e-15  # mass of a Gaussian's losses that is called infinite


@attr.s(frozen=True, slots=True, auto_attribs=True)
class RevealedSampledDpEvent(dp_accounting.DpEvent):
    """`event` happens with probability `sampling_probability`, independently in each round, and it is known whether it does.

    Attributes:
      sampling_probability: q, in (0, 1].
      event: a GaussianDpEvent.
    """

    sampling_probability: float
    event: dp_accounting.DpEvent


def distribution(noise_multiplier: float, probability: float, interval: float) -> pld.PrivacyLossDistribution:
    """Privacy loss distribution of one round: 0 with probability 1 - q, else N(m^2 / 2, m^2) with m = 1 / z, rounded up.

    Args:
      noise_multiplier: z > 0, of what the two worlds differ by.
      probability: q, in (0, 1].
      interval: discretisation of the losses.
    """
    mean, deviation = 0.5 / noise_multiplier**2, 1.0 / noise_multiplier
    reach = -float(scipy.stats.norm.ppf(_TAIL)) * deviation
    first, last = math.floor((mean - reach) / interval), math.ceil((mean + reach) / interval)
    edges = scipy.stats.norm.cdf(np.arange(first, last + 1) * interval, mean, deviation)
    # what lies below the first edge is counted at it, what lies above the last one as an infinite loss
    mass = probability * np.diff(edges, prepend=0.0)
    losses = dict(zip(range(first, last + 1), mass.tolist(), strict=True))
    losses[0] = losses.get(0, 0.0) + 1.0 - probability
    infinite = probability * float(scipy.stats.norm.sf(last * interval, mean, deviation))
    # the two directions have one distribution
    return pld.PrivacyLossDistribution(pld_pmf.create_pmf(losses, interval, infinite, True))


def renyi(noise_multiplier: float, probability: float, orders: np.ndarray) -> np.ndarray:
    """Renyi divergences of one round, log(1 - q + q exp((a - 1) a / (2 z^2))) / (a - 1), f64 like orders.

    Args:
      noise_multiplier: z > 0.
      probability: q, in (0, 1].
      orders: a > 1.
    """
    exponent = (orders - 1.0) * orders / (2.0 * noise_multiplier**2)
    with np.errstate(divide="ignore"):  # q = 1
        return np.logaddexp(np.log1p(-probability), math.log(probability) + exponent) / (orders - 1.0)
