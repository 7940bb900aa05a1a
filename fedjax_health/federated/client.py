"""One client's local training: true local epochs (masked) or a fixed number of steps, as one scan over batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_health import tree
from fedjax_health.config import TrainConfig
from fedjax_health.data.population import Population
from fedjax_health.federated import sharding
from fedjax_health.federated.algorithms import ClientAlgorithm
from fedjax_health.models.base import ModelParams
from fedjax_health.types import Array, Batch, Hyper, Metrics, Update


class Plan(NamedTuple):
    """Which records a client visits.

    Attributes:
      steps: S, static number of steps in the program.
      index: (count i32[], key) -> (i32[S, B] record indices, count or more = empty slot; bool[S] whether a step runs).
    """

    steps: int
    index: Callable[[Array, Array], tuple[Array, Array]]


def make_plan(config: TrainConfig, max_count: int) -> Plan:
    """Local epochs or fixed steps.

    "steps": S batches of B records drawn with replacement; every client does the same work.
    "epochs": E passes over the client's own n records in a fresh order each, ceil(n / B) batches a pass, the last one
    partial; the program has ceil(max_count / B) * E steps and those beyond the client's own are skipped.

    Args:
      config: `local`, `local_steps` or `local_epochs`, `batch_size`.
      max_count: most records of any client.
    """
    b = config.batch_size
    if config.local == "steps":
        steps = config.local_steps

        def with_replacement(count: Array, key: Array) -> tuple[Array, Array]:
            u = jax.random.uniform(key, (steps, b))
            index = jnp.minimum((u * count.astype(jnp.float32)).astype(jnp.int32), count - 1)
            return index, jnp.full((steps,), count > 0)

        return Plan(steps, with_replacement)

    per_epoch = -(-max_count // b)
    steps = per_epoch * config.local_epochs

    def epochs(count: Array, key: Array) -> tuple[Array, Array]:
        def order(epoch_key: Array) -> Array:
            rank = jnp.where(jnp.arange(max_count) < count, jax.random.uniform(epoch_key, (max_count,)), 2.0)
            shuffled = jnp.argsort(rank).astype(jnp.int32)  # the client's own records first, in random order
            return jnp.pad(shuffled, (0, per_epoch * b - max_count), constant_values=max_count)

        keys = jax.random.split(key, config.local_epochs)
        index = jax.vmap(order)(keys).reshape(config.local_epochs, per_epoch, b)
        own = -(-count // b)
        live = jnp.broadcast_to(jnp.arange(per_epoch) < own, (config.local_epochs, per_epoch))
        slot = jnp.arange(per_epoch * b).reshape(per_epoch, b)
        index = jnp.where(slot < count, index, max_count)
        return index.reshape(steps, b), live.reshape(steps)

    return Plan(steps, epochs)


def make_run_client(
    population: Population, algorithm: ClientAlgorithm, plan: Plan
) -> Callable[[ModelParams, Any, Array, Hyper, Array], tuple[Update, Metrics]]:
    """Local training of one client.

    Args:
      population: reads the client's records.
      algorithm: what a step does.
      plan: which records, how often.

    Returns:
      run(params, data, client i32[], hyper, key) -> (update = global - local over params.client, metrics averaged over
      the steps that ran). A client without records returns a zero update.
    """

    def run(params: ModelParams, data: Any, client: Array, hyper: Hyper, key: Array) -> tuple[Update, Metrics]:
        key_index, key_init, key_steps = jax.random.split(key, 3)
        index, live = plan.index(population.count(data, client), key_index)
        # one gather (or one simulation) for all steps
        flat = population.batch(data, client, index.reshape(-1))
        batches = jax.tree.map(lambda leaf: leaf.reshape(index.shape + leaf.shape[1:]), flat)

        def body(local, xs):
            batch, runs, step = xs
            new, metrics = algorithm.step(local, Batch(*batch), hyper, jax.random.fold_in(key_steps, step))
            return tree.where(runs, new, local), tree.where(runs, metrics, tree.zeros_like(metrics))

        steps = jnp.arange(plan.steps, dtype=jnp.uint32)
        start = sharding.varying_like(algorithm.init(params, hyper, key_init), index)
        local, metrics = jax.lax.scan(body, start, (batches, live, steps))
        ran = jnp.maximum(jnp.sum(live), 1).astype(jnp.float32)
        return algorithm.final(params, local), jax.tree.map(lambda m: jnp.sum(m, 0) / ran, metrics)

    return run
