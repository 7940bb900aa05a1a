"""The rotation is the Hadamard matrix, keeps norms, is undone on the sum, and spreads what stands in one coordinate."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from fedjax_health import tree
from fedjax_health.transforms.base import Keys, Wire, full_wire
from fedjax_health.transforms.rotate import hadamard_transform, make_rotate, padded_size

TEMPLATE = {"w": jax.ShapeDtypeStruct((7, 9), jnp.float32), "b": jax.ShapeDtypeStruct((9,), jnp.float32)}
ROTATE = make_rotate(TEMPLATE)


def keys(own=0, shared=5):
    return Keys(jax.random.key(own), jax.random.key(shared))


def update(seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(scale * rng.normal(size=leaf.shape), jnp.float32) for name, leaf in TEMPLATE.items()}


def rotated(u, k=None):
    return ROTATE.client(u, (), {}, k or keys())[0]


@pytest.mark.parametrize("n", [1, 2, 4, 32, 64, 512, 1024, 4096])
def test_the_transform_is_the_hadamard_matrix_and_its_own_inverse(n):
    x = np.random.default_rng(n).normal(size=n).astype(np.float32)
    z = hadamard_transform(jnp.asarray(x))
    np.testing.assert_allclose(z, scipy.linalg.hadamard(n) @ x.astype(np.float64) / np.sqrt(n), atol=1e-5)
    np.testing.assert_allclose(hadamard_transform(z), x, atol=1e-5)


def test_sizes_are_padded_to_powers_of_two():
    assert [padded_size(n) for n in (1, 2, 3, 4, 5, 64, 65, 5400, 8192)] == [1, 2, 4, 4, 8, 64, 128, 8192, 8192]


@pytest.mark.parametrize("scale", [0.0, 1e-15, 1.0, 1e15])
def test_the_norm_is_kept_and_the_server_undoes_it(scale):
    u = update(scale=scale)
    z = rotated(u)
    assert z.shape == (128,)
    np.testing.assert_allclose(tree.global_norm(z), tree.global_norm(u), rtol=1e-5)
    back, metrics = ROTATE.server(z, {}, keys(own=99))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * scale), back, u)
    assert metrics == {} and jax.tree.structure(back) == jax.tree.structure(u)


def test_one_inverse_on_the_sum_is_the_sum_of_the_updates():
    total = jax.tree.map(lambda *x: sum(x[1:], x[0]), *[update(s) for s in range(9)])
    z = sum((rotated(update(s), keys(own=s)) for s in range(1, 9)), rotated(update(0)))
    back, _ = ROTATE.server(z, {}, keys())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), back, total)


def test_another_shared_key_is_another_rotation_and_does_not_undo_it():
    z = rotated(update())
    np.testing.assert_array_equal(z, rotated(update(), keys(own=3)))
    assert np.abs(np.asarray(z - rotated(update(), keys(shared=6)))).max() > 0.1
    back, _ = ROTATE.server(z, {}, keys(shared=6))
    assert np.abs(np.asarray(back["w"] - update()["w"])).max() > 0.1


def test_one_large_coordinate_is_spread_evenly():
    spike = {**jax.tree.map(jnp.zeros_like, update()), "b": jnp.zeros(9).at[4].set(-3.0)}
    np.testing.assert_allclose(np.abs(np.asarray(rotated(spike))), 3.0 / np.sqrt(128), rtol=1e-5)
    # whatever the update, no coordinate is large but with a small chance (Suresh et al. 2017)
    flat = jax.tree.map(jnp.ones_like, update())  # one Hadamard row: without signs it would go to a single coordinate
    many = jax.vmap(lambda key: ROTATE.client(flat, (), {}, Keys(key, key))[0])(
        jax.random.split(jax.random.key(1), 500)
    )
    bound = np.sqrt(72 * 2 * np.log(2 * 128 / 1e-3) / 128)
    assert (np.abs(np.asarray(many)).max(1) > bound).mean() < 0.01


def test_signs_are_fair_and_independent():
    def signs(key):
        one = {"w": jnp.ones((8, 8), jnp.float32)}
        return hadamard_transform(make_rotate(one).client(one, (), {}, Keys(key, key))[0])

    s = np.asarray(jax.vmap(signs)(jax.random.split(jax.random.key(2), 4000)))
    np.testing.assert_allclose(np.abs(s), 1.0, atol=1e-5)
    assert np.abs(s.mean(0)).max() < 4.5 / np.sqrt(4000)
    assert np.abs(np.corrcoef(s.T) - np.eye(64)).max() < 5 / np.sqrt(4000)


def test_the_bound_passes_and_the_wire_counts_the_padding():
    assert float(ROTATE.l2_bound(jnp.float32(0.5), {})) == 0.5
    assert ROTATE.l2_bound(None, {}) is None
    assert ROTATE.wire(full_wire(TEMPLATE)) == Wire(128, 128, 32, 0)
    assert ROTATE.memory(update()) == ()


def test_jit_and_vmap_equal_a_loop():
    many = jax.tree.map(lambda *x: jnp.stack(x), *[update(s) for s in range(3)])
    out = jax.jit(jax.vmap(rotated))(many)
    for s in range(3):
        np.testing.assert_allclose(out[s], rotated(update(s)), atol=1e-5)


def test_a_nonfinite_update_stays_so():
    u = update()
    assert not np.isfinite(np.asarray(rotated({**u, "b": u["b"].at[0].set(jnp.nan)}))).any()
