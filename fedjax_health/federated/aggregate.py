"""Aggregators: monoids over clients, so that chunks and devices combine in any grouping."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_health import tree
from fedjax_health.federated import sharding
from fedjax_health.types import Array, Metrics, Update

MOST_WRITTEN_OUT = 16


class Members(NamedTuple):
    """The clients behind a chunk's updates.

    Attributes:
      client: i32[c], ids.
      live: bool[c], False for empty slots and clients that dropped out: nothing of them may count.
      weight: f32[c], >= 0 (1, or the number of records, times what staleness leaves).
      source: i32[c], which of the models on offer each started from (an institution, a version).
    """

    client: Array
    live: Array
    weight: Array
    source: Array


class Attendance(NamedTuple):
    """Who came to a round, over its slots.

    Attributes:
      client: i32[C], ids.
      joined: bool[C], began to work: of these secure aggregation is made.
      alive: bool[C], of these the update arrived.
    """

    client: Array
    joined: Array
    alive: Array


class Unmasked(NamedTuple):
    """What secure aggregation makes of an accumulator.

    Attributes:
      acc: that `total` reads; a sum of zero if not ok.
      ok: bool[]; False: too few came, and the round is void.
      metrics: scalars.
    """

    acc: Any
    ok: Array
    metrics: Metrics


class Aggregator(NamedTuple):
    """A monoid.

    Attributes:
      init: (update-shaped tree, slots this device will add) -> empty accumulator.
      add: (accumulator, updates with a leading chunk axis, Members) -> accumulator.
      merge: (accumulator, totals, mesh axis name) -> both of all devices. Totals are sums of metrics, which travel along.
      total: (accumulator, key) -> (sum of updates, what to divide it by f32[]); noise goes between the two.
      bounded: whether one client changes the sum by at most its own (weighted) update, as noise on the sum needs.
      unmask: with secure aggregation (merged accumulator, Attendance, key) -> Unmasked, once before `total`.
      takes_more: whether `add` may be given more updates than `init` has slots.
    """

    init: Callable[[Update, int], Any]
    add: Callable[[Any, Update, Members], Any]
    merge: Callable[[Any, Metrics, str], tuple[Any, Metrics]]
    total: Callable[[Any, Array], tuple[Update, Array]]
    bounded: bool
    unmask: Callable[[Any, Attendance, Array], Unmasked] | None = None
    takes_more: bool = True


class Sum(NamedTuple):
    """Running totals: the weighted sum of updates and the sum of weights f32[]."""

    update: Update
    weight: Array


def weighted_sum(leaf: Array, weight: Array | None, live: Array) -> Array:
    """sum_i w_i u_i over the live ones; where, not times: a dead slot's NaN must not get through.

    Written out for few clients, so that XLA makes one loop of it and of whatever made the updates.

    Args:
      leaf: f32[c, ...].
      weight: f32[c]; None = all 1.
      live: bool[c].

    Returns:
      f32[...].
    """
    if leaf.shape[0] <= MOST_WRITTEN_OUT:
        rows = range(leaf.shape[0])
        parts = [jnp.where(live[i], leaf[i] if weight is None else leaf[i] * weight[i], 0.0) for i in rows]
        return functools.reduce(jnp.add, parts)
    columns = (-1,) + (1,) * (leaf.ndim - 1)
    weighted = leaf if weight is None else leaf * weight.reshape(columns)
    return jnp.sum(jnp.where(live.reshape(columns), weighted, 0.0), 0)


def merge_sums(acc: Any, totals: Metrics, axis: str) -> tuple[Any, Metrics]:
    """`Aggregator.merge` of an accumulator that is itself a sum.

    Args:
      acc, totals: trees of this device's sums.
      axis: of the mesh.
    """
    return sharding.all_sum((acc, totals), axis)


def make_mean(expected: float | None, unit: bool = False) -> Aggregator:
    """Weighted mean of the updates.

    Args:
      expected: public denominator. With differential privacy it is the expected cohort, since the realised one depends
        on who takes part; None divides by the realised sum of weights.
      unit: whether all weights are known to be 1, which saves a product an element.
    """

    def init(update: Update, slots: int) -> Sum:
        del slots
        return Sum(tree.zeros_like(update), jnp.float32(0.0))

    def add(acc: Sum, updates: Update, members: Members) -> Sum:
        weight = jnp.where(members.live, members.weight, 0.0)

        factor = None if unit else weight
        total = jax.tree.map(lambda leaf: weighted_sum(leaf, factor, members.live), updates)
        return Sum(tree.add(acc.update, total), acc.weight + jnp.sum(weight))

    def total(acc: Sum, key: Array) -> tuple[Update, Array]:
        del key
        return acc.update, jnp.where(acc.weight > 0, acc.weight, 1.0) if expected is None else jnp.float32(expected)

    return Aggregator(init, add, merge_sums, total, True)
