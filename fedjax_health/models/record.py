"""Gradients of single records, clipped and summed: exact, and for dense layers at about the price of the plain gradient.

A record's gradient of a dense layer y = x w + b is the outer product of its input x_i and its output's gradient d_i, so its
squared norm is (|x_i|^2 + 1) |d_i|^2 and needs no per-record gradient ("ghost" norms: Goodfellow 2015, arXiv 1510.01799; Li et
al. 2021, arXiv 2110.05679). One backward pass gives all d_i; the clipped sum is then x^T (c d), c the clip factors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_health import tree
from fedjax_health.types import Array, Batch, Params, Update


class Ops(NamedTuple):
    """How a loss uses its parameters. What it uses in another way has no gradient in the record-wise forms.

    Attributes:
      affine: (x f32[n, in], w f32[in, out], b f32[out]) -> x w + b; None = the layers' own.
      rows: (v f32[m], n) -> f32[n, m] or f32[1, m], a parameter vector that every record uses as it is.
    """

    affine: Callable[[Array, Array, Array], Array] | None
    rows: Callable[[Array, int], Array]


# (params.client, batch, key, Ops) -> f32[B], the losses of the records
RecordLoss = Callable[[Params, Batch, Array, Ops], Array]
PLAIN = Ops(None, lambda v, n: v[None, :])


class Tap(NamedTuple):
    """One use of parameters.

    Attributes:
      x: f32[B, in], the input of a dense layer; None for a vector.
      d: f32[B, out], gradient of each record's loss with respect to the output.
    """

    x: Array | None
    d: Array


def _affine(x: Array, w: Array, b: Array) -> Array:
    return x @ w + b[None, :]


def taps_of(loss: RecordLoss, params: Params, batch: Batch, key: Array) -> tuple[list[Tap], Array]:
    """Every use of parameters in a loss, from one forward and one backward pass.

    Args:
      loss: losses of the records.
      params: params.client.
      batch: B records.
      key: of the loss's own randomness.

    Returns:
      (taps in the order of use, losses f32[B]).
    """
    shapes: list[tuple[int, ...]] = []

    def noted(y: Array) -> Array:
        shapes.append(y.shape)
        return y

    note = Ops(lambda x, w, b: noted(_affine(x, w, b)), lambda v, n: noted(jnp.broadcast_to(v[None, :], (n, *v.shape))))
    jax.eval_shape(lambda: loss(params, batch, key, note))

    def total(zeros: list[Array]) -> tuple[Array, tuple[list[Array | None], Array]]:
        inputs: list[Array | None] = []

        def affine(x: Array, w: Array, b: Array) -> Array:
            inputs.append(x)
            return _affine(x, w, b) + zeros[len(inputs) - 1]

        def rows(v: Array, n: int) -> Array:
            inputs.append(None)
            return v[None, :] + zeros[len(inputs) - 1]

        losses = loss(params, batch, key, Ops(affine, rows))
        return jnp.sum(losses), (inputs, losses)

    # zeros that differ from device to device where the batch does
    nothing = jnp.where(batch.mask, jnp.float32(0.0), jnp.float32(0.0))[:, None]
    zeros = [jnp.broadcast_to(nothing, shape) for shape in shapes]
    gradients, (inputs, losses) = jax.grad(total, has_aux=True)(zeros)
    return [Tap(x, d) for x, d in zip(inputs, gradients, strict=True)], losses


def square_norms(taps: list[Tap]) -> Array:
    """Squared Euclidean norm of every record's gradient, sum over uses of (|x_i|^2 + 1) |d_i|^2 or |d_i|^2; f32[B].

    Args:
      taps: of `taps_of`; each parameter is used once.
    """

    def square(values: Array) -> Array:
        return jnp.sum(jnp.square(values), -1)

    parts = [square(tap.d) if tap.x is None else (square(tap.x) + 1.0) * square(tap.d) for tap in taps]
    return sum(parts[1:], parts[0])


def clip_factors(square: Array, bound: Array, mask: Array) -> Array:
    """min(1, C / norm) of the records that are there, 0 for empty slots and for norms that are not finite; f32[B].

    Args:
      square: f32[B], squared norms.
      bound: C f32[], > 0.
      mask: bool[B].
    """
    norm = jnp.sqrt(square)
    factor = jnp.where(norm > bound, bound / jnp.maximum(norm, jnp.finfo(jnp.float32).tiny), 1.0)
    return jnp.where(mask & jnp.isfinite(norm), factor, 0.0)


def clipped_sum(
    loss: RecordLoss,
    params: Params,
    batch: Batch,
    key: Array,
    bound: Array,
    product: Callable[[Array, Array], Array] = jnp.matmul,
) -> tuple[Update, Array, Array]:
    """sum_i min(1, C / |g_i|) g_i over the records of a batch; adding a record moves it by at most C.

    Args:
      loss: losses of the records, each parameter used once.
      params: params.client.
      batch: B records.
      key: of the loss's own randomness.
      bound: C f32[].
      product: x @ w whose weight gradient the backend runs fast (see `models.dense`).

    Returns:
      (update, factors f32[B], losses f32[B]).
    """
    taps, losses = taps_of(loss, params, batch, key)
    factor = clip_factors(square_norms(taps), bound, batch.mask)
    column = factor[:, None]

    def kept(values: Array, scale: Array) -> Array:
        return jnp.where(column > 0, scale * values, 0.0)  # 0 times NaN is NaN

    def linear(client: Params) -> Array:
        """sum of c d y over all uses, y the output for fixed inputs: its gradient is the clipped sum."""
        sums: list[Array] = []

        def use(y: Array) -> Array:
            d = taps[len(sums)].d
            sums.append(jnp.sum(kept(d, column) * y))
            return jnp.zeros_like(d)  # what comes after sees other inputs, but only its shapes count

        def affine(x: Array, w: Array, b: Array) -> Array:
            own = taps[len(sums)].x
            assert own is not None
            return use(product(kept(own, jnp.float32(1.0)), w) + b[None, :])

        loss(client, batch, key, Ops(affine, lambda v, n: use(v[None, :])))
        return sum(sums[1:], sums[0])

    return jax.grad(linear)(params), factor, losses


def clipped_sum_mapped(
    field: Callable[[Params, Batch, Array], Update], params: Params, batch: Batch, key: Array, bound: Array
) -> tuple[Update, Array]:
    """The same sum for any model, from every record's own gradient: B times the memory and several times the time.

    Args:
      field: (params.client, batch of one record, key) -> its direction.
      params, batch, bound: as in `clipped_sum`.
      key: split into one a record.
    """
    keys = jax.random.split(key, batch.mask.shape[0])

    def one(record: Batch, own: Array) -> tuple[Update, Array]:
        whole = jax.tree.map(lambda leaf: leaf[None], record)._replace(mask=jnp.ones((1,), bool))
        update = field(params, whole, own)
        return update, jnp.square(tree.global_norm(update))

    updates, square = jax.vmap(one)(batch, keys)
    factor = clip_factors(square, bound, batch.mask)

    def total(leaf: Array) -> Array:
        column = factor.reshape((-1,) + (1,) * (leaf.ndim - 1))
        return jnp.sum(jnp.where(column > 0, column * leaf, 0.0), 0)

    return jax.tree.map(total, updates), factor
