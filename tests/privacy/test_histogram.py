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
from fedjax_health.privacy.histogram import noisy_cumulative, smooth

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


def test_without_noise_nothing_is_changed():
    masses = np.random.default_rng(2).random(50)
    cumulative, deviation = noisy_cumulative(masses, 0.0, J, Quiet())
    np.testing.assert_allclose(smooth(cumulative, deviation, np.full(50, 0.02), True), masses, atol=1e-12)


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


def test_a_prior_that_is_too_wide_is_corrected_and_adds_no_error_of_its_own(monkeypatch):
    """The distribution function is as near as the noise lets it be, and cells are nearer; a threshold alone does worse."""
    rng, clients, at = np.random.default_rng(6), 2000, np.arange(256)
    truth = clients * scipy.stats.norm.pdf(at, 110, 12)
    prior = scipy.stats.norm.pdf(at, 128, 30) + 1e-4
    prior /= prior.sum()

    def errors(masses):
        return np.abs(np.cumsum(masses - truth)).mean() / clients, np.abs(masses - truth).sum() / clients

    noisy = [noisy_cumulative(truth, 6.0, J, rng) for _ in range(30)]
    raw = np.mean([errors(np.diff(c, prepend=0.0)) for c, _ in noisy], 0)
    found = np.mean([errors(smooth(*n, prior, False)) for n in noisy], 0)
    assert found[0] < 1.1 * raw[0] and found[0] < 0.15 * errors(clients * prior)[0] and found[1] < 0.3 * raw[1]
    monkeypatch.setattr(histogram, "_kept", lambda excess, noise, mass: (np.abs(excess) > 3 * noise) * 1.0)
    assert np.mean([errors(smooth(*n, prior, False)) for n in noisy], 0)[0] > 1.2 * found[0]


def test_preferred_digits_come_back_and_noise_makes_none():
    rng, n = np.random.default_rng(5), 300
    flat = np.full(n, 20.0)
    even = flat * np.where(np.arange(n) % 2 == 0, 1.6, 0.4)
    for truth, ratio in ((even, 4.0), (flat, 1.0)):
        cumulative, deviation = noisy_cumulative(truth, 1.0, J, rng)
        found = smooth(cumulative, deviation, np.full(n, 1 / n), True)
        assert found[::2].sum() / found[1::2].sum() == pytest.approx(ratio, rel=0.25)


def test_queries_take_their_share_of_the_budget():
    """Two queries at share 1 are the one Gaussian mechanism that spends all."""
    for epsilon, delta in ((1.0, 1e-5), (8.0, 1e-4)):
        noise = statistics_noise(epsilon, delta, 0.999999, 2)
        accountant = pld.PLDAccountant(value_discretization_interval=1e-3)
        accountant.compose(dp_accounting.GaussianDpEvent(noise), 2)
        assert accountant.get_epsilon(delta) == pytest.approx(epsilon, rel=2e-3)
    assert statistics_noise(8.0, 1e-5, 0.45, 0) == 0.0
    np.testing.assert_allclose(client_weights(np.array([0, 0, 3, 3, 3, 5])), [0.5, 0.5, 1 / 3, 1 / 3, 1 / 3, 1.0])
