"""Distribution functions over clients, by sums of bounded contributions with Gaussian noise.

Each client sends, for every variable, the shares of its records in public cells. The server sees the sums with noise only.
Nothing is pooled; without noise the sums are exact, and promise nothing.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.signal

from fedjax_health.privacy.correlated import fichtenberger
from fedjax_health.types import Normals

SPIKE = 3.0  # deviations of its noise from which on a difference is kept whole
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

    A node's mass goes to its two halves in the prior's proportion, and then by as much of the noisy difference from that as
    is no noise: see `_kept`. Then times a pattern over last digits, which people and monitors prefer, shrunk by its own noise.
    All of it is post-processing.

    Args:
      cumulative: f64[n], of `noisy_cumulative`.
      deviation: of the noise there; 0 gives the masses back.
      prior: f64[n], > 0, sums to 1.
      digits: whether consecutive cells are consecutive last digits.

    Returns:
      f64[n], >= 0, not all 0.

    Source: Donoho & Johnstone 1994, "Ideal spatial adaptation by wavelet shrinkage" (spikes); Efron & Morris 1973 (the rest).
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
        levels.append((left, excess, noise))
        mass, carried, known = mass[::2] + mass[1::2], carried[::2] + carried[1::2], whole
    density = np.maximum(mass, 1.0)
    for left, excess, noise in reversed(levels):
        first = np.clip(density * left + _kept(excess, noise, density) * excess, 0.0, density)
        density = np.stack([first, density - first], 1).ravel()
    found = density[:n]
    return _with_digits(found, noisy, shape, deviation) if digits and n >= 10 * DIGITS else found


def _kept(excess: np.ndarray, noise: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """How much of each node's noisy difference from the prior's split is taken for real, f64[nodes] in [0, 1].

    A split differs from the prior's by N(0, t^2) as a share of the node's mass, t^2 being what the level shows beyond its
    noise; the posterior mean is t^2 m^2 / (t^2 m^2 + noise^2) of the difference. What noise alone seldom reaches (a spike) is
    kept whole, and says nothing of the others.
    """
    spike = np.abs(excess) > max(SPIKE, np.sqrt(2.0 * np.log(len(excess)))) * noise
    rest = np.where(spike, 0.0, mass) ** 2
    spread = max(float(np.sum(rest * (excess**2 - noise**2)) / max(float(np.sum(rest**2)), 1e-12)), 0.0)
    real = spread * mass**2
    return np.where(spike, 1.0, np.divide(real, real + noise**2, out=np.zeros_like(real), where=noise > 0))


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
