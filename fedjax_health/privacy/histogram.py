"""Distribution functions and correlations over clients, by sums of bounded contributions with Gaussian noise.

Each client sends, for every variable, the shares of its records in public cells, and the mean products of its normal scores.
The server sees the sums with noise only. Nothing is pooled; without noise the sums are exact, and promise nothing.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.signal

from fedjax_health.privacy.correlated import fichtenberger
from fedjax_health.types import Normals

LEAST_EIGENVALUE = 1e-3
LEAST_DEVIATIONS = 2.0  # of its noise, that a difference must have to be kept
REACH = 1.5  # a record's scores are clipped to squared norm REACH J, J the number of variables
DIGITS = 10


def noisy_cumulative(
    masses: np.ndarray, noise_multiplier: float, columns: int, generator: Normals
) -> tuple[np.ndarray, float]:
    """Prefix sums of a histogram with the noise of the square-root factorisation: A h + B xi, A = B C, xi ~ N(0, (z s)^2 I).

    A client's histograms of J variables have 1-norm at most 1 each, so C of them has norm at most s = |c| sqrt(J), c the first
    column of C. A prefix sum then carries noise of about z s |c|, |c|^2 = 1 + ln(n) / pi, instead of sqrt(n).

    Args:
      masses: f64[n], sum over clients of their shares of each cell.
      noise_multiplier: z; 0 = exact.
      columns: J, histograms of a client that one event covers.
      generator: source of the noise; one draw of n numbers is taken, none without noise.

    Returns:
      (f64[n], deviation of xi).

    Source: Fichtenberger, Henzinger & Upadhyay 2023, arXiv 2202.11205.
    """
    if not noise_multiplier:
        return np.cumsum(masses), 0.0
    root = fichtenberger(len(masses))
    deviation = noise_multiplier * float(np.linalg.norm(root)) * np.sqrt(columns)
    noise = deviation * generator.standard_normal(len(masses))
    return np.cumsum(masses) + scipy.signal.fftconvolve(root, noise)[: len(masses)], deviation


def smooth(cumulative: np.ndarray, deviation: float, prior: np.ndarray, digits: bool) -> np.ndarray:
    """Masses behind noisy prefix sums: a public prior, corrected in halves of halves of the range where that is no noise.

    A node's mass goes to its two halves in the prior's proportion, unless the noisy difference from that exceeds its noise by
    sqrt(2 ln(nodes of the level)), which noise alone seldom does. Then times a pattern over last digits, which people and
    monitors prefer, shrunk by its own noise. All of it is post-processing.

    Args:
      cumulative: f64[n], of `noisy_cumulative`.
      deviation: of the noise there; 0 gives the masses back.
      prior: f64[n], > 0, sums to 1.
      digits: whether consecutive cells are consecutive last digits.

    Returns:
      f64[n], >= 0, not all 0.

    Source: Donoho & Johnstone 1994, "Ideal spatial adaptation by wavelet shrinkage".
    """
    noisy = np.diff(cumulative, prepend=0.0)
    if deviation == 0:
        return np.maximum(noisy, 0.0)
    n = len(noisy)
    size = 1 << max(n - 1, 1).bit_length()
    # noise of the cells is `shape` times independent numbers
    shape = scipy.linalg.toeplitz(np.diff(fichtenberger(n), prepend=0.0), np.zeros(n))
    mass, known = np.pad(noisy, (0, size - n)), np.pad(prior, (0, size - n))
    carried = np.pad(shape, ((0, size - n), (0, 0)))
    levels = []
    while len(mass) > 1:
        whole = known[::2] + known[1::2]
        left = np.divide(known[::2], whole, out=np.ones_like(whole), where=whole > 0)
        right = 1.0 - left
        excess = mass[::2] * right - mass[1::2] * left
        noise = deviation * np.linalg.norm(carried[::2] * right[:, None] - carried[1::2] * left[:, None], axis=1)
        real = np.abs(excess) > max(LEAST_DEVIATIONS, np.sqrt(2.0 * np.log(len(whole)))) * noise
        levels.append((left, np.where(real, excess, 0.0)))
        mass, carried, known = mass[::2] + mass[1::2], carried[::2] + carried[1::2], whole
    density = np.maximum(mass, 1.0)
    for left, excess in reversed(levels):
        first = np.clip(density * left + excess, 0.0, density)
        density = np.stack([first, density - first], 1).ravel()
    found = density[:n]
    return _with_digits(found, noisy, shape, deviation) if digits and n >= 10 * DIGITS else found


def _with_digits(density: np.ndarray, noisy: np.ndarray, shape: np.ndarray, deviation: float) -> np.ndarray:
    """The density times a factor for each last digit, each shrunk towards 1 by what its noise explains."""
    digit = np.arange(len(density)) % DIGITS
    factor = np.ones(DIGITS)
    for d in range(DIGITS):
        here = digit == d
        total = density[here].sum()
        if total > 0:
            excess = noisy[here].sum() / total - 1.0
            spread = deviation * float(np.linalg.norm(shape[here].sum(0))) / total
            factor[d] = 1.0 + excess * max(0.0, 1.0 - (spread / excess) ** 2) if excess else 1.0
    shaped = density * np.maximum(factor, 0.0)[digit]
    return shaped * (density.sum() / shaped.sum()) if shaped.sum() > 0 else density


def noisy_products(
    scores: np.ndarray, weight: np.ndarray, noise_multiplier: float, gaps: bool, generator: Normals
) -> tuple[np.ndarray, np.ndarray, float]:
    """Weighted sums of products of scores, and of pairs that are present, over records: sum w (x x^T), sum w (m m^T).

    A record's scores are clipped to squared norm R = REACH J; a client's weights sum to 1, so its matrices have Frobenius norm
    at most R and J, and together sqrt(R^2 + J^2). Noise has that times z for deviation on the diagonal, and as much over
    sqrt(2) on each of two equal cells beside it: Gaussian noise on the upper triangle in the Frobenius norm. Where nothing may
    be missing the second matrix is not sent, and all ones.

    Args:
      scores: f64[M, J], 0 = mean, NaN = missing.
      weight: f64[M], of records; 1 over the client's number of records under a guarantee.
      noise_multiplier: z; 0 = exact, and nothing is clipped.
      gaps: whether any score may be missing.
      generator: source of the noise; one draw is taken.

    Returns:
      (f64[J, J], f64[J, J], deviation of the noise on a diagonal), symmetric.
    """
    present = ~np.isnan(scores)
    x, variables = np.where(present, scores, 0.0), scores.shape[1]
    reach = REACH * variables
    if noise_multiplier:
        x = x * np.minimum(1.0, np.sqrt(reach) / np.maximum(np.linalg.norm(x, axis=1), 1e-9))[:, None]
    sums = [(a * weight[:, None]).T @ a for a in ((x, present.astype(np.float64)) if gaps else (x,))]
    deviation = noise_multiplier * (np.hypot(reach, variables) if gaps else reach)
    rows, columns = np.triu_indices(variables)
    drawn = deviation * generator.standard_normal(len(sums) * len(rows)).reshape(len(sums), -1)
    for matrix, noise in zip(sums, drawn, strict=True):
        matrix[rows, columns] += np.where(rows == columns, noise, noise / np.sqrt(2.0))
        matrix[columns, rows] = matrix[rows, columns]
    return sums[0], sums[1] if gaps else np.ones_like(sums[0]), float(deviation)


def reconciled(whole: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """A noisy total and its L noisy parts made to add up, by least squares: p_l + (w - sum p) / (L + 1).

    Args:
      whole: f64[...].
      parts: f64[L, ...], with noise of the same size in every cell.

    Returns:
      (their sum, the parts, deviation of the noise of either as a multiple of what it was: sqrt(L / (L + 1))).
    """
    count = len(parts)
    better = parts + (whole - parts.sum(0)) / (count + 1)
    return better.sum(0), better, float(np.sqrt(count / (count + 1)))


def correlation_of(
    products: np.ndarray, pairs: np.ndarray, deviation: float, towards: np.ndarray | None = None
) -> np.ndarray:
    """A correlation matrix near noisy moments: normalised, with eigenvalues no smaller than the noise's own.

    The noise's spectral norm is about d sqrt(2 J) over the sum of weights; an eigenvalue below it is not known, and whitening
    by it would blow the scores up. What differs from a correlation of more records is shrunk by what its noise, and the
    number of records, explain.

    Args:
      products, pairs, deviation: of `noisy_products`.
      towards: f64[J, J], of more records; None = there is none.

    Returns:
      f64[J, J], positive definite, 1 on the diagonal; columns that are never present together are independent.

    Source: James & Stein 1961, "Estimation with quadratic loss".
    """
    seen = pairs > 1e-3 * np.max(pairs)
    moments = np.divide(products, pairs, out=np.zeros_like(products), where=seen)
    scale = np.sqrt(np.maximum(np.diag(moments), 1e-6))
    rho = np.clip(moments / np.outer(scale, scale), -1.0, 1.0)
    np.fill_diagonal(rho, 1.0)
    held = max(float(np.mean(np.diag(products))), 1e-9)  # scores have mean square 1
    floor = max(LEAST_EIGENVALUE, deviation * np.sqrt(2.0 * len(rho)) / held)
    if towards is not None:
        excess = rho - towards
        free = max(len(rho) * (len(rho) - 1) // 2 - 2, 0)
        explained = free * (0.5 * (deviation / held) ** 2 + 1.0 / held)
        keep = max(0.0, 1.0 - explained / max(float(np.sum(np.triu(excess, 1) ** 2)), 1e-12))
        rho = towards + keep * excess
        floor = max(LEAST_EIGENVALUE, keep * floor)
    values, vectors = np.linalg.eigh(rho)
    rho = (vectors * np.maximum(values, floor)) @ vectors.T
    scale = np.sqrt(np.diag(rho))
    return rho / np.outer(scale, scale)
