"""The mean is a monoid: any grouping gives the same, and a dead slot leaves no trace."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_health.federated.aggregate import make_mean


def updates(n, seed=0):
    rng = np.random.default_rng(seed)
    return {"w": rng.normal(size=(n, 3, 2)).astype(np.float32), "b": rng.normal(size=(n, 2)).astype(np.float32)}


def run(aggregator, tree, live, count, groups):
    acc = aggregator.init(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:]), tree))
    for part in np.split(np.arange(len(live)), groups):
        piece = jax.tree.map(lambda leaf, part=part: jnp.asarray(leaf[part]), tree)
        acc = aggregator.add(acc, piece, jnp.asarray(live[part]), jnp.asarray(count[part]))
    return aggregator.done(acc)


@pytest.mark.parametrize(("weighting", "weights"), [("equal", [1, 1, 0, 1, 0, 1]), ("examples", [3, 1, 0, 0, 0, 5])])
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_weighted_mean_in_any_grouping(weighting, weights, groups):
    tree, live = updates(6), np.array([True, True, False, True, False, True])
    count = np.array([3, 1, 9, 0, 4, 5], np.int32)
    mean = run(make_mean(weighting, None), tree, live, count, groups)
    for name, leaf in tree.items():
        np.testing.assert_allclose(mean[name], np.average(leaf, 0, weights), rtol=2e-6, atol=1e-7)


def test_dead_slots_may_hold_anything():
    tree, live, count = updates(4), np.array([True, False, True, False]), np.ones(4, np.int32)
    clean = run(make_mean("examples", None), tree, live, count, 2)
    tree["w"][1], tree["b"][3] = np.nan, np.inf
    dirty = run(make_mean("examples", None), tree, live, count * np.array([1, 10**6, 1, 7], np.int32), 2)
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)


def test_public_denominator_does_not_depend_on_who_came():
    tree, count = updates(4), np.ones(4, np.int32)
    for live in (np.ones(4, bool), np.array([True, False, False, False])):
        mean = run(make_mean("equal", 10.0), tree, live, count, 1)
        np.testing.assert_allclose(mean["b"], tree["b"][live].sum(0) / 10, rtol=1e-6)


@pytest.mark.parametrize("expected", [None, 3.0])
def test_nobody_came(expected):
    mean = run(make_mean("examples", expected), updates(3), np.zeros(3, bool), np.ones(3, np.int32), 1)
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(mean))
