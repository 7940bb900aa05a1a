"""A battery over every generator and the classifier: shapes, jit = no jit, vmap = loop, masks, and what is sampled."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import zoo

from fedjax_health import build, checks, tree
from fedjax_health.data.encode import Layout
from fedjax_health.models.base import ModelParams
from fedjax_health.models.classifier import make_classifier
from fedjax_health.types import Batch

pytestmark = pytest.mark.quick_compile

LAYOUT = Layout(numeric=3, bits=2, blocks=(3, 2), missing=(-1, 4, -1))
L, B = zoo.L, 5
HYPER, NAMES = zoo.HYPER, zoo.NAMES


@functools.cache
def _model(name: str) -> Any:
    return zoo.make(name, LAYOUT)


@functools.cache
def _compiled(name: str):
    return jax.jit(_model(name).init), jax.jit(_model(name).field)


def test_the_battery_is_over_every_model():
    assert tuple(build.MODELS) == checks.MODELS and {name.split("-")[0] for name in NAMES} == set(build.MODELS)


def _params(name: str, seed: int = 0):
    return _compiled(name)[0](jax.random.key(seed))


def _batch(seed: int, mask=(True,) * B) -> Batch:
    rng, live = np.random.default_rng(seed), np.asarray(mask)
    bits = rng.integers(0, 2, (B, 2))
    numeric = rng.standard_normal((B, 3)) * np.stack([np.ones(B), 1 - bits[:, 1], np.ones(B)], 1)
    x = np.concatenate([numeric, bits, np.eye(3)[rng.integers(0, 3, B)], np.eye(2)[rng.integers(0, 2, B)]], 1)
    x, y = np.where(live[:, None], x, 0.0), np.where(live, rng.integers(0, L, B), 0)
    return Batch(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.int32), jnp.asarray(live))


def _close(a, b, tolerance=1e-5):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def _largest(update) -> float:
    return max(float(jnp.max(jnp.abs(leaf), initial=0.0)) for leaf in jax.tree.leaves(update))


@pytest.mark.parametrize("name", [*NAMES, "classifier"])
def test_update_has_the_shape_of_what_clients_train(name):
    params = _params(name)
    update, metrics = _compiled(name)[1](params, _batch(0), HYPER, jax.random.key(1))
    assert jax.tree.structure(update) == jax.tree.structure(params.client)
    for a, b in zip(jax.tree.leaves(update), jax.tree.leaves(params.client), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype == jnp.float32 and not a.weak_type
    assert _largest(update) > 0
    assert "sim/loss" in metrics
    assert all(m.shape == () and bool(jnp.isfinite(m)) for m in metrics.values())


@pytest.mark.parametrize("name", [*NAMES, "classifier"])
def test_jit_equals_no_jit(name):
    params, arguments = _params(name), (_batch(0), HYPER, jax.random.key(1))
    with jax.disable_jit():
        eager = _model(name).field(params, *arguments)
    _close(_compiled(name)[1](params, *arguments), eager)


@pytest.mark.parametrize("name", [*NAMES, "classifier"])
def test_vmap_equals_a_loop(name):
    batches = [_batch(seed) for seed in range(3)]
    keys = jax.random.split(jax.random.key(2), 3)
    params = [_params(name, seed) for seed in range(3)]
    stacked = [jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees) for trees in (params, batches)]
    together = jax.jit(jax.vmap(_model(name).field, in_axes=(0, 0, None, 0)))(*stacked, HYPER, keys)
    for i in range(3):
        alone = _compiled(name)[1](params[i], batches[i], HYPER, keys[i])
        _close(jax.tree.map(lambda leaf, i=i: leaf[i], together), alone)


@pytest.mark.parametrize("name", [*NAMES, "classifier"])
def test_an_empty_batch_gives_a_zero_update(name):
    update, metrics = _compiled(name)[1](_params(name), _batch(0, (False,) * B), HYPER, jax.random.key(1))
    assert bool(tree.all_finite((update, metrics)))
    assert _largest(update) == 0.0


@pytest.mark.parametrize("name", [*NAMES, "classifier"])
def test_what_lies_in_a_masked_slot_does_not_matter(name):
    batch = _batch(0, (True, True, False, True, False))
    other = batch._replace(x=jnp.where(batch.mask[:, None], batch.x, 7.0), y=jnp.where(batch.mask, batch.y, 1))
    field, params, key = _compiled(name)[1], _params(name), jax.random.key(1)
    update = field(params, batch, HYPER, key)[0]
    _close(update, field(params, other, HYPER, key)[0])
    full = field(params, other._replace(mask=jnp.ones((B,), bool)), HYPER, key)[0]
    assert _largest(tree.subtract(update, full)) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_valid_codes_and_depend_on_label_and_key(name):
    model = _model(name)
    released, sample = model.release(_params(name)), jax.jit(model.sample)
    label = jnp.arange(400, dtype=jnp.int32) % L
    x = np.asarray(sample(released, label, jax.random.key(3)))
    assert x.shape == (400, LAYOUT.dim) and x.dtype == np.float32 and np.isfinite(x).all()
    assert np.isin(x[:, 3:], (0.0, 1.0)).all()
    np.testing.assert_array_equal(x[:, 5:8].sum(1), 1)
    np.testing.assert_array_equal(x[:, 8:10].sum(1), 1)
    assert 0.01 < x[:, 3].mean() < 0.99 and x[:, 0].std() > 0.01
    assert (x[:, 0] != np.asarray(sample(released, label, jax.random.key(4)))[:, 0]).any()
    flipped = np.asarray(sample(released, 1 - label, jax.random.key(3)))
    assert (x[:, 0] != flipped[:, 0]).mean() > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_score_is_one_number_a_record_and_its_own(name):
    model, batch = _model(name), _batch(0)
    score = jax.jit(model.score)
    whole = score(_params(name), batch.x, batch.y, jax.random.key(5))
    assert whole.shape == (B,) and bool(jnp.all(jnp.isfinite(whole)))
    moved = score(_params(name), batch.x.at[0].add(1.0), batch.y, jax.random.key(5))
    assert whole[0] != moved[0]
    np.testing.assert_allclose(whole[1:], moved[1:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_refine_touches_only_the_server_part(name):
    model, params = _model(name), _params(name)
    refined, metrics = jax.jit(model.refine)(params, HYPER, jax.random.key(6))
    _close(refined.client, params.client, 0.0)
    if name.endswith("split"):
        before, after = params.server["generator"], refined.server["generator"]
        # two Adam steps at b1 = 0 move a weight by at most 2 x 0.02 x sqrt(1 / (1 - 0.9)), and some weight by about 0.02
        assert 0.01 < _largest(tree.subtract(before, after)) < 0.13
        assert bool(jnp.isfinite(metrics["public/generator_loss"]))
    else:
        assert params.server == () and metrics == {}


@pytest.mark.parametrize("name", NAMES)
def test_only_what_generates_is_released(name):
    params = _params(name)
    released = _model(name).release(params)
    if name.startswith("vae"):
        own = {"decoder", "scale"} if name == "vae" else {"decoder"}
        assert set(params.client) == {"encoder", *own} and set(released) == own
        return
    if name == "diffusion":
        _close(released, params.client, 0.0)
        return
    split, own = name.endswith("split"), {"encoder", "decoder"} if name.startswith("medgan") else set()
    assert set(params.client) == {"critic", *own} | (set() if split else {"generator"})
    generator = params.server["generator"] if split else params.client["generator"]
    if own:
        _close(released, {"generator": generator, "decoder": params.client["decoder"]}, 0.0)
    else:
        _close(released, generator, 0.0)


@pytest.mark.parametrize("name", zoo.JOINT)
def test_joint_placement_rescales_the_generator_direction(name):
    field, params, key = _compiled(name)[1], _params(name), jax.random.key(1)
    one = field(params, _batch(0), HYPER, key)[0]
    twice = field(params, _batch(0), {**HYPER, "generator_learning_rate": jnp.float32(0.04)}, key)[0]
    _close({**twice, "generator": 0.0}, {**one, "generator": 0.0})
    _close(twice["generator"], tree.scale(jnp.float32(2.0), one["generator"]))


def test_vae_kl_weight_scales_the_kl_term_only():
    field, params, key = _compiled("vae")[1], _params("vae"), jax.random.key(1)
    metrics = field(params, _batch(0), HYPER, key)[1]
    heavy = field(params, _batch(0), {**HYPER, "kl_weight": jnp.float32(3.0)}, key)[1]
    assert metrics["sim/kl"] > 0
    np.testing.assert_allclose(metrics["sim/loss"], metrics["sim/reconstruction"] + 0.7 * metrics["sim/kl"], rtol=1e-5)
    np.testing.assert_allclose(heavy["sim/loss"] - metrics["sim/loss"], 2.3 * metrics["sim/kl"], rtol=1e-4)


def test_vae_puts_no_likelihood_on_a_missing_cell():
    params, batch = _params("vae"), _batch(0)
    gone = batch._replace(x=batch.x.at[:, 4].set(1.0).at[:, 1].set(0.0))
    update = _compiled("vae")[1](params, gone, HYPER, jax.random.key(1))[0]
    assert float(update["scale"][1]) == 0.0 and float(jnp.abs(update["scale"][0])) > 0.0


@pytest.mark.parametrize("name", ["vae", "vae-causal", "wgan_gp-split", "medgan-joint", "diffusion"])
def test_a_table_without_numeric_columns_or_without_codes(name):
    for layout, columns in ((Layout(0, 1, (3,), ()), slice(4, 8)), (Layout(3, 0, (), (-1, -1, -1)), slice(0, 3))):
        model = zoo.make(name, layout)
        params, batch = model.init(jax.random.key(0)), _batch(0)
        batch = batch._replace(x=batch.x[:, columns])
        update, _ = jax.jit(model.field)(params, batch, HYPER, jax.random.key(1))
        assert bool(tree.all_finite(update)) and _largest(update) > 0
        x = jax.jit(model.sample)(model.release(params), batch.y, jax.random.key(2))
        assert x.shape == (B, layout.dim) and bool(tree.all_finite(x))


def test_classifier_gradient_equals_numpy():
    model = make_classifier(LAYOUT.dim, L, ())
    params, batch = model.init(jax.random.key(0)), _batch(0, (True, True, True, False, True))
    update, metrics = model.field(params, batch, HYPER, jax.random.key(0))
    weights = jax.tree.map(np.asarray, params.client)["params"]["Dense_0"]
    x, y, live = (np.asarray(a) for a in batch)
    logits = x @ weights["kernel"] + weights["bias"]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    error = (p - np.eye(L)[y]) * live[:, None] / live.sum()
    np.testing.assert_allclose(update["params"]["Dense_0"]["kernel"], x.T @ error, atol=1e-6)
    np.testing.assert_allclose(update["params"]["Dense_0"]["bias"], error.sum(0), atol=1e-6)
    np.testing.assert_allclose(metrics["sim/loss"], -np.log(p[live, y[live]]).mean(), rtol=1e-5)
    np.testing.assert_allclose(np.exp(model.predict(model.release(params), batch.x)), p, rtol=1e-5)


def test_a_causal_decoder_learns_what_cells_say_about_one_another():
    """x1 = x0 noise: how far it spreads depends on x0, which independent noise of one size cannot tell."""
    layout, made = Layout(2, 0, (), (-1, -1)), {}
    for name in ("vae", "vae-causal"):
        model = zoo.make(name, layout, hidden=(32,), latent=1)
        params, key = model.init(jax.random.key(0)), jax.random.key(1)
        optimizer = optax.adam(5e-3)

        def step(carry, k, model=model, optimizer=optimizer):
            (client, state), (k_x, k_f) = carry, jax.random.split(k)
            x0, noise = jax.random.normal(k_x, (2, 256))
            batch = Batch(jnp.stack([x0, x0 * noise], 1), jnp.zeros(256, jnp.int32), jnp.ones(256, bool))
            update, _ = model.field(ModelParams(client, ()), batch, HYPER, k_f)
            with jax.numpy_dtype_promotion("standard"):
                update, state = optimizer.update(update, state)
            return (optax.apply_updates(client, update), state), None

        start = params.client, optimizer.init(params.client)
        (client, _), _ = jax.jit(lambda c, keys, step=step: jax.lax.scan(step, c, keys))(
            start, jax.random.split(key, 800)
        )
        x = model.sample(model.release(ModelParams(client, ())), jnp.zeros(4000, jnp.int32), jax.random.key(2))
        made[name] = float(jnp.corrcoef(jnp.abs(x[:, :2]).T)[0, 1])
    assert made["vae-causal"] > 0.5 > 0.4 > made["vae"], made  # .62 of the data
