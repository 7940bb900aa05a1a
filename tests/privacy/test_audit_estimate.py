"""The estimate: exact for equal deviations, equal to numerical integration for others, right on ideal canaries."""

from __future__ import annotations

import math

import dp_accounting
import numpy as np
import pytest
from scipy import integrate, stats

from fedjax_health.privacy.accounting import epsilon_of
from fedjax_health.privacy.audit_estimate import (
    TwoGaussians,
    delta_of,
    epsilon_of_gaussians,
    estimate_composed,
    estimate_epsilon,
    estimate_noise_multiplier,
    fit,
)
from fedjax_health.types import UserError

DELTA = 1e-5


@pytest.mark.parametrize("noise", [0.01, 0.3, 1.0, 4.0, 50.0])
@pytest.mark.parametrize("unit", [1.0, -7.0])
def test_equal_deviations_are_the_gaussian_mechanism(noise, unit):
    """Whatever the unit and the sign of the scores."""
    gaussians = TwoGaussians(3 + unit, abs(unit) * noise, 3.0, abs(unit) * noise)
    exact = dp_accounting.get_epsilon_gaussian(noise, DELTA)
    assert epsilon_of_gaussians(gaussians, DELTA) == pytest.approx(exact, rel=1e-6)
    almost = gaussians._replace(deviation_in=gaussians.deviation_in * (1 + 1e-13))
    assert epsilon_of_gaussians(almost, DELTA) == pytest.approx(exact, rel=1e-6)


def integrated(gaussians, epsilon):
    """max over directions of the integral of (p - e^eps q)+."""
    a, s, b, t = gaussians
    grid = np.linspace(min(a - 40 * s, b - 40 * t), max(a + 40 * s, b + 40 * t), 2_000_001)
    p, q = stats.norm.pdf(grid, a, s), stats.norm.pdf(grid, b, t)
    return max(integrate.trapezoid(np.maximum(x - math.exp(epsilon) * y, 0), grid) for x, y in ((p, q), (q, p)))


@pytest.mark.parametrize("epsilon", [0.0, 0.4, 2.0])
@pytest.mark.parametrize(
    "gaussians", [(1.0, 1.3, 0.0, 1.0), (1.0, 0.7, 0.0, 1.0), (0.0, 2.0, 0.0, 1.0), (-2.0, 0.5, 0.5, 0.45)]
)
def test_delta_equals_numerical_integration(gaussians, epsilon):
    wanted = integrated(TwoGaussians(*gaussians), epsilon)
    assert delta_of(TwoGaussians(*gaussians), epsilon) == pytest.approx(wanted, rel=1e-5, abs=1e-9)


def test_epsilon_is_where_delta_is_met():
    for gaussians in (TwoGaussians(1.0, 1.2, 0.0, 1.0), TwoGaussians(1.0, 0.8, 0.0, 1.0)):
        epsilon = epsilon_of_gaussians(gaussians, DELTA)
        assert delta_of(gaussians, epsilon) == pytest.approx(DELTA, rel=1e-4)
        assert epsilon > epsilon_of_gaussians(TwoGaussians(1.0, 1.0, 0.0, 1.0), DELTA)  # what unequal deviations cost


def test_the_ends():
    assert epsilon_of_gaussians(TwoGaussians(1.0, 1.0, 1.0, 1.0), DELTA) == 0.0
    assert epsilon_of_gaussians(TwoGaussians(1.0, 0.0, 1.0, 0.0), DELTA) == 0.0
    assert math.isinf(epsilon_of_gaussians(TwoGaussians(1.0, 0.0, 0.0, 0.0), DELTA))
    assert math.isinf(epsilon_of_gaussians(TwoGaussians(1.0, 0.0, 0.0, 1.0), DELTA))


@pytest.mark.parametrize("noise", [0.5, 1.0, 3.0])
def test_ideal_canaries_give_the_epsilon_of_their_mechanism(noise):
    generator = np.random.default_rng(0)
    inserted, held_out = 1 + noise * generator.normal(size=20_000), noise * generator.normal(size=20_000)
    exact = dp_accounting.get_epsilon_gaussian(noise, DELTA)
    assert estimate_epsilon(inserted, held_out, DELTA) == pytest.approx(exact, rel=0.05 + 0.05 * noise)
    assert estimate_epsilon(inserted, held_out, DELTA, same_deviation=True) == pytest.approx(exact, rel=0.06)
    assert estimate_epsilon(2 * inserted, 2 * held_out - 2, DELTA) > 1.5 * exact


def test_pooling_takes_both_groups_by_their_size():
    gaussians = fit(np.array([1.0, 3.0]), np.array([0.0, 1.0, 2.0, 3.0]), same_deviation=True)
    assert gaussians.mean_in == 2.0 and gaussians.mean_out == 1.5
    assert gaussians.deviation_in == gaussians.deviation_out == pytest.approx(math.sqrt((2 + 5) / 4))
    assert fit(np.array([1.0, 3.0]), np.array([0.0, 1.0, 2.0, 3.0])).deviation_in == pytest.approx(math.sqrt(2))


def ideal_run(noise, k, seed):
    generator = np.random.default_rng(seed)
    rounds, inserted = generator.binomial(12, 0.3, k).astype(float), generator.random(k) < 0.5
    return rounds * inserted + noise * np.sqrt(rounds) * generator.normal(size=k), rounds, inserted


@pytest.mark.parametrize("noise", [0.7, 1.5])
def test_noise_is_measured_whoever_took_part_how_often(noise):
    during, rounds, inserted = ideal_run(noise, 20_000, 0)
    assert rounds.min() == 0  # those never sent anything, and must not count
    assert estimate_noise_multiplier(during, rounds, inserted) == pytest.approx(noise, rel=0.03)
    assert estimate_noise_multiplier(5 * during, rounds, inserted) == pytest.approx(noise, rel=0.03)
    assert estimate_noise_multiplier(during[:2000], np.diag(rounds[:2000]), inserted[:2000]) == pytest.approx(
        noise, rel=0.1
    )
    assert math.isinf(estimate_noise_multiplier(-during, rounds, inserted))


@pytest.mark.parametrize(("noise", "size"), [(0.3, 300), (1.5, 1200)])
def test_canaries_that_overlap_are_told_from_noise_and_the_error_is_the_stated_one(noise, size):
    """Directions of few coordinates: what one canary puts into another's score is known, and counts as no noise."""
    generator, k = np.random.default_rng(0), 150
    directions = np.sign(generator.normal(size=(k, size))) / math.sqrt(size)
    overlap, found = directions @ directions.T, {"known": [], "ignored": []}
    for _ in range(300):
        inserted = generator.random(k) < 0.5
        score = directions @ (directions[inserted].sum(0) + noise * generator.normal(size=size))
        found["known"].append(estimate_noise_multiplier(score, overlap, inserted))
        found["ignored"].append(estimate_noise_multiplier(score, np.ones(k), inserted))
    assert np.median(found["known"]) == pytest.approx(noise, rel=0.02)
    assert np.median(found["ignored"]) == pytest.approx(math.sqrt(noise**2 + k / (2 * size)), rel=0.05)
    # relative: of 1 / z, whose mean does not tend to infinity where few canaries score high
    spread = np.std(noise / np.asarray(found["known"]))
    assert spread == pytest.approx(math.sqrt(1 / (2 * k) + 2 * noise**2 / k), rel=0.12)


def test_a_composed_estimate_is_the_accountants_at_that_noise():
    def event(noise):
        return dp_accounting.PoissonSampledDpEvent(0.3, dp_accounting.GaussianDpEvent(noise))

    during, rounds, inserted = ideal_run(1.5, 20_000, 0)
    exact = epsilon_of([(event(1.5), 12)], DELTA)
    assert estimate_composed(during, rounds, inserted, event, 12, DELTA) == pytest.approx(exact, rel=0.06)
    assert estimate_composed(-during, rounds, inserted, event, 12, DELTA) == 0.0
    silent = estimate_composed(rounds * inserted, rounds, inserted, event, 12, DELTA)
    assert silent == epsilon_of([(event(0.2), 12)], DELTA) > 50.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit(np.zeros(1), np.zeros(5)), "1 inserted canaries"),
        (lambda: fit(np.zeros(5), np.zeros(1)), "1 held-out canaries"),
        (lambda: fit(np.zeros(5), np.array([0.0, np.inf])), "1 held-out scores are not finite"),
        (lambda: epsilon_of_gaussians(TwoGaussians(1.0, 1.0, 0.0, 1.0), 0.0), r"delta=0\.0 must lie"),
        (
            lambda: estimate_noise_multiplier(np.ones(4), np.array([1, 1, 1, 0]), np.arange(4) < 2),
            "1 held-out canaries",
        ),
        (lambda: estimate_noise_multiplier(np.full(4, np.nan), np.ones(4), np.arange(4) < 2), "2 inserted scores"),
        (
            lambda: estimate_noise_multiplier(np.ones(4), np.ones((4, 4)), np.arange(4) < 2),
            "directions of 4 canaries depend on each other",
        ),
    ],
)
def test_what_cannot_be_estimated_is_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()
