"""One federated round: cohort -> devices -> local training -> sum -> noise -> divide -> server step -> refine."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fedjax_health import rng, tree
from fedjax_health.devices.clock import advance
from fedjax_health.devices.round import Outcome, Work
from fedjax_health.federated import canaries
from fedjax_health.federated.aggregate import Attendance
from fedjax_health.federated.algorithms import apply_rule
from fedjax_health.federated.federation import Data, Parts, RoundFn, Scheme, State
from fedjax_health.federated.work import Result, Shared, Tasks, make_work
from fedjax_health.models.base import ModelParams
from fedjax_health.transforms.base import Keys
from fedjax_health.types import Array, Cohort, Hyper, Metrics, UserError


def stream(state: State, name: rng.Stream) -> Array:
    """Key of one use of randomness in the round about to run."""
    return rng.stream_key(state.key, state.round + 1, name)


def world(state: State) -> Array:
    """Key of what stays the same about the devices of a federation, round after round."""
    return rng.stream_key(state.key, 0, rng.Stream.DEVICES)


def work_of(parts: Parts, data: Data, client: Array) -> Work:
    """What the round asks of each device of a cohort, i32[C] -> Work."""
    count = jax.vmap(parts.population.count, (None, 0))(data.population, client)
    costs = parts.costs
    return Work(
        jnp.float32(costs.flops_per_step) * costs.steps(count).astype(jnp.float32) + jnp.float32(costs.operations),
        jnp.float32(costs.bytes_up),
        jnp.float32(costs.bytes_down),
        jnp.float32(costs.memory_bytes),
        jnp.float32(costs.calls),
    )


def play(parts: Parts, state: State, data: Data, client: Array, mask: Array) -> Outcome:
    """What the devices make of a cohort: who is alive at the end, how long it took, what it cost.

    Args:
      parts: the federation.
      state: gives the clock and the devices' world.
      data: counts records; clients that are not included are as if never asked.
      client, mask: the cohort, i32[C] and bool[C].
    """
    luck = stream(state, rng.Stream.DEVICES)
    return parts.devices.play(
        world(state), client, mask & data.include[client], work_of(parts, data, client), state.clock, luck
    )


def remember(state: State, result: Result) -> Any:
    """Everybody's memory f32[K, D] with that of the clients that took part [C] written over."""

    def write(kept: Array, own: Array) -> Array:
        past_the_end = kept.shape[0]  # what is written there is dropped
        return kept.at[jnp.where(result.tasks.live, result.tasks.client, past_the_end)].set(own, mode="drop")

    return jax.tree.map(write, state.memory, result.memory)


def sample_cohort(parts: Parts, state: State) -> tuple[Cohort, Metrics]:
    """Who is asked in the round about to run."""

    def on(client: Array) -> Array:
        return parts.devices.available(world(state), client, state.clock)

    return parts.sampler.sample(on, stream(state, rng.Stream.COHORT), state.round)


def share(state: State, hyper: Hyper, data: Data, models: Any) -> Shared:
    """What the clients of the round are given; `models` is what the scheme's `pick` chooses from."""
    keys = stream(state, rng.Stream.CLIENT), stream(state, rng.Stream.TRANSFORM)
    return Shared(models, state.memory, data.population, hyper, *keys)


def mean_message(parts: Parts, state: State, hyper: Hyper, acc: Any) -> tuple[Any, Any, Metrics]:
    """From the merged accumulator to the mean message: the server side of the transforms (noise), then the division.

    Args:
      parts: the federation.
      state: before the round.
      hyper: traced numbers.
      acc: what `work` merged.

    Returns:
      (mean, State.noise after the round, metrics).
    """
    keys = Keys(stream(state, rng.Stream.NOISE), stream(state, rng.Stream.TRANSFORM))
    total, denominator = parts.aggregator.total(acc, stream(state, rng.Stream.AGGREGATE))
    noisy, metrics = parts.transform.server(total, hyper, keys)
    noise = state.noise
    if parts.correlated is not None:
        # after the server's side: a rotation differs from round to round, and noise added inside it would cancel nothing;
        # turning back is orthonormal and cutting off the padding makes nothing longer, so the chain's bound still holds
        bound = parts.transform.l2_bound(None, hyper)
        assert bound is not None  # `build_federation` refuses a chain without one
        deviation = hyper["noise_multiplier"] * bound
        own, noise = parts.correlated.step(noise, noisy, deviation, keys.own)
        noisy, metrics = tree.add(noisy, own), {**metrics, "public/noise_std": deviation}
    return tree.scale(1.0 / denominator, noisy), noise, metrics


def server_step(parts: Parts, state: State, hyper: Hyper, message: Any) -> tuple[State, Metrics]:
    """From the mean message to the next model: the algorithm's and the optimiser's step, refine, average.

    Args:
      parts: the federation.
      state: before the round.
      hyper: traced numbers.
      message: mean over the cohort.

    Returns:
      (state with params, server, average and control replaced, metrics).
    """
    direction, control = parts.algorithm.server(message, state.control, hyper)
    hyper = parts.schedule(state.round, hyper)
    update, server = apply_rule(parts.server_optimizer, direction, state.server, state.params.client)
    rate = hyper["server_learning_rate"]
    client = jax.tree.map(lambda w, d: w - rate * d, state.params.client, update)
    key = stream(state, rng.Stream.REFINE)
    params, metrics = parts.model.refine(ModelParams(client, state.params.server), hyper, key)
    # bias-corrected average: with a plain one the random start would linger for 1 / (1 - decay) rounds
    rounds = (state.round + 1).astype(jnp.float32)
    decay = jnp.minimum(jnp.float32(parts.ema_decay), (rounds - 1.0) / rounds)
    average = jax.tree.map(lambda a, p: decay * a + (1.0 - decay) * p, state.average, parts.model.release(params))
    metrics = {
        **metrics,
        **parts.algorithm.public(state.control, hyper),
        "public/update_norm": tree.global_norm(direction),
        "public/parameter_norm": tree.global_norm(params.client),
    }
    return state._replace(params=params, server=server, average=average, control=control), metrics


def means(result: Result, live: Array) -> Metrics:
    """Metrics as means over the clients that took part, and how many those are (sim/cohort)."""
    took_part = jnp.sum(live.astype(jnp.float32))
    averaged = {name: total / jnp.maximum(took_part, 1.0) for name, total in result.totals.items()}
    return {**averaged, "sim/cohort": took_part}


def unmask(parts: Parts, state: State, acc: Any, client: Array, outcome: Outcome) -> tuple[Any, Array | None, Metrics]:
    """With secure aggregation: the sum that the server learns, and whether there is one.

    Args:
      parts: the federation.
      state: before the round.
      acc: what `work` merged.
      client: i32[C], the cohort.
      outcome: who began to work, and whose update arrived.

    Returns:
      (accumulator, ok bool[], metrics); (acc, None, {}) without secure aggregation.
    """
    if parts.aggregator.unmask is None:
        return acc, None, {}
    attendance = Attendance(client, outcome.joined, outcome.alive)
    return parts.aggregator.unmask(acc, attendance, stream(state, rng.Stream.AGGREGATE))


def unless_void(ok: Array, state: State, new: State, metrics: Metrics) -> tuple[State, Metrics]:
    """The round, or if it is void nothing but the time it took: neither model nor memory moves, and no noise is published.

    Args:
      ok: bool[].
      state, new: before and after the round.
      metrics: of the server.
    """
    kept = tree.where(ok, new, state)._replace(round=new.round, clock=new.clock)
    did_not_happen = {
        n: jnp.where(ok, metrics[n], 0.0) for n in ("public/noise_std", "public/update_norm") if n in metrics
    }
    norm = tree.global_norm(kept.params.client)
    return kept, {**metrics, **did_not_happen, "public/parameter_norm": norm}


def observe(parts: Parts, state: State, hyper: Hyper, data: Data, accs: tuple[Any, Any], message: Any) -> Any:
    """State.audit after the round: what canaries measure, or what an attacker who watches has added up.

    Args:
      parts, state, hyper, data: before the round.
      accs: the clients' accumulator, and that with canaries.
      message: the published mean message.
    """
    if parts.canaries:
        return canaries.observe(parts, state, hyper, *accs, message)
    return parts.watch.see(parts, state, hyper, data, message) if parts.watch else state.audit


def make_round(parts: Parts) -> RoundFn:
    """One flat round as a pure function of (state, hyper, data).

    Args:
      parts: the federation.

    Returns:
      round_fn(state, hyper, data) -> (state, metrics). Metrics named "sim/..." are visible to a simulator only; "public/..."
      follow from what the server publishes.

    Raises:
      UserError: noise that is correlated over more rounds than the sampler keeps a client's apart.
    """
    if parts.correlated is not None and parts.sampler.separation < parts.correlated.bands:
        raise UserError(
            f"noise correlated over {parts.correlated.bands} rounds needs a client at most once in {parts.correlated.bands} "
            f"rounds; this sampler keeps {parts.sampler.separation} apart; use make_cyclic_poisson"
        )
    work = make_work(parts, lambda models, source: models)

    def round_fn(state: State, hyper: Hyper, data: Data) -> tuple[State, Metrics]:
        cohort, sampled = sample_cohort(parts, state)
        outcome = play(parts, state, data, cohort.client, cohort.mask)
        broadcast = parts.download(state.params.client, stream(state, rng.Stream.DOWNLOAD))
        shared = share(state, hyper, data, (ModelParams(broadcast, state.params.server), state.control))
        nobody = jnp.zeros_like(cohort.client)
        tasks = Tasks(cohort.client, outcome.alive, nobody, jnp.ones(nobody.shape, jnp.float32))
        result = work(shared, tasks)
        acc = canaries.insert(parts, state, hyper, result.acc) if parts.canaries else result.acc
        acc, ok, attended = unmask(parts, state, acc, cohort.client, outcome)
        message, past, noise = mean_message(parts, state, hyper, acc)
        new, metrics = server_step(parts, state, hyper, message)
        new = new._replace(
            round=state.round + 1,
            noise=past,
            memory=remember(state, result),
            clock=advance(state.clock, outcome.seconds),
            audit=observe(parts, state, hyper, data, (result.acc, acc), message),
        )
        metrics = {**noise, **metrics}
        if ok is not None:
            new, metrics = unless_void(ok, state, new, metrics)
        return new, {**sampled, **outcome.metrics, **means(result, outcome.alive), **attended, **metrics}

    return round_fn


FLAT = Scheme(lambda parts, client: (), make_round, audits=True)
