"""The product x @ w of a dense layer, in the form whose weight gradient the backend runs fast.

XLA's CPU backend leaves the weight gradient x^T d of a layer that is mapped over clients as a slow generic product. Written
as a sum over the batch of outer products it becomes one fused loop, together with the optimiser's step that uses it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fedjax_health.types import Array

FORMS = ("auto", "outer", "dot")
MOST_ROWS = 32  # above, the written-out sum compiles slowly and the generic product is no longer slow


@jax.custom_vjp
def outer_product(x: Array, w: Array) -> Array:
    """x @ w whose weight gradient is the sum of outer products sum_b x_b d_b^T; f32[B, in] @ f32[in, out] -> f32[B, out].

    Differentiable twice (a gradient penalty needs it): the backward pass uses this product again. Not for `jax.jvp`.
    """
    return x @ w


def _forward(x: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ w, (x, w)


def _backward(kept: tuple[Array, Array], d: Array) -> tuple[Array, Array]:
    x, w = kept
    outer = [x[b][:, None] * d[b][None, :] for b in range(x.shape[0])]
    return outer_product(d, w.T), functools.reduce(jnp.add, outer)


outer_product.defvjp(_forward, _backward)


def batch_product(rows: int) -> Callable[[Array, Array], Array]:
    """x @ w in the form whose weight gradient the backend runs fast when it is mapped over clients.

    Args:
      rows: of x.
    """
    return outer_product if jax.default_backend() == "cpu" and rows <= MOST_ROWS else jnp.matmul


def make_dot_general(form: str) -> Callable[..., Array] | None:
    """The `dot_general` of a flax dense layer.

    Args:
      form: "outer" (sum of outer products, batches of at most 32 rows), "dot" (XLA's own product), or "auto": "outer" on a CPU,
        "dot" elsewhere.

    Returns:
      A function with the signature of `jax.lax.dot_general`, or None for flax's default.
    """
    if form == "dot" or (form == "auto" and jax.default_backend() != "cpu"):
        return None

    def dot_general(x: Array, w: Array, dimension_numbers: Any, precision: Any = None, **kwargs: Any) -> Array:
        if x.ndim == 2 and x.shape[0] <= MOST_ROWS and precision is None:
            return outer_product(x, w)
        return jax.lax.dot_general(x, w, dimension_numbers, precision=precision, **kwargs)

    return dot_general
