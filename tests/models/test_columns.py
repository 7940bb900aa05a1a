"""Rows drawn code by code have the law that `surprise` says, and codes depend on those before them."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_health.data.encode import Layout
from fedjax_health.models.columns import WIDTH, Columns

pytestmark = pytest.mark.quick_compile

LAYOUT = Layout(0, 2, (3,), ())
EVERY = np.array([[*bits, *np.eye(3)[k]] for bits in itertools.product((0, 1), repeat=2) for k in range(3)], np.float32)
N = 40_000


def decoder():
    network = Columns(LAYOUT, (8,))
    params = network.init(jax.random.key(2), jnp.zeros((1, 5)), jnp.zeros((1, 2)), method=Columns.surprise)
    return network, jax.tree.map(lambda leaf: 1.5 * leaf, params)  # far from independence


def chances(network, params):
    context = jnp.tile(jnp.array([[0.7, -1.0]]), (len(EVERY), 1))
    return np.exp(-np.asarray(network.apply(params, jnp.asarray(EVERY), context, method=Columns.surprise), np.float64))


def test_chances_of_all_codes_sum_to_one_and_are_those_of_the_draws():
    network, params = decoder()
    p = chances(network, params)
    assert abs(p.sum() - 1) < 1e-5
    keys, context = list(jax.random.split(jax.random.key(1), 3)), jnp.tile(jnp.array([[0.7, -1.0]]), (N, 1))
    x = np.asarray(jax.jit(lambda c: network.apply(params, c, *keys, method=Columns.draw))(context))
    drawn = (x[:, None] == EVERY[None]).all(-1).mean(0)
    assert abs(drawn.sum() - 1) < 1e-12  # nothing else is drawn
    assert np.max(np.abs(drawn - p) / np.sqrt(p * (1 - p) / N)) < 5
    # codes that were independent would be seen
    bits = [p[EVERY[:, i] == 1].sum() for i in (0, 1)]
    assert abs(p[(EVERY[:, 0] == 1) & (EVERY[:, 1] == 1)].sum() - bits[0] * bits[1]) > 0.02


def test_a_code_knows_those_before_it_and_not_those_after():
    network, params = decoder()
    p = chances(network, params)
    blind = dict(params["params"])
    for u in (1, 2):
        for name, first in (
            (f"own_code_{u}", 8),
            (f"last_code_{u}", WIDTH + 8),
        ):  # what the codes before are multiplied by
            blind[name] = {**blind[name], "kernel": blind[name]["kernel"].at[first:].set(0.0)}
    q = chances(network, {"params": blind})
    first = [r[EVERY[:, 0] == 1].sum() for r in (p, q)]
    np.testing.assert_allclose(*first, rtol=1e-5)  # the first bit's chance is not theirs to move
    assert np.abs(p - q).max() > 0.02
