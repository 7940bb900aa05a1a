"""Masked sums: equal to the ideal ones bit for bit through drop-outs; single rows tell nothing; a lost quorum aborts."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from fedjax_health.secure.graph import make_ring
from fedjax_health.secure.masked import leftover, mask_rows, masked_sum
from fedjax_health.secure.ring import encode, ring_step, ring_sum
from fedjax_health.types import UserError

N, D, DEGREE, THRESHOLD = 60, 301, 16, 6
run = jax.jit(functools.partial(masked_sum, degree=DEGREE, threshold=THRESHOLD, chunk=100))


def updates(n=N, d=D):
    step = ring_step(1.0, n, 16)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(n, d)) * 0.1, jnp.float32)
    return jax.vmap(lambda row, key: encode(row, 1.0, step, key).q)(x, jax.random.split(jax.random.key(7), n))


def lose(seed, before, after):
    rng = np.random.default_rng(seed)
    order = rng.permutation(N)
    member, alive = np.ones(N, bool), np.ones(N, bool)
    member[order[: int(before * N)]] = False
    alive[order[int(before * N) : int((before + after) * N)]] = False
    return jnp.asarray(member), jnp.asarray(alive)


def byte_p(row):
    """p-value of uniform bytes."""
    return scipy.stats.chisquare(np.bincount(np.asarray(row).view(np.uint8).ravel(), minlength=256)).pvalue


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.3), (0.15, 0.15)])
def test_sum_is_that_of_the_ring_through_drop_outs(before, after):
    q = updates()
    for seed in range(5):
        member, alive = lose(seed, before, after)
        # a row that is not alive must not be used, whatever it holds
        found = run(jnp.where((member & alive)[:, None], q, jnp.uint32(12345)), member, alive, jax.random.key(seed))
        assert bool(found.ok) and float(found.metrics["secure/aborted"]) == 0
        np.testing.assert_array_equal(found.total, ring_sum(q, member & alive))
        assert float(found.metrics["secure/dropped"]) == round(after * N)
        assert THRESHOLD <= float(found.metrics["secure/least_quorum"]) <= DEGREE
        assert float(found.metrics["secure/components"]) == 1


@pytest.mark.parametrize("chunk", [1, 7, 301, 1000])
def test_chunks_do_not_matter(chunk):
    q = updates()[:, :21]
    member, alive = lose(1, 0.1, 0.2)
    found = masked_sum(q, member, alive, jax.random.key(1), DEGREE, THRESHOLD, chunk)
    np.testing.assert_array_equal(found.total, ring_sum(q, member & alive))


def test_masks_do_not_depend_on_how_columns_are_cut():
    q, ring = updates(), make_ring(jnp.ones(N, bool), jax.random.key(0))
    seed = jnp.asarray([1, 2], jnp.uint32)
    whole = mask_rows(q, ring, DEGREE, seed)
    np.testing.assert_array_equal(whole[:, 100:150], mask_rows(q[:, 100:150], ring, DEGREE, seed, 100))
    assert np.mean(np.asarray(whole)[:, 100:150] == np.asarray(mask_rows(q[:, 100:150], ring, DEGREE, seed, 99))) < 0.01


def test_what_is_left_is_not_zero_and_without_it_the_sum_is_wrong():
    q, member, alive = updates(), *lose(3, 0.0, 0.3)
    ring, seed = make_ring(member, jax.random.key(0)), jnp.asarray([1, 2], jnp.uint32)
    received = np.where(np.asarray(alive)[:, None], mask_rows(q, ring, DEGREE, seed), 0).sum(0, dtype=np.uint32)
    rest = np.asarray(leftover(ring, alive, DEGREE, seed, 0, D))
    np.testing.assert_array_equal(received - rest, ring_sum(q, alive))
    assert np.mean(received == np.asarray(ring_sum(q, alive))) < 0.05 and byte_p(rest) > 1e-4


def test_a_lost_quorum_aborts_and_gives_nothing():
    q, everyone = updates(), jnp.ones(N, bool)
    found = run(q, everyone, jnp.arange(N) < 12, jax.random.key(2))
    assert not bool(found.ok) and float(found.metrics["secure/aborted"]) == 1
    assert float(found.metrics["secure/least_quorum"]) < THRESHOLD
    np.testing.assert_array_equal(found.total, 0)
    # one is missing, everyone else is connected: what decides is the quorum alone
    for threshold in (DEGREE - 1, DEGREE):
        one_lost = masked_sum(q[:, :5], everyone, jnp.arange(N) > 0, jax.random.key(2), DEGREE, threshold)
        assert bool(one_lost.ok) == (threshold < DEGREE) and float(one_lost.metrics["secure/components"]) == 1
        assert float(one_lost.metrics["secure/least_quorum"]) == DEGREE - 1
    nobody = run(q, everyone, jnp.zeros(N, bool), jax.random.key(2))
    assert not bool(nobody.ok)
    few = run(q, jnp.arange(N) <= DEGREE, everyone, jax.random.key(2))
    too_few = run(q, jnp.arange(N) < DEGREE, everyone, jax.random.key(2))
    assert bool(few.ok) and not bool(too_few.ok)
    # alive in two blocks of the ring, each with a quorum of its own: the server would learn both blocks' sums
    ring = make_ring(everyone, jax.random.fold_in(jax.random.key(4), 0))
    gap = (ring.position % 30) >= 20
    split = masked_sum(q, everyone, ~gap, jax.random.key(4), DEGREE, 1)
    joined = masked_sum(q, everyone, ~(gap & (ring.position > 30)), jax.random.key(4), DEGREE, 1)
    assert float(split.metrics["secure/components"]) == 2 and not bool(split.ok)
    assert float(joined.metrics["secure/components"]) == 1 and bool(joined.ok)


def test_each_masked_row_looks_uniform_and_an_unmasked_one_is_rejected():
    d = 4096
    q = updates(30, d)
    ring = make_ring(jnp.ones(30, bool), jax.random.key(1))
    rows = np.asarray(mask_rows(q, ring, DEGREE, jnp.asarray([3, 4], jnp.uint32)))
    p = np.asarray([byte_p(row) for row in rows])
    assert p.min() > 1e-5 and scipy.stats.kstest(p, "uniform").pvalue > 1e-3
    assert np.mean(rows == np.asarray(q)) < 1e-3
    assert max(byte_p(row) for row in np.asarray(q)) < 1e-100
    # and no two rows share a mask
    difference = rows - np.asarray(q)
    assert byte_p(difference[0] - difference[1]) > 1e-5 and byte_p(rows[0] + rows[1]) > 1e-5
    assert byte_p(difference[0] - difference[0]) < 1e-100


def test_who_takes_no_part_sends_nothing():
    member = jnp.arange(N) % 3 > 0
    rows = mask_rows(updates(), make_ring(member, jax.random.key(1)), DEGREE, jnp.asarray([3, 4], jnp.uint32))
    np.testing.assert_array_equal(np.asarray(rows)[~np.asarray(member)], 0)


def test_arguments_are_checked():
    q, all_ = updates(), jnp.ones(N, bool)
    for degree, threshold, chunk in ((15, 6, 10), (60, 6, 10), (16, 17, 10), (16, 6, 0)):
        with pytest.raises(UserError):
            masked_sum(q, all_, all_, jax.random.key(0), degree, threshold, chunk)
