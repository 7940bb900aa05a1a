"""A keyed pseudo-random permutation of 0 ... n - 1, evaluated point by point: distinct draws without a list of all."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fedjax_health.types import Array

ROUNDS = 8


def _mix(x: Array) -> Array:
    """Invertible 32-bit mixing with full avalanche ("lowbias32", Wellons 2018)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def permute(index: Array, n: int, key: Array) -> Array:
    """Position of each index under a random permutation of 0 ... n - 1: a Feistel network with cycle walking.

    The network permutes 0 ... 2^b - 1, 2^b the next even power of two; a value of n or more is permuted again until it is
    below n (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"): less than four rounds on average.

    Args:
      index: i32[C], values in [0, n).
      n: size of the domain, 1 to 2^30.
      key: typed key.

    Returns:
      i32[C], different for different indices.
    """
    half = max((n - 1).bit_length() + 1, 2) // 2
    low = jnp.uint32((1 << half) - 1)
    words = jax.random.bits(key, (ROUNDS,))

    def network(x: Array) -> Array:
        left, right = x >> half, x & low
        for i in range(ROUNDS):
            left, right = right, left ^ (_mix(right ^ words[i]) & low)
        return (left << half) | right

    def walk(x: Array) -> Array:
        return jnp.where(x >= n, network(x), x)

    start = network(index.astype(jnp.uint32))
    return jax.lax.while_loop(lambda x: jnp.any(x >= n), walk, start).astype(jnp.int32)
