"""Secure aggregation inside a round: the sum modulo 2^32, in the clear or through masks, void without a quorum.

Both aggregators give the same sum and void the same rounds. What they add up are the u32[d] of `transforms.ring`; a member is
a client that began to work in the round, and one whose update does not arrive has dropped out after masking.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_health.federated import sharding
from fedjax_health.federated.aggregate import Aggregator, Attendance, Members, Unmasked, merge_sums
from fedjax_health.secure.masked import check_quorum, masked_sum, round_ring
from fedjax_health.secure.ring import ring_sum
from fedjax_health.types import Array, Metrics, Update


class RingSum(NamedTuple):
    """Running totals: grid steps modulo 2^32, u32[d], and the clients counted, i32[]."""

    update: Array
    count: Array


class Rows(NamedTuple):
    """Updates side by side.

    Attributes:
      update: u32[slots, d].
      client: i32[slots], ids.
      live: bool[slots].
      filled: i32[], slots written so far.
    """

    update: Array
    client: Array
    live: Array
    filled: Array


class Graph(NamedTuple):
    """Who masks with whom: k neighbours each, t of whose shares reveal a secret; a sum is of more than t clients."""

    degree: int
    threshold: int


def _by_id(attendance: Attendance) -> tuple[Array, Array]:
    """(member, alive) in the order of ids, members first: who masks with whom may not depend on slots."""
    last = jnp.iinfo(jnp.int32).max
    order = jnp.argsort(jnp.where(attendance.joined, attendance.client, last), stable=True)
    member = attendance.joined[order]
    return member, attendance.alive[order] & member


def _named(metrics: Metrics) -> Metrics:
    """That a round was void shows in what is published; the rest only the server sees, and not in what it publishes."""
    return {
        f"{'public' if name == 'secure/aborted' else 'sim'}/{name.replace('/', '_')}": value
        for name, value in metrics.items()
    }


def _total(expected: float | None) -> Callable[[RingSum, Array], tuple[Update, Array]]:
    def total(acc: RingSum, key: Array) -> tuple[Update, Array]:
        del key
        came = jnp.maximum(acc.count, 1).astype(jnp.float32)
        return acc.update, came if expected is None else jnp.float32(expected)

    return total


def _enough(least: int, came: Array, ok: Array, metrics: Metrics) -> tuple[Array, Metrics]:
    """Whether there is a quorum and at least so many clients, and the metrics that say so."""
    enough = ok & (came >= least)
    return enough, _named({**metrics, "secure/aborted": 1.0 - enough.astype(jnp.float32)})


def make_ring_sum(expected: float | None, graph: Graph, least: int = 1) -> Aggregator:
    """The ideal sum modulo 2^32 of what arrived, void in the rounds in which the masked one is.

    Args:
      expected: public denominator (see `make_mean`); None divides by the number of clients in the sum.
      graph: k and t.
      least: fewest clients of a sum that is given out, as distributed noise asks.

    Returns:
      Aggregator of u32[d]; every client counts once. It is bit-equal on any chunks and devices.
    """

    def init(update: Update, slots: int) -> RingSum:
        del slots
        return RingSum(jnp.zeros(update.shape, jnp.uint32), jnp.int32(0))

    def add(acc: RingSum, updates: Update, members: Members) -> RingSum:
        came = jnp.sum(members.live, dtype=jnp.int32)
        return RingSum(acc.update + ring_sum(updates, members.live), acc.count + came)

    def unmask(acc: RingSum, attendance: Attendance, key: Array) -> Unmasked:
        member, alive = _by_id(attendance)
        ok, metrics = _enough(least, acc.count, *check_quorum(round_ring(member, key), alive, *graph))
        return Unmasked(acc._replace(update=jnp.where(ok, acc.update, 0)), ok, metrics)

    return Aggregator(init, add, merge_sums, _total(expected), True, unmask)


def make_masked_sum(expected: float | None, graph: Graph, least: int = 1) -> Aggregator:
    """The same sum by way of the masked rows: all of a round's are kept, [C, d] in memory, masked, and unmasked.

    Args and result: as `make_ring_sum`; `add` may not be given more clients than `init` has slots.
    """

    def init(update: Update, slots: int) -> Rows:
        rows = jnp.zeros((slots, *update.shape), jnp.uint32)
        return Rows(rows, jnp.zeros(slots, jnp.int32), jnp.zeros(slots, bool), jnp.int32(0))

    def add(acc: Rows, updates: Update, members: Members) -> Rows:
        def write(rows: Array, chunk: Array) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(rows, chunk, acc.filled, 0)

        update, client = write(acc.update, updates), write(acc.client, members.client)
        return Rows(update, client, write(acc.live, members.live), acc.filled + members.live.shape[0])

    def merge(acc: Rows, totals: Metrics, axis: str) -> tuple[Rows, Metrics]:
        def gather(rows: Array) -> Array:
            return jax.lax.all_gather(rows, axis, tiled=True, to="invarying")

        filled, totals = sharding.all_sum((acc.filled, totals), axis)
        return Rows(gather(acc.update), gather(acc.client), gather(acc.live), filled), totals

    def unmask(acc: Rows, attendance: Attendance, key: Array) -> Unmasked:
        member, alive = _by_id(attendance)
        order = jnp.argsort(jnp.where(acc.live, acc.client, jnp.iinfo(jnp.int32).max), stable=True)
        # the rows of the dead are missing: the i-th alive member has the i-th row
        place = order[jnp.maximum(jnp.cumsum(alive.astype(jnp.int32)) - 1, 0)]
        found = masked_sum(acc.update[place], member, alive, key, *graph)
        came = jnp.sum(alive, dtype=jnp.int32)
        ok, metrics = _enough(least, came, found.ok, found.metrics)
        return Unmasked(RingSum(jnp.where(ok, found.total, 0), came), ok, metrics)

    return Aggregator(init, add, merge, _total(expected), True, unmask, False)
