"""Clip, noise and their chain: bounds that hold for whatever a client sends, and noise of the stated size."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from fedjax_health import tree
from fedjax_health.transforms.base import (
    Keys,
    UpdateTransform,
    Wire,
    chain,
    client_identity,
    full_wire,
    no_memory,
    same_wire,
    server_identity,
)
from fedjax_health.transforms.clip import make_clip
from fedjax_health.transforms.noise import make_gaussian_noise

CLIP = make_clip()
KEYS = Keys(jax.random.key(0), jax.random.key(1))


def hyper(l2_clip_norm=0.5, noise_multiplier=1.0):
    return {"l2_clip_norm": jnp.float32(l2_clip_norm), "noise_multiplier": jnp.float32(noise_multiplier)}


def clip(update, h, keys=KEYS):
    after, memory, metrics = CLIP.client(update, (), h, keys)
    assert memory == ()
    return after, metrics


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
    after, metrics = clip(before, hyper(bound))
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
    after, metrics = jax.jit(clip)(spoilt(value), hyper(bound))
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(after))
    assert float(metrics["sim/nonfinite_clients"]) == 1
    assert float(metrics["sim/update_norm"]) == 0


def test_an_infinite_bound_is_the_identity():
    after, metrics = clip(update(50.0), hyper(np.inf))
    jax.tree.map(np.testing.assert_array_equal, after, update(50.0))
    assert float(metrics["sim/clip_fraction"]) == 0


def test_vmap_and_jit_equal_a_loop():
    h, many = hyper(), jax.tree.map(lambda *leaves: jnp.stack(leaves), *[update(10.0**s, s) for s in range(3)])
    out, metrics = jax.jit(jax.vmap(clip, (0, None)))(many, h)
    for s in range(3):
        one, own = clip(update(10.0**s, s), h)
        jax.tree.map(lambda a, b, s=s: np.testing.assert_allclose(a[s], b, rtol=1e-6), out, one)
        jax.tree.map(lambda a, b, s=s: np.testing.assert_allclose(a[s], b, rtol=1e-6), metrics, own)


def noisy(bound=0.5, noise=1.3, n=5000):
    transform = chain(CLIP, make_gaussian_noise(lambda hyper: CLIP.l2_bound(None, hyper)))
    total = {"w": jnp.full((n,), 2.0), "b": jnp.full((2, n), -1.0)}
    h = hyper(bound, noise)
    out, metrics = transform.server(total, h, Keys(jax.random.key(5), jax.random.key(6)))
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
    after, memory, _ = transform.client(update(100.0), transform.memory(update()), h, KEYS)
    assert jax.tree.leaves(memory) == []
    assert float(tree.global_norm(after)) == pytest.approx(0.7, rel=1e-5)  # noise is the server's: none on the client


def test_the_noise_is_addressed_by_the_own_key_alone():
    noise = make_gaussian_noise(lambda hyper: hyper["l2_clip_norm"])
    outs = [
        noise.server(update(), hyper(), Keys(jax.random.key(a), jax.random.key(b)))[0]
        for a, b in [(1, 1), (1, 2), (2, 1)]
    ]
    jax.tree.map(np.testing.assert_array_equal, outs[0], outs[1])
    assert not np.array_equal(outs[0]["w"], outs[2]["w"])


def recorder(name, calls):
    """Counts its calls in its memory, and halves the wire's values."""

    def log(which, keys):
        calls.append((which, name, *(tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in keys)))

    def client(u, memory, hyper, keys):
        log("client", keys)
        return u, memory + len(name), {f"sim/client_{name}": jnp.float32(1.0)}

    def server(u, hyper, keys):
        log("server", keys)
        return u, {f"public/server_{name}": jnp.float32(1.0)}

    return UpdateTransform(
        lambda u: 0, client, server, lambda bound, hyper: bound, lambda wire: wire._replace(values=wire.values // 2)
    )


def test_chain_runs_forth_on_the_client_and_back_on_the_server_with_keys_of_their_own():
    calls: list = []
    whole = chain(recorder("a", calls), recorder("b", calls), recorder("ccc", calls))
    _, memory, m1 = whole.client(update(), whole.memory(update()), {}, KEYS)
    _, m2 = whole.server(update(), {}, KEYS)
    names = [(which, name) for which, name, _, _ in calls]
    assert names == [("client", n) for n in ("a", "b", "ccc")] + [("server", n) for n in ("ccc", "b", "a")]
    assert memory == (1, 1, 3)
    for position in (2, 3):  # own, shared
        assert len({call[position] for call in calls}) == 3
    shared = {(which, name): call for which, name, _, call in calls}
    for name in ("a", "b", "ccc"):  # both sides must find the same rotation
        assert shared["client", name] == shared["server", name]
    assert set(m1) == {"sim/client_a", "sim/client_b", "sim/client_ccc"} and len(m2) == 3
    assert whole.wire(Wire(64, 64, 32, 0)) == Wire(64, 8, 32, 0)


def test_the_empty_chain_and_the_identities_change_nothing():
    identity = UpdateTransform(no_memory, client_identity, server_identity, lambda bound, hyper: bound, same_wire)
    for transform in (chain(), identity):
        same, memory, metrics = transform.client(update(), transform.memory(update()), {}, KEYS)
        jax.tree.map(np.testing.assert_array_equal, same, update())
        back, more = transform.server(update(), {}, KEYS)
        jax.tree.map(np.testing.assert_array_equal, back, update())
        assert memory == () and metrics == {} and more == {}
        assert transform.wire(full_wire(update())) == Wire(15, 15, 32, 0)
    assert full_wire(update()).bits == 480
