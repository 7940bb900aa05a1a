"""Who leaves a trace: memories of clients that took part, and nothing of those whose devices dropped out."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from jax.sharding import NamedSharding, PartitionSpec

from fedjax_health.federated.federation import Data, init_state
from fedjax_health.federated.round import make_round, play, sample_cohort

# all are asked; some are off, some break off, and those on LTE (0.33 s until the first byte) are late
FLEET = toy.devices_config(
    availability="markov", on_fraction=0.8, failures_per_hour=3600.0, deadline_seconds=0.3, shares=(0.3, 0.2, 0.2, 0.3)
)
CASES = {
    "mean": {},
    "private": {},
    "scaffold": {"algorithm": "scaffold"},
    "feedback": {"compression": {"sparsify": "top_k", "keep_fraction": 0.3, "error_feedback": True}},
    "both": {"algorithm": "scaffold", "compression": {"bits": 8, "error_feedback": True}},
    "median": {"aggregation": {"rule": "median"}},
    "fixed_point": {"aggregation": {"rule": "fixed_point"}},
}


@functools.cache
def federation(case, fleet=FLEET, sampler="full"):
    """(parts, compiled round, compiled (state, data) -> clients asked and those alive at the end, bool[K])."""
    config = toy.train_config(sampler=sampler, cohort=12, local="epochs", **CASES[case])
    parts = toy.make_parts(toy.linear(), config, fleet=fleet, private=case == "private")

    def who(state, data):
        cohort, _ = sample_cohort(parts, state)
        alive = play(parts, state, data, cohort.client, cohort.mask).alive
        nobody = jnp.zeros((parts.population.size,), bool)
        return nobody.at[cohort.client].max(cohort.mask), nobody.at[cohort.client].max(alive)

    compiled = jax.jit(make_round(parts))

    def round_fn(state, hyper, data):
        state, metrics = compiled(state, hyper, data)
        return state, jax.device_get(metrics)

    return parts, round_fn, jax.jit(who)


def start(parts, seed=0, include=None):
    mask = np.ones(24, bool) if include is None else include
    everywhere = NamedSharding(parts.mesh, PartitionSpec())  # where a round leaves it: the second one compiles nothing
    init = jax.jit(functools.partial(init_state, parts), out_shardings=everywhere)
    return init(toy.keys(seed)[0]), Data(toy.domain().data, jnp.asarray(mask))


def with_records(data, clients, value):
    """The data with every number of these clients' records replaced."""
    store = data.population
    owner = np.repeat(np.arange(24), np.asarray(store.count))
    return data._replace(population=store._replace(x=jnp.where(clients[owner][:, None], value, store.x)))


def rows(memory):
    """All memories as f64[K, P]."""
    return toy.flat(memory)


@pytest.mark.parametrize("case", ["scaffold", "feedback", "both"])
def test_memory_changes_for_those_that_took_part_and_for_nobody_else(case):
    parts, round_fn, who = federation(case)
    count = np.asarray(toy.domain().data.count)
    include = np.arange(24) % 7 != 3
    state, data = start(parts, include=include)
    assert not rows(state.memory).any()
    ever = np.zeros(24, bool)
    for _ in range(3):
        before, (_, alive) = rows(state.memory), jax.device_get(who(state, data))
        assert np.sum(alive & (count > 0)) >= 3 and np.sum(~alive & include) >= 3 and not alive[~include].any()
        state, metrics = round_fn(state, toy.hyper(None, noise_multiplier=0.0), data)
        changed = np.any(rows(state.memory) != before, 1)
        np.testing.assert_array_equal(changed, alive & (count > 0))
        assert metrics["sim/cohort"] == alive.sum()
        ever |= changed
    assert np.all(rows(state.memory)[~ever] == 0) and 0 < ever.sum() < 24


@pytest.mark.parametrize("case", list(CASES))
def test_a_device_that_dropped_out_leaves_no_trace(case):
    """Whatever its records are: not in the model, the control, the memory, the metrics, nor the clock."""
    parts, round_fn, who = federation(case)
    hyper = toy.hyper(None)
    state, data = start(parts)
    asked, alive = jax.device_get(who(state, data))
    count = np.asarray(toy.domain().data.count)
    assert np.sum(alive & (count > 0)) >= 3 and np.sum(asked & ~alive & (count > 0)) >= 3
    clean = jax.device_get(round_fn(state, hyper, data))
    dead = jax.device_get(round_fn(state, hyper, with_records(data, asked & ~alive, jnp.nan)))
    for one, other in zip(jax.tree.leaves(plain(clean)), jax.tree.leaves(plain(dead)), strict=True):
        np.testing.assert_array_equal(one, other)
    moved = jax.device_get(round_fn(state, hyper, with_records(data, alive, 2.0)))  # the comparison can fail
    assert np.abs(toy.flat(added_axis(moved[0].params)) - toy.flat(added_axis(clean[0].params))).max() > 1e-4


def plain(result):
    state, metrics = result
    return state._replace(key=jax.random.key_data(state.key)), metrics


def added_axis(tree):
    return jax.tree.map(lambda leaf: leaf[None], tree)


@pytest.mark.parametrize("case", ["mean", "both", "median"])
def test_a_round_is_that_of_the_living_alone(case):
    """With ideal devices and only the living included, everything is the same but what the devices cost."""
    parts, round_fn, who = federation(case)
    state, data = start(parts)
    _, alive = jax.device_get(who(state, data))
    after, metrics = round_fn(state, toy.hyper(None), data)
    ideal, ideal_round, _ = federation(case, None)
    state, data = start(ideal, include=alive)
    same, fewer = ideal_round(state, toy.hyper(None), data)
    for name in ("params", "control", "memory", "average", "server"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(same, name))
    assert metrics["sim/cohort"] == fewer["sim/cohort"] == alive.sum()
    assert "sim/failed" in metrics and "sim/failed" not in fewer
    assert after.clock.second + after.clock.fraction > 0 and same.clock.second + same.clock.fraction == 0


def test_a_round_in_which_nobody_answers_changes_nothing():
    never = toy.devices_config(deadline_seconds=0.01)  # over before the first byte
    for case in ("both", "fixed_point"):
        parts, round_fn, who = federation(case, never)
        state, data = start(parts)
        assert not np.any(jax.device_get(who(state, data))[1])
        after, metrics = round_fn(state, toy.hyper(None), data)
        for name in ("params", "control", "memory"):
            jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(state, name))
        assert metrics["sim/cohort"] == 0 and all(np.isfinite(value) for value in metrics.values())


def test_a_fixed_cohort_asks_those_that_are_on():
    """The sampler and the devices see the same clock and the same world: nobody drawn is offline."""
    on_and_off = toy.devices_config(availability="markov", on_fraction=0.5, mean_on_seconds=1.0)
    parts, round_fn, who = federation("mean", on_and_off, "fixed")
    state, data = start(parts)
    drawn = []
    for _ in range(6):
        asked, alive = jax.device_get(who(state, data))
        np.testing.assert_array_equal(asked, alive)
        state, metrics = round_fn(state, toy.hyper(None), data)
        assert metrics["sim/offline"] == 0 and metrics["sim/sampled"] == asked.sum() > 0
        drawn.append(tuple(asked))
    assert len(set(drawn)) == 6


def test_a_client_keeps_its_device():
    """Those on LTE are late in every round; another federation gives the clients other devices."""
    slow_lte = toy.devices_config(deadline_seconds=0.3)
    parts, round_fn, who = federation("mean", slow_lte)
    seen = []
    for seed in (0, 1):
        state, data = start(parts, seed)
        for _ in range(3):
            seen.append(tuple(jax.device_get(who(state, data))[1]))
            state, _ = round_fn(state, toy.hyper(None), data)
    assert 8 < sum(seen[0]) < 24
    assert seen == [seen[0]] * 3 + [seen[3]] * 3 and seen[0] != seen[3]
