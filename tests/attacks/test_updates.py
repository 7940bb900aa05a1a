"""An attacker who watches the rounds changes none, adds up what it says, and finds members where there is no noise."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from sklearn.metrics import roc_auc_score

from fedjax_health.attacks.lira import lira
from fedjax_health.attacks.shadows import draw_masks
from fedjax_health.attacks.updates import ATTRIBUTION, INNER, LOSS, RIDGE, watched
from fedjax_health.federated.algorithms import Start
from fedjax_health.federated.federation import Data, init_state
from fedjax_health.models.classifier import make_classifier
from fedjax_health.threefry import root_key
from fedjax_health.types import UserError

pytestmark = pytest.mark.quick_compile
TARGETS = np.flatnonzero(np.bincount(toy.domain().train.client, minlength=24))
CONFIG = toy.train_config(cohort=24, sampler="full", clients_per_chunk=24, local="epochs", batch_size=toy.H)


@functools.cache
def federation(private: bool = False):
    return toy.make_parts(make_classifier(toy.encoder().layout.dim, 2, (32,)), CONFIG, private=private)


def run(parts, rounds, include, key=0, hyper=None):
    round_fn, data = parts.scheme.make_round(parts), Data(toy.domain().data, include)
    step = jax.jit(lambda s: round_fn(s, hyper or toy.hyper(None), data)[0])
    states = [init_state(parts, toy.keys(key)[0])]
    for _ in range(rounds):
        states.append(step(states[-1]))
    return states


def toy_row(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_sums_are_those_of_the_rounds_that_are_looked_at():
    parts, include, every = federation(), jnp.ones((24,), bool).at[3].set(False), 2
    seen, plain = run(watched(parts, TARGETS, every), 5, include), run(parts, 5, include)
    jax.tree.map(np.testing.assert_array_equal, seen[-1].params.client, plain[-1].params.client)

    @jax.jit
    def train(params, round_index, client):
        key = jax.random.fold_in(jax.random.fold_in(root_key(0), round_index), client)
        return parts.run_client(Start(params, (), ()), toy.domain().data, client, toy.hyper(None), key)

    loss, inner, share = np.zeros((3, len(TARGETS)))
    for t in (1, 3):
        message = jax.tree.map(
            lambda a, b: a - b, plain[t].params.client, plain[t + 1].params.client
        )  # plain SGD, rate 1
        m, us = toy_row(message), []
        for i, client in enumerate(TARGETS):
            u, _, metrics = train(plain[t].params, t, jnp.int32(client))
            us.append(toy_row(u))
            loss[i] -= float(metrics["sim/loss"])
        for i, u in enumerate(us):
            others = np.mean([v for j, v in enumerate(us) if j != i], 0)
            inner[i] += u @ (m - others) / np.linalg.norm(u)
        matrix = np.stack(us).T
        ridge = RIDGE * np.mean(np.sum(matrix**2, 0)) * np.eye(len(us))
        share += np.linalg.solve(matrix.T @ matrix + ridge, matrix.T @ (m - matrix.mean(1)))
    np.testing.assert_allclose(seen[-1].audit[LOSS], loss, rtol=1e-4)
    np.testing.assert_allclose(seen[-1].audit[INNER], inner, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(seen[-1].audit[ATTRIBUTION], share, rtol=1e-3, atol=1e-4)


def test_members_are_found_without_noise_and_not_under_noise():
    masks = draw_masks(TARGETS, 24, 24, np.random.default_rng(0))

    def area(noise):
        parts = watched(federation(noise > 0), TARGETS)
        hyper = toy.hyper(None, noise_multiplier=noise)
        round_fn = parts.scheme.make_round(parts)

        def one(include, key):
            begin, data = init_state(parts, key), Data(toy.domain().data, include)
            return jax.lax.scan(lambda s, _: (round_fn(s, hyper, data)[0], None), begin, None, 4)[0].audit

        found, member = jax.jit(jax.vmap(one))(jnp.asarray(masks), toy.keys(*range(24))), masks[:, TARGETS]
        return {name: roc_auc_score(member.ravel(), lira(np.asarray(f), member).ravel()) for name, f in found.items()}

    quiet = area(0.0)
    assert quiet[ATTRIBUTION] > 0.85 and quiet[INNER] > 0.55, quiet
    loud = area(20.0)
    assert all(0.4 < found < 0.6 for found in loud.values()), loud  # 480 pairs: a deviation of .026


def test_only_flat_rounds_are_watched():
    hierarchy = toy.train_config(hierarchy={"institutions": 2}, sampler="fixed")
    parts = toy.make_parts(toy.linear(), hierarchy, private=False)
    with pytest.raises(UserError, match="watch flat rounds without canaries"):
        watched(parts, TARGETS)
