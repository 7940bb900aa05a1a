"""LiRA: is a target's score more like those of worlds with the target or like those without?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

TINY = 1e-12  # least variance: a score that never moves says nothing


class Others(NamedTuple):
    """What all shadows but one say about each target, for every choice of that one; f64[S, M] each.

    Attributes:
      n_in, n_out: shadows with the target and without it.
      in_mean, out_mean: their mean scores; where there is none, the other mean moved by the usual distance.
      in_var, out_var: unbiased variance about the target's own mean, NaN with fewer than two shadows.
    """

    n_in: np.ndarray
    n_out: np.ndarray
    in_mean: np.ndarray
    out_mean: np.ndarray
    in_var: np.ndarray
    out_var: np.ndarray


def others(score: np.ndarray, member: np.ndarray) -> Others:
    """Means and variances without the shadow that is attacked, by taking its own term off the sums.

    Args:
      score: f64[S, M].
      member: bool[S, M].
    """
    score = np.asarray(score, np.float64)
    centred = score - score.mean(0)  # sums of squares then lose nothing

    def side(here: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        w = here.astype(np.float64)
        n = w.sum(0) - w
        first = (w * centred).sum(0) - w * centred
        second = (w * centred**2).sum(0) - w * centred**2
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = first / n
            var = np.maximum(second - n * mean**2, 0.0) / (n - 1)
        return n, mean, np.where(n > 1, var, np.nan)

    (n_in, in_mean, in_var), (n_out, out_mean, out_var) = side(member), side(~member)
    both = n_in * n_out > 0
    gap = np.where(both, in_mean - out_mean, 0.0).sum(1, keepdims=True) / np.maximum(both.sum(1, keepdims=True), 1)
    in_mean, out_mean = np.where(n_in > 0, in_mean, out_mean + gap), np.where(n_out > 0, out_mean, in_mean - gap)
    base = score.mean(0)
    return Others(n_in, n_out, base + in_mean, base + out_mean, in_var, out_var)


def _pooled(var: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Variance within targets, all targets together: f64[S, 1]."""
    freedom = np.maximum(n - 1, 0)
    return np.maximum(np.nansum(var * freedom, 1, keepdims=True) / np.maximum(freedom.sum(1, keepdims=True), 1), TINY)


def _spread(o: Others, pooled: bool) -> tuple[np.ndarray, np.ndarray]:
    """Predictive variances: a mean of n shadows is itself uncertain, by 1 / n of the variance."""
    in_var, out_var = _pooled(o.in_var, o.n_in), _pooled(o.out_var, o.n_out)
    if not pooled:
        in_var = np.where(np.isnan(o.in_var), in_var, np.maximum(o.in_var, TINY))
        out_var = np.where(np.isnan(o.out_var), out_var, np.maximum(o.out_var, TINY))
    return in_var * (1 + 1 / np.maximum(o.n_in, 1)), out_var * (1 + 1 / np.maximum(o.n_out, 1))


def lira(score: np.ndarray, member: np.ndarray, pooled: bool = True) -> np.ndarray:
    """Online LiRA of every shadow by the S - 1 others:

        log N(f; mu_in, v_in (1 + 1/n_in)) - log N(f; mu_out, v_out (1 + 1/n_out))

    mu and n of the target alone, v over all targets together ("fixed variance"): with fewer than about 64 shadows a target's
    own variance is too uncertain, and one that comes out small by chance makes a confident mistake. v is about each target's
    own mean, and each side has its own. (A public implementation takes here the spread of the scores *in* for both sides, and
    about the mean of all targets.) Shadow s itself is in none of the fits that attack it.

    Args:
      score: f64[S, M], higher = more likely a member; best near-normal, as log-odds or a mean over records are.
      member: bool[S, M], whether target m took part in shadow s.
      pooled: False fits a variance to each target and side, where it has two shadows or more.

    Returns:
      f64[S, M], log-likelihood ratio.

    Source: Carlini et al. (2022), arXiv 2112.03570.
    """
    o = others(score, member)
    in_var, out_var = _spread(o, pooled)
    f = np.asarray(score, np.float64)
    return 0.5 * ((f - o.out_mean) ** 2 / out_var - (f - o.in_mean) ** 2 / in_var + np.log(out_var / in_var))


def lira_offline(score: np.ndarray, member: np.ndarray, pooled: bool = True) -> np.ndarray:
    """Offline LiRA: how far the score lies above those of worlds without the target, (f - mu_out) / sqrt(v_out (1 + 1/n_out)).

    A rising function of the published Phi(.), so the same attack; needs no shadow that knows the target.

    Args:
      score, member, pooled: as for `lira`.

    Returns:
      f64[S, M].

    Source: Carlini et al. (2022), arXiv 2112.03570.
    """
    o = others(score, member)
    return (np.asarray(score, np.float64) - o.out_mean) / np.sqrt(_spread(o, pooled)[1])
