"""Stream models that are trained: what a channel remembers is in the windows they draw."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from fedjax_health.config import GanConfig, VaeConfig
from fedjax_health.data.schema import Column
from fedjax_health.data.stream_schema import stream_schema
from fedjax_health.models.stream_vae import make_stream_vae
from fedjax_health.models.stream_wgan_gp import make_stream_wgan_gp
from fedjax_health.types import Batch

pytestmark = [pytest.mark.quick_compile, pytest.mark.slow]
T, C, L = 8, 2, 2
CHANNELS = tuple(Column(name=n, low=-9, high=9, center=0, scale=1) for n in "ab")
SCHEMA = stream_schema("s", CHANNELS, Column(name="ill", kind="binary", role="label"), T, 1.0)
TRAIN = toy.train_config(rounds=1, rounds_per_chunk=1, cohort=1, batch_size=1, local_steps=1)


def _remembering() -> Any:
    """Windows of one channel that remembers, rho = .9, and one that does not, both of unit variance: f32[4000, T * C]."""
    noise = np.random.default_rng(0).standard_normal((4000, T, C))
    x = [noise[:, 0]]
    for t in range(1, T):
        x.append(np.asarray([0.9, 0.0]) * x[-1] + np.sqrt(1 - np.asarray([0.9, 0.0]) ** 2) * noise[:, t])
    return jnp.asarray(np.stack(x, 1).reshape(4000, -1), jnp.float32)


def _lagged(windows: Any) -> tuple[np.ndarray, np.ndarray]:
    """Products of neighbouring steps over the power, and SDs, by channel."""
    w = np.asarray(windows).reshape(-1, T, C)
    return (w[:, 1:] * w[:, :-1]).mean((0, 1)) / np.square(w).mean((0, 1)), w.std((0, 1))


def test_vae_learns_the_memory_of_a_channel():
    """Trained on a channel that remembers and one that does not, the samples keep them apart."""
    data, label = _remembering(), jnp.zeros((4000,), jnp.int32)
    model, hyper = make_stream_vae(SCHEMA, L, VaeConfig((4, 6), "auto", 3, 1.0, TRAIN)), {"kl_weight": jnp.float32(0.7)}
    params = jax.jit(model.init)(jax.random.key(0))

    def step(client, key):
        rows = jax.random.randint(key, (200,), 0, 4000)
        batch = Batch(data[rows], label[rows], jnp.ones((200,), bool))
        update, _ = model.field(params._replace(client=client), batch, hyper, key)
        return jax.tree.map(lambda p, u: p - 0.02 * jnp.clip(u, -1.0, 1.0), client, update), None

    keys = jax.random.split(jax.random.key(0), 1500)
    client, _ = jax.jit(lambda c: jax.lax.scan(step, c, keys))(params.client)
    memory, spread = _lagged(model.sample(model.release(params._replace(client=client)), label, jax.random.key(1)))
    assert memory[0] > 0.75 and abs(memory[1]) < 0.1
    np.testing.assert_allclose(spread, 1.0, atol=0.15)


def test_wgan_gp_learns_the_memory_of_a_channel():
    """The same of the GAN: the critic's steps read the windows, the generator's none."""
    data, label = _remembering(), jnp.zeros((4000,), jnp.int32)
    model = make_stream_wgan_gp(SCHEMA, L, GanConfig((8, 16), "auto", 4, "split", 10.0, 1, 100, 1e-3, TRAIN))
    hyper = {"generator_learning_rate": jnp.float32(1e-3), "penalty": jnp.float32(10.0)}
    hyper["class_prior"] = jnp.array([0.6, 0.4], jnp.float32)
    optimizer = optax.scale_by_rms()

    def step(carry, key):
        params, state = carry
        key_b, key_d, key_g = jax.random.split(key, 3)
        rows = jax.random.randint(key_b, (100,), 0, 4000)
        update, _ = model.field(params, Batch(data[rows], label[rows], jnp.ones((100,), bool)), hyper, key_d)
        update, state = optimizer.update(update, state)
        client = jax.tree.map(lambda p, u: p - 5e-3 * u, params.client, update)
        return (model.refine(params._replace(client=client), hyper, key_g)[0], state), None

    keys = jax.random.split(jax.random.key(0), 1000)
    params = jax.jit(model.init)(jax.random.key(2))
    start = params, optimizer.init(params.client)
    (trained, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, keys))(start)
    sample = jax.jit(model.sample)
    before, _ = _lagged(sample(model.release(params), label, jax.random.key(1)))
    memory, spread = _lagged(sample(model.release(trained), label, jax.random.key(1)))
    assert abs(before[0]) < 0.3 and memory[0] > 0.75 and abs(memory[1]) < 0.15
    np.testing.assert_allclose(spread, 1.0, atol=0.2)
