"""Unbiased stochastic quantisation of an update to a uniform grid, with one scale a client."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fedjax_health.transforms.base import UpdateTransform, Wire
from fedjax_health.transforms.coder import SCALE_BITS, Coder, make_coded, only
from fedjax_health.transforms.hash_bits import draw_seed, hash_bits
from fedjax_health.types import Array, Update, UserError

# the least scale whose reciprocal is a finite float32; an update below it counts as zero
_LEAST = 1e-37


def _check(bits: int) -> None:
    if not 1 <= bits <= 16:
        raise UserError(f"quantisation to {bits} bits: give 1 to 16 bits a value, or 0 in the config for float32")


def quantize_tree(tree: Any, bits: int, key: Array, kept: Any = None) -> Any:
    """Rounds a tree to 2^bits levels on [-m, m], m = max|u| over all leaves, up or down at random so that E[out] = u.

    out = q 2m/L - m, q = floor((u + m) L/(2m) + U), U ~ Uniform[0, 1), L = 2^bits - 1. The error of a coordinate is below
    one step 2m/L and its variance at most m^2/L^2. The mean is exact to the resolution of float32, about 2^-23 m.
    Stochastic rounding to a uniform grid: Suresh et al. 2017, arXiv 1611.00429 (there on [min, max]).

    Args:
      tree: f32 leaves. NaN or infinity anywhere makes every value sent NaN, which the clip then counts and drops.
      bits: 1 to 16.
      key: typed key of the sender.
      kept: bool tree of the coordinates that are sent (the others become zero), or None = all.

    Returns:
      The decoded tree; zero if the whole tree is below 1e-37.

    Raises:
      UserError: bits out of range.
    """
    _check(bits)
    half = jnp.float32((2**bits - 1) / 2)
    magnitudes = only(kept, jax.tree.map(jnp.abs, tree))
    # jnp.max and jnp.maximum pass NaN on: an update that is not finite must not look finite after decoding
    scale = jnp.float32(0.0)
    for leaf in jax.tree.leaves(magnitudes):
        scale = jnp.maximum(scale, jnp.max(leaf))
    inverse = 1.0 / jnp.maximum(scale, _LEAST)
    step = jnp.where(scale < _LEAST, 0.0, scale / half)
    seed = draw_seed(key)
    leaves, treedef = jax.tree.flatten(tree)
    decoded, start = [], 0
    for leaf in leaves:
        dither = (hash_bits(seed, leaf.shape, start) >> 8).astype(jnp.float32) * jnp.float32(2.0**-24)
        level = jnp.clip(jnp.floor(leaf * inverse * half + (half + dither)), 0.0, 2.0 * half)
        decoded.append((level - half) * step)
        start += leaf.size
    return only(kept, jax.tree.unflatten(treedef, decoded))


def quantized_wire(bits: int, wire: Wire) -> Wire:
    """Wire of the same values at `bits` each and one float32 scale."""
    return wire._replace(bits_per_value=bits, side=wire.side + SCALE_BITS)


def quantize_coder(bits: int) -> Coder:
    """Coder of `quantize_tree`; raises UserError for bits outside 1 to 16."""
    _check(bits)

    def code(update: Update, kept: Any, key: Array) -> Update:
        return quantize_tree(update, bits, key, kept)

    return Coder(code, lambda wire: quantized_wire(bits, wire))


def make_quantize(bits: int) -> UpdateTransform:
    """Sends every value with `bits` bits (see `quantize_tree`) and one scale; raises UserError outside 1 to 16."""
    return make_coded(quantize_coder(bits))
