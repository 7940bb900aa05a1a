"""A round against its centralised limit, on neighbouring data, and with its noise; chunks and devices are in test_work."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import toy

from fedjax_health.federated.federation import init_state
from fedjax_health.federated.round import make_round
from fedjax_health.models.base import ModelParams
from fedjax_health.types import Batch

pytestmark = pytest.mark.quick_compile

EVERYONE = {"local": "epochs", "batch_size": toy.H, "cohort": 24}  # one step over all own records, all clients


def one_round(parts, keys, hyper, data, same_data=True):
    """States before and after the first round of N federations."""
    before = jax.vmap(functools.partial(init_state, parts))(keys)
    axes = type(data)(None if same_data else 0, 0)
    after, metrics = jax.jit(jax.vmap(make_round(parts), (0, 0, axes)))(before, hyper, data)
    return before, after, jax.device_get(metrics)


def change(before, after):
    return toy.flat(before.params.client) - toy.flat(after.params.client)


@pytest.mark.parametrize("private", [True, False])
def test_limit_is_the_centralised_step(private):
    """No noise, no clip, everyone, one local step, server rate 1: the mean gradient of the pooled loss."""
    model = toy.linear()
    parts = toy.make_parts(
        model,
        toy.train_config(**EVERYONE, aggregation={"weighting": "equal" if private else "examples"}),
        private=private,
    )
    hyper, data = toy.hyper(noise_multiplier=0.0, l2_clip_norm=1e9), toy.make_data(parts)
    before, after, metrics = one_round(parts, toy.keys(0), hyper, data)
    store = toy.domain().data
    count = np.asarray(store.count)
    owner = np.repeat(np.arange(24), count)
    weight = np.where(private, 1 / (24 * count[owner]), 1 / count.sum())

    def pooled(params):
        return jnp.sum(
            weight.astype(np.float32) * -jnp.take_along_axis(model.predict(params, store.x), store.y[:, None], 1)[:, 0]
        )

    gradient = jax.grad(pooled)(jax.tree.map(lambda leaf: leaf[0], before.params.client))
    expected = 0.1 * toy.flat(jax.tree.map(lambda leaf: leaf[None], gradient))
    np.testing.assert_allclose(change(before, after), expected, atol=1e-6)
    assert metrics["sim/cohort"] == 24
    assert not np.allclose(expected, 0, atol=1e-3)


def test_fedavg_of_several_local_steps_is_the_mean_of_local_models():
    model = toy.linear()
    parts = toy.make_parts(model, toy.train_config(**EVERYONE, local_epochs=3), private=True)
    before, after, _ = one_round(
        parts,
        toy.keys(0),
        toy.hyper(noise_multiplier=0.0, l2_clip_norm=1e9, server_learning_rate=0.5),
        toy.make_data(parts),
    )
    population, store = toy.domain().population, toy.domain().data
    start = jax.tree.map(lambda leaf: leaf[0], before.params)
    total = np.zeros((1, toy.flat(before.params.client).shape[1]))
    for k in range(24):
        w, batch = start.client, population.batch(store, jnp.int32(k), jnp.arange(toy.H))
        for _ in range(3):
            g, _ = model.field(ModelParams(w, ()), Batch(*batch), {}, jax.random.key(0))
            w = jax.tree.map(lambda a, b: a - 0.1 * b, w, g)
        total += toy.flat(jax.tree.map(lambda a, b: (a - b)[None], start.client, w))
    np.testing.assert_allclose(change(before, after), 0.5 * total / 24, atol=1e-6)


def test_adam_on_the_server_moves_by_the_sign():
    parts = toy.make_parts(toy.linear(), toy.train_config(**EVERYONE, server_optimizer="adam"))
    hyper = toy.hyper(noise_multiplier=0.0, l2_clip_norm=1e9, server_learning_rate=0.01)
    before, after, _ = one_round(parts, toy.keys(0), hyper, toy.make_data(parts))
    step = change(before, after)
    assert np.max(np.abs(step)) <= 0.01 * (1 + 1e-5)
    assert np.median(np.abs(step)) > 0.009  # Adam's first step is the rate times the sign


def with_one_bad_client(store, kind):
    """The store with all records of the largest client made absurd; returns that client too."""
    client = int(np.argmax(np.asarray(store.count)))
    bad = {"nan": np.nan, "huge": 1e30, "plain": 3.0}[kind]
    rows = store.offset[client] + jnp.arange(int(store.count[client]))
    return store._replace(x=store.x.at[rows].set(bad)), client


@pytest.mark.parametrize("kind", ["plain", "huge", "nan"])
def test_one_client_moves_the_sum_by_at_most_the_bound(kind):
    """Brute force over all neighbours: leave out each client in turn, same key."""
    parts = toy.make_parts(toy.linear(), toy.train_config(cohort=24))
    store, client = with_one_bad_client(toy.domain().data, kind)
    include = np.concatenate([np.ones((1, 24), bool), ~np.eye(24, dtype=bool)])
    hyper = toy.hyper(25, noise_multiplier=0.0, client_learning_rate=5.0)
    before, after, _ = one_round(
        parts, toy.keys(*[0] * 25), hyper, type(toy.make_data(parts))(store, jnp.asarray(include))
    )
    total = 24 * change(before, after)  # the public denominator is the expected cohort
    moved = np.linalg.norm(total[1:] - total[0], axis=1)
    bound = float(parts.transform.l2_bound(None, hyper)[0])
    assert bound == 0.5
    assert moved.max() <= bound * (1 + 1e-5)
    assert np.sum(moved > 0.99 * bound) > 5  # the bound is met, so a sum that is not clipped would fail
    if kind == "nan":
        assert moved[client] <= 1e-6  # the others are dealt in another order without it


def test_a_left_out_client_is_as_if_it_had_never_been():
    """Its records may be anything: nothing that is published or averaged changes."""
    parts = toy.make_parts(toy.linear(), toy.train_config(cohort=24))
    store, client = with_one_bad_client(toy.domain().data, "nan")
    data = toy.make_data(parts, include=np.arange(24)[None] != client)
    runs = [one_round(parts, toy.keys(0), toy.hyper(), data._replace(population=s)) for s in (toy.domain().data, store)]
    np.testing.assert_array_equal(toy.flat(runs[0][1].params), toy.flat(runs[1][1].params))
    assert runs[0][2].keys() == runs[1][2].keys()
    for name in runs[0][2]:
        np.testing.assert_array_equal(runs[0][2][name], runs[1][2][name], err_msg=name)


@pytest.mark.parametrize("local", ["steps", "epochs"])
def test_each_client_has_randomness_of_its_own(local):
    """Two clients with the same records: other batches, so other updates; the same whole pass, so the same update."""
    parts = toy.make_parts(toy.linear(), toy.train_config(**(EVERYONE | {"local": local, "batch_size": 4})))
    store = toy.domain().data
    a, b = np.flatnonzero(np.asarray(store.count) == 4)[:2]
    rows = store.offset[a] + jnp.arange(4), store.offset[b] + jnp.arange(4)
    twins = store._replace(x=store.x.at[rows[1]].set(store.x[rows[0]]), y=store.y.at[rows[1]].set(store.y[rows[0]]))
    data = toy.make_data(parts, include=np.arange(24) == np.array([[a], [b]]))._replace(population=twins)
    before, after, _ = one_round(parts, toy.keys(0, 0), toy.hyper(2, noise_multiplier=0.0), data)
    first, second = change(before, after)
    assert np.linalg.norm(first) > 1e-4
    assert np.allclose(first, second, atol=1e-6) == (local == "epochs")


@pytest.mark.parametrize("taking_part", [True, False])
def test_noise_is_on_the_sum_and_divided_by_the_expected_cohort(taking_part):
    """After the division its deviation is sigma * C / (q K), whoever took part; 2/3 or 3/2 of it is rejected."""
    parts, n = toy.make_parts(toy.linear(), toy.train_config(cohort=8)), 200
    include = np.full((n, 24), taking_part)
    quiet, loud = (
        one_round(parts, toy.keys(*range(n)), toy.hyper(n, noise_multiplier=z), toy.make_data(parts, include=include))
        for z in (0.0, 1.3)
    )
    noise = (change(loud[0], loud[1]) - change(quiet[0], quiet[1])) * 8 / (1.3 * 0.5)
    assert scipy.stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    for wrong in (2 / 3, 3 / 2):
        assert scipy.stats.kstest(noise.ravel() * wrong, "norm").pvalue < 1e-6
    assert abs(np.corrcoef(noise.T)[np.triu_indices(noise.shape[1], 1)]).max() < 0.4  # no two weights share noise
    np.testing.assert_allclose(loud[2]["public/noise_std"], 0.65, rtol=1e-6)


def test_average_starts_at_the_first_round_and_not_at_the_random_start():
    parts = toy.make_parts(toy.linear(), toy.train_config(ema_decay=0.5))
    state, seen = init_state(parts, jax.random.key(0)), []
    round_fn, data = jax.jit(make_round(parts)), toy.make_data(parts)
    for _ in range(3):
        state, _ = round_fn(state, toy.hyper(None), data._replace(include=data.include[0]))
        seen.append(
            (np.asarray(jax.tree.leaves(state.params.client)[1]), np.asarray(jax.tree.leaves(state.average)[1]))
        )
    (p1, a1), (p2, a2), (p3, a3) = seen
    np.testing.assert_allclose(a1, p1, rtol=1e-6)
    np.testing.assert_allclose(a2, 0.5 * p1 + 0.5 * p2, rtol=1e-5)
    np.testing.assert_allclose(a3, 0.5 * a2 + 0.5 * p3, rtol=1e-5)


def test_public_metrics_follow_from_the_published_update():
    parts = toy.make_parts(toy.linear(), toy.train_config())
    before, after, metrics = one_round(parts, toy.keys(0), toy.hyper(), toy.make_data(parts))
    np.testing.assert_allclose(metrics["public/update_norm"], np.linalg.norm(change(before, after)), rtol=1e-5)
    np.testing.assert_allclose(
        metrics["public/parameter_norm"], np.linalg.norm(toy.flat(after.params.client)), rtol=1e-5
    )
    assert all(name.startswith(("sim/", "public/")) for name in metrics)
