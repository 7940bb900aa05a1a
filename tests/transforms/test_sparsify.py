"""Sparsifiers: exactly k, the right k, unbiased where they say so, in the stated bits."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from fedjax_health.transforms.base import Keys, Wire, full_wire
from fedjax_health.transforms.hash_bits import draw_seed, hash_bits
from fedjax_health.transforms.quantize import quantize_coder
from fedjax_health.transforms.sign import SIGN
from fedjax_health.transforms.sparsify import kept_count, largest, make_rand_k, make_top_k
from fedjax_health.types import UserError

pytestmark = pytest.mark.quick_compile


def keys(seed=0):
    return Keys(jax.random.key(seed), jax.random.key(77))


def update(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "w": jnp.asarray(rng.normal(size=(9, 10)), jnp.float32),
        "b": jnp.asarray(rng.normal(size=(10,)), jnp.float32),
    }


def flat(tree):
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)])


def sent(transform, u, seed=0):
    return flat(transform.client(u, transform.memory(u), {}, keys(seed))[0])


def stable_top(magnitude, k):
    chosen = np.zeros(len(magnitude), bool)
    chosen[np.argsort(-magnitude, kind="stable")[:k]] = True
    return chosen


@functools.cache
def jitted(k):
    return jax.jit(lambda score: largest(score, k))


@pytest.mark.parametrize("k", [1, 2, 7, 63, 64])
@pytest.mark.parametrize("values", [2, 5, 1000, 2**31 - 1])
def test_largest_is_a_stable_sort_whatever_the_ties(k, values):
    rng = np.random.default_rng(k + values)
    for _ in range(20):
        score = rng.integers(0, values, 64)
        np.testing.assert_array_equal(jitted(k)(jnp.asarray(score, jnp.int32)), stable_top(score.astype(float), k))


def test_largest_at_the_ends_of_the_range():
    for score in ([0] * 8, [2**31 - 2] * 8, [0, 2**31 - 2] * 4):
        for k in range(1, 9):
            out = largest(jnp.array(score, jnp.int32), k)
            np.testing.assert_array_equal(out, stable_top(np.array(score, float), k))


def test_kept_count():
    assert [kept_count(f, 100) for f in (1e-9, 0.01, 0.011, 0.07, 0.29, 0.5, 1.0)] == [1, 1, 2, 7, 29, 50, 100]
    assert kept_count(0.1, 1) == 1


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 1.0])
def test_top_k_keeps_the_k_largest_as_they_are(fraction):
    for seed in range(5):
        u = update(seed)
        before, k = flat(u), kept_count(fraction, 100)
        np.testing.assert_array_equal(sent(make_top_k(fraction), u), np.where(stable_top(np.abs(before), k), before, 0))


def test_top_k_breaks_ties_by_index():
    u = {"w": jnp.array([1.0, -2.0, 2.0, 2.0, -2.0, 0.0], jnp.float32)}
    np.testing.assert_array_equal(sent(make_top_k(0.5), u), [0, -2, 2, 2, 0, 0])
    zeros = {"w": jnp.zeros(6)}
    np.testing.assert_array_equal(sent(make_top_k(0.5), zeros), np.zeros(6))


def test_top_k_loses_no_more_than_it_says_and_nan_is_sent():
    for seed in range(20):
        before = flat(update(seed))
        lost = np.sum((sent(make_top_k(0.1), update(seed)) - before) ** 2)
        assert lost <= (1 - 0.1) * np.sum(before**2)
    u = update()
    for value in (np.nan, -np.nan, np.inf, np.array(0x7FFFFFFF, np.uint32).view(np.float32)):  # the greatest NaN too
        out = sent(make_top_k(0.05), {"w": u["w"].at[0, 0].set(0.0), "b": u["b"].at[3].set(value)})
        assert (~np.isfinite(out)).sum() == 1 and (out != 0).sum() == 5


def many_rand_k(n, unbiased=True, fraction=0.2):
    transform, own = make_rand_k(fraction, unbiased), jax.random.split(jax.random.key(4), n)
    out = jax.jit(jax.vmap(lambda key: transform.client(update(), (), {}, Keys(key, key))[0]))(own)
    return np.concatenate([np.asarray(leaf).reshape(n, -1) for leaf in jax.tree.leaves(out)], 1)


def test_rand_k_keeps_exactly_k_uniformly_drawn_coordinates():
    n, chosen = 5000, many_rand_k(5000) != 0
    assert (chosen.sum(1) == 20).all()
    z = (chosen.mean(0) - 0.2) / np.sqrt(0.2 * 0.8 / n)
    assert np.abs(z).max() < 4.5
    assert 0.5 < z.std() < 1.5
    # pairs: without replacement, P(both) = k(k-1)/(d(d-1))
    both = (chosen.T.astype(float) @ chosen)[~np.eye(100, dtype=bool)] / n
    p = 20 * 19 / (100 * 99)
    assert np.abs(both - p).max() < 5.5 * np.sqrt(p / n) and abs(both.mean() - p) < 1e-6


def test_rand_k_is_unbiased_with_its_gain_and_biased_without():
    n, before = 5000, flat(update())
    deviation = np.abs(before) * np.sqrt((5 - 1) / n)
    out = many_rand_k(n)
    z = (out.mean(0) - before) / deviation
    assert np.abs(z).max() < 4.5
    np.testing.assert_allclose(np.sum(out.var(0)), 4 * np.sum(before**2), rtol=0.05)
    assert np.abs((many_rand_k(n, unbiased=False).mean(0) - before) / deviation).max() > 20


def test_rand_k_is_redrawn_by_every_client_and_is_known_from_the_seed():
    u = {"w": jnp.arange(1.0, 101.0, dtype=jnp.float32)}
    transform = make_rand_k(0.1, False)
    a, b = sent(transform, u, 1), sent(transform, u, 2)
    np.testing.assert_array_equal(a, sent(transform, u, 1))
    assert not np.array_equal(a, b)
    seed = draw_seed(jax.random.split(jax.random.key(1))[0])
    assert seed.size * 32 == 64  # what the client sends; the server redraws the positions from it
    positions = np.asarray(largest((hash_bits(seed, (100,)) >> 2).astype(jnp.int32), 10))
    np.testing.assert_array_equal(a != 0, positions)


def test_a_coder_sees_only_what_is_kept():
    u = {"w": jnp.array([0.1, -8.0, 0.2, 4.0, 0.0, 0.3, 0.1, 1.0], jnp.float32)}
    np.testing.assert_allclose(sent(make_top_k(0.25, SIGN), u), [0, -6, 0, 6, 0, 0, 0, 0])
    out = sent(make_top_k(0.25, quantize_coder(8)), u)
    np.testing.assert_allclose(out, [0, -8, 0, 4, 0, 0, 0, 0], atol=16 / 255)
    assert (out != 0).sum() == 2
    # four unbiased stages in one: rand_k of quantised values, over many clients
    transform, own = make_rand_k(0.5, True, quantize_coder(2)), jax.random.split(jax.random.key(4), 20_000)
    many = np.asarray(jax.jit(jax.vmap(lambda key: transform.client(u, (), {}, Keys(key, key))[0]["w"]))(own))
    z = (many.mean(0) - np.asarray(u["w"])) / (many.std(0) / np.sqrt(20_000))
    assert np.abs(z).max() < 4.5
    assert ((many != 0).sum(1) == 4).all()


def test_wires_equal_hand_counts():
    wire = full_wire(update())  # d = 100, indices of 7 bits
    assert make_top_k(0.1).wire(wire) == Wire(100, 10, 32, 70)
    assert make_top_k(0.1).wire(wire).bits == 390
    assert make_top_k(0.1, quantize_coder(8)).wire(wire).bits == 10 * 8 + 10 * 7 + 32
    assert make_rand_k(0.1, True).wire(wire).bits == 10 * 32 + 64
    assert make_rand_k(0.1, True, SIGN).wire(wire).bits == 10 + 64 + 32
    for d, bits in ((1, 0), (2, 1), (128, 7), (129, 8), (8192, 13)):
        assert make_top_k(1e-6).wire(Wire(d, d, 32, 0)).side == bits


def test_the_stated_bits_are_enough_to_send_top_k_of_quantised_values():
    u, bits = update(), 5
    transform = make_top_k(0.1, quantize_coder(bits))
    out, wire = sent(transform, u), transform.wire(full_wire(u))
    positions = np.flatnonzero(out)
    m = np.float32(np.abs(flat(u)).max())
    level = np.round((out[positions] + m) * 31 / (2 * m)).astype(np.uint32)
    fields = [((x[:, None] >> np.arange(w, dtype=np.uint32)) & 1).ravel() for x, w in ((positions, 7), (level, bits))]
    message = m.tobytes() + np.packbits(np.concatenate(fields).astype(bool)).tobytes()
    assert len(message) == -(-wire.bits // 8)
    plain = np.unpackbits(np.frombuffer(message[4:], np.uint8), count=10 * 12)
    where = plain[:70].reshape(10, 7) @ (1 << np.arange(7))
    decoded = np.zeros(100)
    decoded[where] = (plain[70:].reshape(10, bits) @ (1 << np.arange(bits))) * 2.0 * m / 31 - m
    np.testing.assert_allclose(decoded, out, atol=1e-6)


@pytest.mark.parametrize("transform", [make_top_k(0.1), make_rand_k(0.1, True), make_top_k(0.3, quantize_coder(6))])
def test_jit_and_vmap_equal_a_loop_and_no_bound_is_claimed(transform):
    many = jax.tree.map(lambda *x: jnp.stack(x), *[update(s) for s in range(4)])
    own = jnp.stack([jax.random.key(s) for s in range(4)])
    out = jax.jit(jax.vmap(lambda u, key: transform.client(u, (), {}, Keys(key, key))[0]))(many, own)
    for s in range(4):
        one = flat(jax.tree.map(lambda x, s=s: x[s], out))
        np.testing.assert_allclose(one, sent(transform, update(s), s), rtol=1e-5, atol=1e-6)
    assert transform.l2_bound(jnp.float32(1.0), {}) is None
    np.testing.assert_array_equal(flat(transform.server(update(), {}, keys())[0]), flat(update()))


@pytest.mark.parametrize("fraction", [-0.1, 0.0, 1.1, np.nan])
def test_fractions_out_of_range(fraction):
    for make in (lambda: make_top_k(fraction), lambda: make_rand_k(fraction, True)):
        with pytest.raises(UserError, match="keep_fraction"):
            make()


def test_kept_positions_do_not_depend_on_the_rounding():
    """Coder and positions have keys of their own: a coordinate's rounding tells nothing about its being kept."""
    u = {"w": jnp.linspace(-1.0, 1.0, 64, dtype=jnp.float32)}
    transform, own = make_rand_k(0.5, False, quantize_coder(1)), jax.random.split(jax.random.key(8), 4000)
    out = np.asarray(jax.jit(jax.vmap(lambda key: transform.client(u, (), {}, Keys(key, key))[0]["w"]))(own))
    up = (out > 0).sum()
    expected = (out != 0) * 0.5 * (1 + np.asarray(u["w"])[None] / np.abs(out).max(1, keepdims=True))
    assert scipy.stats.norm.sf(abs(up - expected.sum()) / np.sqrt((expected * (1 - expected)).sum())) > 1e-3
