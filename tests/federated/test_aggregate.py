"""The mean is a monoid: any grouping gives the same, and a dead slot leaves no trace."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_health import tree
from fedjax_health.federated import aggregate, sharding
from fedjax_health.federated.aggregate import Members, make_mean


def updates(n, seed=0):
    rng = np.random.default_rng(seed)
    return {"w": rng.normal(size=(n, 3, 2)).astype(np.float32), "b": rng.normal(size=(n, 2)).astype(np.float32)}


def members(live, weight):
    ids = jnp.arange(len(live), dtype=jnp.int32)
    return Members(ids, jnp.asarray(live), jnp.asarray(weight, jnp.float32), jnp.zeros_like(ids))


def run(aggregator, updates, live, weight, groups):
    """(mean, total, denominator), the updates added in `groups` chunks."""
    acc = aggregator.init(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), updates), len(live))
    whole = updates, members(live, weight)
    for part in np.split(np.arange(len(live)), groups):
        acc = aggregator.add(acc, *jax.tree.map(lambda leaf, part=part: jnp.asarray(leaf)[part], whole))
    total, denominator = aggregator.total(acc, jax.random.key(0))
    return tree.scale(1.0 / denominator, total), total, denominator


@pytest.mark.parametrize("weights", [[1, 1, 0, 1, 0, 1], [3, 1, 0, 0, 0, 5], [0.5, 2, 0, 1.5, 0, 0.25]])
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_weighted_mean_in_any_grouping(weights, groups):
    some, live = updates(6), np.array([True, True, False, True, False, True])
    dead_weights_count_for_nothing = np.where(live, weights, [0, 0, 9, 0, 4, 0])
    mean, total, denominator = run(make_mean(None), some, live, dead_weights_count_for_nothing, groups)
    for name, leaf in some.items():
        np.testing.assert_allclose(mean[name], np.average(leaf, 0, weights), rtol=2e-6, atol=1e-6)
        np.testing.assert_allclose(total[name], np.tensordot(weights, leaf, 1), rtol=2e-6, atol=1e-6)
    assert float(denominator) == sum(weights)


def test_dead_slots_may_hold_anything():
    some, live, weight = updates(4), np.array([True, False, True, False]), np.ones(4)
    clean = run(make_mean(None), some, live, weight, 2)
    some["w"][1], some["b"][3] = np.nan, np.inf
    dirty = run(make_mean(None), some, live, weight * np.array([1, np.inf, 1, np.nan]), 2)
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)


def test_public_denominator_does_not_depend_on_who_came():
    some, weight = updates(4), np.ones(4)
    for live in (np.ones(4, bool), np.array([True, False, False, False])):
        mean, _, denominator = run(make_mean(10.0), some, live, weight, 1)
        np.testing.assert_allclose(mean["b"], some["b"][live].sum(0) / 10, rtol=1e-6)
        assert float(denominator) == 10.0


@pytest.mark.parametrize("expected", [None, 3.0])
def test_nobody_came(expected):
    mean, _, _ = run(make_mean(expected), updates(3), np.zeros(3, bool), np.ones(3), 1)
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(mean))


def test_one_client_changes_the_sum_by_its_own_update():
    """What `bounded` promises, and what noise on the sum is scaled to."""
    assert make_mean(None).bounded and make_mean(4.0).bounded
    some, live, weight = updates(5), np.ones(5, bool), np.ones(5)
    _, whole, _ = run(make_mean(5.0), some, live, weight, 1)
    for i in range(5):
        _, rest, _ = run(make_mean(5.0), some, live & (np.arange(5) != i), weight, 1)
        for name in some:
            np.testing.assert_allclose(whole[name] - rest[name], some[name][i], atol=2e-6)


@pytest.mark.parametrize("n", [1, aggregate.MOST_WRITTEN_OUT, aggregate.MOST_WRITTEN_OUT + 1, 40])
def test_both_forms_of_the_sum_equal_numpy(n):
    rng = np.random.default_rng(n)
    leaf, weight, live = rng.normal(size=(n, 3, 2)), rng.uniform(0, 2, n), rng.random(n) < 0.7
    bad = np.where(live[:, None, None], leaf, np.nan).astype(np.float32)
    total = jax.jit(aggregate.weighted_sum)(jnp.asarray(bad), jnp.asarray(weight, jnp.float32), jnp.asarray(live))
    np.testing.assert_allclose(total, np.einsum("i,ijk", weight * live, leaf), rtol=1e-5, atol=1e-5)


def test_merge_adds_the_devices():
    some, weight = updates(8), np.arange(8) + 1.0

    def of_one_device(tasks):
        leaves, mine = tasks
        mean = make_mean(None)
        acc = mean.init(jax.tree.map(lambda leaf: leaf[0], leaves), 2)
        lost = {"sim/lost": jnp.sum(1.0 - mine.live.astype(jnp.float32))}
        return mean.merge(mean.add(sharding.varying(acc), leaves, mine), lost, sharding.AXIS)

    tasks = (jax.tree.map(jnp.asarray, some), members(np.arange(8) != 2, weight))
    merged, totals = jax.jit(sharding.over_clients(sharding.make_mesh(4), of_one_device))(tasks)
    assert float(merged.weight) == 36.0 - 3.0 and float(totals["sim/lost"]) == 1.0
    for name, leaf in some.items():
        expected = np.tensordot(np.where(np.arange(8) == 2, 0.0, weight), leaf, 1)
        np.testing.assert_allclose(merged.update[name], expected, rtol=1e-5, atol=1e-5)
