"""Category shares by class: exact without noise, nobody beyond the bound, noise as stated, and what is made of it."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import toy

from fedjax_health.data.encode import Layout
from fedjax_health.privacy.category_shares import asks, category_sums, nearest_shares, noisy_category_shares
from fedjax_health.privacy.fit import client_weights

LAYOUT = Layout(2, 2, (3, 5), (-1, 3))  # bits: a column and a missing cell
V, L = 4, 3


def population(rng: np.random.Generator, clients: int):
    """(codes, label, client) of clients with 1 to 6 records, some with all alike."""
    count = rng.integers(1, 7, clients)
    client = np.repeat(np.arange(clients), count)
    alike = np.repeat(rng.random(clients) < 0.3, count)
    first = np.repeat(np.cumsum(count) - count, count)
    row = np.where(alike, first, np.arange(len(client)))
    blocks = [np.eye(width)[rng.integers(0, width, len(client))] for width in LAYOUT.blocks]
    codes = np.concatenate([rng.integers(0, 2, (len(client), 2)), *blocks], 1).astype(np.float32)
    return codes[row], rng.integers(0, L, len(client))[row], client


def sums(codes, label, client):
    return np.concatenate([s.ravel() for s in category_sums(codes, label, client_weights(client), LAYOUT, L)])


def test_no_client_moves_the_sums_by_more_than_the_bound():
    """200 pairs of neighbours: one client there or not."""
    rng, moved = np.random.default_rng(0), []
    for _ in range(200):
        codes, label, client = population(rng, 8)
        kept = client != rng.integers(8)
        moved.append(np.linalg.norm(sums(codes, label, client) - sums(codes[kept], label[kept], client[kept])))
    assert max(moved) <= np.sqrt(V) * (1 + 1e-9) and max(moved) > 0.999 * np.sqrt(V)
    assert min(moved) < 0.9 * np.sqrt(V)  # of one whose records differ


class Recorded:
    """Noise that is given, and how much was asked for."""

    def __init__(self, values):
        self.values, self.asked = values, 0

    def standard_normal(self, size, /):
        self.asked += size
        return self.values[:size]


def test_each_cell_of_the_sums_carries_the_stated_noise():
    """The sums are large, so that what is made of them is the division by their total."""
    rng, clients, z = np.random.default_rng(1), 300_000, 5.0
    label, sick = rng.integers(0, 2, clients), rng.integers(0, 2, clients)
    layout, weight = Layout(0, 1, (), ()), np.ones(clients)
    exact = noisy_category_shares(sick[:, None], label, weight, layout, 2, 0.0, Recorded(np.zeros(0)))
    found = []
    for s in range(400):
        drawn = noisy_category_shares(sick[:, None], label, weight, layout, 2, z, np.random.default_rng(s))
        total = np.bincount(label).astype(float)[:, None]
        found.append((drawn - exact) * total / (z * np.sqrt(2 * 0.25)))  # of p (n0 + N) - (1 - p) N at p = 1/2
    unshrunk = np.ravel(found)
    # shrinkage takes a class towards the other: by at most its half, so the mean of both is untouched
    both = np.mean(np.squeeze(found), 1) * np.sqrt(2)
    assert scipy.stats.kstest(both, "norm").pvalue > 1e-3
    for wrong in (2 / 3, 3 / 2):
        assert scipy.stats.kstest(wrong * both, "norm").pvalue < 1e-4
    assert np.std(unshrunk) <= 1.05


def test_noise_is_relative_to_all_blocks_of_a_client():
    codes, label, client = population(np.random.default_rng(2), 50)
    size = L * (2 + 2 + 3 + 5)
    recorded = Recorded(np.zeros(size))
    still = noisy_category_shares(codes, label, client_weights(client), LAYOUT, L, 1.0, recorded)
    assert recorded.asked == size and still.shape == (L, 10)
    push = np.zeros(size)
    push[1] = 1000.0  # the first class's first bit
    pushed = noisy_category_shares(codes, label, client_weights(client), LAYOUT, L, 1.0, Recorded(push))
    clean = category_sums(codes, label, client_weights(client), LAYOUT, L)[0]
    moved = clean.copy()
    moved[0, 1] += 1000.0 * np.sqrt(V)
    explained, total = V / moved[0].sum() ** 2, moved.sum(0) / moved.sum()
    excess = moved[0] / moved[0].sum() - total
    expected = total + (1.0 - explained / np.sum(excess**2)) * excess
    assert pushed[0, 0] == pytest.approx(expected[1], abs=1e-5)


def test_without_noise_shares_are_those_of_the_clients_and_an_empty_class_has_all_classes():
    codes = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]], np.float32)  # a bit and a block of two
    label, client = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    shares = noisy_category_shares(
        codes, label, client_weights(client), Layout(0, 1, (2,), ()), 3, 0.0, Recorded(np.zeros(0))
    )
    np.testing.assert_allclose(shares[0], [1 / 3, 2 / 3, 1 / 3], atol=1e-7)
    np.testing.assert_allclose(shares[1], [0, 0, 1])
    np.testing.assert_allclose(shares[2], [1 / 4, 1 / 2, 1 / 2])


def test_shares_are_distributions_and_better_than_cutting_negative_cells_off():
    rng, clients, width = np.random.default_rng(3), 2000, 40
    truth = np.array([0.7, 0.3, *np.zeros(width - 2)])
    codes = np.eye(width, dtype=np.float32)[rng.choice(width, clients, p=truth)]
    label, error = rng.integers(0, 2, clients), []
    for s in range(20):
        normals = np.random.default_rng(s)
        got = noisy_category_shares(codes, label, np.ones(clients), Layout(0, 0, (width,), ()), 2, 20.0, normals)
        assert (got >= 0).all() and np.allclose(got.sum(1), 1.0, atol=1e-5)
        noisy = codes[label == 0].sum(0) + 20.0 * np.random.default_rng(s).standard_normal(2 * width)[:width]
        cut = np.maximum(noisy, 0) / np.maximum(noisy, 0).sum()
        error.append([np.abs(got[0] - truth).sum(), np.abs(cut - truth).sum()])
    ours, theirs = np.mean(error, 0)
    assert ours < 0.5 * theirs


def test_the_nearest_distribution():
    np.testing.assert_allclose(nearest_shares(np.array([2.0, 1.0, 1.0])), [0.5, 0.25, 0.25])
    np.testing.assert_allclose(nearest_shares(np.array([12.0, 2.0, -4.0])), [1, 0, 0], atol=1e-12)  # 1.2, .2, -.4
    np.testing.assert_allclose(nearest_shares(np.array([8.0, 4.0, -2.0])), [0.7, 0.3, 0], atol=1e-12)
    np.testing.assert_allclose(nearest_shares(np.array([-1.0, 0.5])), [0.5, 0.5])


def test_a_table_of_numbers_alone_is_asked_nothing():
    assert asks(toy.encoder().layout) and not asks(Layout(3, 0, (), (-1, -1, -1)))
