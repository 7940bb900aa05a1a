"""Signs with one scale: the known answer, the loss it states, the bits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_health.transforms.base import Keys, Wire, full_wire
from fedjax_health.transforms.sign import SIGN, make_sign

KEYS = Keys(jax.random.key(0), jax.random.key(1))
TRANSFORM = make_sign()


def sent(u):
    return TRANSFORM.client(u, (), {}, KEYS)[0]


def update(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "w": jnp.asarray(rng.normal(size=(5, 4)), jnp.float32),
        "b": jnp.asarray(rng.normal(size=(4,)), jnp.float32),
    }


def flat(tree):
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def test_known_answer_with_one_scale_over_all_leaves():
    out = sent({"a": jnp.array([3.0, -1.0], jnp.float32), "b": jnp.array([[0.0, -8.0]], jnp.float32)})
    np.testing.assert_array_equal(out["a"], [3.0, -3.0])
    np.testing.assert_array_equal(out["b"], [[3.0, -3.0]])


def test_zero_is_zero():
    assert not flat(sent(jax.tree.map(jnp.zeros_like, update()))).any()


@pytest.mark.parametrize("seed", range(5))
def test_it_loses_what_it_says(seed):
    before, after = flat(update(seed)), flat(sent(update(seed)))
    lost = np.sum(before**2) - np.abs(before).sum() ** 2 / len(before)
    assert np.sum((after - before) ** 2) == pytest.approx(lost, rel=1e-5)


def test_only_kept_values_count():
    kept = {"a": jnp.array([True, False, True])}
    out = SIGN.code({"a": jnp.array([-1.0, np.nan, 3.0], jnp.float32)}, kept, KEYS.own)
    np.testing.assert_array_equal(out["a"], [-2.0, 0.0, 2.0])


def test_the_stated_bits_are_enough_to_send_it():
    u = update()
    out, wire = flat(sent(u)), TRANSFORM.wire(full_wire(u))
    assert wire == Wire(24, 24, 1, 32) and wire.bits == 56
    message = np.float32(np.abs(out[0])).tobytes() + np.packbits(out < 0).tobytes()
    assert len(message) * 8 == wire.bits
    bits = np.unpackbits(np.frombuffer(message[4:], np.uint8), count=24)
    np.testing.assert_array_equal(np.frombuffer(message[:4], np.float32)[0] * (1.0 - 2.0 * bits), out)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_does_not_become_finite(value):
    u = update()
    assert not np.isfinite(flat(sent({**u, "b": u["b"].at[0].set(value)}))).any()


def test_jit_and_vmap_equal_a_loop_and_no_bound_is_claimed():
    many = jax.tree.map(lambda *x: jnp.stack(x), *[update(s) for s in range(3)])
    out = jax.jit(jax.vmap(sent))(many)
    for s in range(3):
        np.testing.assert_allclose(flat(jax.tree.map(lambda x, s=s: x[s], out)), flat(sent(update(s))), rtol=1e-6)
    assert TRANSFORM.l2_bound(jnp.float32(1.0), {}) is None
