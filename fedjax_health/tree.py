"""Small operations on pytrees that the federated stack needs and optax does not give in a NaN-safe, masked form."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health.types import Array

FOLD = 16


def size(tree: Any) -> int:
    """Number of scalars in a tree of arrays (or ShapeDtypeStructs)."""
    return sum(int(leaf.size) for leaf in jax.tree.leaves(tree))


def zeros_like(tree: Any) -> Any:
    """A tree of zeros of the same shapes and dtypes."""
    return jax.tree.map(jnp.zeros_like, tree)


def scale(factor: Array, tree: Any) -> Any:
    """factor * leaf for every leaf; factor f32[]."""
    return jax.tree.map(lambda leaf: factor * leaf, tree)


def add(a: Any, b: Any) -> Any:
    """Leaf by leaf a + b."""
    return jax.tree.map(jnp.add, a, b)


def subtract(a: Any, b: Any) -> Any:
    """Leaf by leaf a - b."""
    return jax.tree.map(jnp.subtract, a, b)


def where(condition: Array, a: Any, b: Any) -> Any:
    """Selects whole trees by one bool[]; unlike multiplying by a mask it keeps NaN of the other side out."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def _square_sum(leaf: Array) -> Array:
    """Sum of squares, f32[]; long vectors are first folded 16-fold by sums that are written out: XLA's CPU backend makes
    one fast loop of that and of whatever made the vector, and a slow one of a plain sum."""
    square = jnp.square(leaf.reshape(-1))
    while square.size >= 64 * FOLD:
        short = square.size // FOLD
        rows = square[: short * FOLD].reshape(FOLD, short)
        folded = functools.reduce(jnp.add, [rows[i] for i in range(FOLD)])
        rest = square[short * FOLD :]
        square = jnp.concatenate([folded, rest]) if rest.size else folded
    return jnp.sum(square)


def global_norm(tree: Any) -> Array:
    """Euclidean norm over all leaves, f32[]; its gradient at zero is zero, not NaN (double where); NaN stays NaN."""
    square = functools.reduce(jnp.add, map(_square_sum, jax.tree.leaves(tree)), jnp.float32(0.0))
    zero = square == 0  # not `square > 0`: that is False for NaN too, and a NaN update would pass for a norm of 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, square)))


def normal_like(key: Array, tree: Any) -> Any:
    """Independent standard normal numbers in the shapes of a tree's leaves, f32, from one draw."""
    leaves, treedef = jax.tree.flatten(tree)
    draw = jax.random.normal(key, (size(tree),))
    parts = jnp.split(draw, np.cumsum([leaf.size for leaf in leaves])[:-1].tolist())
    return jax.tree.unflatten(treedef, [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)])


def all_finite(tree: Any) -> Array:
    """bool[]: True where no leaf holds NaN or infinity."""
    finite = jnp.bool_(True)
    for leaf in jax.tree.leaves(tree):
        finite &= jnp.all(jnp.isfinite(leaf))
    return finite


def split_key_like(key: Array, tree: Any) -> Any:
    """One key a leaf, in a tree of the same structure: noise on two leaves is never the same noise."""
    leaves, treedef = jax.tree.flatten(tree)
    return jax.tree.unflatten(treedef, list(jax.random.split(key, len(leaves))))
