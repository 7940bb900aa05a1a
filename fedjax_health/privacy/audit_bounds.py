"""Lower bounds on epsilon from canaries: what an observer's guesses prove about a mechanism, at 95 % confidence.

A canary has a score and, by a coin that the observer does not know, was inserted or held out. Half of the canaries choose how
to guess (`Rule`), the other half are guessed at, so that the choice costs no confidence. A bound above the accounted epsilon
means that the mechanism that ran is not the one accounted for; one below it proves nothing: bounds from a few hundred
canaries are far from tight. On the host, in float64. An estimate, which may lie on either side, is in `audit_estimate`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import dp_accounting
import numpy as np
from scipy import optimize, special, stats

from fedjax_health.types import UserError

SIGNIFICANCE = 0.05
MOST_EPSILON = 60.0  # no count of canaries below 1e25 proves more
SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5)  # of the canaries, to be guessed inserted, or held out


class Rule(NamedTuple):
    """How to guess: inserted from `high` on, held out up to `low`, nothing in between."""

    low: float
    high: float


class Guesses(NamedTuple):
    """What came of a rule, counts.

    Attributes:
      true_in, false_in: inserted and held-out canaries guessed inserted.
      true_out, false_out: held-out and inserted canaries guessed held out.
      inserted, held_out: canaries there were.
    """

    true_in: int
    false_in: int
    true_out: int
    false_out: int
    inserted: int
    held_out: int


Bound = Callable[[Guesses, float, float], float]  # (guesses, delta, significance) -> epsilon


def clopper_pearson(guesses: Guesses, delta: float, significance: float = SIGNIFICANCE) -> float:
    """From the rates of hits and false alarms: max(0, log((TPR_low - delta) / FPR_high)), either side's guesses.

    (epsilon, delta) bounds TPR <= e^epsilon FPR + delta, and likewise with inserted and held out exchanged. The four
    Clopper-Pearson limits hold together with confidence 1 - significance.

    Exact for canaries of independent runs. Many canaries of one run are independent only as far as they do not disturb each
    other; `one_run` needs no such thing.

    Args:
      guesses: counts.
      delta: in [0, 1).
      significance: chance that the bound lies above the true epsilon, in (0, 1).

    Returns:
      epsilon >= 0; 0 where nothing is proven.

    Raises:
      UserError: delta or significance out of range.
    """
    _check(delta, significance)
    tail = significance / 4

    def side(hits: int, of: int, alarms: int, out_of: int) -> float:
        low = special.betaincinv(hits, of - hits + 1, tail) if hits else 0.0
        high = special.betaincinv(alarms + 1, out_of - alarms, 1 - tail) if alarms < out_of else 1.0
        return math.log((low - delta) / high) if low > delta else 0.0

    return max(
        0.0,
        side(guesses.true_in, guesses.inserted, guesses.false_in, guesses.held_out),
        side(guesses.true_out, guesses.held_out, guesses.false_out, guesses.inserted),
    )


def one_run_p_value(correct: int, guessed: int, canaries: int, epsilon: float, delta: float) -> float:
    """Chance, at most, of so many correct guesses if the mechanism is (epsilon, delta)-private.

    p = beta + 2 m delta alpha,  beta = P[W >= v],  alpha = max_i P[v > W >= v - i] / i,  W ~ Bin(r, e^eps / (1 + e^eps))

    Steinke, Nasr and Jagielski 2023, "Privacy auditing with one (1) training run", arXiv 2305.08846, Theorem 5.2. The
    canaries may disturb each other in any way; their coins must be independent and fair.

    Args:
      correct: v.
      guessed: r >= v.
      canaries: m >= r, guessed at or not.
      epsilon, delta: the hypothesis, adding or removing one canary.

    Returns:
      In [0, 1].
    """
    chance = float(special.expit(epsilon))
    beta = float(stats.binom.sf(correct - 1, guessed, chance))
    back = np.arange(1, correct + 1)
    gained = stats.binom.sf(correct - back - 1, guessed, chance) - beta
    alpha = float(np.max(gained / back, initial=0.0))
    return min(1.0, beta + 2.0 * canaries * delta * alpha)


def one_run(guesses: Guesses, delta: float, significance: float = SIGNIFICANCE) -> float:
    """The largest epsilon that the guesses of one run refute: p-value (`one_run_p_value`) at most the significance.

    Args:
      guesses: counts.
      delta: in [0, 1).
      significance: chance that the bound lies above the true epsilon, in (0, 1).

    Returns:
      epsilon >= 0; 0 where nothing is refuted.

    Raises:
      UserError: delta or significance out of range.
    """
    _check(delta, significance)
    correct, guessed, canaries = _counts(guesses)

    def excess(epsilon: float) -> float:
        return significance - one_run_p_value(correct, guessed, canaries, epsilon, delta)

    return _last_refuted(excess) if guessed else 0.0


def one_run_gaussian(guesses: Guesses, delta: float, significance: float = SIGNIFICANCE) -> float:
    """As `one_run`, for Gaussian mechanisms only: refutes the whole trade-off curve f(x) = Phi(Phi^-1(1 - x) - mu).

    mu is that of the Gaussian mechanism that is exactly (epsilon, delta)-private. With r_c = s v / r', h_c = s (r' - v) / r',
    all times r' / m, and one step for i = v - 1 ... 0,

        h_i = max(h_{i+1}, Phi(Phi^-1(r_{i+1}) - mu)),   r_i = r_{i+1} + i / (r' - i) (h_i - h_{i+1}),

    epsilon is refuted if r_0 + h_0 > r' / m, for v correct of r' guesses on m canaries at significance s. Mahloujifar, Melis
    and Chaudhuri 2024, "Auditing f-differential privacy in one run", arXiv 2410.22235. A mechanism of another curve, such
    as a sampled one, may well be (epsilon, delta)-private for less than this says: there it is no bound.

    Args:
      guesses: counts.
      delta: in (0, 1).
      significance: chance that the bound lies above the true epsilon, in (0, 1).

    Returns:
      epsilon >= 0; 0 where nothing is refuted.

    Raises:
      UserError: delta or significance out of range.
    """
    _check(delta, significance)
    if delta == 0:
        raise UserError("delta=0: no Gaussian mechanism is (epsilon, 0)-private; use a delta such as 1e-5")
    correct, guessed, canaries = _counts(guesses)

    def excess(epsilon: float) -> float:
        mu = 1.0 / dp_accounting.get_sigma_gaussian(epsilon, delta)
        inside = significance * correct / canaries
        outside = significance * (guessed - correct) / canaries
        for i in range(correct - 1, -1, -1):
            new = max(outside, float(special.ndtr(special.ndtri(inside) - mu)))
            if new == outside:
                break  # neither changes any more
            inside = min(1.0, inside + i / (guessed - i) * (new - outside))
            outside = new
        return inside + outside - guessed / canaries

    return _last_refuted(excess) if guessed else 0.0


def audit_bound(
    scores: np.ndarray,
    inserted: np.ndarray,
    delta: float,
    bound: Bound,
    generator: np.random.Generator,
    significance: float = SIGNIFICANCE,
) -> float:
    """Lower bound on epsilon from canaries: one half chooses the rule that does best on it, the other half is guessed at.

    Args:
      scores: f64[m], higher where a canary looks inserted; made without knowledge of the coins.
      inserted: bool[m], the coins.
      delta: in [0, 1).
      bound: `clopper_pearson`, `one_run` or `one_run_gaussian`.
      generator: splits the canaries.
      significance: chance that the bound lies above the true epsilon, in (0, 1).

    Returns:
      epsilon >= 0, at confidence 1 - significance; 0 where nothing is proven.

    Raises:
      UserError: fewer than 4 canaries, lengths that differ, scores that are not finite, delta or significance out of range.
    """
    scores, inserted = np.asarray(scores, np.float64), np.asarray(inserted, bool)
    _check(delta, significance)
    if scores.shape != inserted.shape or scores.ndim != 1 or scores.size < 4:
        raise UserError(f"scores {scores.shape} and coins {inserted.shape}: give one of each for at least 4 canaries")
    if not np.isfinite(scores).all():
        raise UserError(f"{np.sum(~np.isfinite(scores))} of {scores.size} scores are not finite; audit a run that is")
    order = generator.permutation(scores.size)
    choose, test = order[: scores.size // 2], order[scores.size // 2 :]
    best = max(
        rules(scores[choose]),
        key=lambda rule: bound(guess(scores[choose], inserted[choose], rule), delta, significance),
    )
    return bound(guess(scores[test], inserted[test], best), delta, significance)


def rules(scores: np.ndarray) -> list[Rule]:
    """Rules worth a try: the highest and the lowest share of these scores, or one of the two alone.

    Args:
      scores: f64[m].
    """

    def rule(low: float, high: float) -> Rule:
        return Rule(
            float(np.quantile(scores, low)) if low else -math.inf,
            float(np.quantile(scores, 1 - high)) if high else math.inf,
        )

    return [rule(*pair) for s in SHARES[1:] for pair in ((s, s), (0.0, s), (s, 0.0))]


def guess(scores: np.ndarray, inserted: np.ndarray, rule: Rule) -> Guesses:
    """Counts of a rule's guesses.

    Args:
      scores: f64[m].
      inserted: bool[m].
      rule: where a score lies at or beyond both of its ends, nothing is guessed.
    """
    high, low = scores >= rule.high, scores <= rule.low
    yes, no = high & ~low, low & ~high
    return Guesses(
        int(np.sum(yes & inserted)),
        int(np.sum(yes & ~inserted)),
        int(np.sum(no & ~inserted)),
        int(np.sum(no & inserted)),
        int(np.sum(inserted)),
        int(np.sum(~inserted)),
    )


def _counts(guesses: Guesses) -> tuple[int, int, int]:
    correct = guesses.true_in + guesses.true_out
    return correct, correct + guesses.false_in + guesses.false_out, guesses.inserted + guesses.held_out


def _last_refuted(excess: Callable[[float], float]) -> float:
    """The largest epsilon with excess(epsilon) > 0, of a function that falls; never above it."""
    low, high = 1e-6, 1.0
    if excess(low) <= 0:
        return 0.0
    while excess(high) > 0:
        if high >= MOST_EPSILON:
            return MOST_EPSILON
        low, high = high, min(2.0 * high, MOST_EPSILON)
    root = float(optimize.brentq(excess, low, high, xtol=1e-4))  # pyright: ignore[reportArgumentType]
    return max(low, root - 1e-4)


def _check(delta: float, significance: float) -> None:
    if not 0 <= delta < 1:
        raise UserError(f"delta={delta} must lie in [0, 1); use less than one over the number of clients")
    if not 0 < significance < 1:
        raise UserError(f"significance={significance} must lie in (0, 1); use 0.05 for bounds at 95 %")
