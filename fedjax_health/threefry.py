"""JAX's own generator, threefry-2x32, with its rounds written out: the same numbers, without a loop on the CPU.

On a CPU JAX runs the rounds as a loop, so that programs compile faster; each draw is then some eighty tiny operations, and a
round of small clients spends more time on keys than on arithmetic. Written out, a draw is one fused loop over its elements.
Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; the layout of counters is that of
`jax_threefry_partitionable`.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import random as extended

from fedjax_health.types import Array

LANES = 64
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def _rotate(x: Array, by: int) -> Array:
    return (x << by) | (x >> (32 - by))


def threefry(key: Array, high: Array, low: Array) -> tuple[Array, Array]:
    """Twenty rounds of threefry-2x32.

    Args:
      key: u32[2].
      high, low: u32[...], the two halves of the counters.

    Returns:
      (u32[...], u32[...]).
    """
    first, second = key[0], key[1]
    schedule = (first, second, first ^ second ^ np.uint32(0x1BD11BDA))
    # scalars of rank 0 against counters of any rank
    schedule = tuple(jax.lax.broadcast(word, high.shape) for word in schedule)
    x, y = high + schedule[0], low + schedule[1]
    for i in range(5):
        for by in ROTATIONS[i % 2]:
            x = x + y
            y = x ^ _rotate(y, by)
        x = x + schedule[(i + 1) % 3]
        y = y + schedule[(i + 2) % 3] + np.uint32(i + 1)
    return x, y


def _counters(shape: tuple[int, ...]) -> tuple[Array, Array]:
    size = math.prod(shape)
    if size >= 2**32:
        raise ValueError(f"{size} numbers in one draw; at most 2^32 - 1")
    return jnp.zeros(shape, jnp.uint32), jax.lax.iota(jnp.uint32, size).reshape(shape)


def _seed(seed: Array | int) -> Array:
    seed = jnp.asarray(seed)
    return jnp.stack([jnp.zeros((), jnp.uint32), seed.astype(jnp.uint32)])


def _split(key: Array, shape: tuple[int, ...]) -> Array:
    return jnp.stack(threefry(key, *_counters(shape)), -1)


def _fold_in(key: Array, data: Array | int) -> Array:
    return jnp.stack(threefry(key, *_seed(data)))


def _padded(shape: tuple[int, ...]) -> int:
    """Size of a draw, rounded up to whole vector registers: XLA's CPU backend runs other sizes at a quarter of the speed."""
    return -(-math.prod(shape) // LANES) * LANES


def _word(key: Array, size: int) -> Array:
    x, y = threefry(key, *_counters((size,)))
    return x ^ y


def _word_kept_apart(key: Array, size: int) -> Array:
    """`_word` in a loop that runs once, which the compiler cannot know: the only way to keep XLA's CPU backend from fusing
    the rounds into what uses the draw, where they would run again for every use (each pair of a comparison, say)."""
    once = jnp.maximum(key[0], jnp.uint32(1))
    zero = once - once  # differs over a mesh's devices where the key does, as the loop's types ask

    def body(state: tuple[Array, Array]) -> tuple[Array, Array]:
        del state
        return jnp.full_like(once, 2**32 - 1), _word(key, size)

    return jax.lax.while_loop(lambda state: state[0] < once, body, (zero, jax.lax.broadcast(zero, (size,))))[1]


def _random_bits(key: Array, bit_width: int, shape: tuple[int, ...]) -> Array:
    if bit_width == 64:
        raise ValueError("64-bit draws need x64, which this project does not use")
    draw = _word_kept_apart if jax.default_backend() == "cpu" else _word
    word = draw(key, _padded(shape))[: math.prod(shape)].reshape(shape)
    return word if bit_width == 32 else word.astype(jnp.dtype(f"uint{bit_width}"))


UNROLLED = extended.define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="threefry_unrolled",
    tag="fry",
)


def is_key(leaf: Any) -> bool:
    """Whether an array (or a ShapeDtypeStruct) holds typed keys."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def root_key(seed: int | Array) -> Array:
    """A typed key from which a run's randomness is addressed, with the numbers of `jax.random.key(seed)`.

    Args:
      seed: i32 or u32 scalar, >= 0.
    """
    return jax.random.key(seed, impl=UNROLLED)
