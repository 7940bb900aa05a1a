"""Population: no client ever reads a neighbour, no padding in memory, and stored equals procedural."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from fedjax_health import rng
from fedjax_health.data.encode import make_encoder
from fedjax_health.data.population import make_store, procedural_population, stored_population
from fedjax_health.data.schema import Column, Schema
from fedjax_health.data.simulator import Simulator, population_key, simulate_table
from fedjax_health.types import Table

SCHEMA = Schema(
    "toy",
    (
        Column(name="rate", low=0, high=1000, center=0.0, scale=1.0),
        Column(name="lactate", low=0, high=20, transform="log1p", decimals=1, nullable=True),
        Column(name="sex", kind="binary"),
        Column(name="sick", kind="binary", role="label"),
    ),
)
ENCODER = make_encoder(SCHEMA)
H = 5


def _simulate(key):
    keys = jax.random.split(key, 4)
    rate = 500.0 + 100.0 * jax.random.normal(keys[0], (H,))
    lactate = jnp.where(jnp.arange(H) % 3 == 2, jnp.nan, jax.random.uniform(keys[1], (H,), maxval=9.0))
    sex = jnp.full((H,), jax.random.bernoulli(keys[2]).astype(jnp.float32))
    label = (rate > 550.0).astype(jnp.int32)
    return jnp.stack([rate, lactate, sex], -1), label, jax.random.randint(keys[3], (), 0, H + 1)


SIMULATOR = Simulator(SCHEMA, "diagnosis", H, _simulate)


def _table(counts) -> Table:
    """Record j of client k has rate 100 k + j + 1 and label k mod 2."""
    client = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    rate = np.concatenate([100 * k + np.arange(c) + 1 for k, c in enumerate(counts)])
    values = np.stack([rate, np.zeros_like(rate), np.ones_like(rate)], 1).astype(np.float32)
    return Table(values, client % 2, client)


def test_a_batch_holds_the_clients_own_records():
    counts = [2, 3, 0, 4]
    store = make_store(_table(counts), ENCODER, 6)
    population = stored_population(6, 4)
    np.testing.assert_array_equal(store.count, [2, 3, 0, 4, 0, 0])
    for client, count in enumerate([2, 3, 0, 4, 0, 0]):
        k = jnp.int32(client)
        assert int(population.count(store, k)) == count
        batch = population.batch(store, k, jnp.array([3, 0, 2, 1], jnp.int32))
        expected = [100 * client + i + 1 if i < count else 0 for i in (3, 0, 2, 1)]
        np.testing.assert_array_equal(batch.x[:, 0], expected)
        np.testing.assert_array_equal(batch.y, [client % 2 if e else 0 for e in expected])
        np.testing.assert_array_equal(batch.mask, np.array(expected) > 0)


@pytest.mark.parametrize("kind", ["stored", "procedural"])
def test_an_index_out_of_range_is_an_empty_slot_and_never_a_neighbour(kind):
    if kind == "stored":
        population, data = stored_population(3, 3), make_store(_table([2, 3, 1]), ENCODER, 3)
    else:
        population, data = procedural_population(SIMULATOR, ENCODER, 3), population_key(0)
    for client in range(3):
        count = int(population.count(data, jnp.int32(client)))
        index = jnp.array([-1, -7, count, count + 1, 1000, 2**31 - 1], jnp.int32)
        batch = population.batch(data, jnp.int32(client), index)
        assert not np.asarray(batch.mask).any()
        assert not np.asarray(batch.x).any() and not np.asarray(batch.y).any()


def test_the_store_has_no_padding():
    counts = np.random.default_rng(0).integers(1, 1001, 200)
    store = make_store(_table(counts), ENCODER, 200)
    raw = counts.sum() * (ENCODER.layout.dim + 1) * 4
    total = sum(leaf.nbytes for leaf in store)
    assert raw < total <= 1.1 * raw
    assert total < 0.6 * 200 * counts.max() * (ENCODER.layout.dim + 1) * 4  # what a padded array would take


def test_stored_and_procedural_batches_agree():
    clients = 12
    table = simulate_table(SIMULATOR, clients, seed=4)
    stored, store = stored_population(clients, H), make_store(table, ENCODER, clients)
    procedural, root = procedural_population(SIMULATOR, ENCODER, clients), population_key(4)
    index = jnp.arange(H, dtype=jnp.int32)
    left, right = jax.jit(stored.batch), jax.jit(procedural.batch)
    seen = 0
    for client in range(clients):
        a, b = left(store, jnp.int32(client), index), right(root, jnp.int32(client), index)
        np.testing.assert_array_equal(a.mask, b.mask)
        np.testing.assert_array_equal(a.y, b.y)
        np.testing.assert_allclose(a.x, b.x, rtol=1e-5, atol=1e-5)  # XLA may round fused arithmetic otherwise
        seen += int(a.mask.sum())
    assert seen == len(table.label) > 0
    assert int(procedural.count(root, jnp.int32(0))) == int(_simulate(rng.client_key(root, jnp.int32(0)))[2])


def test_another_world_has_other_records():
    population = procedural_population(SIMULATOR, ENCODER, 4)
    index = jnp.zeros((1,), jnp.int32)
    client = next(k for k in range(9) if all(population.count(population_key(s), jnp.int32(k)) > 0 for s in (0, 1)))
    a, b = (population.batch(population_key(seed), jnp.int32(client), index).x[0, 0] for seed in (0, 1))
    assert a != b


def test_static_bounds_and_how_it_is_read():
    """The bounds are promises: a step without a mask, or a program without a skipped step, rests on them."""
    domain = toy.domain()
    count = np.bincount(domain.train.client, minlength=24)
    assert (domain.population.min_count, domain.population.max_count) == (count.min(), count.max())
    assert domain.population.lazy  # a gather a batch costs no more than one for all
    made = toy.domain(population="procedural").population
    assert (made.min_count, made.max_count) == (0, toy.H)
    assert not made.lazy  # each reading simulates the client again
