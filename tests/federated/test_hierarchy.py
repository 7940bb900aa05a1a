"""Device -> institution -> server, against a NumPy reference and against the flat federation that it falls back to."""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from least_squares import least_squares, make_store

from fedjax_health import rng
from fedjax_health.build_federation import build_federation
from fedjax_health.data.population import stored_population
from fedjax_health.devices.round import make_ideal
from fedjax_health.federated import sharding
from fedjax_health.federated.cohort import everyone
from fedjax_health.federated.federation import Data, init_state
from fedjax_health.federation_config import AggregationConfig, CompressionConfig, HierarchyConfig, TrainConfig
from fedjax_health.threefry import root_key

pytestmark = pytest.mark.quick_compile
DIM, RATE, SERVER_RATE, STEPS = 3, 0.2, 0.7, 2
COUNTS = (4, 2, 5, 3, 1, 5, 2, 4, 3)
EVERYONE = (True,) * len(COUNTS)
CONFIG = TrainConfig(
    rounds=1, rounds_per_chunk=1, cohort=4, sampler="full", clients_per_chunk=2, local="epochs", local_epochs=STEPS,
    local_steps=1, batch_size=5, algorithm="fedavg", server_optimizer="sgd", client_optimizer="sgd",
    client_learning_rate=RATE, server_learning_rate=SERVER_RATE, proximal_weight=0.0, concurrency=1, max_staleness=1,
    step_clip_norm=0.0, l2_clip_norm=math.inf, ema_decay=0.0, convergence_window=0, convergence_tolerance=0.0,
    aggregation=AggregationConfig("mean", "equal", 0.0, "none", 0.0, 1.0),
    compression=CompressionConfig(False, "none", 1.0, False, 0, False, 0), hierarchy=HierarchyConfig(0, 1),
)  # fmt: skip
TOP_K = CompressionConfig(False, "top_k", 0.34, True, 0, False, 0)


def config(institutions, period, weighting="equal", **changes):
    aggregation = dataclasses.replace(CONFIG.aggregation, weighting=weighting)
    hierarchy = HierarchyConfig(institutions, period)
    return dataclasses.replace(CONFIG, aggregation=aggregation, hierarchy=hierarchy, **changes)


@functools.cache
def store():
    return make_store(COUNTS, DIM)


@functools.cache
def build(settings, devices=2):
    """Parts, and their compiled round."""
    mesh, population = sharding.make_mesh(devices), stored_population(len(COUNTS), max(COUNTS), min(COUNTS))
    parts = build_federation(least_squares(), population, DIM, 3, settings, mesh, lambda c: make_ideal(), 1.0, "none")
    return parts, jax.jit(parts.scheme.make_round(parts))


def states(built, rounds, server_rate=SERVER_RATE, include=EVERYONE):
    """State and metrics after each round, the start first."""
    parts, round_fn = built
    state = init_state(parts, root_key(0))
    numbers = {"client_learning_rate": jnp.float32(RATE), "server_learning_rate": jnp.float32(server_rate)}
    history = [(state, {})]
    for _ in range(rounds):
        history.append(round_fn(history[-1][0], numbers, Data(store(), jnp.array(include))))
    return history


def weights(state):
    return np.asarray(state.params.client["w"], np.float64)


def train_one(w, k):
    """w_global - w of client k in NumPy."""
    data, start = store(), w
    rows = slice(int(data.offset[k]), int(data.offset[k]) + COUNTS[k])
    x, y = np.asarray(data.x, np.float64)[rows], np.asarray(data.y)[rows]
    for _ in range(STEPS):
        w = w - RATE * x.T @ (x @ w - y) / len(y)
    return start - w


def numpy_hierarchy(w, cohorts, institutions, period, size):
    """(w, v, n) after each round."""
    v, n, history = np.stack([w] * institutions), np.zeros(institutions), []
    for t, cohort in enumerate(cohorts, 1):
        v = v.copy()
        for i in {k % institutions for k in cohort}:
            mine = [k for k in cohort if k % institutions == i]
            v[i] -= np.average([train_one(v[i], k) for k in mine], 0, [size[k] for k in mine])
            n[i] += sum(size[k] for k in mine)
        if t % period == 0:
            w = w - SERVER_RATE * np.average(w - v, 0, n) if n.any() else w
            v, n = np.stack([w] * institutions), np.zeros(institutions)
        history.append((w, v, n.copy()))
    return history


def assert_equal(ours, theirs):
    for (state, _), (w, v, n) in zip(ours[1:], theirs, strict=True):
        np.testing.assert_allclose(weights(state), w, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(state.scheme.params["w"], v, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(state.scheme.updates, n)


@pytest.mark.parametrize(
    ("institutions", "period", "sampler", "weighting", "devices"),
    [(3, 2, "full", "equal", 2), (3, 3, "fixed", "examples", 2), (4, 2, "fixed", "equal", 1)],
)
def test_equals_numpy(institutions, period, sampler, weighting, devices):
    built = build(config(institutions, period, weighting, sampler=sampler), devices)
    ours, cohorts = states(built, 6), []
    for t in range(1, 7):
        cohort, _ = built[0].sampler.sample(
            everyone, rng.stream_key(root_key(0), t, rng.Stream.COHORT), jnp.int32(t - 1)
        )
        cohorts.append(np.asarray(cohort.client)[np.asarray(cohort.mask)].tolist())
    if sampler == "fixed":
        assert {len(cohort) for cohort in cohorts} == {4}
        assert min(len({k % institutions for k in cohort}) for cohort in cohorts) < institutions  # one sits out
    size = COUNTS if weighting == "examples" else (1,) * len(COUNTS)
    theirs = numpy_hierarchy(weights(ours[0][0]), cohorts, institutions, period, size)
    assert_equal(ours, theirs)
    for t, (state, metrics) in enumerate(ours[1:], 1):
        moved = np.any(weights(state) != weights(ours[t - 1][0]))
        assert moved == (t % period == 0)
        # one model up and one down for each institution, in f32
        assert metrics["sim/bytes_institutions"] == (2.0 * institutions * 4 * DIM if t % period == 0 else 0.0)
        assert int(state.round) == t


def test_meeting_every_round_is_flat():
    """Whatever the sizes of the institutions (3, 2, 2, 2 clients), since they count by their clients."""
    institutions = states(build(config(4, 1)), 3, server_rate=1.0)
    flat = states(build(config(0, 1)), 3, server_rate=1.0)
    for (ours, _), (theirs, _) in zip(institutions, flat, strict=True):
        np.testing.assert_allclose(weights(ours), weights(theirs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("compression", [CONFIG.compression, TOP_K])
def test_one_institution_is_flat_with_as_many_rounds(compression):
    """Also with what clients remember between rounds: top-k keeps one value of three and feeds back the rest."""
    settings = {"sampler": "fixed", "compression": compression}
    one = states(build(config(1, 2, **settings)), 4, server_rate=1.0)
    flat = states(build(config(0, 1, **settings)), 4, server_rate=1.0)
    for t in (2, 4):
        (ours, _), (theirs, _) = one[t], flat[t]
        np.testing.assert_allclose(weights(ours), weights(theirs), rtol=1e-5, atol=1e-6)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours.memory, theirs.memory)
    assert len(jax.tree.leaves(one[4][0].memory)) == (compression is TOP_K)
    assert all(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(one[4][0].memory))
    np.testing.assert_array_equal(weights(one[1][0]), weights(one[0][0]))  # the server waits for the meeting


def test_an_institution_without_clients_has_no_say():
    include = tuple(k % 3 != 1 for k in range(len(COUNTS)))
    ours = states(build(config(3, 2)), 4, include=include)
    cohorts = [[k for k in range(len(COUNTS)) if include[k]]] * 4
    assert_equal(ours, numpy_hierarchy(weights(ours[0][0]), cohorts, 3, 2, (1,) * len(COUNTS)))


def test_a_meeting_without_any_clients_changes_nothing():
    ours = states(build(config(3, 2)), 2, include=(False,) * len(COUNTS))
    np.testing.assert_array_equal(weights(ours[2][0]), weights(ours[0][0]))


def test_published_average_is_over_meetings():
    """The start has no part in it from the first meeting on; the second makes it the mean of two models."""
    ours = states(build(config(3, 3, ema_decay=0.9)), 6)
    first, second = weights(ours[3][0]), weights(ours[6][0])
    np.testing.assert_allclose(ours[3][0].average["w"], first, rtol=1e-6)
    np.testing.assert_allclose(ours[6][0].average["w"], (first + second) / 2, rtol=1e-6)
    np.testing.assert_array_equal(ours[4][0].average["w"], ours[3][0].average["w"])
