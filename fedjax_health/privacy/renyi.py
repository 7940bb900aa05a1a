"""Renyi divergences of whole compositions as curves, for events of which no privacy loss distribution is known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import dp_accounting
import numpy as np
from dp_accounting import dp_event, rdp

from fedjax_health.privacy import revealed
from fedjax_health.privacy.revealed import RevealedSampledDpEvent
from fedjax_health.types import UserError

ORDERS = np.concatenate([1.0 + np.arange(1, 100) / 10.0, np.arange(11.0, 513.0)])


class RenyiCurve(NamedTuple):
    """Upper bounds of the Renyi divergences of a composition, read like a privacy loss distribution.

    Attributes:
      divergence: f64 like ORDERS.
    """

    divergence: np.ndarray

    def get_epsilon_for_delta(self, delta: float) -> float:
        """Least epsilon: min over orders a of r(a) + log(1 - 1/a) - log(a delta) / (a - 1).

        Args:
          delta: in (0, 1).

        Source: Canonne, Kamath & Steinke 2020, arXiv 2004.00010, Proposition 12, by dp-accounting.
        """
        return float(rdp.compute_epsilon(ORDERS.tolist(), self.divergence.tolist(), delta)[0])

    def get_delta_for_epsilon(self, epsilon: Sequence[float]) -> list[float]:
        """Least delta of each epsilon: min over orders a of exp((a - 1) (r(a) - eps)) (1 - 1/a)^(a - 1) / a, at most 1.

        The inverse of `get_epsilon_for_delta`, from the same source.

        Args:
          epsilon: each >= 0.
        """
        a = ORDERS[None, :]
        log = (a - 1) * (self.divergence[None, :] - np.asarray(epsilon)[:, None] + np.log1p(-1 / a)) - np.log(a)
        return np.exp(np.minimum(log.min(1), 0.0)).tolist()


def is_concentrated(event: dp_accounting.DpEvent) -> bool:
    """Whether an event is known by its zCDP bound only, as distributed discrete noise is."""
    return isinstance(event, RevealedSampledDpEvent) and isinstance(event.event, dp_event.ZCDpEvent)


def noise_of(event: dp_accounting.DpEvent) -> float:
    """Noise multiplier of a Gaussian event, or 1 / sqrt(2 rho) of a rho-zCDP one, whose divergences are the same.

    Args:
      event: one of the two, not sampled.
    """
    return 1.0 / math.sqrt(2.0 * event.rho) if isinstance(event, dp_event.ZCDpEvent) else event.noise_multiplier  # pyright: ignore[reportAttributeAccessIssue]


def curve_of(events: Iterable[tuple[dp_accounting.DpEvent, int]], moved: float = 1.0) -> RenyiCurve:
    """Sum of the divergences of Gaussian or zCDP events, sampled with known participants or not at all.

    Args:
      events: (event, count) pairs of `accounting.merged`.
      moved: by how many times the bound neighbours differ: 2 where one client is replaced by another.

    Raises:
      UserError: an event whose participants are hidden.
    """
    total = np.zeros_like(ORDERS)
    for event, count in events:
        probability = 1.0
        if isinstance(event, RevealedSampledDpEvent):
            event, probability = event.event, event.sampling_probability
        if not isinstance(event, (dp_event.GaussianDpEvent, dp_event.ZCDpEvent)):
            raise UserError(f"Renyi accounting does not mix {type(event).__name__} with rounds of known participants")
        total += count * revealed.renyi(noise_of(event) / moved, probability, ORDERS)
    return RenyiCurve(total)
