"""The ring: its step never lets a sum wrap, rounding is unbiased and within the proven bound, and coarser ones are caught."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_health.secure.ring import HALF, decode, encode, encoded_l2_bound, ring_step, ring_sum
from fedjax_health.types import UserError


@pytest.mark.parametrize(("bound", "slots", "bits"), [(1.0, 1000, 16), (0.3, 50, 8), (7.5, 200, 24), (1.0, 3, 2)])
def test_step_is_the_smallest_power_of_two_of_its_bits(bound, slots, bits):
    step = ring_step(bound, slots, bits)
    assert math.frexp(step)[0] == 0.5
    assert bound / step <= 2 ** (bits - 1) - 1 < bound / (step / 2)
    assert slots * (bound / step + 1) < HALF


@pytest.mark.parametrize(
    ("bound", "slots", "bits", "message"),
    [
        (1.0, 1000, 24, "the sum could wrap"),
        (1.0, 10, 1, "1 bits"),
        (1.0, 10, 25, "25 bits"),
        (0.0, 10, 8, "bound = 0.0"),
        (math.inf, 10, 8, "bound = inf"),
        (1.0, 0, 8, "0 clients"),
        (1e-38, 10, 16, "no float32"),
    ],
)
def test_step_refuses(bound, slots, bits, message):
    with pytest.raises(UserError, match=message):
        ring_step(bound, slots, bits)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_fullest_sum_that_is_allowed_does_not_wrap_and_of_one_client_more_would_be_refused(sign):
    slots = 2047
    step = ring_step(1.0, slots, 22)
    q = jnp.tile(encode(jnp.full(3, sign), 1.0, step, jax.random.key(0)).q[None], (slots, 1))
    np.testing.assert_array_equal(decode(ring_sum(q, jnp.ones(slots, bool)), step), sign * slots)
    twice = ring_sum(jnp.tile(q, (2, 1)), jnp.ones(2 * slots, bool))
    assert np.all(np.abs(decode(twice, step)) < slots)  # it does wrap where the check would refuse
    with pytest.raises(UserError, match="could wrap"):
        ring_step(1.0, slots + 1, 22)


def test_values_on_the_grid_come_back_exactly_and_the_dead_do_not_count():
    step = ring_step(2.0, 10, 12)
    x = step * np.random.default_rng(0).integers(-900, 900, (10, 33)).astype(np.float32)
    keys = jax.random.split(jax.random.key(1), 10)
    coded = jax.vmap(lambda row, key: encode(row, 2.0, step, key))(jnp.asarray(x), keys)
    assert coded.q.dtype == jnp.uint32 and int(coded.saturated.sum()) == 0
    live = jnp.asarray([True] * 7 + [False] * 3)
    np.testing.assert_array_equal(decode(ring_sum(coded.q, live), step), x[:7].sum(0))
    np.testing.assert_array_equal(ring_sum(coded.q, jnp.zeros(10, bool)), 0)


def test_what_is_too_large_or_no_number_is_cut_and_counted():
    x = jnp.asarray([0.5, 1.5, -2.0, jnp.nan, jnp.inf, -jnp.inf, 1.0], jnp.float32)
    step = ring_step(1.0, 4, 16)
    coded = encode(x, 1.0, step, jax.random.key(0))
    assert int(coded.saturated) == 5
    np.testing.assert_array_equal(decode(coded.q, step), [0.5, 1.0, -1.0, 0.0, 1.0, -1.0, 1.0])


def test_rounding_is_unbiased_between_neighbours_and_rounding_to_nearest_is_rejected():
    step, n = ring_step(1.0, 4, 6), 20_000
    x = jnp.asarray(np.random.default_rng(3).uniform(-0.9, 0.9, 24), jnp.float32)
    coded = jax.jit(jax.vmap(lambda key: encode(x, 1.0, step, key).q))(jax.random.split(jax.random.key(5), n))
    level = np.asarray(x, np.float64) / step
    q = np.asarray(coded).view(np.int32).astype(np.float64)
    assert np.abs(q - level).max() < 1
    fraction = level % 1
    deviation = np.sqrt(fraction * (1 - fraction) / n)
    assert np.abs((q.mean(0) - level) / deviation).max() < 4.5
    assert np.abs((np.round(level) - level) / deviation).max() > 20


def test_l2_bound_holds_always_and_the_unrounded_one_does_not():
    bound, d, step = 1.0, 400, 2.0**-4
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, d))
    x = jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True) * 0.999999, jnp.float32)
    keys = jax.random.split(jax.random.key(2), 50)
    q = jax.vmap(lambda row, key: encode(row, bound, step, key).q)(x, keys)
    norms = np.linalg.norm(np.asarray(q).view(np.int32).astype(np.float64) * step, axis=1)
    assert norms.max() <= encoded_l2_bound(bound, d, step) == pytest.approx(1.0 + 20 / 16)
    assert norms.min() > bound  # the clip norm alone would be too small a sensitivity
    worst = jnp.full(
        d, 1.0 / 20, jnp.float32
    )  # every coordinate rounded up comes close to the bound's square root term
    assert np.linalg.norm(np.ceil(np.asarray(worst) / step) * step) <= encoded_l2_bound(bound, d, step)
