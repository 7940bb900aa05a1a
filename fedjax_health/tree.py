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


def _folded_squares(leaf: Array) -> Array:
    """A short vector f32[m] with the sum of squares of a leaf: long ones are folded 16-fold by sums that are written out.
    XLA's CPU backend makes one fast loop of that and of whatever made the leaf, and a slow one of a plain sum."""
    rows, square = leaf.reshape(-1), None
    while rows.size >= 16 * FOLD:
        short = rows.size // FOLD
        parts = [rows[i * short : (i + 1) * short] for i in range(FOLD)]
        folded = functools.reduce(jnp.add, [part * part if square is None else part for part in parts])
        rest = rows[short * FOLD :]
        if rest.size:
            folded = jnp.concatenate([folded, rest * rest if square is None else rest])
        rows = square = folded
    return rows * rows if square is None else square


def global_norm(tree: Any) -> Array:
    """Euclidean norm over all leaves, f32[]; its gradient at zero is zero, not NaN (double where); NaN stays NaN."""
    short = [_folded_squares(leaf) for leaf in jax.tree.leaves(tree)]
    square = jnp.sum(jnp.concatenate(short)) if short else jnp.float32(0.0)
    zero = square == 0  # not `square > 0`: that is False for NaN too, and a NaN update would pass for a norm of 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, square)))


def normal_like(key: Array, tree: Any) -> Any:
    """Independent standard normal numbers in the shapes of a tree's leaves, f32, from one draw."""
    leaves, treedef = jax.tree.flatten(tree)
    total = size(tree)
    # a multiple of 64: XLA's CPU backend runs other sizes at a fraction of the speed
    draw = jax.random.normal(key, (-(-total // 64) * 64,))[:total]
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
