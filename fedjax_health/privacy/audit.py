"""The audit of a training: what its canaries say, beside what the ledger says, and a stop where the two cannot both be true."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import dp_accounting
import numpy as np
import scipy.stats

from fedjax_health.evaluation.rows import exact_row, seed_rows
from fedjax_health.privacy.audit_bounds import audit_bound, one_run
from fedjax_health.privacy.audit_estimate import estimate_composed
from fedjax_health.types import Row, UserError

ROW = "audit by canaries"
ROUNDING = 1e-3  # of a contribution, by float32
CERTAIN = 1e-4  # chance of stopping a right run


class Scores(NamedTuple):
    """What N federations' canaries scored; leading axes [N, k], see `federated.federation.Audit`; `together` [N, k, k] is that
    of `federated.canaries.together`."""

    inserted: np.ndarray
    rounds: np.ndarray
    together: np.ndarray
    during: np.ndarray
    loss: np.ndarray


def audit_rows(
    stage: str,
    scores: Scores,
    event: Callable[[float], dp_accounting.DpEvent],
    rounds: int,
    noise_multiplier: float,
    delta: float,
    accounted: float,
    generator: np.random.Generator,
) -> list[Row]:
    """Figures of one training: accounted epsilon, estimate (mean over federations), lower bound (all canaries together).

    The observer sees every published update and knows the real clients' messages. The estimate takes participation as known
    and the sampling on trust; the bound takes neither. An estimate is no bound, and a bound from few canaries is far from
    tight: nothing follows where it lies below the accounted epsilon. What stops a run is the sharper test of `refuted`.

    Args:
      stage: "<domain>/<model>".
      scores: of all federations.
      event: noise multiplier -> event of one round.
      rounds: that ran, > 0.
      noise_multiplier: as accounted.
      delta: of the run.
      accounted: epsilon of this training alone.
      generator: splits the canaries.

    Returns:
      Rows with metrics "epsilon_accounted", "epsilon_estimate" and "epsilon_lower_bound".

    Raises:
      UserError: the canaries refute the noise or the clip (see `refuted`): nothing may be published.
    """
    domain, model = stage.split("/")
    inserted = np.asarray(scores.inserted) > 0
    estimates = [
        estimate_composed(during, overlap, own, event, rounds, delta)
        for during, overlap, own in zip(scores.during, scores.together, inserted, strict=True)
    ]
    every, coins = np.ravel(scores.loss), np.ravel(inserted)
    if fault := refuted(scores, noise_multiplier):
        raise UserError(
            f"the audit of {stage!r} refutes the ledger, at odds of 1 to {1 / CERTAIN:,.0f}: {fault}; the mechanism that ran "
            "is not the one accounted for and nothing is published; find the fault before another run"
        )
    bound = audit_bound(every, coins, delta, one_run, generator)
    rows = seed_rows(domain, model, [{(ROW, "epsilon_estimate"): value} for value in estimates])
    proven = exact_row(domain, model, ROW, "epsilon_lower_bound", bound)._replace(n=every.size)
    return [exact_row(domain, model, ROW, "epsilon_accounted", accounted), *rows, proven]


def refuted(scores: Scores, noise_multiplier: float) -> str:
    """What of the mechanism the canaries refute, in words; "" for a right one in all but one of 10,000 runs.

    Of the T rounds in which a canary's coin came up its scores add up to S ~ N(x T, T (z^2 + v)), in units of one client's
    bound: x = 1 if it is inserted, z the noise multiplier, v >= 0 the interference of other messages. So over those held out
    sum S^2 / (T z^2) is at least chi-squared, and over the inserted sum S / sum T has mean 1: more means that the clip failed.

    Args:
      scores: of all federations.
      noise_multiplier: z as accounted, > 0.
    """
    inserted = np.ravel(scores.inserted) > 0
    took, during = np.ravel(scores.rounds).astype(np.float64), np.ravel(scores.during).astype(np.float64)
    out, own = ~inserted & (took > 0), inserted & (took > 0)
    if out.any():
        spread = np.sum(during[out] ** 2 / took[out]) / noise_multiplier**2
        if scipy.stats.chi2.cdf(spread, out.sum()) < CERTAIN / 2:
            measured = noise_multiplier * np.sqrt(spread / out.sum())
            return f"the noise has multiplier {measured:.3g}, not {noise_multiplier:.3g}"
    if own.sum() > 1:
        mean = during[own].sum() / took[own].sum()
        rest = (during[own] - mean * took[own]) / np.sqrt(took[own])
        error = np.sqrt(np.sum(rest**2) / (own.sum() - 1) / took[own].sum())
        if mean - 1.0 > scipy.stats.t.isf(CERTAIN / 2, own.sum() - 1) * error + ROUNDING:
            return f"a client counts {mean:.3g} times its bound"
    return ""
