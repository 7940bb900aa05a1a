"""Quantisation: on the grid, unbiased, of the stated variance, in the stated bits; and biased roundings are rejected."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_health.transforms.base import Keys, Wire, full_wire
from fedjax_health.transforms.quantize import make_quantize, quantize_tree
from fedjax_health.types import UserError


def update(seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return {
        "w": jnp.asarray(scale * rng.normal(size=(6, 5)), jnp.float32),
        "b": jnp.asarray(scale * rng.normal(size=(7,)), jnp.float32),
    }


def flat(tree):
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def clients(bits, n, u=None):
    """f64[n, d]: one update as n clients decode to."""
    u = update() if u is None else u
    keys = jax.random.split(jax.random.key(3), n)
    leaves = jax.tree.leaves(jax.jit(jax.vmap(lambda key: quantize_tree(u, bits, key)))(keys))
    return np.concatenate([np.asarray(leaf, np.float64).reshape(n, -1) for leaf in leaves], 1)


@pytest.mark.parametrize("bits", [1, 2, 3, 8, 12, 16])
def test_values_are_the_two_neighbours_on_the_grid(bits):
    before, after = flat(update()), clients(bits, 50)
    m, top = np.abs(before).max(), 2**bits - 1
    level = (after + m) * top / (2 * m)
    assert np.abs(level - np.round(level)).max() < 1e-2
    assert level.min() > -0.01 and level.max() < top + 0.01
    assert np.abs(after - before).max() < (2 * m / top) * 1.01


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_mean_and_variance_are_those_of_unbiased_rounding_and_a_biased_one_is_rejected(bits):
    n = 20_000
    before, after = flat(update()), clients(bits, n)
    m, top = np.abs(before).max(), 2**bits - 1
    step = 2 * m / top
    fraction = (before + m) / step % 1.0
    deviation = step * np.sqrt(fraction * (1 - fraction))
    inner = deviation > 0.05 * step
    z = (after.mean(0) - before)[inner] / (deviation[inner] / np.sqrt(n))
    assert np.abs(z).max() < 4.5 and abs(z.mean()) < 4.5 / np.sqrt(inner.sum())
    np.testing.assert_allclose(after.std(0)[inner], deviation[inner], rtol=0.1)
    assert after.var(0).max() < (m / top) ** 2 * 1.03
    nearest = np.round((before + m) / step) * step - m
    assert (np.abs(nearest - before)[inner] / (deviation[inner] / np.sqrt(n))).max() > 20
    late = (np.floor((before + m) / step + 0.52) - np.floor((before + m) / step) - fraction) * step  # U from [0, 1.04)
    assert np.abs(late[inner] / (deviation[inner] / np.sqrt(n))).max() > 20


def test_sixteen_bits_are_unbiased_to_the_resolution_of_float32():
    after = clients(16, 4000)
    before = flat(update())
    m = np.abs(before).max()
    assert np.abs(after.mean(0) - before).max() < m / 65535 * 4.5 / np.sqrt(4000) + m * 2.0**-22


def test_errors_of_clients_and_coordinates_are_independent():
    error = clients(4, 4000) - flat(update())
    error = error[:, error.std(0) > 1e-3]
    assert np.abs(np.corrcoef(error.T) - np.eye(error.shape[1])).max() < 5 / np.sqrt(4000)
    wide = {"w": jnp.linspace(-1.0, 1.0, 4001)}
    rows = clients(3, 12, wide) - flat(wide)
    assert np.abs(np.corrcoef(rows) - np.eye(12)).max() < 5 / np.sqrt(4001)
    # equal leaves must not be rounded alike
    twice = {"a": wide["w"], "b": wide["w"]}
    a, b = np.split(clients(3, 1, twice)[0] - flat(twice), 2)
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(4001)


@pytest.mark.parametrize("scale", [0.0, 1e-38, 1e-30, 1e-3, 1e18, 1e37])
@pytest.mark.parametrize("bits", [1, 8])
def test_any_scale(scale, bits):
    u = update(scale=scale)
    out, before = flat(quantize_tree(u, bits, jax.random.key(0))), flat(u)
    assert np.isfinite(out).all()
    assert np.abs(out).max() <= np.abs(before).max() * (1 + 1e-6)
    if scale >= 1e-30 and bits == 8:
        assert np.abs(out - before).max() < np.abs(before).max() * 2 / 255 * 1.01
    if scale == 0:
        assert not out.any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_does_not_become_finite(value):
    u = update()
    out = flat(quantize_tree({**u, "b": u["b"].at[2].set(value)}, 8, jax.random.key(0)))
    assert not np.isfinite(out).any()


def test_only_kept_coordinates_count_and_the_others_are_zero():
    u = {"w": jnp.array([100.0, 1.0, -0.5, 0.0], jnp.float32), "b": jnp.array([np.nan, 0.25], jnp.float32)}
    kept = {"w": jnp.array([False, True, True, True]), "b": jnp.array([False, True])}
    out = quantize_tree(u, 8, jax.random.key(0), kept)
    assert float(out["w"][0]) == 0 and float(out["b"][0]) == 0
    np.testing.assert_allclose(out["w"][1:], [1.0, -0.5, 0.0], atol=2 / 255)
    assert float(out["w"][3]) != 0  # an even number of levels has none at zero, and a sent value has no other
    np.testing.assert_allclose(out["b"][1], 0.25, atol=2 / 255)


@pytest.mark.parametrize("bits", [1, 3, 8, 11])
def test_the_stated_bits_are_enough_to_send_it(bits):
    """Encodes with numpy into bytes and decodes; the message is as long as the wire says, and it is the same update."""
    u = update()
    out = flat(quantize_tree(u, bits, jax.random.key(1)))
    m, top = np.float32(np.abs(flat(u)).max()), 2**bits - 1
    level = np.round((out + m) * top / (2 * m)).astype(np.uint32)
    body = np.packbits((level[:, None] >> np.arange(bits, dtype=np.uint32)) & 1 == 1)
    message = m.tobytes() + body.tobytes()
    wire = make_quantize(bits).wire(full_wire(u))
    assert wire == Wire(37, 37, bits, 32) and wire.bits == 37 * bits + 32
    assert len(message) == -(-wire.bits // 8)
    scale = np.frombuffer(message[:4], np.float32)[0]
    plain = np.unpackbits(np.frombuffer(message[4:], np.uint8), count=37 * bits).reshape(37, bits)
    decoded = (plain @ (1 << np.arange(bits))) * (2 * np.float64(scale) / top) - scale
    np.testing.assert_allclose(decoded, out, atol=1e-6 * m)


def test_jit_and_vmap_equal_a_loop_and_the_transform_is_the_function():
    transform, many = make_quantize(5), jax.tree.map(lambda *x: jnp.stack(x), *[update(s) for s in range(4)])
    own = jax.random.split(jax.random.key(1), 4)

    def client(u, key):
        return transform.client(u, (), {}, Keys(key, jax.random.key(9)))[0]

    out = jax.jit(jax.vmap(client))(many, own)
    for s in range(4):
        step = 2 * np.abs(flat(update(s))).max() / 31
        loop, function = flat(client(update(s), own[s])), flat(quantize_tree(update(s), 5, own[s]))
        np.testing.assert_array_equal(loop, function)
        np.testing.assert_allclose(flat(jax.tree.map(lambda x, s=s: x[s], out)), loop, atol=1e-5 * step)
    assert transform.memory(update()) == () and transform.l2_bound(jnp.float32(1.0), {}) is None
    same, metrics = transform.server(update(), {}, Keys(own[0], own[1]))
    np.testing.assert_array_equal(flat(same), flat(update()))
    assert metrics == {}


@pytest.mark.parametrize("bits", [-1, 0, 17])
def test_bits_out_of_range(bits):
    with pytest.raises(UserError, match=f"to {bits} bits"):
        make_quantize(bits)
    with pytest.raises(UserError, match="1 to 16"):
        quantize_tree(update(), bits, jax.random.key(0))
