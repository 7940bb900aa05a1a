"""Aggregators: monoids over clients, so that chunks and devices combine in any grouping."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_health import tree
from fedjax_health.types import Array, Update


class Sum(NamedTuple):
    """Running totals: the weighted sum of updates and the sum of weights f32[]."""

    update: Update
    weight: Array


class Aggregator(NamedTuple):
    """A monoid.

    Attributes:
      init: update-shaped tree -> empty Sum.
      add: (Sum, updates with a leading chunk axis, live bool[c], record counts i32[c]) -> Sum.
      merge: (Sum, mesh axis name) -> Sum over all devices.
      done: Sum -> mean update.
    """

    init: Callable[[Update], Sum]
    add: Callable[[Sum, Update, Array, Array], Sum]
    merge: Callable[[Sum, str], Sum]
    done: Callable[[Sum], Update]


def make_mean(weighting: str, expected: float | None) -> Aggregator:
    """Mean of the updates.

    Args:
      weighting: "equal" (w = 1) or "examples" (w = number of records).
      expected: public denominator. With differential privacy it is the expected cohort, since the realised one depends
        on who takes part; None divides by the realised sum of weights.
    """

    def init(update: Update) -> Sum:
        return Sum(tree.zeros_like(update), jnp.float32(0.0))

    def add(acc: Sum, updates: Update, live: Array, count: Array) -> Sum:
        weight = jnp.where(live, 1.0 if weighting == "equal" else count.astype(jnp.float32), 0.0).astype(jnp.float32)

        def total(leaf: Array) -> Array:
            shape = (-1,) + (1,) * (leaf.ndim - 1)
            # where, not times: a dead slot's NaN must not get through
            return jnp.sum(jnp.where(live.reshape(shape), leaf * weight.reshape(shape), 0.0), 0)

        return Sum(tree.add(acc.update, jax.tree.map(total, updates)), acc.weight + jnp.sum(weight))

    def merge(acc: Sum, axis: str) -> Sum:
        return jax.lax.psum(acc, axis)

    def done(acc: Sum) -> Update:
        denominator = jnp.maximum(acc.weight, 1.0) if expected is None else jnp.float32(expected)
        return tree.scale(1.0 / denominator, acc.update)

    return Aggregator(init, add, merge, done)
