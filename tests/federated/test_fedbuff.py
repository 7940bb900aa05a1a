"""FedBuff against a simulation event by event, with a heap of finishing times, given the same draws and durations."""

from __future__ import annotations

import functools
import heapq
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from least_squares import least_squares, make_store

from fedjax_health import rng
from fedjax_health.build_federation import build_federation
from fedjax_health.data.population import stored_population
from fedjax_health.devices.round import RETRY_SECONDS, make_ideal
from fedjax_health.federated import sharding
from fedjax_health.federated.fedbuff import InFlight, next_events
from fedjax_health.federated.federation import Data, init_state
from fedjax_health.federation_config import AggregationConfig, CompressionConfig, HierarchyConfig, TrainConfig
from fedjax_health.threefry import root_key

pytestmark = pytest.mark.quick_compile
DIM, RATE, SERVER_RATE, STEPS = 3, 0.2, 0.7, 2
COUNTS = (4, 2, 5, 3, 1, 5, 2, 4, 3, 5, 1, 2, 4, 3, 5, 2)
HYPER = {"client_learning_rate": jnp.float32(RATE), "server_learning_rate": jnp.float32(SERVER_RATE)}


def config(concurrency, buffer, max_staleness, chunk, weighting="equal"):
    return TrainConfig(
        rounds=1, rounds_per_chunk=1, cohort=buffer, sampler="fixed", clients_per_chunk=chunk, local="epochs",
        local_epochs=STEPS, local_steps=1, batch_size=5, algorithm="fedbuff", server_optimizer="sgd",
        client_optimizer="sgd", client_learning_rate=RATE, server_learning_rate=SERVER_RATE, proximal_weight=0.0,
        concurrency=concurrency, max_staleness=max_staleness, step_clip_norm=0.0, l2_clip_norm=math.inf, ema_decay=0.0,
        convergence_window=0, convergence_tolerance=0.0,
        aggregation=AggregationConfig("mean", weighting, 0.0, "none", 0.0, 1.0),
        compression=CompressionConfig(False, "none", 1.0, False, 0, False, 0), hierarchy=HierarchyConfig(0, 1),
    )  # fmt: skip


@functools.cache
def store():
    return make_store(COUNTS, DIM)


def uneven(world_key, client, work, key):
    """Some clients take a hundred times as long as others."""
    del world_key, work
    luck = jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(key, k)))(client.astype(jnp.uint32))
    return jnp.exp(2.0 * luck)


def constant(seconds):
    return lambda world_key, client, work, key: jnp.full(client.shape, seconds, jnp.float32)


def build(settings, seconds, devices=1, available=None):
    layer = make_ideal()._replace(seconds=seconds)
    layer = layer if available is None else layer._replace(available=available)
    mesh, population = sharding.make_mesh(devices), stored_population(len(COUNTS), max(COUNTS), min(COUNTS))
    return build_federation(least_squares(), population, DIM, 3, settings, mesh, lambda cohort: layer, 1.0, "none")


def states(parts, rounds):
    """State and metrics after each round, the start first."""
    state, round_fn = init_state(parts, root_key(0)), jax.jit(parts.scheme.make_round(parts))
    history = [(state, {})]
    for _ in range(rounds):
        history.append(round_fn(history[-1][0], HYPER, Data(store(), jnp.ones(len(COUNTS), bool))))
    return history


def weights(state):
    return np.asarray(state.params.client["w"], np.float64)


def draws(parts):
    """fresh(t, busy): the idle clients that round t would start, and how long each takes."""
    world = rng.stream_key(root_key(0), 0, rng.Stream.DEVICES)

    def fresh(t, busy):
        occupied = jnp.array(sorted(busy) or [-1], jnp.int32)
        key = rng.stream_key(root_key(0), t + 1, rng.Stream.COHORT)
        cohort, _ = parts.sampler.sample(
            lambda client: ~jnp.any(client[:, None] == occupied[None, :], 1), key, jnp.int32(t)
        )
        luck = rng.stream_key(root_key(0), t + 1, rng.Stream.DEVICES)
        seconds = parts.devices.seconds(world, cohort.client, None, luck)
        assert np.all(cohort.mask)
        return list(zip(cohort.client.tolist(), seconds.tolist(), strict=True))

    return fresh


def train_one(w, k):
    """w_global - w of client k in NumPy."""
    data, start = store(), w
    rows = slice(int(data.offset[k]), int(data.offset[k]) + COUNTS[k])
    x, y = np.asarray(data.x, np.float64)[rows], np.asarray(data.y)[rows]
    for _ in range(STEPS):
        w = w - RATE * x.T @ (x @ w - y) / len(y)
    return start - w


def event_by_event(w, fresh, rounds, concurrency, max_staleness, size):
    """(parameters, time, answers [(client, staleness)], in flight {client: version}) after each server step."""
    queue, now, order, models, history = [], 0.0, itertools.count(), [w], []
    for t in range(rounds):
        drawn = fresh(t, {client for _, _, client, _, _ in queue})
        if not queue:
            queue = sorted((seconds, next(order), client, 0, -1.0) for client, seconds in drawn[:concurrency])
        answers, change, scale, sizes = [], [], [], []
        for client, seconds in drawn[concurrency:]:
            now, _, who, version, _ = heapq.heappop(queue)
            answers.append((who, t - version))
            heapq.heappush(queue, (now + seconds, next(order), client, t, now))
            if t - version <= max_staleness:
                change.append(train_one(models[version], who))
                scale.append(1 / np.sqrt(1 + t - version))
                sizes.append(size[who])
        # sizes all equal: the mean of scale * change
        step = np.mean(scale) * np.average(change, 0, np.multiply(scale, sizes)) if change else 0.0
        models.append(models[-1] - SERVER_RATE * step)
        # who starts at the very moment of the server step starts from the new model
        queue = [(finish, i, k, t + 1 if begin == now else v, begin) for finish, i, k, v, begin in queue]
        history.append((models[-1], now, answers, {k: v for _, _, k, v, _ in queue}))
    return history


@pytest.mark.parametrize(
    ("concurrency", "buffer", "max_staleness", "devices", "chunk", "weighting"),
    [
        (5, 3, 2, 1, 3, "equal"),
        (5, 3, 2, 2, 1, "examples"),
        (6, 1, 4, 1, 1, "equal"),
        (4, 4, 2, 2, 2, "equal"),
        (2, 5, 1, 1, 2, "equal"),
    ],
)
def test_equals_a_simulation_event_by_event(concurrency, buffer, max_staleness, devices, chunk, weighting):
    parts = build(config(concurrency, buffer, max_staleness, chunk, weighting), uneven, devices)
    ours, size = states(parts, 14), COUNTS if weighting == "examples" else (1,) * len(COUNTS)
    theirs = event_by_event(weights(ours[0][0]), draws(parts), 14, concurrency, max_staleness, size)
    clock = 0.0
    for (state, metrics), (w, now, answers, in_flight) in zip(ours[1:], theirs, strict=True):
        flight = state.scheme
        assert dict(zip(flight.client.tolist(), flight.version.tolist(), strict=True)) == in_flight
        assert len(in_flight) == concurrency  # nobody is in training twice
        staleness = np.array([s for _, s in answers])
        fits = staleness <= max_staleness
        assert float(metrics["sim/stale_dropped"]) == np.sum(~fits)
        np.testing.assert_allclose(metrics["sim/staleness"], np.mean(staleness[fits]) if fits.any() else 0, rtol=1e-6)
        clock += float(metrics["sim/round_seconds"])
        np.testing.assert_allclose(clock, now, rtol=1e-5)
        np.testing.assert_allclose(weights(state), w, rtol=1e-5, atol=1e-5)
    stale = [s for *_, answers, _ in theirs for _, s in answers]
    assert len(set(stale)) > 2 or concurrency < buffer
    if concurrency > buffer:
        assert max(stale) > max_staleness  # something was dropped


@pytest.mark.parametrize("seconds", [0.0, 7.0])
def test_equal_durations_make_it_synchronous(seconds):
    parts = build(config(4, 4, 3, 2), constant(seconds))
    ours, fresh = states(parts, 4), draws(parts)
    w, busy = weights(ours[0][0]), [k for k, _ in fresh(0, set())[:4]]
    for t, (state, metrics) in enumerate(ours[1:]):
        successors = [k for k, _ in fresh(t, set(busy) if t else set())[4:]]
        w = w - SERVER_RATE * np.mean([train_one(w, k) for k in busy], 0)
        busy = successors
        assert metrics["sim/round_seconds"] == seconds
        assert metrics["sim/staleness"] == 0
        np.testing.assert_allclose(weights(state), w, rtol=1e-5, atol=1e-5)


def test_a_stale_answer_moves_the_model_less_whatever_else_is_in_the_buffer():
    """Equal durations, twice as many in training as answer: all answers behind the second step are one step old."""
    parts = build(config(4, 2, 3, 2), constant(5.0))
    ours, fresh = states(parts, 4), draws(parts)
    (first, second), later = ours[:2], ours[2]
    drawn = [k for k, _ in fresh(0, set())]
    start = weights(first[0])
    np.testing.assert_allclose(
        weights(second[0]), start - SERVER_RATE * np.mean([train_one(start, k) for k in drawn[:2]], 0), atol=1e-5
    )
    stale = np.mean([train_one(start, k) for k in drawn[2:4]], 0)
    assert later[1]["sim/staleness"] == 1
    np.testing.assert_allclose(weights(later[0]), weights(second[0]) - SERVER_RATE * stale / np.sqrt(2), atol=1e-5)


def test_interrupted_is_uninterrupted():
    whole = states(build(config(5, 3, 2, 2), uneven, 2), 7)
    parts = build(config(5, 3, 2, 2), uneven, 2)  # a new process
    state = whole[3][0]
    saved = jax.device_get(state._replace(key=jax.random.key_data(state.key)))
    key = jax.random.wrap_key_data(jnp.asarray(saved.key), impl=jax.random.key_impl(state.key))
    restored = jax.tree.map(jnp.asarray, saved)._replace(key=key)
    round_fn = jax.jit(parts.scheme.make_round(parts))
    for expected, metrics in whole[4:]:
        restored, again = round_fn(restored, HYPER, Data(store(), jnp.ones(len(COUNTS), bool)))
        jax.tree.map(np.testing.assert_array_equal, expected._replace(key=0), restored._replace(key=0))
        jax.tree.map(np.testing.assert_array_equal, metrics, again)


def test_events_in_order_of_arrival():
    flight = InFlight(jnp.array([3, 8, -1, 5]), jnp.array([1, 0, 0, 2]), jnp.array([4.0, 6.0, jnp.inf, 4.0]), ())
    fresh, seconds = jnp.array([10, 11, 12]), jnp.array([1.0, 9.0, 2.0])
    flight, events, elapsed = jax.jit(next_events)(flight, fresh, seconds, jnp.int32(2))
    # 3 and 5 answer at 4 s, in the order they started; 10, in 3's place, answers at 5 s and is replaced by 12
    assert events.client.tolist() == [3, 5, 10]
    assert events.version.tolist() == [1, 2, 2]
    assert elapsed == 5.0
    left = {k: (v, s) for k, v, s in zip(*(row.tolist() for row in flight[:3]), strict=True)}
    assert left == {8: (0, 1.0), -1: (0, math.inf), 11: (2, 8.0), 12: (3, 2.0)}  # 12 starts with the step: version 3


def test_places_without_a_client():
    """Two clients are on, five could train: a step is made of what there is."""
    parts = build(config(5, 3, 2, 3), uneven, 1, lambda world_key, client, clock: client < 2)
    ours = states(parts, 3)
    w = weights(ours[0][0])
    for state, metrics in ours[1:]:
        w = w - SERVER_RATE * np.mean([train_one(w, 0), train_one(w, 1)], 0)
        np.testing.assert_allclose(weights(state), w, rtol=1e-5, atol=1e-5)
        assert metrics["sim/cohort"] == 2
        assert np.all(np.asarray(state.scheme.client) == -1)


def test_time_goes_on_while_nobody_is_on():
    """Everybody is off in the first two minutes."""

    def available(world_key, client, clock):
        return jnp.full(client.shape, clock.second >= 120.0)

    ours = states(build(config(5, 3, 2, 3), constant(5.0), 1, available), 4)
    for state, metrics in ours[1:3]:
        assert metrics["sim/cohort"] == 0
        assert metrics["sim/round_seconds"] == RETRY_SECONDS
        np.testing.assert_array_equal(weights(state), weights(ours[0][0]))
    assert ours[3][1]["sim/cohort"] == 3
    assert np.any(weights(ours[3][0]) != weights(ours[0][0]))
