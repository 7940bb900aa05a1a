"""Clip, noise and their chain: bounds that hold for whatever a client sends, and noise of the stated size."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import toy

from fedjax_health import tree
from fedjax_health.transforms.base import UpdateTransform, chain, pass_through
from fedjax_health.transforms.clip import make_clip
from fedjax_health.transforms.noise import make_gaussian_noise

CLIP = make_clip()


def update(scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "w": jnp.asarray(scale * rng.normal(size=(4, 3)), jnp.float32),
        "b": jnp.asarray(scale * rng.normal(size=(3,)), jnp.float32),
    }


def spoilt(value):
    return {**update(), "b": jnp.array([0.0, value, 1.0], jnp.float32)}


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-3, 1.0, 1e3, 1e15, 1e18])
@pytest.mark.parametrize("bound", [1e-6, 0.5, 100.0])
def test_clip_bounds_the_norm_and_keeps_the_direction(scale, bound):
    before = update(scale)
    after, metrics = CLIP.client(before, toy.hyper(None, l2_clip_norm=bound), jax.random.key(0))
    old, new = (
        np.concatenate([np.asarray(t["w"], np.float64).ravel(), np.asarray(t["b"], np.float64)])
        for t in (before, after)
    )
    norm = np.linalg.norm(old)
    assert np.linalg.norm(new) <= bound * (1 + 1e-5)
    np.testing.assert_allclose(new, old * min(1.0, bound / max(norm, 1e-300)), rtol=1e-5, atol=1e-30)
    assert float(metrics["sim/clip_fraction"]) == float(norm > bound)
    assert float(metrics["sim/nonfinite_clients"]) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("bound", [0.5, np.inf])
def test_an_update_without_a_finite_norm_becomes_zero_and_is_counted(value, bound):
    after, metrics = jax.jit(CLIP.client)(spoilt(value), toy.hyper(None, l2_clip_norm=bound), jax.random.key(0))
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(after))
    assert float(metrics["sim/nonfinite_clients"]) == 1
    assert float(metrics["sim/update_norm"]) == 0


def test_an_infinite_bound_is_the_identity():
    after, metrics = CLIP.client(update(50.0), toy.hyper(None, l2_clip_norm=np.inf), jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, after, update(50.0))
    assert float(metrics["sim/clip_fraction"]) == 0


def test_vmap_and_jit_equal_a_loop():
    h, many = toy.hyper(None), jax.tree.map(lambda *leaves: jnp.stack(leaves), *[update(10.0**s, s) for s in range(3)])
    out, metrics = jax.jit(jax.vmap(CLIP.client, (0, None, None)))(many, h, jax.random.key(0))
    for s in range(3):
        one, own = CLIP.client(update(10.0**s, s), h, jax.random.key(0))
        jax.tree.map(lambda a, b, s=s: np.testing.assert_allclose(a[s], b, rtol=1e-6), out, one)
        jax.tree.map(lambda a, b, s=s: np.testing.assert_allclose(a[s], b, rtol=1e-6), metrics, own)


def noisy(bound=0.5, noise=1.3, n=5000):
    transform = chain(CLIP, make_gaussian_noise(lambda hyper: CLIP.l2_bound(None, hyper)))
    total = {"w": jnp.full((n,), 2.0), "b": jnp.full((2, n), -1.0)}
    h = toy.hyper(None, l2_clip_norm=bound, noise_multiplier=noise)
    out, metrics = transform.server(total, h, jax.random.key(5))
    return transform, h, jax.tree.map(lambda a, b: np.asarray(a - b), out, total), metrics


def test_noise_has_the_stated_deviation_and_other_sizes_are_rejected():
    _, _, noise, metrics = noisy()
    values = np.concatenate([noise["w"], noise["b"].ravel()])
    assert float(metrics["public/noise_std"]) == pytest.approx(0.65)
    assert scipy.stats.kstest(values / 0.65, "norm").pvalue > 1e-3
    for wrong in (2 / 3, 3 / 2):
        assert scipy.stats.kstest(values * wrong / 0.65, "norm").pvalue < 1e-6


def test_noise_is_independent_over_leaves_and_rows():
    _, _, noise, _ = noisy()
    rows = np.stack([noise["w"], *noise["b"]])
    assert np.abs(np.corrcoef(rows) - np.eye(3)).max() < 5 / np.sqrt(5000)


def test_no_noise_multiplier_is_no_noise():
    _, _, noise, _ = noisy(noise=0.0)
    assert all(not leaf.any() for leaf in noise.values())


def test_the_chain_states_the_bound_of_its_client_side():
    transform, h, _, _ = noisy(bound=0.7)
    assert float(transform.l2_bound(None, h)) == pytest.approx(0.7)
    assert float(transform.l2_bound(jnp.float32(3.0), h)) == pytest.approx(0.7)
    after, _ = transform.client(update(100.0), h, jax.random.key(0))
    assert float(tree.global_norm(after)) == pytest.approx(0.7, rel=1e-5)  # noise is the server's: none on the client


def recorder(name, calls):
    def side(which):
        def apply(u, hyper, key):
            calls.append((which, name, np.asarray(jax.random.key_data(key)).tolist()))
            return u, {f"sim/{which}_{name}": jnp.float32(1.0)}

        return apply

    return UpdateTransform(side("client"), side("server"), lambda bound, hyper: bound)


def test_chain_runs_forth_on_the_client_and_back_on_the_server_with_keys_of_their_own():
    calls: list = []
    whole = chain(recorder("a", calls), recorder("b", calls), recorder("c", calls))
    _, m1 = whole.client(update(), {}, jax.random.key(0))
    _, m2 = whole.server(update(), {}, jax.random.key(0))
    assert [(which, name) for which, name, _ in calls] == [("client", n) for n in "abc"] + [
        ("server", n) for n in "cba"
    ]
    assert len({tuple(key) for _, _, key in calls}) == 3
    assert set(m1) == {"sim/client_a", "sim/client_b", "sim/client_c"} and len(m2) == 3


def test_pass_through_changes_nothing():
    same, metrics = pass_through(update(), {}, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, same, update())
    assert metrics == {}
