"""Means and correlations of normal scores over clients, by sums of bounded contributions with Gaussian noise.

Each client sends the mean products of its scores and of a constant; the server sees the sums with noise only. Without noise the
sums are exact, and promise nothing.
"""

from __future__ import annotations

import numpy as np

from fedjax_health.types import Normals

LEAST_EIGENVALUE = 1e-3
REACH = (0.75, 1.5)  # of J, between which the norm of a client's mean products is bounded
REACH_AT = 0.1  # times 1 / sqrt(z J / K), where that lies between
CONSTANT = 1.5  # the last cell of what is multiplied; the larger, the less noise on means beside that on products


def bound_of(noise_multiplier: float, columns: int, held: float) -> float:
    """Norm R to which a client's mean products are bounded: J times 0.1 / sqrt(z J / K), which is kept within 0.75 and 1.5.

    Cutting long ones draws correlations towards 0, noise grows with R: the noisier the sums are for their size, the shorter.
    (Of one record of J independent scores the norm is about J.)

    Args:
      noise_multiplier: z, > 0.
      columns: J.
      held: K, clients, as the noisy sums asked for before tell.
    """
    noisy = noise_multiplier * columns / max(held, 1.0)
    return float(columns * np.clip(REACH_AT / np.sqrt(noisy), *REACH))


def bounded_weights(
    scores: np.ndarray,
    label: np.ndarray,
    weight: np.ndarray,
    client: np.ndarray,
    classes: int,
    gaps: bool,
    bound: float,
) -> np.ndarray:
    """Weights of records under which no client moves `noisy_products` further than R, of all records or of classes.

        f_k = min(1, R / sum_l |S_kl|),  S_kl what client k sends for its records of class l;  weight * f of its client

    A client's mean over records that differ is far shorter than one record's products, which a bound on records would have to
    allow for. sum_l |S_kl| bounds what it sends for all classes together and, by the triangle, for all records at once.

    Args:
      scores: f64[M, J], NaN = missing.
      label: i32[M], classes.
      weight: f64[M], 1 over the number of records of the client.
      client: i32[M].
      classes: L.
      gaps: whether any score may be missing.
      bound: R.

    Returns:
      f64[M].
    """
    _, index = np.unique(client, return_inverse=True)
    group, count = index * classes + label, (index.max(initial=-1) + 1) * classes
    x, present = _with_constant(scores)

    def squared(value: np.ndarray) -> np.ndarray:
        return np.bincount(group, weights=weight * value, minlength=count) ** 2

    norm = np.zeros(count)
    for i, j in zip(*np.triu_indices(x.shape[1]), strict=True):
        twice = 1.0 if i == j else 2.0
        norm += twice * squared(x[:, i] * x[:, j])
        if gaps:
            norm += twice * squared(1.0 - present[:, i] * present[:, j])
    whole = np.sqrt(norm).reshape(-1, classes).sum(1)
    return weight * np.minimum(1.0, bound / np.maximum(whole, 1e-9))[index]


def _with_constant(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores with 0 for what is missing, and whether they are there, f64[M, J + 1] each; the last column is the constant."""
    there = ~np.isnan(scores)
    x = np.column_stack([np.where(there, scores, 0.0), np.full(len(scores), CONSTANT)])
    return x, np.column_stack([there, np.ones(len(scores))]).astype(np.float64)


def noisy_products(
    scores: np.ndarray, weight: np.ndarray, deviation: float, gaps: bool, generator: Normals
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted sums of products of scores x, and of pairs that are present, over records: sum w (x x^T), sum w (m m^T).

    x and m have a constant as last cell, so that sums of scores, of presences and of weights are among them. What is sent is
    sum w (x x^T) and, where scores may be missing, sum w (1 - m m^T), together of norm R a client (`bounded_weights`).
    Noise has z R for deviation on a diagonal, and as much over sqrt(2) on each of two equal cells beside it: Gaussian
    noise on the upper triangle in the Frobenius norm.

    Args:
      scores: f64[M, J], NaN = missing.
      weight: f64[M], of records; under a guarantee of `bounded_weights`.
      deviation: z R; 0 = exact.
      gaps: whether any score may be missing.
      generator: source of the noise; one draw is taken.

    Returns:
      (f64[J + 1, J + 1], f64[J + 1, J + 1]), symmetric.
    """
    x, present = _with_constant(scores)
    sums = [(x * weight[:, None]).T @ x]
    if gaps:
        sums.append(weight.sum() - (present * weight[:, None]).T @ present)
    rows, columns = np.triu_indices(x.shape[1])
    drawn = deviation * generator.standard_normal(len(sums) * len(rows)).reshape(len(sums), -1)
    for matrix, noise in zip(sums, drawn, strict=True):
        matrix[rows, columns] += np.where(rows == columns, noise, noise / np.sqrt(2.0))
        matrix[columns, rows] = matrix[rows, columns]
    held = sums[0][-1, -1] / CONSTANT**2
    return sums[0], held - sums[1] if gaps else np.full_like(sums[0], held)


def moments_of(products: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means f64[J] and covariance f64[J, J] of scores from `noisy_products`; 0 of what is never present (together).

    Args:
      products, pairs: f64[J + 1, J + 1].
    """
    seen = pairs > 1e-3 * np.max(pairs)
    moments = np.divide(products, pairs, out=np.zeros_like(products), where=seen)
    mean = moments[:-1, -1] / CONSTANT
    return mean, np.where(seen[:-1, :-1], moments[:-1, :-1] - np.outer(mean, mean), 0.0)


def correlation_of(
    covariance: np.ndarray, held: float, deviation: float, towards: np.ndarray | None = None
) -> np.ndarray:
    """A correlation matrix near noisy moments: normalised, with eigenvalues no smaller than the noise's own.

    The noise's spectral norm is about d sqrt(2 J) over the sum of weights; an eigenvalue below it is not known, and whitening
    by it would blow the scores up. What differs from a correlation of more records is shrunk by what its noise, and the
    number of records, explain.

    Args:
      covariance: f64[J, J], of `moments_of`.
      held: sum of the weights, > 0.
      deviation: of the noise on a diagonal of the sums.
      towards: f64[J, J], of more records; None = there is none.

    Returns:
      f64[J, J], positive definite, 1 on the diagonal; columns that are never present together are independent.

    Source: James & Stein 1961, "Estimation with quadratic loss".
    """
    scale = np.sqrt(np.maximum(np.diag(covariance), 1e-6))
    rho = np.clip(covariance / np.outer(scale, scale), -1.0, 1.0)
    np.fill_diagonal(rho, 1.0)
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


def shrunk(values: np.ndarray, deviation: float) -> np.ndarray:
    """Noisy numbers that are 0 unless they show otherwise: all times max(0, 1 - (n - 2) d^2 / |v|^2), or (n - 2 at least 1).

    Args:
      values: f64[n].
      deviation: d, of their noise; 0 = none.

    Source: James & Stein 1961, "Estimation with quadratic loss".
    """
    explained = max(len(values) - 2, 1) * deviation**2
    return values * max(0.0, 1.0 - explained / max(float(np.sum(values**2)), 1e-12))
