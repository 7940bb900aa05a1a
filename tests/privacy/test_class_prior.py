"""Class shares: exact without noise, one client moves the sum by at most the sensitivity, noise of the promised size."""

from __future__ import annotations

import dp_accounting
import numpy as np
import scipy.stats

from fedjax_health.privacy.class_prior import SENSITIVITY, event, noisy_class_shares
from fedjax_health.types import Table


def _table(labels: list[list[int]]) -> Table:
    label = np.concatenate([np.asarray(client, np.int32) for client in labels])
    client = np.repeat(np.arange(len(labels), dtype=np.int32), [len(c) for c in labels])
    return Table(np.zeros((len(label), 1), np.float32), label, client)


def _exact(labels, include) -> np.ndarray:
    return noisy_class_shares(_table(labels), np.asarray(include), 3, 0.0, np.random.default_rng(0))


def test_without_noise_every_client_counts_the_same():
    labels = [[0] * 9 + [1], [1, 1], [2], []]
    shares = _exact(labels, [True] * 4)
    assert shares.dtype == np.float32
    np.testing.assert_allclose(shares, np.array([0.9, 1.1, 1.0]) / 3, rtol=1e-6)


def test_a_client_left_out_does_not_count():
    labels = [[0, 0], [1], [2, 2, 2]]
    np.testing.assert_allclose(_exact(labels, [True, False, True]), _exact([[0], [], [2]], [True] * 3))
    np.testing.assert_allclose(_exact(labels, [True, True, True])[1], 1 / 3, rtol=1e-6)


def test_floor_keeps_every_class():
    shares = _exact([[0], [0], [0]], [True] * 3)
    assert (shares >= 0.99e-3).all() and abs(shares.sum() - 1) < 1e-6
    empty = _exact([[0], [1]], [False, False])
    np.testing.assert_allclose(empty, 1 / 3, rtol=1e-6)


def _sums(z: float, draws: int, labels, seed: int) -> np.ndarray:
    """Standardised noise, recovered from the shares (the floor binds nowhere at these sizes)."""
    clients, generator, out = len(labels), np.random.default_rng(seed), []
    table, include = _table(labels), np.ones(clients, bool)
    for _ in range(draws):
        shares = noisy_class_shares(table, include, 2, z, generator).astype(np.float64)
        out.append(clients * (shares[0] - shares[1]) / (z * SENSITIVITY * np.sqrt(2.0)))
    return np.asarray(out)


def test_noise_has_the_promised_size_and_the_test_can_tell():
    # with equal classes and K >> z, K (share_0 - share_1) is the difference of two N(0, z^2)
    noise = _sums(5.0, 800, [[0, 1]] * 2000, 0)
    assert scipy.stats.kstest(noise, "norm").pvalue > 1e-3
    assert scipy.stats.kstest(noise * 2 / 3, "norm").pvalue < 1e-6
    assert scipy.stats.kstest(noise * 3 / 2, "norm").pvalue < 1e-6


def test_one_client_moves_the_sum_by_at_most_the_sensitivity():
    rng = np.random.default_rng(1)
    labels = [list(rng.integers(0, 3, rng.integers(1, 50))) for _ in range(30)]
    everyone = 30 * _exact(labels, [True] * 30).astype(np.float64)
    norms = []
    for k in range(30):
        include = np.arange(30) != k
        norms.append(np.linalg.norm(everyone - 29 * _exact(labels, include).astype(np.float64)))
    assert max(norms) <= SENSITIVITY + 1e-5
    pure = 30 * _exact([[0]] * 15 + [[1]] * 8 + [[2]] * 7, [True] * 30)
    less = 29 * _exact([[0]] * 14 + [[1]] * 8 + [[2]] * 7, [True] * 29)
    assert np.linalg.norm(pure - less) > 0.99 * SENSITIVITY  # and the bound is reached


def test_event():
    assert event(20.0) == dp_accounting.GaussianDpEvent(20.0)
