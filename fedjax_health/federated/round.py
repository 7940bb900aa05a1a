"""One federated round: cohort -> local training -> clip -> sum -> noise -> divide -> server step -> refine.

The only file that knows about `vmap`, chunks and devices; everything it calls sees one client.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from fedjax_health import rng, tree
from fedjax_health.data.population import Population
from fedjax_health.federated import sharding
from fedjax_health.federated.aggregate import Aggregator
from fedjax_health.federated.algorithms import apply_rule
from fedjax_health.federated.cohort import CohortSampler
from fedjax_health.models.base import ModelParams, Trainable
from fedjax_health.transforms.base import UpdateTransform
from fedjax_health.types import Array, Cohort, Hyper, Metrics, Update


class Data(NamedTuple):
    """Traced, never donated.

    Attributes:
      population: what the population reads (a Store, or the simulated world's key).
      include: bool[K], which clients exist for this federation; the others are as if they had never been there.
    """

    population: Any
    include: Array


class State(NamedTuple):
    """Traced, donated, checkpointed whole.

    Attributes:
      round: i32[], rounds done.
      key: typed root key of the federation.
      params: the global model.
      server: state of the server's optimiser.
      average: exponential moving average of the released parameters (what is published).
    """

    round: Array
    key: Array
    params: ModelParams
    server: Any
    average: Any


class Parts(NamedTuple):
    """Everything a round is made of; see the parts' own files."""

    model: Trainable
    population: Population
    run_client: Callable[[ModelParams, Any, Array, Hyper, Array], tuple[Update, Metrics]]
    sampler: CohortSampler
    transform: UpdateTransform
    aggregator: Aggregator
    server_optimizer: optax.GradientTransformation
    mesh: Mesh
    clients_per_chunk: int
    ema_decay: float


def init_state(parts: Parts, key: Array) -> State:
    """State before the first round.

    Args:
      parts: the federation.
      key: typed root key; copied, since the state is donated.
    """
    params = parts.model.init(rng.stream_key(key, 0, rng.Stream.INIT))
    average = jax.tree.map(jnp.copy, parts.model.release(params))  # donated buffers may not be shared
    return State(jnp.int32(0), jnp.copy(key), params, parts.server_optimizer.init(params.client), average)


def make_round(parts: Parts) -> Callable[[State, Hyper, Data], tuple[State, Metrics]]:
    """One round as a pure function of (state, hyper, data).

    Args:
      parts: the federation.

    Returns:
      round_fn(state, hyper, data) -> (state, metrics). Metrics named "sim/..." are means over the clients that took part
      and are visible to a simulator only; "public/..." follow from what the server publishes.
    """

    def train_one(params: ModelParams, hyper: Hyper, data: Data, key: Array, client: Array):
        own = rng.client_key(key, client)
        update, metrics = parts.run_client(params, data.population, client, hyper, jax.random.fold_in(own, 0))
        update, more = parts.transform.client(update, hyper, jax.random.fold_in(own, 1))
        return update, {**metrics, **more}, parts.population.count(data.population, client)

    def train_cohort(params: ModelParams, hyper: Hyper, data: Data, key: Array, cohort: Cohort):
        """Runs on one device, over its share of the cohort [C / devices], a chunk at a time."""
        params, hyper, data, key = sharding.varying((params, hyper, data, key))
        chunks = jax.tree.map(lambda leaf: leaf.reshape(-1, parts.clients_per_chunk), cohort)
        shapes = jax.eval_shape(train_one, params, hyper, data, key, cohort.client[0])
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        def body(carry, chunk: Cohort):
            acc, totals = carry
            update, metrics, count = jax.vmap(train_one, (None, None, None, None, 0))(
                params, hyper, data, key, chunk.client
            )
            live = chunk.mask & data.include[chunk.client]
            acc = parts.aggregator.add(acc, update, live, count)
            sums = jax.tree.map(lambda m: jnp.sum(jnp.where(live, m, 0.0)), metrics)
            return (acc, tree.add(totals, {**sums, "sim/cohort": jnp.sum(live.astype(jnp.float32))})), None

        start = parts.aggregator.init(zeros[0]), {**zeros[1], "sim/cohort": jnp.float32(0.0)}
        (acc, totals), _ = jax.lax.scan(body, sharding.varying(start), chunks)
        return parts.aggregator.merge(acc, sharding.AXIS), jax.lax.psum(totals, sharding.AXIS)

    def round_fn(state: State, hyper: Hyper, data: Data) -> tuple[State, Metrics]:
        def stream(name: rng.Stream) -> Array:
            return rng.stream_key(state.key, state.round + 1, name)

        cohort, metrics = parts.sampler.sample(stream(rng.Stream.COHORT))
        work = sharding.over_clients(parts.mesh, train_cohort)
        acc, totals = work(state.params, hyper, data, stream(rng.Stream.CLIENT), cohort)
        took_part = totals.pop("sim/cohort")
        means = {name: total / jnp.maximum(took_part, 1.0) for name, total in totals.items()}
        noisy, noise_metrics = parts.transform.server(acc.update, hyper, stream(rng.Stream.NOISE))
        mean = parts.aggregator.done(acc._replace(update=noisy))
        direction, server = apply_rule(parts.server_optimizer, mean, state.server, state.params.client)
        rate = hyper["server_learning_rate"]
        client = jax.tree.map(lambda w, d: w - rate * d, state.params.client, direction)
        params, refine_metrics = parts.model.refine(
            ModelParams(client, state.params.server), hyper, stream(rng.Stream.REFINE)
        )
        # bias-corrected average: with a plain one the random start would linger for 1 / (1 - decay) rounds
        done = state.round + 1
        rounds = done.astype(jnp.float32)
        decay = jnp.minimum(jnp.float32(parts.ema_decay), (rounds - 1.0) / rounds)
        average = jax.tree.map(lambda a, p: decay * a + (1.0 - decay) * p, state.average, parts.model.release(params))
        metrics = {
            **metrics,
            **means,
            **noise_metrics,
            **refine_metrics,
            "sim/cohort": took_part,
            "public/update_norm": tree.global_norm(mean),
            "public/parameter_norm": tree.global_norm(params.client),
        }
        return State(done, state.key, params, server, average), metrics

    return round_fn
