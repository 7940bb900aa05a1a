"""Splits are disjoint by client and exhaustive; inclusion masks leave out a fixed number, exchangeably."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_health.data.split import inclusion_masks, split_clients, take_clients
from fedjax_health.types import Table, UserError


def _table(counts) -> Table:
    """The value of a record is its client's original id."""
    client = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    return Table(client[:, None].astype(np.float32), (client % 2).astype(np.int32), client)


COUNTS = np.random.default_rng(0).integers(1, 5, 40)


def test_take_clients_renumbers_in_the_order_given():
    taken = take_clients(_table([2, 0, 1, 3]), np.array([3, 0, 1]))
    np.testing.assert_array_equal(taken.values[:, 0], [3, 3, 3, 0, 0])
    np.testing.assert_array_equal(taken.client, [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(taken.label, [1, 1, 1, 0, 0])


def test_take_no_clients():
    assert len(take_clients(_table([2, 1]), np.zeros(0, int)).label) == 0


def test_split_is_a_partition_of_the_clients():
    parts = split_clients(_table(COUNTS), 0.1, 0.2, 0, "toy")
    ids = [set(part.values[:, 0].astype(int)) for part in parts]
    assert [len(i) for i in ids] == [28, 4, 8]
    assert set.union(*ids) == set(range(40)) and sum(map(len, ids)) == 40
    for part, own in zip(parts, ids, strict=True):
        assert set(part.client) == set(range(len(own)))
        assert (np.diff(part.client) >= 0).all()
        np.testing.assert_array_equal(np.bincount(part.client), COUNTS[sorted(own)])
        np.testing.assert_array_equal(part.label, part.values[:, 0].astype(int) % 2)


def test_split_depends_on_seed_and_name_only():
    def test_ids(seed: int, name: str) -> set:
        return set(split_clients(_table(COUNTS), 0.1, 0.2, seed, name)[2].values[:, 0])

    assert test_ids(0, "toy") == test_ids(0, "toy")
    assert test_ids(0, "toy") != test_ids(1, "toy")
    assert test_ids(0, "toy") != test_ids(0, "other")


def test_an_official_test_set_is_never_split():
    official = _table([3, 1])
    train, validation, test = split_clients(_table(COUNTS), 0.1, 0.9, 0, "toy", official)
    assert test is official
    ids = [set(part.values[:, 0].astype(int)) for part in (train, validation)]
    assert [len(i) for i in ids] == [36, 4] and set.union(*ids) == set(range(40))


def test_too_few_clients():
    assert len(split_clients(_table([1] * 4), 0.1, 0.1, 0, "toy")[0].label) == 2
    with pytest.raises(UserError, match="toy: 3 clients are too few"):
        split_clients(_table([1] * 3), 0.1, 0.1, 0, "toy")


def test_inclusion_leaves_out_a_fixed_number_uniformly():
    masks = inclusion_masks(10, 0.3, 2000, 0, "toy")
    assert masks.shape == (2000, 10) and masks.dtype == bool
    assert ((~masks).sum(1) == 3).all()
    # each client is left out with probability 0.3: 5 standard deviations are 0.051
    np.testing.assert_allclose((~masks).mean(0), 0.3, atol=0.052)


def test_inclusion_of_a_seed_does_not_depend_on_how_many_seeds_there_are():
    few, many = inclusion_masks(30, 0.2, 2, 5, "toy"), inclusion_masks(30, 0.2, 6, 5, "toy")
    np.testing.assert_array_equal(few, many[:2])
    assert len(np.unique(many, axis=0)) == 6
    assert (few != inclusion_masks(30, 0.2, 2, 6, "toy")).any()
    assert (~inclusion_masks(30, 0.001, 1, 0, "toy")).sum() == 1
