"""The three views of the downstream task: who reads what, and no client ever reads another's records."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_health.data.population import Store
from fedjax_health.evaluation.downstream import interleave, view_population
from fedjax_health.types import Table

COUNTS = np.array([2, 0, 3, 1])
TOTAL = int(COUNTS.sum())


def _train() -> Table:
    client = np.repeat(np.arange(4), COUNTS).astype(np.int32)
    return Table(np.arange(TOTAL, dtype=np.float32)[:, None], (client % 2).astype(np.int32), client)


def test_interleave_known_answer():
    order, offset, count = interleave(_train(), 4)
    np.testing.assert_array_equal(order, [0, 1, 6, 7, 2, 3, 4, 8, 9, 10, 5, 11])
    np.testing.assert_array_equal(offset, [0, 4, 4, 10])
    np.testing.assert_array_equal(count, COUNTS)
    assert order.dtype == offset.dtype == count.dtype == np.int32


def test_interleave_is_a_permutation_and_allows_clients_without_rows_at_the_end():
    counts = np.random.default_rng(0).integers(0, 9, 50)
    client = np.repeat(np.arange(50), counts).astype(np.int32)
    train = Table(np.zeros((len(client), 1), np.float32), client, client)
    order, offset, count = interleave(train, 60)
    np.testing.assert_array_equal(np.sort(order), np.arange(2 * len(client)))
    np.testing.assert_array_equal(count, np.concatenate([counts, np.zeros(10, int)]))
    for k in range(60):
        real, made = np.split(order[offset[k] : offset[k] + 2 * count[k]], 2)
        np.testing.assert_array_equal(client[real], k)
        np.testing.assert_array_equal(made, real + len(client))


@pytest.mark.parametrize("view", ["real", "synthetic", "real+synthetic"])
def test_a_view_reads_its_own_rows_only(view):
    train = _train()
    order, offset, count = interleave(train, 4)
    values = np.concatenate([np.arange(TOTAL), 100 + np.arange(TOTAL)]).astype(np.float32)[order]
    first = offset + count if view == "synthetic" else offset
    size = 2 * count if view == "real+synthetic" else count
    arrays = (values[:, None], np.zeros(2 * TOTAL, np.int32), first.astype(np.int32), size.astype(np.int32))
    store = Store(*(jnp.asarray(a) for a in arrays))
    population = view_population(train, 4)
    assert population.size == 4 and population.max_count == 6
    for k in range(4):
        batch = population.batch(store, jnp.int32(k), jnp.arange(population.max_count, dtype=jnp.int32))
        real = np.flatnonzero(train.client == k)
        own = {"real": real, "synthetic": 100 + real, "real+synthetic": np.concatenate([real, 100 + real])}[view]
        np.testing.assert_array_equal(np.asarray(batch.x)[np.asarray(batch.mask), 0], own)
        assert not np.asarray(batch.x)[~np.asarray(batch.mask)].any()
