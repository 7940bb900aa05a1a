"""The ring graph: symmetric, of the stated degree, in random order; its counts and components are those of the matrix."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.csgraph
import scipy.stats

from fedjax_health.secure.graph import (
    abort_probability,
    check_degree,
    default_degree,
    least_threshold,
    make_ring,
    neighbour,
    survey,
)
from fedjax_health.types import UserError

N, DEGREE = 40, 6


def matrix(ring):
    found = np.zeros((N, N), bool)
    for offset in range(1, DEGREE // 2 + 1):
        for sign in (1, -1):
            found[np.arange(N), np.asarray(neighbour(ring, sign * offset))] = True
    return found & np.asarray(ring.member)[:, None]


@pytest.mark.parametrize("members", [7, 25, 40])
def test_members_have_degree_neighbours_that_are_members_and_theirs(members):
    member = np.zeros(N, bool)
    member[np.random.default_rng(members).choice(N, members, replace=False)] = True
    ring = make_ring(jnp.asarray(member), jax.random.key(members))
    edges = matrix(ring)
    assert int(ring.size) == members
    np.testing.assert_array_equal(edges, edges.T)
    np.testing.assert_array_equal(edges.sum(1), np.where(member, DEGREE, 0))
    assert not edges.diagonal().any()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.8])
def test_survey_is_that_of_the_matrix(share):
    look = jax.jit(lambda ring, alive: survey(ring, alive, DEGREE))
    parts = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        member = rng.random(N) < 0.9
        alive = member & (rng.random(N) < share)
        ring = make_ring(jnp.asarray(member), jax.random.key(seed))
        edges, found = matrix(ring), look(ring, jnp.asarray(alive))
        count = (edges & alive[None]).sum(1)
        np.testing.assert_array_equal(np.asarray(found.alive_neighbours)[member], count[member])
        needed = member & (alive | (count > 0))
        assert int(found.least) == (count[needed].min() if needed.any() else DEGREE)
        parts.append(scipy.sparse.csgraph.connected_components(edges[np.ix_(alive, alive)])[0] if alive.any() else 0)
        assert int(found.components) == parts[-1]
    assert share != 0.1 or max(parts) > 1  # the case of several parts occurs


def test_the_secrets_of_the_dead_are_needed_where_a_survivor_has_a_mask_with_them():
    ring = make_ring(jnp.ones(N, bool), jax.random.key(0))
    # of five dead in a row the middle one has an alive neighbour on either side, the alive ones next to them have three
    assert int(survey(ring, ring.position >= 5, DEGREE).least) == 2
    # of eight the middle two have none, and nobody needs their secrets; those beside them have one
    assert int(survey(ring, ring.position >= 8, DEGREE).least) == 1
    assert int(survey(ring, ring.position < 0, DEGREE).least) == DEGREE


def test_the_order_is_uniform_and_a_fixed_one_is_rejected():
    member = jnp.asarray([True] * 6 + [False] * 2)
    keys = jax.random.split(jax.random.key(9), 4000)
    after = np.asarray(jax.vmap(lambda key: neighbour(make_ring(member, key), 1)[0])(keys))
    counts = np.bincount(after, minlength=8)
    assert counts[0] == counts[6] == counts[7] == 0
    assert scipy.stats.chisquare(counts[1:6]).pvalue > 1e-4
    assert scipy.stats.chisquare(np.bincount((after - 1) % 5 // 2, minlength=5)).pvalue < 1e-10


def test_abort_probability_bounds_what_happens_and_is_not_idle():
    clients, degree, threshold, dropout = 60, 12, 6, 0.3
    ring = make_ring(jnp.ones(clients, bool), jax.random.key(0))
    draws = jax.random.bernoulli(jax.random.key(1), 1 - dropout, (3000, clients))
    failed = np.asarray(jax.jit(jax.vmap(lambda alive: survey(ring, alive, degree).least < threshold))(draws)).mean()
    bound = abort_probability(clients, degree, threshold, dropout)
    assert 0.1 * bound < failed <= bound
    assert abort_probability(clients, degree, threshold, 0.0) == 0.0
    assert abort_probability(clients, degree, threshold, 1.0) == 1.0


@pytest.mark.parametrize(("degree", "threshold"), [(5, 3), (0, 1), (10, 5), (4, 0), (4, 5)])
def test_degree_and_threshold_are_checked(degree, threshold):
    with pytest.raises(UserError, match=f"{degree}"):
        check_degree(degree, threshold, 10)


def test_empty_slots_do_not_change_who_masks_with_whom():
    key = jax.random.key(3)
    short, long = (make_ring(jnp.arange(n) < 25, key) for n in (25, 64))
    np.testing.assert_array_equal(long.slot[:25], short.slot)
    assert not np.array_equal(short.slot, np.arange(25))


@pytest.mark.parametrize(("clients", "degree"), [(1.0, 2), (8.0, 4), (24.0, 10), (100.0, 14), (1000.0, 20)])
def test_the_degree_grows_like_the_logarithm_and_withstands_a_tenth_lost(clients, degree):
    assert default_degree(clients) == degree and degree % 2 == 0
    assert degree < 2 * least_threshold(degree) <= degree + 2
    if clients >= 24:
        assert abort_probability(int(clients), degree, least_threshold(degree), 0.1) < 0.04
