"""The battery of the generators on stream models, their time structure, and a density that is one."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from fedjax_health import tree
from fedjax_health.config import GanConfig, VaeConfig
from fedjax_health.data.schema import Column
from fedjax_health.data.stream_schema import stream_schema
from fedjax_health.models.base import apply
from fedjax_health.models.causal import CausalMixture
from fedjax_health.models.causal_windows import CausalWindows
from fedjax_health.models.stream_vae import make_stream_vae
from fedjax_health.models.stream_wgan_gp import make_stream_wgan_gp
from fedjax_health.models.temporal import WindowEncoder, coarse_steps, moments, with_neighbours
from fedjax_health.types import Batch, UserError

pytestmark = pytest.mark.quick_compile
T, C, L, B = 8, 2, 2, 5
CHANNELS = tuple(Column(name=n, low=-9, high=9, center=0, scale=1) for n in "ab")
SCHEMA = stream_schema("s", CHANNELS, Column(name="ill", kind="binary", role="label"), T, 1.0)
NAMES = ("vae", "wgan_gp-split", "wgan_gp-joint")
TRAIN = toy.train_config(rounds=1, rounds_per_chunk=1, cohort=1, batch_size=B, local_steps=1)
HYPER = {
    "client_learning_rate": jnp.float32(0.1),
    "generator_learning_rate": jnp.float32(0.02),
    "kl_weight": jnp.float32(0.7),
    "penalty": jnp.float32(10.0),
    "class_prior": jnp.array([0.6, 0.4], jnp.float32),
}


@functools.cache
def _model(name: str) -> Any:
    if name == "vae":
        return make_stream_vae(SCHEMA, L, VaeConfig((4, 6), "auto", 3, 1.0, TRAIN))
    return make_stream_wgan_gp(SCHEMA, L, GanConfig((4, 6), "auto", 3, name.split("-")[1], 10.0, 2, 8, 0.02, TRAIN))


@functools.cache
def _compiled(name: str):
    return jax.jit(_model(name).init), jax.jit(_model(name).field)


def _params(name: str, seed: int = 0):
    return _compiled(name)[0](jax.random.key(seed))


def _batch(seed: int, mask=(True,) * B) -> Batch:
    rng, live = np.random.default_rng(seed), np.asarray(mask)
    x, y = rng.standard_normal((B, T * C)) * live[:, None], rng.integers(0, L, B) * live
    return Batch(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.int32), jnp.asarray(live))


def _close(a, b, tolerance=2e-5):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def _largest(update) -> float:
    return max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(update))


@pytest.mark.parametrize("name", NAMES)
def test_update_has_the_shape_of_what_clients_train(name):
    params = _params(name)
    update, metrics = _compiled(name)[1](params, _batch(0), HYPER, jax.random.key(1))
    assert jax.tree.structure(update) == jax.tree.structure(params.client)
    for a, b in zip(jax.tree.leaves(update), jax.tree.leaves(params.client), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype == jnp.float32 and not a.weak_type
    last = (
        () if name == "vae" else ("critic", "params", "Dense_2", "bias")
    )  # a constant that cancels between real and fake
    for path, leaf in jax.tree_util.tree_leaves_with_path(update):
        assert (float(jnp.max(jnp.abs(leaf))) > 0) == (tuple(k.key for k in path) != last), path
    assert all(m.shape == () and bool(jnp.isfinite(m)) for m in metrics.values())


@pytest.mark.parametrize("name", NAMES)
def test_vmap_equals_a_loop(name):
    batches, keys = [_batch(seed) for seed in range(2)], jax.random.split(jax.random.key(2), 2)
    params = [_params(name, seed) for seed in range(2)]
    stacked = [jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees) for trees in (params, batches)]
    together = jax.jit(jax.vmap(_model(name).field, in_axes=(0, 0, None, 0)))(*stacked, HYPER, keys)
    for i in range(2):
        alone = _compiled(name)[1](params[i], batches[i], HYPER, keys[i])
        _close(jax.tree.map(lambda leaf, i=i: leaf[i], together), alone)


@pytest.mark.parametrize("name", NAMES)
def test_masked_slots_do_not_matter_and_an_empty_batch_gives_zero(name):
    field, params, key = _compiled(name)[1], _params(name), jax.random.key(1)
    batch = _batch(0, (True, True, False, True, False))
    other = batch._replace(x=jnp.where(batch.mask[:, None], batch.x, 7.0), y=jnp.where(batch.mask, batch.y, 1))
    update = field(params, batch, HYPER, key)[0]
    _close(update, field(params, other, HYPER, key)[0])
    full = field(params, other._replace(mask=jnp.ones((B,), bool)), HYPER, key)[0]
    assert _largest(tree.subtract(update, full)) > 1e-3
    nothing, metrics = field(params, _batch(0, (False,) * B), HYPER, key)
    assert bool(tree.all_finite((nothing, metrics))) and _largest(nothing) == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_samples_depend_on_label_and_key_and_scores_are_their_own(name):
    model, batch = _model(name), _batch(0)
    released, sample = model.release(_params(name)), jax.jit(model.sample)
    label = jnp.arange(100, dtype=jnp.int32) % L
    x = np.asarray(sample(released, label, jax.random.key(3)))
    assert x.shape == (100, T * C) and x.dtype == np.float32 and np.isfinite(x).all()
    assert (x != np.asarray(sample(released, label, jax.random.key(4)))).mean() > 0.99
    assert (x != np.asarray(sample(released, 1 - label, jax.random.key(3)))).mean() > 0.9
    score = jax.jit(model.score)
    whole = score(_params(name), batch.x, batch.y, jax.random.key(5))
    moved = score(_params(name), batch.x.at[0].add(1.0), batch.y, jax.random.key(5))
    assert whole.shape == (B,) and whole[0] != moved[0]
    np.testing.assert_allclose(whole[1:], moved[1:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_only_what_generates_is_released(name):
    params = _params(name)
    released = _model(name).release(params)
    if name == "vae":
        assert set(params.client) == {"encoder", "decoder"} and set(released) == {"course", "cells"}
        return
    split = name.endswith("split")
    assert set(params.client) == ({"critic"} if split else {"critic", "generator"})
    _close(released, params.server["generator"] if split else params.client["generator"], 0.0)
    refined, _ = jax.jit(_model(name).refine)(params, HYPER, jax.random.key(6))
    _close(refined.client, params.client, 0.0)
    assert (_largest(tree.subtract(_model(name).release(refined), released)) > 0.01) == split


@pytest.mark.parametrize("make", [make_stream_vae, make_stream_wgan_gp])
def test_a_window_that_cannot_be_halved_is_refused(make):
    config = VaeConfig((4, 4, 4, 4), "auto", 3, 1.0, TRAIN)
    with pytest.raises(UserError, match="8 steps cannot be halved 4 times"):
        make(SCHEMA, L, config)
    assert coarse_steps(24, (1, 1, 1)) == 3


def test_a_step_sees_its_neighbours_and_nothing_beyond_the_ends():
    x = jnp.asarray([1.0, 2.0, 3.0], jnp.float32)[None, :, None]
    np.testing.assert_array_equal(with_neighbours(x)[0], [[0, 1, 2], [1, 2, 3], [2, 3, 0]])


def test_the_convolutions_are_local_and_the_same_at_every_step():
    encoder = WindowEncoder(32, 1, (4,), 16 * 4)
    x = jax.random.normal(jax.random.key(0), (1, 32))
    params = encoder.init(jax.random.key(1), x)
    # reads the convolution's own output: the last layer passes it on
    params = jax.tree.map(lambda leaf: jnp.eye(64) if leaf.shape == (64, 64) else leaf, params)
    run = jax.jit(lambda x: encoder.apply(params, x).reshape(16, 4))
    moved = np.abs(np.asarray(run(x.at[0, 16].add(1.0)) - run(x))).max(1)
    assert (np.flatnonzero(moved > 1e-6) == [7, 8, 9]).all()
    later = np.asarray(run(jnp.roll(x, 2, axis=1)))
    np.testing.assert_allclose(later[2:-1], np.asarray(run(x))[1:-2], atol=1e-5)


def test_a_made_window_goes_through_time_and_stays_in_range():
    """Untrained it is noise of its own; a step's noise moves all channels of that step and what comes after, nothing before."""
    steps, size, rows = 8, 16, 2_000
    network = CausalWindows(steps, (4, 6), (-9.0, -0.5), (9.0, 0.5))
    z = jax.random.normal(jax.random.key(4), (rows, 2 * size + 3))
    params = network.init(jax.random.key(5), z[:1])
    run = jax.jit(lambda z: apply(network, params, z).reshape(-1, steps, 2))
    x = np.asarray(run(z), np.float64)
    np.testing.assert_allclose(x[..., 0].std(0), np.exp(-0.7), rtol=0.2)
    assert np.corrcoef(x[:, 3, 0], np.asarray(z[:, 6]))[0, 1] > 0.9  # e of step 3, channel 0
    assert np.abs(x[..., 1]).max() == 0.5 and 0.1 < np.mean(np.abs(x[..., 1]) == 0.5) < 0.9
    for number in (2 * 2, size + 2 * 2):  # of step 2, channel 0: what scales e, and the other
        moved = np.abs(np.asarray(run(z.at[:, number].add(3.0))) - x).max(0)
        assert moved[:2].max() == 0.0 and moved[2].min() > 1e-3
    assert moved[7, 0] > 1e-7  # beyond the four steps back
    assert np.abs(np.asarray(run(z.at[:, 2 * size :].add(1.0))) - x).max() > 0.01  # the latent moves it


@functools.cache
def _density(channels: int):
    cells = CausalMixture(channels, 2, 8, 3)
    x, context = jnp.zeros((1, 4, channels), jnp.float32), jnp.zeros((1, 4, 2), jnp.float32)
    params = cells.init(jax.random.key(3), x, context, method=CausalMixture.log_prob)
    log_prob = jax.jit(lambda x, e: cells.apply(params, x, e, method=CausalMixture.log_prob))
    return log_prob, jax.jit(lambda e, key: cells.apply(params, e, key, method=CausalMixture.draw))


def test_the_density_integrates_to_one():
    log_prob, _ = _density(2)
    grid = np.linspace(-12, 12, 241, dtype=np.float32)
    cell = (grid[1] - grid[0]) ** 2
    x = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 1, 2)
    context = np.random.default_rng(0).standard_normal((1, 1, 2)).astype(np.float32)
    log_p = log_prob(jnp.asarray(x), jnp.asarray(np.broadcast_to(context, (len(x), 1, 2))))
    assert np.exp(np.asarray(log_p, np.float64)).sum() * cell == pytest.approx(1.0, abs=2e-3)


def test_what_is_drawn_follows_the_density():
    """E[exp(log q - log p)] = 1 under draws from p, for q the density of another context."""
    log_prob, draw = _density(2)
    n, rng = 4000, np.random.default_rng(1)
    context = np.broadcast_to(rng.standard_normal((1, 4, 2)).astype(np.float32), (n, 4, 2))
    x = draw(jnp.asarray(context), jax.random.key(7))
    near = context + np.float32(0.1)
    ratio = np.exp(np.asarray(log_prob(x, jnp.asarray(near)) - log_prob(x, jnp.asarray(context)), np.float64))
    assert ratio.mean() == pytest.approx(1.0, abs=4 * ratio.std() / np.sqrt(n)) and ratio.std() > 1e-3
    # draws that are moved, or dealt to other steps, are less likely on average
    own = np.asarray(log_prob(x, jnp.asarray(context))).mean()
    assert own - np.asarray(log_prob(x + 0.3, jnp.asarray(context))).mean() > 0.05
    assert own - np.asarray(log_prob(x[:, ::-1], jnp.asarray(context))).mean() > 0.05


def test_nothing_of_the_future_is_seen():
    log_prob, _ = _density(2)
    x = jax.random.normal(jax.random.key(0), (1, 4, 2))
    context = jnp.zeros((1, 4, 2), jnp.float32)
    whole = [float(log_prob(x[:, :t], context[:, :t])[0]) for t in range(1, 5)]
    terms = np.diff([0.0, *whole])  # of each step, from windows cut short
    late = x.at[0, 3, 1].add(2.0)
    changed = np.diff([0.0, *[float(log_prob(late[:, :t], context[:, :t])[0]) for t in range(1, 5)]])
    np.testing.assert_allclose(changed[:3], terms[:3], atol=1e-5)
    assert abs(changed[3] - terms[3]) > 1e-2
    early = x.at[0, 0, 0].add(2.0)  # beyond the two steps back only the sums still see it
    told = np.diff([0.0, *[float(log_prob(early[:, :t], context[:, :t])[0]) for t in range(1, 5)]])
    assert abs(told[3] - terms[3]) > 1e-4


def test_moments_tell_a_quiet_window_and_have_slopes():
    """Known answers, and slopes and slopes of slopes that are finite, at a constant window, too."""
    saw = jnp.tile(jnp.array([1.0, -1.0], jnp.float32), T // 2)
    window = jnp.stack([saw, 0.1 * saw], 1)[None]
    out = np.asarray(moments(window))[0]
    found, pair = out[: 8 * C].reshape(8, C), out[8 * C :]
    np.testing.assert_allclose(found[0], np.log(np.sqrt(np.array([1.0, 0.01]) + 1e-4)), atol=1e-5)
    np.testing.assert_allclose(found[1], np.log(np.array([2.0, 0.2]) + 1e-2), rtol=1e-5)
    many = np.log(T) / 4  # a soft extreme of T readings lies at most so far beyond the true one
    for side, ends in ((found[2], (1.0, 0.1)), (-found[3], (1.0, 0.1))):
        assert ((side >= ends) & (side <= np.array(ends) + many)).all()
    assert ((found[5] >= (2.0, 0.2)) & (found[5] <= np.array([2.0, 0.2]) + many)).all()
    power = np.array([1.0, 0.01])
    np.testing.assert_allclose(found[4], -power / (power + 0.01), rtol=1e-5)  # every step turns round
    np.testing.assert_allclose(found[6:], 0.0, atol=1e-6)
    rise = jnp.stack([jnp.where(jnp.arange(T) < T // 2, -1.0, 1.0), jnp.ones((T,))], 1)[None]
    np.testing.assert_allclose(np.asarray(moments(rise))[0, 6 * C : 8 * C], [-1, 1, 1, 1])
    np.testing.assert_allclose(pair, [0.1 / np.sqrt(1.01 * 0.02)], rtol=1e-5)
    slope = jax.grad(lambda w: jnp.sum(jnp.square(moments(w))))
    for w in (window, jnp.zeros_like(window)):
        assert bool(tree.all_finite((slope(w), jax.jit(jax.grad(lambda v: jnp.sum(jnp.square(slope(v)))))(w))))


def test_vae_kl_weight_scales_the_kl_term_only():
    field, params, key = _compiled("vae")[1], _params("vae"), jax.random.key(1)
    light, heavy = (field(params, _batch(0), {**HYPER, "kl_weight": jnp.float32(w)}, key)[1] for w in (0.7, 3.0))
    assert light["sim/kl"] > 0
    np.testing.assert_allclose(heavy["sim/loss"] - light["sim/loss"], 2.3 * light["sim/kl"], rtol=1e-4, atol=1e-5)
