"""One client's local training: true local epochs (masked) or a fixed number of steps, as one loop over batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_health import tree
from fedjax_health.data.population import Population
from fedjax_health.federated import sharding
from fedjax_health.federated.algorithms import Algorithm, Local, Start
from fedjax_health.federation_config import TrainConfig
from fedjax_health.types import Array, Batch, Hyper, Metrics

MOST_RANKED = 512  # records up to which ranks by counting beat a sort


class Plan(NamedTuple):
    """Which records a client visits.

    Attributes:
      steps: S, static number of steps in the program.
      ragged: whether clients differ in their number of steps.
      own: count i32[] -> i32[], steps of a client with that many records.
      index: (count i32[], key) -> i32[S, B], record indices; count or more = empty slot.
    """

    steps: int
    ragged: bool
    own: Callable[[Array], Array]
    index: Callable[[Array, Array], Array]


def shuffle(count: Array, most: int, key: Array) -> Array:
    """A uniformly random order of a client's own records.

    Up to 512 records by counting how many random words are smaller, which needs no sort (a permutation of the own
    records is its own kind of rank); else by a sort.

    Args:
      count: i32[], records of the client.
      most: most records of any client.
      key: typed key.

    Returns:
      i32[most]: the first `count` entries are a permutation of 0 ... count - 1, the others are `most`.
    """
    slot = jnp.arange(most, dtype=jnp.uint32)
    own = slot < count.astype(jnp.uint32)
    if most > MOST_RANKED:
        order = jnp.where(own, jax.random.uniform(key, (most,)), 2.0)
        return jnp.where(own, jnp.argsort(order).astype(jnp.int32), most)
    # the low bits hold the position, so that no two words are equal
    low = jnp.uint32((1 << max(most - 1, 1).bit_length()) - 1)
    word = (jax.random.bits(key, (most,)) & ~low) | slot
    smaller = (word[None, :] < word[:, None]) & own[None, :]
    return jnp.where(own, jnp.sum(smaller, 1, dtype=jnp.int32), most)


def make_plan(config: TrainConfig, max_count: int, min_count: int) -> Plan:
    """Local epochs or fixed steps.

    "steps": S batches of B records drawn with replacement; every client does the same work.
    "epochs": E passes over the client's own n records in a fresh order each, ceil(n / B) batches a pass, the last one
    partial; the program has ceil(max_count / B) * E steps and those beyond the client's own are skipped.

    Args:
      config: `local`, `local_steps` or `local_epochs`, `batch_size`.
      max_count, min_count: most and fewest records of any client.
    """
    b = config.batch_size
    if config.local == "steps":
        steps = config.local_steps

        def with_replacement(count: Array, key: Array) -> Array:
            u = jax.random.uniform(key, (steps, b))
            # a client without records draws index 0, which is an empty slot of it
            return jnp.clip((u * count.astype(jnp.float32)).astype(jnp.int32), 0, jnp.maximum(count - 1, 0))

        return Plan(steps, False, lambda count: jnp.full_like(count, steps), with_replacement)

    per_epoch = -(-max_count // b)
    steps = per_epoch * config.local_epochs

    def own_steps(count: Array) -> Array:
        return -(-count // b) * config.local_epochs

    def epochs(count: Array, key: Array) -> Array:
        keys = jax.random.split(key, config.local_epochs)
        order = jax.vmap(lambda k: shuffle(count, max_count, k))(keys)
        padded = jnp.pad(order, ((0, 0), (0, per_epoch * b - max_count)), constant_values=max_count)
        index = padded.reshape(steps, b)
        if config.local_epochs > 1 and per_epoch != -(-min_count // b):
            # a client's batches first, whatever the pass: step s is batch s % own of pass s // own
            step, own = jnp.arange(steps), jnp.maximum(-(-count // b), 1)
            index = index[jnp.minimum(step // own * per_epoch + step % own, steps - 1)]
        return index

    return Plan(steps, per_epoch != -(-min_count // b), own_steps, epochs)


RunClient = Callable[[Start, Any, Array, Hyper, Array], tuple[Any, Any, Metrics]]


def make_run_client(population: Population, algorithm: Algorithm, plan: Plan) -> RunClient:
    """Local training of one client.

    Args:
      population: reads the client's records.
      algorithm: what a step does.
      plan: which records, how often.

    Returns:
      run(start, data, client i32[], hyper, key) -> (message, slot, metrics averaged over the steps that ran). A client without
      records sends zeros and keeps its slot.
    """

    def run(start: Start, data: Any, client: Array, hyper: Hyper, key: Array) -> tuple[Any, Any, Metrics]:
        key_index, key_steps = jax.random.split(key)
        count = population.count(data, client)
        index = plan.index(count, key_index)
        if population.lazy:

            def read(step: Array) -> Batch:
                return population.batch(data, client, index[step])

        else:
            flat = population.batch(data, client, index.reshape(-1))  # one simulation for all steps
            batches = jax.tree.map(lambda leaf: leaf.reshape(index.shape + leaf.shape[1:]), flat)

            def read(step: Array) -> Batch:
                return jax.tree.map(lambda leaf: leaf[step], batches)

        def one(local: Local, step: Array) -> tuple[Local, Metrics]:
            return algorithm.step(start, local, read(step), hyper, jax.random.fold_in(key_steps, step))

        local = sharding.varying_like(algorithm.init(start), index)
        if plan.ragged:
            own = plan.own(count)
            zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(one, local, own)[1])

            def more(carry: tuple[Array, Local, Metrics]) -> tuple[Array, Local, Metrics]:
                step, now, sums = carry
                now, metrics = one(now, step)
                return step + 1, now, tree.add(sums, metrics)

            begin = sharding.varying_like((jnp.int32(0), local, zeros), index)
            _, local, sums = jax.lax.while_loop(lambda carry: carry[0] < own, more, begin)
            ran = jnp.maximum(own, 1).astype(jnp.float32)
        else:
            # the first step apart: all clients start from the same model, so that its products are those of one large batch
            local, sums = one(local, jnp.int32(0))
            if plan.steps > 1:
                local, metrics = jax.lax.scan(one, local, jnp.arange(1, plan.steps, dtype=jnp.int32))
                sums = jax.tree.map(lambda m, rest: m + jnp.sum(rest, 0), sums, metrics)
            ran = jnp.float32(plan.steps)
        message, slot = algorithm.final(start, local, ran, hyper)
        if population.min_count == 0:
            some = count > 0
            message, slot = tree.where(some, message, tree.zeros_like(message)), tree.where(some, slot, start.slot)
        return message, slot, jax.tree.map(lambda total: total / ran, sums)

    return run
