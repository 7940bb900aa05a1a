"""Diffusion: its schedule, its loss and its sampler where the answer is known."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo

from fedjax_health import tree
from fedjax_health.config import DiffusionConfig
from fedjax_health.data.encode import Layout
from fedjax_health.models.diffusion import even_times, make_diffusion, signal_shares
from fedjax_health.models.record import PLAIN
from fedjax_health.types import Batch

pytestmark = pytest.mark.quick_compile

LAYOUT = Layout(numeric=2, bits=2, blocks=(3,), missing=(-1, 3))
N = 20_000


@functools.cache
def case(steps: int = 50):
    """(model, parameters of a denoiser that always says 0)."""
    model = make_diffusion(LAYOUT, 2, DiffusionConfig((8,), "auto", steps, zoo.TRAIN))
    return model, tree.zeros_like(model.init(jax.random.key(0)).client)


def test_the_schedule_is_the_cosine():
    share = signal_shares(4)
    angle = np.array([0.25, 0.5, 0.75])
    wanted = np.cos((angle + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(share[:4], [1.0, *wanted], rtol=1e-12)
    assert share[4] == pytest.approx(share[3] * 1e-3)  # where the cosine is 0 the step is cut
    long = signal_shares(1000)
    assert (np.diff(long) < 0).all() and 0 < long[-1] < 1e-6


def test_times_are_uniform_and_evenly_spread():
    for seed in range(20):
        times = np.asarray(even_times(50, 10, jax.random.key(seed)))
        np.testing.assert_array_equal(np.bincount(times, minlength=11), [0] + [5] * 10)
    first = np.asarray(jax.vmap(lambda key: even_times(7, 10, key)[0])(jax.random.split(jax.random.key(1), 4_000)))
    share = np.bincount(first, minlength=11)[1:] / 4_000
    assert np.abs(share - 0.1).max() < 5 * np.sqrt(0.1 * 0.9 / 4_000)  # 5 standard deviations


def test_what_a_denoiser_that_knows_nothing_loses_is_one_a_dimension():
    # v = a e - s x has variance a^2 + s^2 = 1 for standard normal numbers, for codes of -1 and 1, and for missing cells
    model, zeros = case()
    key_x, key_c = jax.random.split(jax.random.key(1))
    codes = jax.random.randint(key_c, (N, 3), 0, jnp.array([[2, 2, 3]]))
    gone = codes[:, 1].astype(jnp.float32)
    numeric = jax.random.normal(key_x, (N, 2)) * jnp.stack([jnp.ones((N,), jnp.float32), 1.0 - gone], -1)
    x = jnp.concatenate([numeric, codes[:, :2].astype(jnp.float32), jax.nn.one_hot(codes[:, 2], 3)], -1)
    batch = Batch(x, codes[:, 0], jnp.ones((N,), bool))
    record_loss = model.record_loss
    assert record_loss is not None
    losses = np.asarray(jax.jit(lambda b: record_loss(zeros, b, {}, jax.random.key(2), PLAIN))(batch))
    for rows in (losses[gone == 0], losses[gone == 1]):
        # a missing cell left at its code, 0, would lose 1/2 less
        assert abs(rows.mean() - LAYOUT.dim) < 5 * rows.std() / np.sqrt(len(rows)) < 0.3


@pytest.mark.parametrize("steps", [10, 50])
def test_standard_normal_numbers_come_out_of_its_exact_denoiser(steps):
    model, zeros = case(steps)  # whose v is 0 for standard normal data
    x = np.asarray(jax.jit(model.sample)(zeros, jnp.zeros((N,), jnp.int32), jax.random.key(3)))
    wanted = {10: 0.986, 50: 0.999}[steps]  # the last step adds no noise; with the other usual noise: 0.825 and 0.956
    assert np.abs(x[:, :2].mean(0)).max() < 5 / np.sqrt(N)
    assert np.abs(x[:, :2].std(0) - wanted).max() < 5 / np.sqrt(2 * N)
    # codes of an ignorant denoiser are fair: signs of independent normals
    assert np.abs(x[:, 2:4].mean(0) - 0.5).max() < 5 * 0.5 / np.sqrt(N)
    assert np.abs(x[:, 4:].mean(0) - 1 / 3).max() < 5 * 0.48 / np.sqrt(N)


def test_rows_that_the_denoiser_removes_noise_from_score_higher():
    model, zeros = case()
    # v = -s x + a e: a last layer that says -x / 2 for a row is right for it on average, and wrong for its opposite
    x = jnp.asarray([[1.5, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0], [-1.5, -1.0, 0.0, 0.0, 0.0, 1.0, 1.0]], jnp.float32)
    row = jnp.concatenate([x[0, :2], 2.0 * x[0, 2:] - 1.0])
    known = {"params": {**zeros["params"], "Dense_1": {**zeros["params"]["Dense_1"], "bias": -0.5 * row}}}
    params = model.init(jax.random.key(0))._replace(client=known)
    score = np.asarray(jax.jit(model.score)(params, x, jnp.zeros((2,), jnp.int32), jax.random.key(4)))
    assert score[0] > score[1] + 1.0 and (score < 0).all()
