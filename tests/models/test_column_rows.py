"""A GAN's generator column by column: what it is before training, who knows whom, and what a direct one does not learn."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import zoo

from fedjax_health.data.encode import Layout
from fedjax_health.models.column_rows import ColumnRows
from fedjax_health.types import Batch

pytestmark = pytest.mark.quick_compile
LAYOUT = Layout(numeric=3, bits=2, blocks=(3,), missing=(-1, -1, -1))
N = 2_000


def made(seed=0, layout=LAYOUT, scale=1.0):
    """(network, parameters times `scale`, its three inputs)."""
    network, keys = ColumnRows(layout, (8,)), jax.random.split(jax.random.key(seed), 4)
    c = jax.random.normal(keys[0], (N, 5))
    gumbel = jax.random.gumbel(keys[1], (N, 2, layout.dim - layout.numeric))
    normal = jax.random.normal(keys[2], (N, 2, layout.numeric))
    params = network.init(keys[3], c, gumbel, normal)
    return network, jax.tree.map(lambda w: scale * w, params), (c, gumbel, normal)


def test_untrained_cells_are_their_own_noise_and_codes_are_codes():
    network, params, inputs = made()
    x = np.asarray(network.apply(params, *inputs))
    assert x.shape == (N, LAYOUT.dim) and x.dtype == np.float32
    np.testing.assert_allclose(x[:, :3], inputs[2][:, 0], atol=0.3)
    assert np.abs(np.corrcoef(x[:, :3].T) - np.eye(3)).max() < 0.08  # 3.5 standard deviations
    codes = x[:, 3:]
    np.testing.assert_allclose(np.abs(codes - 0.5), 0.5, atol=1e-6)
    np.testing.assert_allclose(codes[:, 2:].sum(1), 1.0, atol=1e-6)
    assert (codes.mean(0) > 0.05).all()


def test_a_cell_knows_what_comes_before_it_and_nothing_else():
    network, params, (c, gumbel, normal) = made(scale=3.0)

    def cells(normal):
        return network.apply(params, c[:50], gumbel[:50], normal)[:, :3]

    slope = np.asarray(
        jax.vmap(jax.jacobian(lambda e, i: cells(normal[:50].at[i].set(e))[i], 0))(normal[:50], jnp.arange(50))
    )
    found = np.abs(slope).sum((0, 2))  # [cell, column of noise]
    assert (found[np.triu_indices(3, 1)] == 0).all() and (found[np.tril_indices(3)] > 0).all()

    def code(gumbel):
        return network.apply(params, c[:50], gumbel, normal[:50])

    moved = np.asarray(code(gumbel[:50].at[:, 0, 1].add(50.0)) - code(gumbel[:50]))
    assert (
        (moved[:, 3] == 0).all() and (moved[:, 4] >= 0).all() and moved[:, 4].max() == 1.0
    )  # the bit before stays as it is
    assert np.abs(moved[:, :3]).max() > 0  # what comes after hears of it


def test_codes_have_a_gradient_though_they_are_hard():
    network, params, inputs = made()
    slope = jax.grad(lambda p: jnp.mean(network.apply(p, *inputs)[:, 3]))(params)["params"]["last_code_0"]["bias"]
    assert float(jnp.abs(slope[0])) > 1e-3


def test_sensors_that_fall_out_together_do_so_in_its_rows_and_not_in_those_of_a_direct_generator():
    layout, apart = Layout(1, 2, (), (-1,)), {}
    for name in ("wgan_gp-split", "wgan_gp-causal-split"):
        model = zoo.make(name, layout, hidden=(24,), latent=4, rows=64)
        rule, hyper = optax.adam(3e-3, b1=0.0), zoo.HYPER | {"generator_learning_rate": jnp.float32(3e-3)}

        def step(carry, key, model=model, rule=rule, hyper=hyper):
            params, state = carry
            keys = jax.random.split(key, 4)
            gone = jax.random.bernoulli(keys[0], 0.15, (64,)).astype(jnp.float32)
            x = jnp.stack([jax.random.normal(keys[1], (64,)), gone, gone], 1)
            direction, _ = model.field(params, Batch(x, jnp.zeros(64, jnp.int32), jnp.ones(64, bool)), hyper, keys[2])
            with jax.numpy_dtype_promotion("standard"):
                change, state = rule.update(direction, state)
            params = params._replace(client=optax.apply_updates(params.client, change))
            return (model.refine(params, hyper, keys[3])[0], state), None

        start = model.init(jax.random.key(0))
        carry = start, rule.init(start.client)
        (params, _), _ = jax.jit(lambda c, k, step=step: jax.lax.scan(step, c, k))(
            carry, jax.random.split(jax.random.key(1), 600)
        )
        x = model.sample(model.release(params), jnp.zeros(4_000, jnp.int32), jax.random.key(2))
        assert 0.05 < float(x[:, 1].mean()) < 0.3
        apart[name] = float(jnp.mean(x[:, 1] != x[:, 2]))
    assert apart["wgan_gp-causal-split"] < 0.02 < 0.05 < apart["wgan_gp-split"], apart
