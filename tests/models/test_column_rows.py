"""A GAN's generator column by column: what it is before training, who knows whom, and that no code is lost for good."""

from __future__ import annotations

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_health.data.encode import Layout
from fedjax_health.models.column_rows import ColumnRows
from fedjax_health.models.mixed import relaxed

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


def rows_of(network: ColumnRows, params: Any, *inputs: Any) -> jax.Array:
    """The network's rows; flax types them as one of several forms."""
    return cast(jax.Array, network.apply(params, *inputs))


def test_untrained_cells_are_their_own_noise_and_codes_are_codes():
    network, params, inputs = made()
    x = np.asarray(rows_of(network, params, *inputs))
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
        return rows_of(network, params, c[:50], gumbel[:50], normal)[:, :3]

    slope = np.asarray(
        jax.vmap(jax.jacobian(lambda e, i: cells(normal[:50].at[i].set(e))[i], 0))(normal[:50], jnp.arange(50))
    )
    found = np.abs(slope).sum((0, 2))  # [cell, column of noise]
    assert (found[np.triu_indices(3, 1)] == 0).all() and (found[np.tril_indices(3)] > 0).all()

    def code(gumbel):
        return rows_of(network, params, c[:50], gumbel, normal[:50])

    moved = np.asarray(code(gumbel[:50].at[:, 0, 1].add(50.0)) - code(gumbel[:50]))
    assert (
        (moved[:, 3] == 0).all() and (moved[:, 4] >= 0).all() and moved[:, 4].max() == 1.0
    )  # the bit before stays as it is
    assert np.abs(moved[:, :3]).max() > 0  # what comes after hears of it


def test_a_code_that_has_become_rare_still_has_a_gradient_in_every_row():
    """What relaxed draws of logits have not: a code that a generator has lost would stay lost."""
    network, params, (c, gumbel, normal) = made()
    params["params"]["last_code_0"]["bias"] = jnp.array([-8.0])

    def code(shift, row):
        bias = params["params"]["last_code_0"]["bias"] + shift
        moved = {"params": {**params["params"], "last_code_0": {**params["params"]["last_code_0"], "bias": bias}}}
        return rows_of(network, moved, c[row][None], gumbel[row][None], normal[row][None])[0, 3]

    rows, still = jnp.arange(200), jnp.float32(0.0)
    assert float(jax.vmap(code, (None, 0))(still, rows).mean()) < 0.02
    assert np.quantile(jax.vmap(jax.grad(code), (None, 0))(still, rows), 0.1) > 1e-5

    def soft(logit, key):
        return relaxed(Layout(0, 1, (), ()), logit[None, None], key)[0, 0]

    lost = jax.vmap(jax.grad(soft), (None, 0))(jnp.float32(-8.0), jax.random.split(jax.random.key(1), 200))
    assert np.quantile(lost, 0.9) < 1e-6


def test_a_code_can_repeat_the_one_before_it():
    """As sensors that fall out together do."""
    network, params, inputs = made()
    last = params["params"]["last_code_1"]
    params["params"]["last_code_1"] = {
        "kernel": jnp.zeros_like(last["kernel"]).at[-1].set(60.0),
        "bias": jnp.array([-30.0]),
    }
    x = np.asarray(rows_of(network, params, *inputs))
    np.testing.assert_allclose(x[:, 4], x[:, 3], atol=1e-6)
    assert 0.1 < x[:, 3].mean() < 0.9
