"""Small operations on pytrees that the federated stack needs and optax does not give in a NaN-safe, masked form."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fedjax_health.types import Array


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


def global_norm(tree: Any) -> Array:
    """Euclidean norm over all leaves, f32[]; its gradient at zero is zero, not NaN (double where); NaN stays NaN."""
    square = sum((jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)), jnp.float32(0.0))
    zero = square == 0  # not `square > 0`: that is False for NaN too, and a NaN update would pass for a norm of 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, square)))


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
