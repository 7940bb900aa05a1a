"""Discrete Gaussian noise on the integers, drawn by a table without any floating-point arithmetic."""

from __future__ import annotations

import decimal
import functools

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health.types import Array, UserError

REACH = 12  # standard deviations that the table holds; 10^-31 of the mass lies outside
BITS = 96  # of randomness in a draw: probabilities are multiples of 2^-96
TOTAL_VARIATION = 2.0**-80  # most by which a draw's law differs from the discrete Gaussian's
LARGEST = 1024
_PRECISION = 60  # decimal digits


@functools.lru_cache(maxsize=4)
def probabilities(deviation: int) -> np.ndarray:
    """2^96 P(X = x), P(X = x) proportional to exp(-x^2 / (2 s^2)), |x| <= 12 s, as whole numbers that sum to 2^96.

    Computed in 60 decimal digits and rounded down; what is left goes to 0. So each of 24 s + 1 values is off by 2^-96 at
    most, and 0 by as much as all others together: less than `TOTAL_VARIATION` for s <= 1024, with the tails that are cut.

    Args:
      deviation: s, a whole number from 1 to 1024.

    Returns:
      object[24 s + 1] of Python integers, from -12 s to 12 s.

    Raises:
      UserError: s out of range.
    """
    if not 1 <= deviation <= LARGEST:
        raise UserError(f"discrete Gaussian noise of {deviation} steps: give a whole number from 1 to {LARGEST}")
    reach = REACH * deviation
    with decimal.localcontext() as context:
        context.prec = _PRECISION
        scale = -2 * decimal.Decimal(deviation) ** 2
        half = [(decimal.Decimal(x * x) / scale).exp() for x in range(reach + 1)]
        whole = decimal.Decimal(2) ** BITS / (2 * sum(half) - half[0])
        right = [int(weight * whole) for weight in half]
    found = [*right[:0:-1], *right]
    found[reach] += 2**BITS - sum(found)
    return np.asarray(found, object)


@functools.lru_cache(maxsize=4)
def alias_table(deviation: int) -> tuple[np.ndarray, int]:
    """Walker's alias table of `probabilities`: a cell is kept below its threshold, and left for its alias above.

    Args:
      deviation: s, as in `probabilities`.

    Returns:
      (u32[4, 2^k]: the threshold's top 32 - k bits, its two lower words, and the alias; k). Cells are values from -12 s on.

    Source: Walker 1977, "An efficient method for generating discrete random variables with general distributions"; Vose 1991.
    """
    mass = list(probabilities(deviation))
    k = (len(mass) - 1).bit_length()
    cells, full = 1 << k, 1 << (BITS - k)
    mass += [0] * (cells - len(mass))
    threshold, alias = [0] * cells, list(range(cells))  # a full cell: nothing is below 0, and its alias is itself
    small = [cell for cell in range(cells) if mass[cell] < full]
    large = [cell for cell in range(cells) if mass[cell] > full]
    while small:
        poor, rich = small.pop(), large[-1]
        threshold[poor], alias[poor] = mass[poor], rich
        mass[rich] -= full - mass[poor]
        if mass[rich] <= full:
            large.pop()
            if mass[rich] < full:
                small.append(rich)
    words = [[t >> 64, (t >> 32) & 0xFFFFFFFF, t & 0xFFFFFFFF] for t in threshold]
    return np.concatenate([np.asarray(words, np.uint32).T, np.asarray(alias, np.uint32)[None]]), k


def discrete_gaussian(key: Array, size: int, deviation: int) -> Array:
    """Independent draws of N_Z(0, s^2), P(x) proportional to exp(-x^2 / (2 s^2)): exact to `TOTAL_VARIATION` if the bits are.

    Ninety-six random bits a draw choose a cell and compare the rest with its threshold, all in integers.

    Args:
      key: typed key.
      size: draws.
      deviation: s, static, a whole number from 1 to 1024.

    Returns:
      i32[size].

    Raises:
      UserError: s out of range.

    Source: Canonne, Kamath & Steinke 2020, "The discrete Gaussian for differential privacy", arXiv 2004.00010.
    """
    table, k = alias_table(deviation)
    top, middle, low, alias = (jnp.asarray(row) for row in table)
    first, second, third = jax.random.bits(key, (3, size), jnp.uint32)
    cell = first >> (32 - k)
    rest = first & jnp.uint32((1 << (32 - k)) - 1)
    at_top, at_middle = top[cell], middle[cell]
    below = (second < at_middle) | ((second == at_middle) & (third < low[cell]))
    kept = (rest < at_top) | ((rest == at_top) & below)
    return jnp.where(kept, cell, alias[cell]).astype(jnp.int32) - REACH * deviation
