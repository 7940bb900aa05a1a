"""A typed random generator whose numbers nobody can tell from chance without the key: ChaCha20 with keys of 256 bits.

Threefry's keys have 64 bits, of which a seed fills 31; here a key is eight words, and every key made of another one has
256 bits again. The cipher is that of RFC 8439, block by block: constants, key, a counter of 32 bits and a nonce of 96. Its
nonce keeps three uses of a key apart, so that no block is ever computed for two of them:

    draw        nonce (1, 0, 0)    counter 0, 1, ...    16 words each
    fold_in     nonce (2, data, 0) counter 0            the first 8 words are the new key
    split       nonce (3, i, 0)    counter 0            the first 8 words are key number i

Keys made of keys in this way are a pseudo-random function of their whole address (Goldreich, Goldwasser & Micali 1986, "How
to construct random functions"), as far as the block is one of counter and nonce (Bernstein 2008, "ChaCha, a variant of
Salsa20"; Nir & Langley 2018, RFC 8439). What is drawn is as good as the words; a normal number made of one has 23 of its bits.
"""

from __future__ import annotations

import functools
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import random as extended

from fedjax_health.types import Array

KEY_WORDS, BLOCK_WORDS = 8, 16
ROUNDS = 20
CONSTANTS = np.frombuffer(b"expand 32-byte k", "<u4")
# rows 1, 2 and 3 turned by 1, 2 and 3 places, so that diagonals become columns, and back
DIAGONALS = np.array([0, 1, 2, 3, 5, 6, 7, 4, 10, 11, 8, 9, 15, 12, 13, 14])
TURNS = np.stack([DIAGONALS, np.argsort(DIAGONALS)])
DRAW, FOLD_IN, SPLIT = 1, 2, 3  # first word of the nonce: what a block is for; never reuse a number
LANES = 16  # blocks of a large draw are a multiple: XLA's CPU backend runs other sizes at a fraction of the speed


def _rotate(x: Array, by: int) -> Array:
    return (x << by) | (x >> (32 - by))


def _quarter(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, Array, Array, Array]:
    """Four quarter rounds side by side, one a column (RFC 8439, 2.1)."""
    a = a + b
    d = _rotate(d ^ a, 16)
    c = c + d
    b = _rotate(b ^ c, 12)
    a = a + b
    d = _rotate(d ^ a, 8)
    c = c + d
    b = _rotate(b ^ c, 7)
    return a, b, c, d


def block(key: Array, counter: Array, nonce: tuple[Array | int, Array | int, Array | int]) -> Array:
    """Blocks of the key stream: 20 rounds over constants, key, counter and nonce, plus these (RFC 8439, 2.3).

    Args:
      key: u32[8].
      counter: u32[...], numbers of the blocks.
      nonce: three words, u32[] or of the counter's shape.

    Returns:
      u32[16, ...], the words of each block along the first axis.
    """
    others = [jnp.asarray(word, jnp.uint32) for word in nonce]
    shape = counter.shape
    words = [*(jnp.uint32(c) for c in CONSTANTS), *(key[i] for i in range(KEY_WORDS)), counter, *others]
    # a loop's carry must differ over a mesh's devices from the start, where a key or a nonce does
    zero = functools.reduce(operator.or_, (jnp.broadcast_to(word ^ word, shape) for word in (key[0], counter, *others)))
    start = jnp.stack([jnp.broadcast_to(word, shape) | zero for word in words])

    def step(i: Array, state: Array) -> Array:
        a, b, c, d = state.reshape(4, 4, *shape)
        return jnp.concatenate(_quarter(a, b, c, d))[jnp.asarray(TURNS)[i % 2]]

    # one array that is turned as a whole: a program a step on a CPU, of which others would take three times as long to compile;
    # on an accelerator a loop is many programs to start, and written out it is one
    unroll = 1 if jax.default_backend() == "cpu" else ROUNDS
    return jax.lax.fori_loop(0, ROUNDS, step, start, unroll=unroll) + start


def _blocks(words: int) -> int:
    """Blocks for so many words."""
    count = -(-words // BLOCK_WORDS)
    if count > LANES:
        count = -(-count // LANES) * LANES
    if count >= 2**32:
        raise ValueError(f"{words} words in one draw; a key has {2**32 - 1} blocks of {BLOCK_WORDS}")
    return count


def _seed(seed: Array | int) -> Array:
    word = jnp.asarray(seed).astype(jnp.uint32)
    return jnp.concatenate([word[None], jnp.zeros((KEY_WORDS - 1,), jnp.uint32)])


def _fold_in(key: Array, data: Array | int) -> Array:
    data = jnp.asarray(data).astype(jnp.uint32)
    return block(key, jnp.zeros((), jnp.uint32), (FOLD_IN, data, 0))[:KEY_WORDS]


def _split(key: Array, shape: tuple[int, ...]) -> Array:
    size = math.prod(shape)
    if size >= 2**32:
        raise ValueError(f"{size} keys in one split; at most {2**32 - 1}")
    number = jax.lax.iota(jnp.uint32, size).reshape(shape)
    return jnp.moveaxis(block(key, jnp.zeros_like(number), (SPLIT, number, 0))[:KEY_WORDS], 0, -1)


def _random_bits(key: Array, bit_width: int, shape: tuple[int, ...]) -> Array:
    if bit_width == 64:
        raise ValueError("64-bit draws need x64, which this project does not use")
    size, each = math.prod(shape), 32 // bit_width
    counter = jax.lax.iota(jnp.uint32, _blocks(-(-size // each)))
    # the stream word by word over all blocks, not block by block: a transposition would cost more than the order is worth
    words = block(key, counter, (DRAW, 0, 0)).reshape(-1)
    if each > 1:
        words = jax.lax.bitcast_convert_type(words, jnp.dtype(f"uint{bit_width}")).reshape(-1)
    return words[:size].reshape(shape)


CHACHA20 = extended.define_prng_impl(
    key_shape=(KEY_WORDS,),
    seed=_seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="chacha20",
    tag="cha",
)


def key_of(words: np.ndarray | Array) -> Array:
    """The typed key with these bits; whoever holds them can make every number again.

    Args:
      words: u32[..., 8].

    Returns:
      Typed keys [...].

    Raises:
      TypeError, ValueError: not of that shape or dtype (JAX).
    """
    return jax.random.wrap_key_data(jnp.asarray(words), impl=CHACHA20)
