"""Local noise: its size on every message and in the mean, drawn anew each time, and what one client's data can move."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import toy

from fedjax_health import rng, tree
from fedjax_health.build_federation import build_federation
from fedjax_health.devices.round import make_ideal
from fedjax_health.federated import sharding
from fedjax_health.federated.algorithms import Start
from fedjax_health.federated.federation import init_state
from fedjax_health.train.loop import make_train
from fedjax_health.transforms.base import Keys, full_wire
from fedjax_health.transforms.compress import make_compression
from fedjax_health.transforms.local import make_local_privacy
from fedjax_health.types import UserError

pytestmark = pytest.mark.quick_compile

C, Z = 0.5, 1.7
WRONG = (2 / 3, 3 / 2)


def build(devices=1, **settings):
    """The toy federation with local noise."""
    make = toy.train_config(rounds_per_chunk=1, **settings)
    population, mesh = toy.domain().population, sharding.make_mesh(devices)
    dim = toy.encoder().layout.dim
    return build_federation(
        toy.linear(), population, dim, 2, make, mesh, lambda cohort: make_ideal(), 1.0, "local_gaussian"
    ), make


def update(scale=1.0, seed=0, size=3000):
    values = np.random.default_rng(seed).normal(size=size).astype(np.float32) * np.float32(scale)
    return {"w": jnp.asarray(values), "b": jnp.asarray(values[:7])}


def keys(client, round_index=1):
    clients = rng.stream_key(toy.keys(0)[0], round_index, rng.Stream.CLIENT)
    return Keys(jax.random.fold_in(rng.client_key(clients, jnp.int32(client)), 1), toy.keys(1)[0])


def sent(message, client=0, round_index=1, z=Z, **compression):
    config = toy.train_config(compression=compression)
    transform = make_local_privacy(make_compression(config.compression, message), config)
    numbers = toy.hyper(None, l2_clip_norm=C, noise_multiplier=z)
    return transform.client(message, transform.memory(message), numbers, keys(client, round_index))


def flat(message):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(message)]).astype(np.float64)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1e3])
def test_a_message_is_the_clipped_update_with_noise_of_the_stated_scale(scale):
    clipped = flat(update(scale)) * min(1.0, C / max(np.linalg.norm(flat(update(scale))), 1e-30))
    out, memory, metrics = sent(update(scale))
    noise = flat(out) - clipped
    assert jax.tree.leaves(memory) == [] and float(metrics["sim/local_noise_std"]) == pytest.approx(Z * C)
    assert scipy.stats.kstest(noise / (Z * C), "norm").pvalue > 1e-3
    for wrong in WRONG:
        assert scipy.stats.kstest(noise / (Z * C * wrong), "norm").pvalue < 1e-9


def test_noise_is_new_for_every_client_and_round():
    drawn = np.stack([flat(sent(update(0.0), client, t)[0])[:3000] for t in (1, 2, 3) for client in range(8)])
    assert np.abs(np.asarray(np.corrcoef(drawn))[np.triu_indices(24, 1)]).max() < 6 / math.sqrt(3000)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_an_update_that_is_not_finite_is_emptied_before_the_noise(value):
    spoilt = {**update(), "b": jnp.full((7,), value, jnp.float32)}
    out, _, metrics = sent(spoilt)
    assert float(metrics["sim/nonfinite_clients"]) == 1
    np.testing.assert_array_equal(flat(out), flat(sent(update(0.0))[0]))


@pytest.mark.parametrize(
    "compression",
    [{"sign": True}, {"bits": 4, "rotate": True}, {"sparsify": "top_k", "error_feedback": True}, {}],
)
def test_compression_sees_the_noised_update_only(compression):
    message = update()
    out, memory, _ = sent(message, **compression)
    noised, _, _ = sent(message)
    config = toy.train_config(compression=compression)
    compress = make_compression(config.compression, message)
    third = Keys(*(jax.random.fold_in(key, 2) for key in keys(0)))  # of the third place in the chain
    again, kept, _ = compress.client(noised, compress.memory(message), toy.hyper(None), third)
    jax.tree.map(np.testing.assert_array_equal, out, again)
    jax.tree.map(np.testing.assert_array_equal, memory[2], kept)
    whole = make_local_privacy(compress, config)
    assert whole.l2_bound(None, toy.hyper(None)) is None  # a noised message has none
    assert whole.wire(full_wire(message)) == compress.wire(full_wire(message))


def test_the_server_adds_nothing_and_divides_by_the_messages_that_came():
    parts, _ = build()
    total = {"w": jnp.arange(5.0)}
    out, metrics = parts.transform.server(total, toy.hyper(None), keys(0))
    np.testing.assert_array_equal(out["w"], total["w"])
    assert metrics == {}
    acc = parts.aggregator.init(total, 4)
    assert float(parts.aggregator.total(acc._replace(weight=jnp.float32(5.0)), toy.keys(0)[0])[1]) == 5.0


@pytest.mark.parametrize("devices", [1, 2])
def test_the_mean_over_n_messages_has_noise_of_the_scale_over_the_root_of_n(devices):
    seeds = 60
    parts, config = build(devices, cohort=16)
    train, data = make_train(parts, config), toy.make_data(parts, seeds=seeds)
    # without a step of its own every update is 0, so that the models move by noise alone
    numbers = toy.hyper(seeds, l2_clip_norm=C, noise_multiplier=Z, client_learning_rate=0.0)
    state, steps = train.init(toy.keys(*range(seeds))), []
    for _ in range(2):
        before = toy.flat(state.params.client)
        state, metrics = train.run_chunk(state, numbers, data)
        came = np.asarray(metrics["sim/cohort"], np.float64)
        assert came.min() >= 1 and came.std() > 1
        steps.append((toy.flat(state.params.client) - before) * np.sqrt(came) / (Z * C))
        np.testing.assert_allclose(metrics["sim/local_noise_std"], Z * C, rtol=1e-6)
    for step in steps:
        assert scipy.stats.kstest(step.ravel(), "norm").pvalue > 1e-3
        for wrong in WRONG:
            assert scipy.stats.kstest(step.ravel() / wrong, "norm").pvalue < 1e-9
    assert abs(np.corrcoef(steps[0].ravel(), steps[1].ravel())[0, 1]) < 6 / math.sqrt(steps[0].size)


@pytest.mark.parametrize("value", [None, 1e4, 1e30, np.nan])
@pytest.mark.parametrize("algorithm", ["fedavg", "fedprox"])
def test_emptying_a_client_moves_its_own_message_by_at_most_the_bound(value, algorithm):
    parts, _ = build(algorithm=algorithm)
    state, numbers = init_state(parts, toy.keys(3)[0]), toy.hyper(None, l2_clip_norm=C, noise_multiplier=Z)
    numbers = numbers | {"client_learning_rate": jnp.float32(5.0)}
    store = toy.make_data(parts).population
    client = int(np.argmax(store.count))
    own = slice(int(store.offset[client]), int(store.offset[client] + store.count[client]))
    there = store if value is None else store._replace(x=store.x.at[own].set(np.float32(value)))
    emptied = there._replace(count=there.count.at[client].set(0))

    def one(data, who):
        start = Start(state.params, parts.algorithm.control(state.params.client), ())
        message, _, _ = parts.run_client(start, data, who, numbers, jax.random.fold_in(keys(9).own, who))
        private = jax.random.fold_in(keys(0).own, who), keys(0).shared
        return parts.transform.client(message, ((), (), ()), numbers, Keys(*private))[0]

    messages = jax.jit(jax.vmap(one, (None, 0)))
    everyone = jnp.arange(parts.population.size, dtype=jnp.int32)
    with_data, without = (messages(data, everyone) for data in (there, emptied))
    moved = np.linalg.norm(toy.flat(with_data) - toy.flat(without), axis=1)
    assert moved[client] <= C * (1 + 1e-5) and np.flatnonzero(np.delete(moved, client)).size == 0
    if value in (None, 1e4):
        assert moved[client] > (0.99 * C if value else 0.1 * C)  # and it comes close to it
    assert np.isfinite(toy.flat(with_data)).all()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"aggregation": {"rule": "fixed_point"}}, "aggregation.rule='fixed_point' cuts a noised message"),
        ({"aggregation": {"rule": "median"}}, "does not cover a robust rule"),
        ({"aggregation": {"weighting": "examples"}}, "aggregation.weighting='equal'"),
        ({"local": "epochs"}, "local='epochs' lets the number of records decide"),
        ({"sampler": "fixed"}, "sampler='fixed' has no accountant"),
        ({"l2_clip_norm": math.inf}, "l2_clip_norm=inf is none"),
    ],
)
def test_what_is_not_covered_is_refused_by_the_parts_themselves(settings, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        build(**settings)
    assert "\n" not in str(error.value)


def test_the_message_on_the_wire_is_not_larger_than_without_noise():
    parts, _ = build()
    assert parts.costs.bytes_up == 4 * tree.size(toy.linear().init(toy.keys(0)[0]).client)
