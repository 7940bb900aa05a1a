"""Noise that is correlated over rounds, so that much of it cancels in the model: banded Toeplitz matrix factorisation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.signal
from jax.flatten_util import ravel_pytree

from fedjax_health import tree
from fedjax_health.types import Array, UserError


class Correlated(NamedTuple):
    """Noise w = C^-1 z of a whole training, made round by round.

    Attributes:
      bands: b; the guarantee asks that a client takes part at most once in any b consecutive rounds.
      start: sum-shaped tree -> state, f32[b - 1, d], the noise of the rounds before, newest first; zeros.
      step: (state, sum-shaped tree, deviation f32[], typed key) -> (noise like the tree, state).
    """

    bands: int
    start: Callable[[Any], Array]
    step: Callable[[Array, Any, Array, Array], tuple[Any, Array]]


def fichtenberger(bands: int) -> np.ndarray:
    """c_j = binom(2j, j) / 4^j, the square root of the matrix of prefix sums cut to its first bands.

    Args:
      bands: b >= 1.

    Returns:
      f64[b], c_0 = 1, falling.

    Source: Fichtenberger, Henzinger & Upadhyay 2023, arXiv 2202.11205.
    """
    j = np.arange(1, bands)
    return np.concatenate([[1.0], np.cumprod((2.0 * j - 1.0) / (2.0 * j))])


def prefix_error(coefficients: np.ndarray, rounds: int) -> float:
    """Mean squared error of the prefix sums at unit noise and sensitivity: ||A C^-1||_F^2 ||c||^2 / T.

    A C^-1 is lower-triangular Toeplitz like A and C; with s its first column, the mean is sum_j s_j^2 (T - j) / T.

    Args:
      coefficients: f64[b], first column of C, of any scale.
      rounds: T.

    Source: McKenna 2024, arXiv 2405.15913.
    """
    return _loss(np.asarray(coefficients, np.float64), rounds)[0]


def _loss(c: np.ndarray, rounds: int) -> tuple[float, np.ndarray]:
    """`prefix_error` and its gradient: d s / d c_k is s filtered by 1 / c, delayed by k, negated."""
    impulse = np.zeros(rounds)
    impulse[0] = 1.0
    s = np.cumsum(scipy.signal.lfilter([1.0], c, impulse))
    weight = 1.0 - np.arange(rounds) / rounds
    slope = scipy.signal.lfilter([1.0], c, s)
    error, square = float(np.sum(weight * s**2)), float(np.sum(c**2))
    pull = np.array([-2.0 * np.dot((weight * s)[k:], slope[: rounds - k]) for k in range(len(c))])
    return error * square, pull * square + 2.0 * error * c


@functools.lru_cache
def coefficients(rounds: int, bands: int) -> np.ndarray:
    """First column c of the banded Toeplitz C with the least error of prefix sums over T rounds, ||c||_2 = 1.

    A column of C has norm 1 at most, and columns b or more apart share no row: x of norm S in each of k rounds that are b
    apart moves C x by sqrt(k) S at most, so that k of them cost what k rounds of plain Gaussian noise do.

    Args:
      rounds: T; C may be used for any other number, with another error.
      bands: b, 1 to T; 1 gives [1], independent noise.

    Returns:
      f64[b], positive and falling: the zeros of its polynomial then lie outside the unit circle (Enestrom and Kakeya), so that
      rounding in the recurrence dies out.

    Raises:
      UserError: bands below 1 or above rounds.

    Source: Choquette-Choo et al. 2023, arXiv 2306.08153; the Toeplitz form: McKenna 2024, arXiv 2405.15913.
    """
    if not 1 <= bands <= rounds:
        raise UserError(f"noise_bands={bands} must be between 1 and the {rounds} rounds of the training; lower it")
    start = fichtenberger(bands)
    if bands == 1:
        return start

    def loss(free: np.ndarray) -> tuple[float, np.ndarray]:
        error, slope = _loss(np.concatenate([[1.0], free]), rounds)
        return error / rounds, slope[1:] / rounds

    best = scipy.optimize.minimize(loss, start[1:], jac=True, method="L-BFGS-B", bounds=[(0.0, 1.0)] * (bands - 1))
    found = np.concatenate([[1.0], best.x])
    if not (best.fun <= loss(start[1:])[0] and np.all(np.diff(found) < 0) and found[-1] > 0):
        found = start  # the search went astray: the closed form is safe, and good
    return found / np.linalg.norm(found)


def make_correlated(rounds: int, bands: int) -> Correlated:
    """w_t = (z_t - sum_{j=1}^{b-1} c_j w_{t-j}) / c_0, z_t ~ N(0, deviation^2 I) anew in each round.

    That is C w = z, so that publishing x_t + w_t in every round tells what C x + z would, and no more. With a sampler whose
    `separation` is b (see `cyclic.make_cyclic_poisson`) the rounds t with t mod b = g begin blocks of b rows that share no
    row, and a client of group g that takes part with u, |u| <= S, moves its block's rows by c_0 u, ..., c_{b-1} u, together of
    norm S at most. So each block is one Poisson-sampled Gaussian with the noise multiplier of z (truncated, where the
    sampler is), and T rounds are ceil(T / b) of them. All may be chosen as the training goes, inside a block as well: given
    what was published before, what the other clients send is a shift that both worlds share. It may depend on this
    client's coin in no other way, and neither the deviation nor c may change within a training.

    Args:
      rounds: T, for which the error is least.
      bands: b >= 1; 1 is independent noise.

    Raises:
      UserError: bands below 1 or above rounds.

    Source: Choquette-Choo et al. 2023, arXiv 2306.08153; McKenna 2024, arXiv 2405.15913, Proposition 2.1.
    """
    c = coefficients(rounds, bands)
    first, later = jnp.float32(c[0]), jnp.asarray(c[1:], jnp.float32)

    def start(message: Any) -> Array:
        return jnp.zeros((bands - 1, tree.size(message)), jnp.float32)

    def step(past: Array, message: Any, deviation: Array, key: Array) -> tuple[Any, Array]:
        unit = tree.normal_like(key, message)
        if bands == 1:
            return tree.scale(deviation, unit), past
        drawn, unravel = ravel_pytree(unit)
        own = (deviation * drawn - jnp.sum(later[:, None] * past, 0)) / first
        return unravel(own), jnp.concatenate([own[None], past[:-1]])

    return Correlated(bands, start, step)
