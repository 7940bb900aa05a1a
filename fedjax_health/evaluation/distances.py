"""Distances between two clouds of records as a whole: sliced Wasserstein-1, and maximum mean discrepancy."""

from __future__ import annotations

import numpy as np
import scipy.stats
from scipy.spatial.distance import cdist

DIRECTIONS = 200
MOST = 1000  # rows a side whose pairs the kernel looks at: its error is then about 0.001
NAN = float("nan")


def sliced_wasserstein(
    real: np.ndarray, synthetic: np.ndarray, rng: np.random.Generator, directions: int = DIRECTIONS
) -> float:
    """Mean over random directions θ of W₁(θ·R, θ·S): sees relations between columns, which distances of columns do not.

    Args:
      real, synthetic: f64[n, D], f64[m, D], in a scaled space.
      rng: host generator, of the directions (uniform on the sphere).
      directions: how many.

    Returns:
      >= 0, in units of the space; a shift by v gives about |v| √(2 / (π D)) for large D. NaN where a side is empty.

    Source: Bonneel et al. (2015), Sliced and Radon Wasserstein barycenters of measures.
    """
    if not (len(real) and len(synthetic)):
        return NAN
    theta = rng.normal(size=(real.shape[1], directions))
    theta /= np.linalg.norm(theta, axis=0)
    pairs = zip((real @ theta).T, (synthetic @ theta).T, strict=True)
    return float(np.mean([scipy.stats.wasserstein_distance(r, s) for r, s in pairs]))


def mmd2(real: np.ndarray, synthetic: np.ndarray, bandwidths: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy, kernel k(x, y) = mean over σ of exp(-|x - y|² / 2σ²).

    MMD²_u = mean_{i≠j} k(R_i, R_j) + mean_{i≠j} k(S_i, S_j) - 2 mean_{ij} k(R_i, S_j).

    Args:
      real, synthetic: f64[n, D], f64[m, D]; n, m >= 2.
      bandwidths: f64[B], > 0, the σ.

    Returns:
      0 in expectation for one law, so below 0 half of the time; at most 2. NaN with fewer than two rows a side.

    Source: Gretton et al. (2012), A kernel two-sample test, lemma 6.
    """
    if min(len(real), len(synthetic)) < 2:
        return NAN

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        square = cdist(a, b, "sqeuclidean")
        return np.mean([np.exp(square / (-2 * sigma**2)) for sigma in bandwidths], axis=0)

    def among(points: np.ndarray) -> float:
        n = len(points)
        return float((kernel(points, points).sum() - n) / (n * (n - 1)))  # k(x, x) = 1

    return among(real) + among(synthetic) - 2 * float(kernel(real, synthetic).mean())


def mmd(real: np.ndarray, synthetic: np.ndarray, rng: np.random.Generator) -> float:
    """`mmd2` of at most 1,000 rows a side, σ = ½, 1 and 2 times the median distance between different points of both.

    Args:
      real, synthetic: f64[n, D], f64[m, D], in a scaled space.
      rng: host generator, chooses the rows.

    Returns:
      See `mmd2`; 0 where all points are the same one.
    """
    a, b = (points[rng.permutation(len(points))[:MOST]] for points in (real, synthetic))
    both = np.concatenate([a, b])
    between = cdist(both, both)
    apart = between[between > 0]
    return mmd2(a, b, np.median(apart) * np.array([0.5, 1.0, 2.0])) if len(apart) else 0.0
