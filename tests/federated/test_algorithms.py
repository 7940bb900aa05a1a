"""Every algorithm against a float64 NumPy reference of a few lines, which replays the clients and batches that were drawn."""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from least_squares import least_squares

from fedjax_health import rng
from fedjax_health.build_federation import build_federation
from fedjax_health.data.population import Store, stored_population
from fedjax_health.devices.round import make_ideal
from fedjax_health.federated import sharding
from fedjax_health.federated.client import make_plan
from fedjax_health.federated.cohort import everyone
from fedjax_health.federated.federation import Data, init_state
from fedjax_health.federation_config import AggregationConfig, CompressionConfig, HierarchyConfig, TrainConfig
from fedjax_health.models.base import ModelParams
from fedjax_health.threefry import root_key

pytestmark = pytest.mark.quick_compile
DIM, ROUNDS, RATE, SERVER_RATE, MU = 3, 4, 0.1, 0.7, 0.5
RAGGED = (2, 9, 4, 7, 1, 5, 3)  # records of each client
CONFIG = TrainConfig(
    rounds=ROUNDS, rounds_per_chunk=1, cohort=3, sampler="full", clients_per_chunk=2, local="epochs", local_epochs=2,
    local_steps=3, batch_size=3, algorithm="fedavg", server_optimizer="sgd", client_optimizer="sgd",
    client_learning_rate=RATE, server_learning_rate=1.0, proximal_weight=MU, concurrency=1, max_staleness=1,
    step_clip_norm=0.0, l2_clip_norm=math.inf, ema_decay=0.0, convergence_window=0, convergence_tolerance=0.0,
    aggregation=AggregationConfig("mean", "equal", 0.0, "none", 0.0, 1.0),
    compression=CompressionConfig(False, "none", 1.0, False, 0, False, 0), hierarchy=HierarchyConfig(0, 1),
)  # fmt: skip


def config(weighting="equal", **changes):
    aggregation = dataclasses.replace(CONFIG.aggregation, weighting=weighting)
    return dataclasses.replace(CONFIG, aggregation=aggregation, **changes)


@functools.cache
def store(counts):
    draw = np.random.default_rng(0)
    total, client = sum(counts), np.repeat(np.arange(len(counts)), counts)
    x = draw.normal(size=(total, DIM)) + 0.5 * draw.normal(size=(len(counts), DIM))[client]
    y = draw.integers(0, 3, total)
    offset = np.cumsum([0, *counts[:-1]])
    as_ints = [jnp.asarray(a, jnp.int32) for a in (y, offset, counts)]
    return Store(jnp.asarray(x, jnp.float32), *as_ints)


@functools.cache
def build(settings, counts, dim=DIM, devices=2):
    """Parts, and their compiled round."""
    population, mesh = stored_population(len(counts), max(counts), min(counts)), sharding.make_mesh(devices)
    model = least_squares((1.0, -2.0, 0.5)[:dim])
    parts = build_federation(model, population, dim, 3, settings, mesh, lambda cohort: make_ideal(), 1.0, "none")
    return parts, jax.jit(parts.scheme.make_round(parts))


def hyper(**changes):
    rates = {"client_learning_rate": RATE, "server_learning_rate": SERVER_RATE}
    values = {**rates, "proximal_weight": MU, "rounds": ROUNDS - 1}
    return {name: jnp.float32(value) for name, value in (values | changes).items()}


def train(built, records, rounds=ROUNDS, **numbers):
    """State before and after some rounds."""
    parts, round_fn = built
    start = state = init_state(parts, root_key(0))
    data = Data(records, jnp.ones(len(records.count), bool))
    for _ in range(rounds):
        state, _ = round_fn(state, hyper(**numbers), data)
    return start, state


def weights(state):
    return np.asarray(state.params.client["w"], np.float64)


@functools.cache
def replay(counts, rounds=ROUNDS, **changes):
    """For every round its cohort: (client, [(x, y) of each of its batches]). The algorithm has no part in it."""
    settings, records, root = config(**changes), store(counts), root_key(0)
    parts, _ = build(settings, counts)
    count, offset = np.asarray(records.count), np.asarray(records.offset)
    x, y = np.asarray(records.x, np.float64), np.asarray(records.y)
    plan = make_plan(settings, int(count.max()), int(count.min()))

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def index(clients, client):
        own = jax.random.split(jax.random.fold_in(rng.client_key(clients, client), 0))[0]
        return plan.index(records.count[client], own)

    replayed = []
    for r in range(1, rounds + 1):
        cohort, _ = parts.sampler.sample(everyone, rng.stream_key(root, r, rng.Stream.COHORT), jnp.int32(r - 1))
        who = np.asarray(cohort.client)[np.asarray(cohort.mask)]
        drawn = np.asarray(index(rng.stream_key(root, r, rng.Stream.CLIENT), jnp.asarray(who)))
        rows = [[offset[k] + i[i < count[k]] for i in steps] for k, steps in zip(who, drawn, strict=True)]
        replayed.append([(k, [(x[i], y[i]) for i in own if len(i)]) for k, own in zip(who, rows, strict=True)])
    return replayed


def gradient(w, batch):
    x, y = batch
    return x.T @ (x @ w - y) / len(y)


def descend(w, batches, direction):
    for batch in batches:
        w = w - RATE * direction(w, batch)
    return w


def numpy_fedavg(w, rounds, size, mu=0.0, server=lambda direction: SERVER_RATE * direction):
    for cohort in rounds:
        ends = [descend(w, own, lambda v, b, w=w: gradient(v, b) + mu * (v - w)) for _, own in cohort]
        w = w - server(np.average(w - np.stack(ends), 0, [size[k] for k, _ in cohort]))
    return w, ()


def numpy_scaffold(w, rounds, size):
    c, own_c = np.zeros_like(w), {k: np.zeros_like(w) for k in range(len(size))}
    for cohort in rounds:
        sizes, updates, changes = [size[k] for k, _ in cohort], [], []
        for k, own in cohort:
            end = descend(w, own, lambda v, b, k=k, c=c: gradient(v, b) - own_c[k] + c)
            new = own_c[k] - c + (w - end) / (len(own) * RATE)
            updates.append(w - end)
            changes.append(new - own_c[k])
            own_c[k] = new
        w = w - SERVER_RATE * np.average(updates, 0, sizes)
        c = c + len(cohort) / len(size) * np.average(changes, 0, sizes)
    return w, (c, np.stack(list(own_c.values())))


def numpy_fednova(w, rounds, size):
    for cohort in rounds:
        sizes, steps = [size[k] for k, _ in cohort], [len(own) for _, own in cohort]
        normalised = [(w - descend(w, own, gradient)) / len(own) for _, own in cohort]
        w = w - SERVER_RATE * np.average(steps, 0, sizes) * np.average(normalised, 0, sizes)
    return w, ()


def numpy_mime_lite(w, rounds, size, beta=0.9):
    m = np.zeros_like(w)
    for cohort in rounds:
        sizes = [size[k] for k, _ in cohort]
        ends = [descend(w, own, lambda v, b, m=m: (1 - beta) * gradient(v, b) + beta * m) for _, own in cohort]
        there = [np.mean([gradient(w, batch) for batch in own], 0) for _, own in cohort]
        w = w - SERVER_RATE * np.average(w - np.stack(ends), 0, sizes)
        m = (1 - beta) * np.average(there, 0, sizes) + beta * m
    return w, (m,)


NUMPY = {
    "fedavg": numpy_fedavg,
    "fedprox": functools.partial(numpy_fedavg, mu=MU),
    "scaffold": numpy_scaffold,
    "fednova": numpy_fednova,
    "mime_lite": numpy_mime_lite,
}


@pytest.mark.parametrize(("sampler", "weighting"), [("full", "equal"), ("full", "examples"), ("fixed", "examples")])
@pytest.mark.parametrize("algorithm", sorted(NUMPY))
def test_equals_numpy(algorithm, sampler, weighting):
    built = build(config(weighting, algorithm=algorithm, sampler=sampler), RAGGED)
    size = RAGGED if weighting == "examples" else (1,) * len(RAGGED)
    (start, state), rounds = train(built, store(RAGGED)), replay(RAGGED, sampler=sampler)
    assert {len(cohort) for cohort in rounds} == {7 if sampler == "full" else 3}
    assert {len(own) for cohort in rounds for _, own in cohort} == {2, 4, 6}  # clients differ in their number of steps
    expected, memory = NUMPY[algorithm](weights(start), rounds, size)
    np.testing.assert_allclose(weights(state), expected, rtol=1e-5, atol=1e-5)
    kept = jax.tree.leaves((state.control, state.memory))
    assert len(kept) == len(memory)
    for ours, theirs in zip(kept, memory, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    # a reference that another algorithm would pass as well would show nothing
    for name, other in NUMPY.items():
        if name != algorithm:
            assert np.max(np.abs(other(weights(start), rounds, size)[0] - expected)) > 1e-3, name


def moments(rule):
    """FedAdam, without momentum too, FedYogi and FedAdagrad as optax has them: bias-corrected moments, both from `first` on."""
    beta1, beta2 = (0.0, 0.9) if rule == "rmsprop" else (0.9, 0.99)
    eps, first = 1e-5, 0.0 if rule in ("adam", "rmsprop") else 1e-6
    m, v, t = (first if rule == "yogi" else 0.0), first, 0

    def server(d):
        nonlocal m, v, t
        t += 1
        if rule == "adagrad":
            v = v + d**2
            return SERVER_RATE * d / np.sqrt(v + eps)
        m = beta1 * m + (1 - beta1) * d
        v = v - (1 - beta2) * (np.sign(v - d**2) * d**2 if rule == "yogi" else v - d**2)
        return SERVER_RATE * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)

    return server


@pytest.mark.parametrize("rule", ["adam", "rmsprop", "yogi", "adagrad"])
def test_server_optimizer_equals_numpy(rule):
    start, state = train(build(config(server_optimizer=rule, sampler="fixed"), RAGGED), store(RAGGED))
    rounds, size = replay(RAGGED, sampler="fixed"), (1,) * len(RAGGED)
    expected, _ = numpy_fedavg(weights(start), rounds, size, server=moments(rule))
    np.testing.assert_allclose(weights(state), expected, rtol=1e-5, atol=1e-5)
    for other in {"adam", "rmsprop", "yogi", "adagrad"} - {rule}:
        assert np.max(np.abs(numpy_fedavg(weights(start), rounds, size, server=moments(other))[0] - expected)) > 1e-3


def test_a_cosine_schedule_equals_numpy_and_ends_at_nothing():
    """(1 + cos(pi t / 3)) / 2 after t rounds: 1, 3/4, 1/4, and 0 in a fourth; of the server's own generator steps, too."""
    rates, rounds = iter((1.0, 0.75, 0.25, 0.0)), replay(RAGGED, sampler="fixed")
    parts, _ = build(config(server_schedule="cosine", sampler="fixed"), RAGGED)

    def init(key):
        return ModelParams(least_squares().init(key).client, jnp.float32(0.0))

    def refine(params, hyper, key):
        return params._replace(server=params.server + hyper["generator_learning_rate"]), {}

    parts = parts._replace(model=parts.model._replace(init=init, refine=refine))
    built = parts, jax.jit(parts.scheme.make_round(parts))
    start, state = train(built, store(RAGGED), generator_learning_rate=2.0)
    size = (1,) * len(RAGGED)
    expected, _ = numpy_fedavg(weights(start), rounds, size, server=lambda d: SERVER_RATE * next(rates) * d)
    np.testing.assert_allclose(weights(state), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(state.params.server, 2.0 * 2.0, rtol=1e-6)
    plain, _ = numpy_fedavg(weights(start), rounds, size, server=lambda d: SERVER_RATE * d)
    assert np.max(np.abs(plain - expected)) > 1e-3


@pytest.mark.parametrize(("algorithm", "numbers"), [("fedprox", {"proximal_weight": 0.0}), ("fednova", {})])
def test_fedprox_without_a_pull_and_fednova_with_equal_steps_are_fedavg(algorithm, numbers):
    """Where a step is a batch drawn with replacement, all clients do as many."""
    _, state = train(build(config(algorithm=algorithm, local="steps"), RAGGED), store(RAGGED), **numbers)
    _, fedavg = train(build(config(local="steps"), RAGGED), store(RAGGED), **numbers)
    np.testing.assert_allclose(weights(state), weights(fedavg), rtol=0, atol=1e-6)


def test_rate_one_makes_the_model_the_mean_of_the_clients_models():
    start, state = train(build(config(), RAGGED), store(RAGGED), 1, server_learning_rate=1.0)
    ends = [descend(weights(start), own, gradient) for _, own in replay(RAGGED, sampler="full")[0]]
    np.testing.assert_allclose(weights(state), np.mean(ends, 0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("algorithm", ["fedavg", "scaffold", "fednova"])
def test_one_client_is_sgd(algorithm):
    built = build(config(algorithm=algorithm, cohort=1), (8,), devices=1)
    start, state = train(built, store((8,)), server_learning_rate=1.0)
    w = weights(start)
    for ((_, own),) in replay((8,), cohort=1):
        assert len(own) == 6
        w = descend(w, own, gradient)
    np.testing.assert_allclose(weights(state), w, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("algorithm", ["fedavg", "scaffold"])
def test_fixed_point_of_two_clients_that_pull_apart(algorithm):
    """Losses (w - 1)^2 / 2 and 4 (w + 1/2)^2 / 2, whose slopes at the optimum are opposite.

    S steps from w leave client i at b_i + (1 - eta a_i)^S (w - b_i), so FedAvg rests at sum s_i b_i / sum s_i with
    s_i = 1 - (1 - eta a_i)^S; the optimum is sum a_i b_i / sum a_i.
    """
    records = Store(jnp.array([[1.0], [-2.0]]), jnp.ones(2, jnp.int32), jnp.arange(2), jnp.ones(2, jnp.int32))
    built = build(config(algorithm=algorithm, cohort=2, local_epochs=5, batch_size=1), (1, 1), 1, 1)
    _, state = train(built, records, 300, server_learning_rate=1.0)
    curvature, best = np.array([1.0, 4.0]), np.array([1.0, -0.5])
    moved = 1 - (1 - RATE * curvature) ** 5
    optimum, drifted = np.average(best, 0, curvature), np.average(best, 0, moved)
    assert abs(optimum - drifted) > 0.1
    np.testing.assert_allclose(weights(state), [optimum if algorithm == "scaffold" else drifted], atol=1e-5)
    if algorithm == "scaffold":  # every client remembers its slope at the optimum
        np.testing.assert_allclose(state.memory[:, 0], curvature * (optimum - best), atol=1e-4)


def test_vmap_over_hyper_parameters_is_a_loop_without_jit():
    records = store(RAGGED)
    parts, _ = build(config(algorithm="scaffold", local="steps"), RAGGED, devices=1)
    round_fn, state = parts.scheme.make_round(parts), init_state(parts, root_key(0))
    data, rates = Data(records, jnp.ones(len(RAGGED), bool)), jnp.array([0.02, 0.3])

    def run(rate):
        return round_fn(state, hyper() | {"client_learning_rate": rate}, data)[0].params.client["w"]

    mapped = jax.jit(jax.vmap(run))(rates)
    with jax.disable_jit():
        alone = run(rates[1])
    np.testing.assert_allclose(mapped[1], alone, rtol=1e-5, atol=1e-6)
    assert np.max(np.abs(np.asarray(mapped[0] - mapped[1]))) > 1e-2
