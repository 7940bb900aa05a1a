"""How synthetic records lie among real ones, by neighbourhoods and by shells: density, coverage, precision, recall."""

from __future__ import annotations

import numpy as np

from fedjax_health.neighbours import ball_counts, nearest, nearest_others

NEIGHBOURS = 5
LEVELS = np.linspace(0, 1, 21)  # of α and β
NAN = float("nan")


def reach(radius: np.ndarray) -> np.ndarray:
    """Radii of closed balls: what is on the edge but for the last digits is inside.

    Args:
      radius: f64[n].
    """
    return radius * (1 + 1e-9) + 1e-9


def coverage(real: np.ndarray, synthetic: np.ndarray, k: int = NEIGHBOURS) -> float:
    """Share of real records with a synthetic one no further than their k-th real neighbour: falls when modes are lost.

    Coverage = 1/N Σ_i 1[min_j d(R_i, S_j) <= NND_k(R_i)], closed balls so that repeated records can be covered.

    Args:
      real, synthetic: f64[n, D], the same n, in a scaled space.
      k: neighbours.

    Returns:
      In [0, 1]; for k = 5 about 0.97 for independent records of the same law, less where a client's records resemble
      one another (read it beside "real-vs-real"). NaN with k or fewer real records.

    Source: Naeem et al. (2020), arXiv 2002.09797.
    """
    if len(real) <= k or not len(synthetic):
        return NAN
    return float(np.mean(nearest(real, synthetic)[0][:, 0] <= reach(nearest_others(real, k)[0][:, -1])))


def density(real: np.ndarray, synthetic: np.ndarray, k: int = NEIGHBOURS) -> float:
    """How many real neighbourhoods hold a synthetic record, over k: 1/(k M) Σ_j Σ_i 1[d(S_j, R_i) <= NND_k(R_i)].

    Above 1 where synthetic records crowd into the dense parts (mode collapse, or less spread than the real ones), near 0
    where they lie off the data.

    Args:
      real, synthetic: f64[n, D], f64[M, D], in a scaled space.
      k: neighbours.

    Returns:
      >= 0; 1 in expectation for independent records of the same law. NaN with k or fewer real records, or no synthetic ones.

    Source: Naeem et al. (2020), arXiv 2002.09797.
    """
    if len(real) <= k or not len(synthetic):
        return NAN
    held, _ = ball_counts(synthetic, real, reach(nearest_others(real, k)[0][:, -1]))
    return float(held.sum() / (k * len(synthetic)))


def _integrated(share: np.ndarray) -> float:
    """1 - 2 ∫ |P_α - α| dα by the trapezoid rule: 1 where P_α = α throughout."""
    return float(1 - 2 * np.trapezoid(np.abs(share - LEVELS), LEVELS))


def alpha_precision(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Whether synthetic records lie in the shells of the real ones: IP = 1 - 2 ∫ |P_α - α| dα, P_α = Pr[|S - c_R| <= r_α].

    c_R is the mean of the real records and r_α the α-quantile of their distances to it (no embedding is learnt). It sees
    distance from the middle only: neither correlations nor directions.

    Args:
      real, synthetic: f64[n, D], f64[m, D], in a scaled space.

    Returns:
      In [0, 1], 1 = the same shells; near 0 where all records are nearer to it than any real one, or further. NaN where a
      side is empty.

    Source: Alaa et al. (2022), arXiv 2102.08921, without the one-class embedding; α in steps of 0.05.
    """
    if not (len(real) and len(synthetic)):
        return NAN
    centre = real.mean(0)
    before, after = (np.linalg.norm(points - centre, axis=1) for points in (real, synthetic))
    radius = reach(np.quantile(before, LEVELS))
    radius[0] = -1.0  # no share is inside at α = 0
    return _integrated((after[:, None] <= radius).mean(0))


def beta_recall(real: np.ndarray, synthetic: np.ndarray, k: int = NEIGHBOURS) -> float:
    """Whether real records are reached by the inner shells of the synthetic ones: IR = 1 - 2 ∫ |R_β - β| dβ.

    R_β = share of real records i whose nearest synthetic record j has d(R_i, S_j) <= NND_k(R_i) and |S_j - c_S| <= r_β, c_S
    the mean of the synthetic records and r_β the β-quantile of their distances to it. `coverage` is R_1.

    Args:
      real, synthetic: f64[n, D], f64[m, D], in a scaled space.
      k: neighbours.

    Returns:
      In [0, 1]; about 0.97 for independent records of the same law, with k = 5. NaN with k or fewer real records, or no
      synthetic ones.

    Source: Alaa et al. (2022), arXiv 2102.08921, without the one-class embedding, balls of the k-th neighbour.
    """
    if len(real) <= k or not len(synthetic):
        return NAN
    depth = np.linalg.norm(synthetic - synthetic.mean(0), axis=1)
    distance, index = nearest(real, synthetic)
    reached = distance[:, 0] <= reach(nearest_others(real, k)[0][:, -1])
    radius = reach(np.quantile(depth, LEVELS))
    radius[0] = -1.0
    return _integrated((reached[:, None] & (depth[index] <= radius)).mean(0))


def manifold_figures(real: np.ndarray, synthetic: np.ndarray) -> dict[str, float]:
    """coverage, density, alpha_precision and beta_recall of records as points.

    Args:
      real, synthetic: f64[n, D], the same n, in a scaled space.
    """
    return {
        "coverage": coverage(real, synthetic),
        "density": density(real, synthetic),
        "alpha_precision": alpha_precision(real, synthetic),
        "beta_recall": beta_recall(real, synthetic),
    }
