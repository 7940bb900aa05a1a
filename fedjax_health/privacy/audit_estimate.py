"""An ESTIMATE of epsilon from canaries: the epsilon of two Gaussians like their scores. It is no bound in either direction.

It takes the scores for Gaussian far beyond what a few hundred canaries can show (at delta = 1e-5 it is the tails that count),
and has a sampling error of its own. It says early and cheaply that noise, clip or sum are not what they are said to be; what
it proves is nothing. Bounds with a confidence are in `audit_bounds`. On the host, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import dp_accounting
import numpy as np
from scipy import linalg, optimize, special

from fedjax_health.privacy.accounting import epsilon_of
from fedjax_health.types import UserError

LEAST_NOISE = 0.2  # noise multiplier below which an estimate stops: an epsilon in the tens says enough


class TwoGaussians(NamedTuple):
    """Scores of inserted canaries ~ N(mean_in, deviation_in^2), of held-out ones ~ N(mean_out, deviation_out^2)."""

    mean_in: float
    deviation_in: float
    mean_out: float
    deviation_out: float


def fit(inserted: np.ndarray, held_out: np.ndarray, same_deviation: bool = False) -> TwoGaussians:
    """Means and (unbiased) deviations of both groups' scores.

    Args:
      inserted: f64[m1], m1 >= 2.
      held_out: f64[m0], m0 >= 2.
      same_deviation: pool both groups' variances, as is right for one Gaussian mechanism: at small delta epsilon depends
        strongly on the ratio of two deviations, and errs upwards with the error of that ratio.

    Raises:
      UserError: a group of fewer than 2, or scores that are not finite.
    """
    groups = [np.asarray(scores, np.float64) for scores in (inserted, held_out)]
    for name, scores in zip(("inserted", "held-out"), groups, strict=True):
        if scores.ndim != 1 or scores.size < 2:
            raise UserError(f"{scores.size} {name} canaries: a deviation needs at least 2; use more canaries")
        if not np.isfinite(scores).all():
            raise UserError(f"{np.sum(~np.isfinite(scores))} {name} scores are not finite; audit a run that is")
    deviations = [float(np.std(scores, ddof=1)) for scores in groups]
    if same_deviation:
        freedom = [scores.size - 1 for scores in groups]
        pooled = sum(f * d**2 for f, d in zip(freedom, deviations, strict=True)) / sum(freedom)
        deviations = [math.sqrt(pooled)] * 2
    return TwoGaussians(float(np.mean(groups[0])), deviations[0], float(np.mean(groups[1])), deviations[1])


def delta_of(gaussians: TwoGaussians, epsilon: float) -> float:
    """delta(eps) = max over both directions of P[A] - e^eps Q[A], A = {x: log p(x) / q(x) > eps}, in closed form.

    The log-ratio is a parabola (a line for equal deviations), so that A is an interval, its complement, or a half-line.

    Args:
      gaussians: both deviations > 0.
      epsilon: >= 0.
    """
    a, s, b, t = gaussians
    return max(_one_way(a, s, b, t, epsilon), _one_way(b, t, a, s, epsilon))


def epsilon_of_gaussians(gaussians: TwoGaussians, delta: float) -> float:
    """The smallest eps >= 0 with delta(eps) <= delta, where `delta_of` is delta(eps); infinite without any spread.

    Args:
      gaussians: the two distributions.
      delta: in (0, 1).

    Raises:
      UserError: delta out of range.
    """
    if not 0 < delta < 1:
        raise UserError(f"delta={delta} must lie in (0, 1); use less than one over the number of clients")
    if min(gaussians.deviation_in, gaussians.deviation_out) == 0:
        same = gaussians.mean_in == gaussians.mean_out and gaussians.deviation_in == gaussians.deviation_out
        return 0.0 if same else math.inf
    if delta_of(gaussians, 0.0) <= delta:
        return 0.0
    high = 1.0
    while delta_of(gaussians, high) > delta:
        high *= 2.0

    def excess(epsilon: float) -> float:
        return delta_of(gaussians, epsilon) - delta

    return float(optimize.brentq(excess, 0.0, high, xtol=1e-9))  # pyright: ignore[reportArgumentType]


def estimate_epsilon(inserted: np.ndarray, held_out: np.ndarray, delta: float, same_deviation: bool = False) -> float:
    """ESTIMATE of epsilon at delta: that of two Gaussians fitted to the canaries' scores. No bound.

    Andrew et al. 2023, arXiv 2302.03098. Right, but for its sampling error, where the scores are Gaussian: one mechanism, or
    (see `federated.canaries`) many with the participation known. With the participation secret neither score is Gaussian
    enough at delta = 1e-5: after 16 rounds at q = 1/3 and z = 1, epsilon = 9.4, it gave 6.5 for the sum of 1,600 canaries'
    scores and 14.5 for their likelihood ratio. `estimate_composed` is meant for that.

    Args:
      inserted, held_out: f64[m1] and f64[m0], scores of the canaries that were inserted and of the others.
      delta: in (0, 1).
      same_deviation: see `fit`.

    Raises:
      UserError: as `fit` and `epsilon_of_gaussians`.
    """
    return epsilon_of_gaussians(fit(inserted, held_out, same_deviation), delta)


def estimate_noise_multiplier(during: np.ndarray, together: np.ndarray, inserted: np.ndarray) -> float:
    """ESTIMATE of the noise in units of what one client adds, from rounds whose participants are known.

    Canary j's scores of the rounds in which it took part add up to S_j. The auditor knows every canary's direction and
    coins, and so what the others put into those scores: S ~ N(a Q x, s^2 Q), x_j = 1 if canary j is inserted, a what one
    client counts, Q_ij = <c_i, c_j> times the rounds in which both took part. Directions are random signs, so that what is
    held out has mean 0 whatever the program does, and only a and s are measured, by maximum likelihood:

        a = x.S / x.Qx,   s^2 = (S - a Q x)^T Q^-1 (S - a Q x) / (n - 1),   z = s / a.

    For the Gaussian mechanism z is the noise multiplier; nothing of it is taken from what the program states. With n canaries,
    half of them inserted, in T rounds each, the relative variance of the estimate is

        var(z) / z^2 = 1 / (2 n) + 2 z^2 / (n T):

    the deviation's, and the mean's, which prevails from z = 1/2 on. One round at z = 2 needs 1,800 canaries for epsilon within
    15 % in 95 of 100 runs (epsilon falls like z^-1.12 there), z = 1 needs 600 (z^-1.16), z = 1/2 needs 300 (z^-1.23).
    Messages of real clients that the observer does not know count as noise.

    Args:
      during: f64[k], S.
      together: f64[k, k], Q (see `canaries.together`), or f64[k], its diagonal: directions taken for orthogonal, which adds
        about q k / (2 d) to z^2, q being a canary's chance to take part. Canaries that never took part are left out.
      inserted: bool[k], x.

    Returns:
      z > 0; infinite where the inserted do not score above 0.

    Raises:
      UserError: a group of fewer than 2 canaries that took part, scores that are not finite, or more canaries than directions
        that do not depend on each other.
    """
    during, together = np.asarray(during, np.float64), np.asarray(together, np.float64)
    inserted = np.asarray(inserted, bool)
    took = (together if together.ndim == 1 else np.diag(together)) > 0
    for name, group in (("inserted", inserted), ("held-out", ~inserted)):
        mine = group & took
        if mine.sum() < 2:
            raise UserError(f"{mine.sum()} {name} canaries ever took part: at least 2 must; use more canaries")
        if not np.isfinite(during[mine]).all():
            raise UserError(f"{np.sum(~np.isfinite(during[mine]))} {name} scores are not finite; audit a run that is")
    score, x = during[took], inserted[took].astype(np.float64)
    if together.ndim == 1:
        root = np.sqrt(together[took])
        white, own = score / root, x * root
    else:
        among = together[np.ix_(took, took)]
        try:
            lower = np.linalg.cholesky(among)
        except np.linalg.LinAlgError:
            raise UserError(
                f"the directions of {len(score)} canaries depend on each other: there are more than a message has "
                "coordinates; use fewer canaries"
            ) from None
        white, own = linalg.solve_triangular(lower, score, lower=True), lower.T @ x
    amount = float(white @ own / (own @ own))
    deviation = math.sqrt(float(np.sum(np.square(white - amount * own))) / (len(score) - 1))
    return deviation / amount if amount > 0 else math.inf


def estimate_composed(
    during: np.ndarray,
    together: np.ndarray,
    inserted: np.ndarray,
    event: Callable[[float], dp_accounting.DpEvent],
    composed: int,
    delta: float,
) -> float:
    """ESTIMATE of epsilon of a whole run with the participation secret: the accountant's, at the noise that was measured.

    z from `estimate_noise_multiplier`, then epsilon at delta of `composed` times event(z). Each round of a sampled Gaussian
    mechanism is a function of q, z and nothing else; z is measured by canaries of known participation, which is where all
    the signal is, and so noise, clip, sum and denominator are tested while q and the independence of rounds are taken on
    trust. The standard error of z stands there, and that of epsilon is up to twice as much: 200 canaries, 5 rounds each and
    z = 2 give 10 % and up to 20 %. No bound.

    Args:
      during, together, inserted: as for `estimate_noise_multiplier`.
      event: noise multiplier -> event of one round, such as `CohortSampler.account`.
      composed: rounds, > 0.
      delta: in (0, 1).

    Returns:
      epsilon >= 0; 0 where the inserted do not score higher, and the epsilon at z = 0.2 where less noise was measured.

    Raises:
      UserError: as `estimate_noise_multiplier`, or an event that no accountant covers.
    """
    noise = estimate_noise_multiplier(during, together, inserted)
    return 0.0 if math.isinf(noise) else epsilon_of([(event(max(noise, LEAST_NOISE)), composed)], delta)


def _one_way(a: float, s: float, b: float, t: float, epsilon: float) -> float:
    """P[A] - e^eps Q[A] for p = N(a, s^2), q = N(b, t^2)."""
    # log p/q at a + s y, over which P is standard: u y^2 + v y + w, with x = (b + t y') for Q
    ratio, shift = s / t, (a - b) / t
    u, v, w = (ratio**2 - 1.0) / 2.0, ratio * shift, shift**2 / 2.0 - math.log(ratio) - epsilon
    if u == 0.0:
        if v == 0.0:
            return 0.0 if w <= 0 else -math.expm1(epsilon)
        # shift > 0: y > -w / v; else the mirror image, of the same probabilities
        cut = -w / abs(v)
        return _less(special.log_ndtr(-cut), special.log_ndtr(-(cut + abs(shift))), epsilon)
    square = v * v - 4.0 * u * w
    if square <= 0.0:
        return 0.0 if u < 0 else -math.expm1(epsilon)
    half = -0.5 * (v + math.copysign(math.sqrt(square), v))  # no difference of near equals
    low, high = sorted((half / u, w / half if half else 0.0))
    ends = (low, high), (shift + ratio * low, shift + ratio * high)
    log_p, log_q = (_log_outside(*e) if u > 0 else _log_inside(*e) for e in ends)
    return _less(log_p, log_q, epsilon)


def _less(log_p: float, log_q: float, epsilon: float) -> float:
    return max(0.0, math.exp(log_p) - math.exp(min(0.0, log_q + epsilon)))


def _log_outside(low: float, high: float) -> float:
    return float(np.logaddexp(special.log_ndtr(low), special.log_ndtr(-high)))


def _log_inside(low: float, high: float) -> float:
    if low > 0:
        low, high = -high, -low  # in the lower tail, where logarithms are exact
    above, below = special.log_ndtr(high), special.log_ndtr(low)
    return float(above + np.log1p(-np.exp(below - above))) if below < above else -math.inf
