"""FedBuff: asynchronous training on the simulated clock (Nguyen et al. 2022, arXiv 2106.06639).

`concurrency` clients train at any time; the server steps when `buffer` of them have answered. A client's update depends on
the model it started from alone, so the events of one server step are found first (one argmin each), and the clients behind
them are then trained together, each from the version it was sent.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_health import rng, tree
from fedjax_health.devices.clock import advance
from fedjax_health.devices.round import RETRY_SECONDS
from fedjax_health.federated.cohort import CohortSampler
from fedjax_health.federated.federation import Data, Parts, RoundFn, Scheme, State
from fedjax_health.federated.round import (
    mean_message,
    means,
    play,
    remember,
    server_step,
    share,
    stream,
    work_of,
    world,
)
from fedjax_health.federated.work import Tasks, make_work
from fedjax_health.models.base import ModelParams
from fedjax_health.types import Array, Hyper, Metrics


class InFlight(NamedTuple):
    """Clients in training, and the models they started from.

    Attributes:
      client: i32[concurrency], in the order they started; -1 where nobody trains.
      version: i32[concurrency], server steps done when it started.
      remaining: f32[concurrency], simulated seconds until it answers; infinity where nobody trains.
      versions: params.client of the last V server steps, leading axis V; step s is at s mod V.
    """

    client: Array
    version: Array
    remaining: Array
    versions: Any


class Events(NamedTuple):
    """The answers behind one server step, in order of arrival: client i32[B] (-1 = none), version i32[B]."""

    client: Array
    version: Array


def next_events(flight: InFlight, fresh: Array, seconds: Array, version: Array) -> tuple[InFlight, Events, Array]:
    """Pops the next B answers; a new client starts at once for each, from the current version.

    Those that start at the very moment of the last answer start from the version that the server makes of the B. So with
    equal durations, and as many in training as make a step, this is synchronous FedAvg.

    Args:
      flight: clients in training, in the order they started: of equal times, the first started answers first.
      fresh: i32[B], clients to start, -1 = nobody.
      seconds: f32[B], how long each of them will take.
      version: i32[], current server step.

    Returns:
      (flight at the time of the last answer, events, seconds from now until then f32[]).
    """
    places = jnp.arange(flight.client.shape[0])

    def pop(carry: tuple[tuple[Array, ...], Array], new: tuple[Array, Array]) -> tuple[Any, tuple[Array, Array]]:
        (client, started, begin, finish), now = carry
        i = jnp.argmin(finish)
        now = jnp.where(jnp.isfinite(finish[i]), jnp.maximum(now, finish[i]), now)
        starter, duration = new

        def queue(row: Array, last: Array) -> Array:
            return jnp.where(places < i, row, jnp.concatenate([row[1:], last[None]]))

        end = jnp.where(starter >= 0, now + duration, jnp.inf)
        rows = queue(client, starter), queue(started, version), queue(begin, now), queue(finish, end)
        return (rows, now), (client[i], started[i])

    before = jnp.full(places.shape, -jnp.inf, jnp.float32)
    rows = flight.client, flight.version, before, flight.remaining
    (rows, now), popped = jax.lax.scan(pop, (rows, jnp.float32(0.0)), (fresh, seconds))
    client, started, begin, finish = rows
    started = jnp.where(begin == now, version + 1, started)
    return InFlight(client, started, finish - now, flight.versions), Events(*popped), now


def make_fedbuff(sampler: CohortSampler, concurrency: int, buffer: int, max_staleness: int) -> Scheme:
    """One round is one server step on `buffer` answers, each scaled by how stale it is.

        direction = 1/n sum_i s_i u_i,   s_i = 1 / sqrt(1 + staleness_i),   over the n answers that count

    A mean over answers and not over their weights: a step on stale answers only is a smaller step. (Weighted by examples,
    it is the weighted mean of the u_i with weights s_i times records, scaled by the mean s_i.)

    Updates staler than `max_staleness` server steps are dropped: the model they started from is no longer kept. A client
    is never started twice at the same time. No accountant covers who answers first: only without privacy.

    Args:
      sampler: draws concurrency + buffer different clients of those it is told are idle.
      concurrency: clients in training at any time.
      buffer: answers that make a server step (B), <= concurrency.
      max_staleness: >= 1.
    """
    kept = max_staleness + 1

    def init(parts: Parts, client: Any) -> InFlight:
        del parts
        return InFlight(
            jnp.full((concurrency,), -1, jnp.int32),
            jnp.zeros((concurrency,), jnp.int32),
            jnp.full((concurrency,), jnp.inf, jnp.float32),
            jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (kept, *leaf.shape)), client),
        )

    def make_round(parts: Parts) -> RoundFn:
        def pick(models: tuple[Any, Any, Any], source: Array) -> tuple[ModelParams, Any]:
            versions, server, control = models
            return ModelParams(jax.tree.map(lambda leaf: leaf[source], versions), server), control

        work = make_work(parts, pick)
        multiple = parts.mesh.size * parts.clients_per_chunk
        spare = -buffer % multiple

        def start(state: State, data: Data) -> tuple[Array, Array]:
            """Clients that are on and idle, i32[concurrency + buffer] (-1 = none), and how long each will take, f32, s."""

            def idle(client: Array) -> Array:
                on = parts.devices.available(world(state), client, state.clock) & data.include[client]
                return on & ~jnp.any(client[:, None] == state.scheme.client[None, :], 1)

            cohort, _ = sampler.sample(idle, stream(state, rng.Stream.COHORT), state.round)
            luck = stream(state, rng.Stream.DEVICES)
            seconds = parts.devices.seconds(world(state), cohort.client, work_of(parts, data, cohort.client), luck)
            return jnp.where(cohort.mask, cohort.client, -1), jnp.where(cohort.mask, seconds, jnp.inf)

        def round_fn(state: State, hyper: Hyper, data: Data) -> tuple[State, Metrics]:
            flight: InFlight = state.scheme
            client, seconds = start(state, data)
            # places without a client (all of them, in the first round) are filled first
            free = flight.client < 0
            flight = flight._replace(
                client=jnp.where(free, client[:concurrency], flight.client),
                version=jnp.where(free, state.round, flight.version),
                remaining=jnp.where(free, seconds[:concurrency], flight.remaining),
            )
            flight, events, elapsed = next_events(flight, client[concurrency:], seconds[concurrency:], state.round)
            # where nobody trains time must go on, or those that are off now stay off
            elapsed = jnp.where(jnp.any(events.client >= 0), elapsed, jnp.float32(RETRY_SECONDS))
            staleness = state.round - events.version
            fits = staleness <= max_staleness
            answered = events.client >= 0
            # who broke off, or is off at the time, does not answer; costs are those of the answers behind this step
            outcome = play(parts, state, data, jnp.where(answered, events.client, 0), answered)
            live = outcome.alive & fits
            scale = jax.lax.rsqrt(1.0 + staleness.astype(jnp.float32))
            who = jnp.where(live, events.client, 0)
            tasks = Tasks(who, live, events.version % kept, scale)
            padded = jax.tree.map(lambda leaf: jnp.pad(leaf, ((0, spare), *((0, 0),) * (leaf.ndim - 1))), tasks)
            shared = share(state, hyper, data, (flight.versions, state.params.server, state.control))
            result = work(shared, padded)
            message, _, noise = mean_message(parts, state, hyper, result.acc)
            took_part = jnp.maximum(jnp.sum(live.astype(jnp.float32)), 1.0)
            message = tree.scale(jnp.sum(jnp.where(live, scale, 0.0)) / took_part, message)
            new, metrics = server_step(parts, state, hyper, message)
            place = (state.round + 1) % kept
            versions = jax.tree.map(lambda kept_, w: kept_.at[place].set(w), flight.versions, new.params.client)
            new = new._replace(
                round=state.round + 1,
                memory=remember(state, result),
                clock=advance(state.clock, elapsed),
                scheme=flight._replace(versions=versions),
            )
            return new, {
                **outcome.metrics,
                **means(result, live),
                **noise,
                **metrics,
                "sim/round_seconds": elapsed,
                "sim/staleness": jnp.sum(jnp.where(live, staleness, 0).astype(jnp.float32)) / took_part,
                "sim/stale_dropped": jnp.sum(outcome.alive & ~fits).astype(jnp.float32),
            }

        return round_fn

    return Scheme(init, make_round)
