"""A mean over an integer grid: integers add up to the same sum in any order, so results are bit-equal on any devices."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_health import tree
from fedjax_health.federated.aggregate import Aggregator, Members, merge_sums
from fedjax_health.types import Array, Update, UserError

INT32_MAX = 2**31 - 1
FLOAT32_INTEGERS = 2**24  # float32 holds every integer up to here; a finer grid than that it cannot see


class IntegerSum(NamedTuple):
    """Running totals: the sum of updates in grid steps, a tree of i32, and the clients counted i32[]."""

    update: Update
    count: Array


def grid_step(bound: float, slots: int) -> float:
    """Width of the grid: the smallest power of two with round(bound / step) <= min((2^31 - 1) / slots, 2^24).

    A power of two, since dividing by it and multiplying by it are exact in float32.

    Args:
      bound: largest |coordinate| of an update (> 0), in its unit.
      slots: most updates that are ever summed (> 0), over all devices.

    Returns:
      Step in the update's unit.

    Raises:
      UserError: bound or slots out of range.
    """
    if not (math.isfinite(bound) and bound > 0):
        raise UserError(f"fixed-point bound = {bound}: the grid needs a finite bound > 0; set a finite l2_clip_norm")
    if not 0 < slots <= INT32_MAX:
        raise UserError(f"fixed-point slots = {slots}: must lie in [1, 2^31); use a smaller cohort")
    fraction, exponent = math.frexp(bound / min(INT32_MAX // slots, FLOAT32_INTEGERS))
    return math.ldexp(1.0, exponent - 1 if fraction == 0.5 else exponent)


def make_fixed_point_mean(bound: float, slots: int, expected: float | None) -> Aggregator:
    """Mean of updates that are each rounded to the nearest multiple of `grid_step(bound, slots)`, summed in int32.

    q = round(clip(u, -bound, bound) / step); total = step * sum q. The sum cannot overflow, and does not depend on chunks,
    order or number of devices. Every client counts once, whatever its weight, except that weight 0 counts as absent.

    Bounded, with a caveat: rounding moves a coordinate by at most step / 2, so that an update of norm C leaves with at most
    C + sqrt(d) step / 2; an exact proof adds that to the bound.

    Args:
      bound: largest |coordinate|, such as the clip norm; what is larger is cut to it, and NaN counts as 0.
      slots: most updates in a round, over all devices.
      expected: public denominator (see `make_mean`); None divides by the number of clients that came.

    Raises:
      UserError: bound or slots out of range.
    """
    step = grid_step(bound, slots)

    def quantise(leaf: Array) -> Array:
        inside = jnp.clip(jnp.where(jnp.isnan(leaf), 0.0, leaf), -bound, bound)
        return jnp.round(inside / step).astype(jnp.int32)

    def init(update: Update, slots: int) -> IntegerSum:
        del slots
        return IntegerSum(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.int32), update), jnp.int32(0))

    def add(acc: IntegerSum, updates: Update, members: Members) -> IntegerSum:
        counts = members.live & (members.weight > 0)

        def summed(leaf: Array) -> Array:
            rows = counts.reshape((-1,) + (1,) * (leaf.ndim - 1))
            return jnp.sum(jnp.where(rows, quantise(leaf), 0), 0)

        return IntegerSum(tree.add(acc.update, jax.tree.map(summed, updates)), acc.count + jnp.sum(counts))

    def total(acc: IntegerSum, key: Array) -> tuple[Update, Array]:
        del key
        update = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) * step, acc.update)
        came = jnp.maximum(acc.count, 1).astype(jnp.float32)
        return update, came if expected is None else jnp.float32(expected)

    return Aggregator(init, add, merge_sums, total, True)
