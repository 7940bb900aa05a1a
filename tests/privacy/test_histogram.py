"""Sums over clients: their noise as stated, nobody beyond the bound, and what is made of them."""

from __future__ import annotations

import dp_accounting
import numpy as np
import pytest
import scipy.stats
from dp_accounting import pld

from fedjax_health.privacy import histogram
from fedjax_health.privacy.correlated import fichtenberger
from fedjax_health.privacy.fit import client_weights, statistics_noise
from fedjax_health.privacy.histogram import correlation_of, noisy_cumulative, noisy_products, smooth

N, J = 200, 3


class Quiet:
    def standard_normal(self, size, /):
        return np.zeros(size)


def innovations(change: np.ndarray) -> np.ndarray:
    """C of a change of the masses, C = A^-1 B of prefix sums A = B C: what the noise xi is added to."""
    root = scipy.linalg.toeplitz(fichtenberger(len(change)), np.zeros(len(change)))
    return np.linalg.solve(root, np.cumsum(change))


def test_prefix_sums_carry_the_stated_noise_before_and_after_the_root():
    z = 2.0
    drawn, deviation = zip(
        *(noisy_cumulative(np.zeros(N), z, J, np.random.default_rng(s)) for s in range(200)), strict=True
    )
    root = scipy.linalg.toeplitz(fichtenberger(N), np.zeros(N))
    xi = np.linalg.solve(root, np.stack(drawn).T).ravel() / deviation[0]
    assert scipy.stats.kstest(xi, "norm").pvalue > 1e-3
    for wrong in (2 / 3, 3 / 2):
        assert scipy.stats.kstest(wrong * xi, "norm").pvalue < 1e-6
    assert deviation[0] == pytest.approx(z * np.linalg.norm(fichtenberger(N)) * np.sqrt(J))
    # far below the sqrt(n) of noise on every cell
    assert np.std(np.stack(drawn)[:, -1]) < 0.35 * z * np.sqrt(J) * np.sqrt(N)


def test_no_client_moves_the_histograms_by_more_than_the_bound():
    """1,000 clients, a few records or many, anywhere: C of their J histograms together, in units of its bound."""
    rng, moved = np.random.default_rng(0), []
    for _ in range(1000):
        whole = 0.0
        spots = rng.integers(1, 4)
        for _ in range(J):
            shares = np.bincount(rng.integers(0, N, spots), minlength=N) / spots
            whole += np.sum(innovations(shares) ** 2)
        moved.append(np.sqrt(whole))
    bound = noisy_cumulative(np.zeros(N), 1.0, J, Quiet())[1]
    first = np.eye(N)[0]  # the longest column of C is the first
    assert max(moved) <= bound * (1 + 1e-9)
    assert np.sqrt(J) * np.linalg.norm(innovations(first)) == pytest.approx(bound)


def upper(matrix: np.ndarray) -> np.ndarray:
    """Coordinates in which the Frobenius norm of a symmetric matrix is the Euclidean one."""
    rows, columns = np.triu_indices(len(matrix))
    return matrix[rows, columns] * np.where(rows == columns, 1.0, np.sqrt(2.0))


@pytest.mark.parametrize("gaps", [True, False])
def test_products_carry_the_stated_noise_and_no_client_moves_them_further(gaps):
    rng, moved = np.random.default_rng(1), []
    for trial in range(1000):
        count = int(rng.integers(1, 6))
        scores = rng.normal(size=(count, J)) * rng.choice([0.1, 1.0, 30.0, 1e6])
        if gaps and trial % 2:
            scores[rng.random(scores.shape) < 0.4] = np.nan
        products, pairs, _ = noisy_products(scores, np.full(count, 1 / count), 1e-12, gaps, Quiet())
        whole = np.concatenate([upper(products), upper(pairs)]) if gaps else upper(products)
        moved.append(np.linalg.norm(whole))
    empty = np.full((1, J), np.nan if gaps else 0.0)
    drawn = [noisy_products(empty, np.zeros(1), 1.0, gaps, np.random.default_rng(s)) for s in range(500)]
    bound = drawn[0][2]
    assert max(moved) <= bound * (1 + 1e-9) and max(moved) > 0.99 * bound
    noise = np.stack([np.concatenate([upper(p), upper(q)]) if gaps else upper(p) for p, q, _ in drawn]) / bound
    assert scipy.stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    for wrong in (2 / 3, 3 / 2):
        assert scipy.stats.kstest(wrong * noise.ravel(), "norm").pvalue < 1e-6


def test_without_noise_nothing_is_changed():
    masses = np.random.default_rng(2).random(50)
    cumulative, deviation = noisy_cumulative(masses, 0.0, J, Quiet())
    np.testing.assert_allclose(smooth(cumulative, deviation, np.full(50, 0.02), True), masses, atol=1e-12)
    scores = np.random.default_rng(3).normal(size=(400, J)) * 10
    products, pairs, _ = noisy_products(scores, np.ones(400), 0.0, False, Quiet())
    np.testing.assert_allclose(products, scores.T @ scores)
    np.testing.assert_allclose(correlation_of(products, pairs, 0.0), np.corrcoef(scores.T), atol=0.02)


def distance(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.abs(np.cumsum(found / found.sum()) - np.cumsum(truth / truth.sum())).max())


def test_noise_is_smoothed_away_where_the_prior_is_right_and_overruled_where_it_is_wrong():
    rng, n, clients = np.random.default_rng(4), 256, 3000
    at = np.arange(n)
    truth = clients * scipy.stats.norm.pdf(at, 128, 20)
    truth[200] += 0.1 * clients  # a spike
    for center in (128, 60):
        prior = scipy.stats.norm.pdf(at, center, 30) + 1e-4
        cumulative, deviation = noisy_cumulative(truth, 2.0, J, rng)
        found = smooth(cumulative, deviation, prior / prior.sum(), False)
        assert (found >= 0).all() and distance(found, truth) < 0.03
        assert found[200] / found.sum() == pytest.approx(0.1 / 1.1, abs=0.02)
        raw = np.diff(cumulative, prepend=0.0)
        assert np.abs(found - truth).sum() < 0.5 * np.abs(raw - truth).sum()


def test_preferred_digits_come_back_and_noise_makes_none():
    rng, n = np.random.default_rng(5), 300
    flat = np.full(n, 20.0)
    even = flat * np.where(np.arange(n) % 2 == 0, 1.6, 0.4)
    for truth, ratio in ((even, 4.0), (flat, 1.0)):
        cumulative, deviation = noisy_cumulative(truth, 1.0, J, rng)
        found = smooth(cumulative, deviation, np.full(n, 1 / n), True)
        assert found[::2].sum() / found[1::2].sum() == pytest.approx(ratio, rel=0.25)


def test_a_correlation_that_noise_hides_is_not_trusted():
    noisy = np.array([[100.0, 120.0, 0], [120.0, 100.0, 0], [0, 0, 100.0]])
    rho = correlation_of(noisy, np.ones((3, 3)), 20.0)
    np.testing.assert_allclose(np.diag(rho), 1.0)
    assert np.linalg.eigvalsh(rho)[0] > 0.2 and rho[0, 1] < 0.8
    unseen = correlation_of(np.eye(3) * 100, np.array([[100.0, -3, 50], [-3, 100, 50], [50, 50, 100]]), 1.0)
    assert unseen[0, 1] == 0.0


def test_queries_take_their_share_of_the_budget():
    """Two queries at share 1 are the one Gaussian mechanism that spends all."""
    for epsilon, delta in ((1.0, 1e-5), (8.0, 1e-4)):
        noise = statistics_noise(epsilon, delta, 0.999999, 2)
        accountant = pld.PLDAccountant(value_discretization_interval=1e-3)
        accountant.compose(dp_accounting.GaussianDpEvent(noise), 2)
        assert accountant.get_epsilon(delta) == pytest.approx(epsilon, rel=2e-3)
    assert statistics_noise(8.0, 1e-5, 0.45, 0) == 0.0
    np.testing.assert_allclose(client_weights(np.array([0, 0, 3, 3, 3, 5])), [0.5, 0.5, 1 / 3, 1 / 3, 1 / 3, 1.0])


@pytest.mark.parametrize("bug", ["no clip", "half the noise"])
def test_a_bug_breaks_the_bound(monkeypatch, bug):
    if bug == "no clip":
        monkeypatch.setattr(histogram, "REACH", 1e9)
    scores = np.full((1, J), 100.0)
    products, _, deviation = noisy_products(scores, np.ones(1), 1.0, False, Quiet())
    if bug == "half the noise":
        deviation = deviation / 2
    assert np.linalg.norm(upper(products)) > deviation or (
        bug == "no clip" and np.linalg.norm(upper(products)) > J * 1.5
    )
