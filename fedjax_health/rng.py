"""Keys are addressed, not carried: every random number has an address (root, round, stream, client).

Results then do not depend on chunk size, slot order, device count, or where a run was interrupted.
"""

from __future__ import annotations

import enum
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health.types import Array


class Stream(enum.IntEnum):
    """One number per use of randomness; never renumber (it would change every published result)."""

    INIT = 1
    COHORT = 2
    CLIENT = 3
    NOISE = 4
    REFINE = 5
    SYNTHESIS = 6
    INCLUDE = 7
    SPLIT = 8
    SIMULATE = 9
    EVALUATE = 10
    ATTACK = 11
    CLASS_PRIOR = 12
    DEVICES = 13
    DOWNLOAD = 14
    TRANSFORM = 15
    AGGREGATE = 16
    POISON = 17
    CANARY = 18
    SPREAD = 19
    BALLOT = 20


def stream_key(root: Array, round_index: Array | int, stream: Stream) -> Array:
    """Key of one stream in one round: fold_in(fold_in(root, round), stream).

    Args:
      root: typed key of the federation.
      round_index: i32[], round number.
      stream: what the randomness is for.

    Returns:
      Typed key.
    """
    return jax.random.fold_in(jax.random.fold_in(root, jnp.asarray(round_index, jnp.uint32)), int(stream))


def client_key(key: Array, client: Array) -> Array:
    """Key of one client under a stream's key: fold_in(key, client id).

    Args:
      key: typed key from `stream_key`.
      client: i32[], global client id (never a slot or a device index).

    Returns:
      Typed key.
    """
    return jax.random.fold_in(key, client.astype(jnp.uint32))


def numbered_keys(root: Array, count: int) -> Array:
    """Keys of things that stand side by side: fold_in(root, i), i = 0 ... count - 1.

    Args:
      root: typed key.
      count: how many.

    Returns:
      Typed keys [count]; the first ones do not depend on how many there are.
    """
    return jax.vmap(lambda i: jax.random.fold_in(root, i))(jnp.arange(count, dtype=jnp.uint32))


def named_seed(seed: int, *names: str) -> int:
    """Stable 31-bit seed for a named part of a run, such as (seed, "vitals", "vae").

    Args:
      seed: the run's seed, >= 0.
      *names: path of the part; order matters.

    Returns:
      Integer in [0, 2^31).
    """
    return zlib.crc32("/".join((str(seed), *names)).encode()) & 0x7FFFFFFF


def host_rng(seed: int, stream: Stream, *names: str) -> np.random.Generator:
    """NumPy generator for host-side randomness (splits, bootstrap), addressed like the device keys.

    Args:
      seed: the run's seed, >= 0.
      stream: what the randomness is for.
      *names: further address, such as the domain.

    Returns:
      numpy Generator.
    """
    return np.random.default_rng([named_seed(seed, *names), int(stream)])
