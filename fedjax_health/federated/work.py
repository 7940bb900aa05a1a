"""The work of a cohort: its clients dealt over the devices, trained a chunk at a time, summed as they come.

The only file that knows about `vmap`, chunks and devices; everything it calls sees one client.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from fedjax_health import rng
from fedjax_health.federated import sharding
from fedjax_health.federated.aggregate import Members
from fedjax_health.federated.algorithms import Start
from fedjax_health.federated.federation import Memory, Parts, memory_row
from fedjax_health.transforms.base import Keys
from fedjax_health.types import Array, Hyper, Metrics


class Tasks(NamedTuple):
    """A cohort ready for work; every leaf has the leading axis C.

    Attributes:
      client: i32[C].
      live: bool[C], False for an empty slot and for a client that dropped out.
      source: i32[C], which of the models on offer the client starts from.
      weight: f32[C], >= 0, public factor of its update (1, or what staleness leaves).
    """

    client: Array
    live: Array
    source: Array
    weight: Array


class Shared(NamedTuple):
    """What all clients of a round are given.

    Attributes:
      models: what `pick` chooses a client's Start from.
      memory: of all clients, f32[K, D], or () where nothing is remembered.
      data: what the population reads.
      hyper: traced numbers.
      clients: typed key of the clients' own randomness.
      common: typed key that all clients of the round know.
    """

    models: Any
    memory: Any
    data: Any
    hyper: Hyper
    clients: Array
    common: Array


class Result(NamedTuple):
    """What the cohort's work leaves.

    Attributes:
      acc: the merged accumulator.
      totals: sums of metrics over live clients.
      tasks: the tasks, in the order in which they were dealt.
      memory: what each remembers now, f32[C, D] in that order, or ().
    """

    acc: Any
    totals: Metrics
    tasks: Tasks
    memory: Any


def live_first(live: Array) -> Array:
    """The order that puts live tasks first and leaves each kind in its order, without a sort.

    Args:
      live: bool[C].

    Returns:
      i32[C], a permutation of 0 ... C - 1.
    """
    before = jnp.cumsum(live.astype(jnp.int32))
    index = jnp.arange(live.shape[0], dtype=jnp.int32)
    place = jnp.where(live, before - 1, before[-1] + index - before)
    return jnp.zeros_like(index).at[place].set(index, unique_indices=True)


def make_work(parts: Parts, pick: Callable[[Any, Array], tuple[Any, Any]]) -> Callable[[Shared, Tasks], Result]:
    """The work of a cohort.

    Live clients come first and are dealt round-robin over the devices, so that all have the same number of chunks; chunks
    without live clients are not run. With clients of different sizes the large ones come first: a chunk takes as many steps
    as its largest client.

    Args:
      parts: the federation; C must be a multiple of its devices times its clients a chunk.
      pick: (models, source i32[]) -> (global ModelParams, control) that the client starts from.

    Returns:
      work(shared, tasks) -> Result.
    """
    mesh, population, aggregator = parts.mesh, parts.population, parts.aggregator
    clients_per_chunk = parts.clients_per_chunk
    ragged = population.min_count != population.max_count

    def one(shared: Shared, task: Tasks, row: Any) -> tuple[Any, Any, Array, Metrics]:
        params, control = pick(shared.models, task.source)
        fresh, to_memory = memory_row(parts, params.client)
        remembered = to_memory(row if fresh.size else fresh)
        own = rng.client_key(shared.clients, task.client)
        start = Start(params, control, remembered.slot)
        message, slot, metrics = parts.run_client(
            start, shared.data, task.client, shared.hyper, jax.random.fold_in(own, 0)
        )
        keys = Keys(jax.random.fold_in(own, 1), shared.common)
        message, memory, more = parts.transform.client(message, remembered.transform, shared.hyper, keys)
        weight = task.weight
        if parts.by_examples:
            weight *= population.count(shared.data, task.client).astype(jnp.float32)
        row = ravel_pytree(Memory(slot, memory))[0] if fresh.size else ()
        return message, row, weight, {**metrics, **more}

    def on_device(shared: Shared, tasks: Tasks) -> tuple[Any, Metrics, Any]:
        """Runs on one device, over its share [C / devices] of the tasks."""
        shared = sharding.varying(shared)
        share = tasks.client.shape[0]
        # read once, and written over as they change
        rows = jax.tree.map(lambda leaf: leaf[tasks.client], shared.memory)
        message, _, _, metrics = jax.eval_shape(one, shared, *jax.tree.map(lambda leaf: leaf[0], (tasks, rows)))
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (message, metrics))
        begin = aggregator.init(zeros[0], share), zeros[1], rows

        def chunk(i: Array, carry: tuple[Any, Metrics, Any]) -> tuple[Any, Metrics, Any]:
            acc, totals, memory = carry
            at = i * clients_per_chunk
            mine, old = jax.tree.map(
                lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, at, clients_per_chunk), (tasks, memory)
            )
            messages, new, weight, metrics = jax.vmap(one, (None, 0, 0))(shared, mine, old)
            acc = aggregator.add(acc, messages, Members(mine.client, mine.live, weight, mine.source))
            totals = {k: totals[k] + jnp.sum(jnp.where(mine.live, m, 0.0)) for k, m in metrics.items()}
            memory = jax.tree.map(lambda all_, own: jax.lax.dynamic_update_slice_in_dim(all_, own, at, 0), memory, new)
            return acc, totals, memory

        chunks = -(-jnp.sum(tasks.live.astype(jnp.int32)) // clients_per_chunk)
        if clients_per_chunk == share:
            acc, totals, memory = chunk(jnp.int32(0), sharding.varying(begin))
        else:
            acc, totals, memory = jax.lax.fori_loop(0, chunks, chunk, sharding.varying(begin))
        memory = jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, sharding.AXIS, tiled=True, to="invarying"), memory)
        return *aggregator.merge(acc, totals, sharding.AXIS), memory

    mapped = sharding.over_clients(mesh, on_device)

    def work(shared: Shared, tasks: Tasks) -> Result:
        if ragged:
            count = jax.vmap(population.count, (None, 0))(shared.data, tasks.client)
            rank = jnp.where(tasks.live, population.max_count - count, population.max_count + 1)
            order = jnp.argsort(rank, stable=True)
        else:
            order = live_first(tasks.live)
        # rank k goes to device k % devices
        order = order.reshape(-1, mesh.size).T.reshape(-1)
        dealt = jax.tree.map(lambda leaf: leaf[order], tasks)
        acc, totals, memory = mapped(shared, dealt)
        return Result(acc, totals, dealt, memory)

    return work
