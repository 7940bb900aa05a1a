"""Means and correlations over clients: their noise as stated, nobody beyond the bound, and what is made of them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from privacy.test_histogram import Quiet

from fedjax_health.privacy import moments
from fedjax_health.privacy.fit import client_weights
from fedjax_health.privacy.moments import (
    bound_of,
    bounded_weights,
    correlation_of,
    moments_of,
    noisy_products,
    shrunk,
)

J, BOUND = 3, 2.5


def upper(matrix: np.ndarray) -> np.ndarray:
    """Coordinates in which the Frobenius norm of a symmetric matrix is the Euclidean one."""
    rows, columns = np.triu_indices(len(matrix))
    return matrix[rows, columns] * np.where(rows == columns, 1.0, np.sqrt(2.0))


def sent(scores: np.ndarray, weight: np.ndarray, gaps: bool) -> np.ndarray:
    """What the noise is added to, in coordinates of the Euclidean norm."""
    products, pairs = noisy_products(scores, weight, 0.0, gaps, Quiet())
    absent = products[-1, -1] / moments.CONSTANT**2 - pairs
    return np.concatenate([upper(products), upper(absent)]) if gaps else upper(products)


def clients(rng: np.random.Generator, gaps: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, labels and ids of a few clients, hostile ones among them."""
    client = np.repeat(np.arange(4), rng.integers(1, 6, 4))
    scores = rng.normal(size=(len(client), J)) * rng.choice([0.1, 1.0, 30.0, 1e6], size=4)[client][:, None]
    if gaps:
        scores[rng.random(scores.shape) < 0.4] = np.nan
    return scores, rng.integers(0, 2, len(client)), client


@pytest.mark.parametrize("gaps", [True, False])
def test_no_client_moves_the_sums_further_than_the_bound_and_many_reach_it(gaps):
    rng, moved = np.random.default_rng(1), []
    for _ in range(300):
        scores, label, client = clients(rng, gaps)
        weight = bounded_weights(scores, label, client_weights(client), client, 2, gaps, BOUND)
        assert (weight <= client_weights(client)).all()
        for k in range(4):
            mine = client == k
            moved.append(np.linalg.norm(sent(scores[mine], weight[mine], gaps)))
            classes = [
                np.linalg.norm(sent(scores[r], weight[r], gaps)) for r in (mine & (label == 0), mine & (label == 1))
            ]
            assert np.linalg.norm(classes) <= BOUND * (1 + 1e-9)
    assert max(moved) <= BOUND * (1 + 1e-9) and np.mean(np.asarray(moved) > 0.99 * BOUND) > 0.2


def test_a_client_of_short_means_is_left_as_it_is_and_others_do_not_change_its_weight():
    rng = np.random.default_rng(2)
    scores, client = rng.normal(size=(40, J)), np.repeat([0, 1], [39, 1])
    scores[39] = 50.0
    weight = bounded_weights(scores, np.zeros(40, int), client_weights(client), client, 1, False, 4.0)
    np.testing.assert_array_equal(weight[:39], 1 / 39)
    assert weight[39] < 1e-2


@pytest.mark.parametrize("gaps", [True, False])
def test_sums_carry_the_stated_noise(gaps):
    empty, none = np.full((1, J), np.nan if gaps else 0.0), np.zeros(1)
    drawn = []
    for s in range(400):
        products, pairs = noisy_products(empty, none, 2.0, gaps, np.random.default_rng(s))
        absent = products[-1, -1] / moments.CONSTANT**2 - pairs
        drawn.append(np.concatenate([upper(products), upper(absent)]) if gaps else upper(products))
    noise = np.stack(drawn).ravel() / 2.0
    assert scipy.stats.kstest(noise, "norm").pvalue > 1e-3
    for wrong in (2 / 3, 3 / 2):
        assert scipy.stats.kstest(wrong * noise, "norm").pvalue < 1e-6


def test_without_noise_they_are_the_means_and_correlations_of_what_is_there():
    rng = np.random.default_rng(3)
    scores = rng.multivariate_normal([1.0, 0.0, -2.0], [[1, 0.6, 0], [0.6, 1, -0.3], [0, -0.3, 4]], size=20_000)
    for gaps in (False, True):
        holes = scores.copy()
        if gaps:
            holes[rng.random(holes.shape) < 0.3] = np.nan
        mean, covariance = moments_of(*noisy_products(holes, np.ones(20_000), 0.0, gaps, Quiet()))
        np.testing.assert_allclose(mean, [1.0, 0.0, -2.0], atol=0.06)
        np.testing.assert_allclose(correlation_of(covariance, 20_000.0, 0.0), np.corrcoef(scores.T), atol=0.03)


def test_the_noisier_the_sums_the_shorter_the_bound():
    found = [bound_of(z, 10, 2000.0) for z in (0.1, 1.0, 2.0, 4.0, 40.0)]
    assert found == sorted(found, reverse=True) and found[0] == 15.0 and found[-1] == 7.5
    assert bound_of(2.0, 10, 2000.0) == pytest.approx(10.0)


def test_a_correlation_that_noise_hides_is_not_trusted():
    noisy = np.array([[1.0, 1.2, 0], [1.2, 1.0, 0], [0, 0, 1.0]])
    rho = correlation_of(noisy, 100.0, 20.0)
    np.testing.assert_allclose(np.diag(rho), 1.0)
    assert np.linalg.eigvalsh(rho)[0] > 0.2 and rho[0, 1] < 0.8
    shared = np.array([[1.0, 0.5, 0], [0.5, 1.0, 0], [0, 0, 1.0]])
    few, many = (correlation_of(noisy * 0.8, held, 20.0, shared)[0, 1] for held in (100.0, 1e5))
    assert abs(few - 0.5) < 0.2 and many > 0.9
    never = np.full((3, 3), 50.0)
    never[0, 1] = never[1, 0] = -3.0
    products = np.full((3, 3), 40.0) + 10 * np.eye(3)
    assert moments_of(products, never)[1][0, 1] == 0.0


def test_noise_alone_is_shrunk_away_and_a_signal_is_not():
    rng = np.random.default_rng(5)
    noise = [np.abs(shrunk(rng.normal(size=11), 1.0)).mean() for _ in range(200)]
    assert np.mean(noise) < 0.35 and shrunk(np.full(11, 10.0), 1.0)[0] > 9.8
    np.testing.assert_array_equal(shrunk(np.array([2.0, -1.0]), 0.0), [2.0, -1.0])


def test_without_the_bound_a_client_moves_the_sums_as_far_as_it_likes(monkeypatch):
    scores, client = np.full((1, J), 100.0), np.zeros(1, int)
    weight = client_weights(client)
    assert np.linalg.norm(sent(scores, weight, False)) > 100 * BOUND
    bounded = bounded_weights(scores, client, weight, client, 1, False, BOUND)
    assert np.linalg.norm(sent(scores, bounded, False)) == pytest.approx(BOUND)
    assert np.linalg.norm(sent(scores, bounded, False)) > BOUND / 2  # noise for half the bound would not cover it
