"""RMIA: does the model prefer the target to records of the population more than models without the target do?"""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

OFFLINE = 0.3  # a: how much worlds with the target are taken to differ from worlds without it


def _log_typical(log_p: np.ndarray, out: np.ndarray, a: float) -> np.ndarray:
    """log of ½ ((1 + a) mean over worlds without the record of p + 1 - a), the attacked shadow left out: f64[S, M]."""
    shadows = len(log_p)
    typical = np.empty_like(log_p)
    for s in range(shadows):
        here = out.copy()
        here[s] = False
        count = here.sum(0)
        # a record that every other world holds: all of them stand in
        here[:, count == 0] = np.arange(shadows)[:, None] != s
        mean = logsumexp(np.where(here, log_p, -np.inf), axis=0) - np.log(here.sum(0))
        typical[s] = mean if a == 1.0 else np.logaddexp(np.log1p(a) + mean, np.log1p(-a)) - np.log(2.0)
    return typical


def rmia(log_p: np.ndarray, member: np.ndarray, population: np.ndarray, a: float = OFFLINE) -> np.ndarray:
    """Offline RMIA of every shadow by the S - 1 others, gamma = 1:

        score(x) = Pr_z[ r(x) >= r(z) ],   r(x) = log p(x | theta) - log ½ ((1 + a) mean_out p(x | theta') + 1 - a)

    Args:
      log_p: f64[S, M], log of the probability that each shadow's model gives a target.
      member: bool[S, M].
      population: f64[S, Z], the same of records that took part in no shadow.
      a: in [0, 1]; 1 for densities, which have no scale on which 1 is certain.

    Returns:
      f64[S, M] in [0, 1], the share of the population that the model prefers less than the target; among targets above or
      below the same records of it order is kept by at most 1e-6 (arctan r), since a rate at 1 % needs it.

    Source: Zarifzadeh, Liu & Shokri (2024), arXiv 2312.03262.
    """
    log_p, population = np.asarray(log_p, np.float64), np.asarray(population, np.float64)
    ratio = log_p - _log_typical(log_p, ~member, a)
    of_z = population - _log_typical(population, np.ones(population.shape, bool), a)
    score = np.empty_like(ratio)
    for s, (mine, base) in enumerate(zip(ratio, of_z, strict=True)):
        base = np.sort(base)
        score[s] = np.searchsorted(base, mine, side="right") / len(base) + 1e-6 * (0.5 + np.arctan(mine) / np.pi)
    return score
