"""Integers add up to the same bits in any grouping, never overflow, and stay within half a step of the truth."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_health.federated import sharding
from fedjax_health.federated.aggregate import Members, make_mean
from fedjax_health.federated.fixed_point import grid_step, make_fixed_point_mean
from fedjax_health.types import UserError

KEY = jax.random.key(0)


def members(live, weight=None):
    c = len(live)
    weight = jnp.ones(c, jnp.float32) if weight is None else jnp.asarray(weight, jnp.float32)
    return Members(jnp.arange(c, dtype=jnp.int32), jnp.asarray(live), weight, jnp.zeros(c, jnp.int32))


def over(devices, aggregator, updates, who, chunk):
    def on_device(key, share):
        mine = share[1].client.shape[0]

        def body(i, acc):
            part = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, i * chunk, chunk), share)
            return aggregator.add(acc, *part)

        zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:]), updates)
        start = sharding.varying(aggregator.init(zero, mine))
        return aggregator.merge(jax.lax.fori_loop(0, mine // chunk, body, start), {}, sharding.AXIS)[0]

    merged = sharding.over_clients(sharding.make_mesh(devices), on_device)
    return jax.jit(lambda k, u, m: aggregator.total(merged(k, (u, m)), k))(KEY, updates, who)


@pytest.mark.parametrize("slots", [1, 3, 127, 128, 129, 10_000, 2**31 - 1])
@pytest.mark.parametrize("bound", [1.0, 0.1, 3.0, 1e-6, 1e4])
def test_grid_is_the_finest_power_of_two_that_cannot_overflow(bound, slots):
    step = grid_step(bound, slots)
    largest = min((2**31 - 1) // slots, 2**24)
    assert np.log2(step) == int(np.log2(step))
    assert round(bound / step) <= largest < 2 * bound / step + 1e-9 * largest + 1
    assert round(bound / step) * slots <= 2**31 - 1


@pytest.mark.parametrize(("bound", "slots"), [(0.0, 4), (-1.0, 4), (np.inf, 4), (np.nan, 4), (1.0, 0), (1.0, 2**31)])
def test_impossible_grids_are_refused(bound, slots):
    with pytest.raises(UserError, match="fixed-point"):
        make_fixed_point_mean(bound, slots, None)


def test_sum_is_bit_equal_for_every_chunk_and_device_count_and_the_float_sum_is_not():
    r = np.random.default_rng(0)
    updates = {
        "w": jnp.asarray(r.normal(size=(64, 50, 20)), jnp.float32),
        "b": jnp.asarray(r.normal(size=(64, 7)), jnp.float32),
    }
    who = members(r.random(64) < 0.9)
    exact, floats = [], []
    for devices, chunk in ((1, 64), (1, 4), (2, 8), (4, 16), (4, 2)):
        order = np.random.default_rng(chunk).permutation(64)
        rows, them = jax.tree.map(lambda leaf, order=order: leaf[order], (updates, who))
        exact.append(over(devices, make_fixed_point_mean(8.0, 64, None), rows, them, chunk))
        floats.append(over(devices, make_mean(None), rows, them, chunk))
    for other in exact[1:]:
        jax.tree.map(np.testing.assert_array_equal, exact[0], other)
    assert any(not np.array_equal(floats[0][0]["w"], other[0]["w"]) for other in floats[1:])  # the test can fail
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3, rtol=1e-5), exact[0], floats[0])


@pytest.mark.parametrize("bound", [1.0, 0.3])
@pytest.mark.parametrize("slots", [8, 1000, 10**6])
def test_a_coordinate_moves_by_at_most_half_a_step(slots, bound):
    aggregator, step = make_fixed_point_mean(bound, slots, None), grid_step(bound, slots)
    u = np.random.default_rng(1).uniform(-bound, bound, (1, 5000)).astype(np.float32)
    total, came = aggregator.total(
        aggregator.add(aggregator.init(jnp.zeros(5000), 1), jnp.asarray(u), members([True])), KEY
    )
    error = np.abs(np.asarray(total, np.float64) - u[0])
    assert error.max() <= step / 2
    assert error.max() > step / 2.1 or step < 1e-6  # all of it is used, where float32 has anything to round
    assert float(came) == 1.0 and aggregator.bounded


@pytest.mark.parametrize("sign", [1, -1])
def test_a_full_house_at_the_bound_and_beyond_does_not_overflow(sign):
    for slots in (3, 129, 4096):
        aggregator = make_fixed_point_mean(1.0, slots, None)
        u = jnp.full((slots, 2), sign * 1.0).at[:, 1].set(sign * jnp.inf)
        total, came = aggregator.total(
            aggregator.add(aggregator.init(jnp.zeros(2), slots), u, members([True] * slots)), KEY
        )
        np.testing.assert_array_equal(total, [sign * slots] * 2)
        assert float(came) == slots


def test_who_counts():
    aggregator = make_fixed_point_mean(1.0, 4, None)
    u = jnp.array([[0.5, jnp.nan], [jnp.nan, 1.0], [0.25, 0.5], [0.125, 0.5]])
    acc = aggregator.add(aggregator.init(jnp.zeros(2), 4), u, members([True, False, True, True], [1, 1, 0, 7]))
    total, came = aggregator.total(acc, KEY)
    np.testing.assert_array_equal(total, [0.625, 0.5])  # NaN counts as 0; a weight is only ever 0 or not 0
    assert float(came) == 2.0
    nobody = aggregator.total(aggregator.init(jnp.zeros(2), 4), KEY)
    np.testing.assert_array_equal(nobody[0], [0, 0])
    assert float(nobody[1]) == 1.0
    public = make_fixed_point_mean(1.0, 4, 10.0)
    assert float(public.total(public.init(jnp.zeros(2), 4), KEY)[1]) == 10.0
