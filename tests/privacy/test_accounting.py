"""Accounting: equal to dp-accounting's accountant, calibrated tightly, and never below the exact figure."""

from __future__ import annotations

import dp_accounting
import numpy as np
import pytest
from dp_accounting import dp_event, pld, rdp
from scipy import optimize, stats

from fedjax_health.privacy import accounting
from fedjax_health.types import UserError

DELTA = 1e-5
GAUSSIAN = dp_event.GaussianDpEvent(4.0)
POISSON = dp_event.PoissonSampledDpEvent(0.02, dp_event.GaussianDpEvent(1.0))
TRUNCATED = dp_event.TruncatedSubsampledGaussianDpEvent(1000, 0.02, 40, 1.0)


def _reference(accountant, events) -> float:
    for event, count in events:
        accountant.compose(event, count)
    return accountant.get_epsilon(DELTA)


@pytest.mark.parametrize("events", [[(GAUSSIAN, 3)], [(POISSON, 40)], [(TRUNCATED, 40)], [(GAUSSIAN, 1), (POISSON, 9)]])
def test_epsilon_equals_the_pld_accountant(events):
    reference = _reference(pld.PLDAccountant(accounting.RELATION, 1e-3), events)
    assert accounting.epsilon_of(events, DELTA) == pytest.approx(reference, rel=2e-3)


def test_gaussian_matches_its_closed_form():
    """delta(eps) = Phi(1/2z - eps z) - e^eps Phi(-1/2z - eps z); Balle & Wang 2018, arXiv 1805.06530."""
    z = 4.0 / np.sqrt(3)

    def excess(epsilon):
        return stats.norm.cdf(0.5 / z - epsilon * z) - np.exp(epsilon) * stats.norm.cdf(-0.5 / z - epsilon * z) - DELTA

    exact = float(optimize.brentq(excess, 1e-3, 20.0))  # pyright: ignore[reportArgumentType]
    assert exact <= accounting.epsilon_of([(GAUSSIAN, 3)], DELTA) <= 1.01 * exact


@pytest.mark.parametrize("events", [[(GAUSSIAN, 3)], [(POISSON, 40)]])
def test_the_renyi_accountant_agrees_from_above(events):
    epsilon = accounting.epsilon_of(events, DELTA)
    second = _reference(rdp.RdpAccountant(neighboring_relation=accounting.RELATION), events)
    assert epsilon < second < 2.0 * epsilon


def test_composition_merges_equal_events_and_nothing_costs_nothing():
    assert accounting.epsilon_of([], DELTA) == 0.0
    assert accounting.epsilon_of([(GAUSSIAN, 0)], DELTA) == 0.0
    split = [(dp_event.GaussianDpEvent(4.0), 1), (GAUSSIAN, 2)]
    assert accounting.epsilon_of(split, DELTA) == accounting.epsilon_of([(GAUSSIAN, 3)], DELTA)
    assert accounting.epsilon_of([(GAUSSIAN, 3), (POISSON, 1)], DELTA) > accounting.epsilon_of([(GAUSSIAN, 3)], DELTA)


def test_truncation_costs_and_amplification_saves():
    tight = dp_event.TruncatedSubsampledGaussianDpEvent(1000, 0.02, 15, 1.0)
    poisson, truncated, cut, whole = (
        accounting.epsilon_of([(event, 20)], DELTA)
        for event in (POISSON, TRUNCATED, tight, dp_event.GaussianDpEvent(1.0))
    )
    assert poisson <= truncated < cut < whole


def test_calibrated_noise_meets_the_target_and_little_less_does_not():
    gaussian = dp_event.GaussianDpEvent

    def plan(z):
        return [(gaussian(20.0), 1), (dp_event.PoissonSampledDpEvent(0.05, gaussian(z)), 30)]

    noise = accounting.calibrate_noise(plan, 2.0, DELTA)
    assert accounting.epsilon_of(plan(noise), DELTA) <= 2.0
    assert accounting.epsilon_of(plan(0.98 * noise), DELTA) > 2.0


def test_a_budget_that_no_noise_meets_is_refused():
    spent = (dp_event.GaussianDpEvent(1.0), 1)
    with pytest.raises(UserError, match=r"privacy\.epsilon=0\.5 .*cannot be met"):
        accounting.calibrate_noise(lambda z: [spent, (dp_event.GaussianDpEvent(z), 1)], 0.5, DELTA)


@pytest.mark.parametrize("before", [[], [(GAUSSIAN, 1)], [(GAUSSIAN, 1), (POISSON, 5)]])
def test_epsilon_table_is_an_upper_bound_that_ends_exactly(before):
    table = accounting.epsilon_table(before, POISSON, 30, DELTA, points=6)
    exact = np.array([accounting.epsilon_of([*before, (POISSON, t)], DELTA) for t in (0, 1, 7, 13, 29, 30)])
    assert table.shape == (31,) and table.dtype == np.float64
    assert (np.diff(table) >= 0).all()
    assert (table[[0, 1, 7, 13, 29, 30]] >= exact - 1e-9).all()
    np.testing.assert_allclose(table[[0, 30]], exact[[0, -1]], rtol=1e-6)


def test_an_event_that_is_not_covered_stops_the_run():
    for event in (dp_event.LaplaceDpEvent(1.0), dp_event.UnsupportedDpEvent(), dp_accounting.NonPrivateDpEvent()):
        with pytest.raises(UserError, match=f"does not cover {type(event).__name__}"):
            accounting.epsilon_of([(event, 1)], DELTA)


SELF, BOTH = dp_event.SelfComposedDpEvent, dp_event.ComposedDpEvent


def test_compositions_are_taken_apart():
    nested = BOTH([SELF(BOTH([GAUSSIAN, SELF(POISSON, 5)]), 2), dp_event.NoOpDpEvent(), TRUNCATED])
    assert accounting.merged([(nested, 3), (GAUSSIAN, 1), (dp_event.NoOpDpEvent(), 4)]) == {
        GAUSSIAN: 7,
        POISSON: 30,
        TRUNCATED: 3,
    }
    flat = [(GAUSSIAN, 3), (POISSON, 4)]
    assert accounting.epsilon_of([(BOTH([SELF(GAUSSIAN, 3), SELF(POISSON, 4)]), 1)], DELTA) == accounting.epsilon_of(
        flat, DELTA
    )
    reference = _reference(pld.PLDAccountant(accounting.RELATION, 1e-3), [(nested, 3)])
    assert accounting.epsilon_of([(nested, 3)], DELTA) == pytest.approx(reference, rel=2e-3)
    assert accounting.epsilon_of([(nested, 4)], DELTA) > 1.02 * reference


def test_epsilon_table_of_a_composed_round():
    one_round = BOTH([GAUSSIAN, POISSON])
    table = accounting.epsilon_table([(GAUSSIAN, 2)], one_round, 4, DELTA)
    flat = [accounting.epsilon_of([(GAUSSIAN, 2 + t), (POISSON, t)], DELTA) for t in range(5)]
    np.testing.assert_allclose(table, flat, rtol=1e-6)


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (BOTH([GAUSSIAN, SELF(dp_event.LaplaceDpEvent(1.0), 2)]), "LaplaceDpEvent"),
        (dp_event.PoissonSampledDpEvent(0.1, BOTH([GAUSSIAN])), "PoissonSampledDpEvent of ComposedDpEvent"),
        (dp_event.RepeatAndSelectDpEvent(GAUSSIAN, 3.0, 1.0), "RepeatAndSelectDpEvent"),
        (dp_event.MixtureOfGaussiansDpEvent(1.0, [0.0, 1.0], [0.5, 0.5]), "MixtureOfGaussiansDpEvent"),
        (dp_event.GaussianDpEvent(0.0), "noise multiplier 0.0"),
        (dp_event.GaussianDpEvent(float("nan")), "noise multiplier nan"),
        (dp_event.PoissonSampledDpEvent(1.5, GAUSSIAN), "sampling probability 1.5"),
        (dp_event.TruncatedSubsampledGaussianDpEvent(10, 0.5, 0, 1.0), "batches of 0"),
    ],
)
def test_what_is_not_covered_is_named_however_deep(event, said):
    with pytest.raises(UserError, match=f"does not cover .*{said}"):
        accounting.epsilon_of([(GAUSSIAN, 1), (event, 1)], DELTA)


@pytest.mark.parametrize(("event", "count"), [(GAUSSIAN, -1), (GAUSSIAN, 1.5), (SELF(POISSON, -2), 1)])
def test_counts_are_whole(event, count):
    with pytest.raises(UserError, match="give a whole number"):
        accounting.merged([(event, count)])
