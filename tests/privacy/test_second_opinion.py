"""Two accountants, two relations, groups, and sweeps: each against closed forms or an independent computation."""

from __future__ import annotations

import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting import dp_event, rdp
from scipy import optimize, stats

from benchmarks import accounting as measured
from benchmarks import report
from fedjax_health.privacy import accounting, groups, second_opinion, tuning
from fedjax_health.types import UserError

DELTA = 1e-5
GAUSSIAN = dp_event.GaussianDpEvent(4.0)
POISSON = dp_event.PoissonSampledDpEvent(0.02, dp_event.GaussianDpEvent(1.0))
TRUNCATED = dp_event.TruncatedSubsampledGaussianDpEvent(1000, 0.02, 47, 1.0)
PLANS = measured.draw(50)


def gaussian_epsilon(z: float, delta: float) -> float:
    """delta(eps) = Phi(1/2z - eps z) - e^eps Phi(-1/2z - eps z); Balle & Wang 2018, arXiv 1805.06530."""

    def excess(epsilon):
        return stats.norm.cdf(0.5 / z - epsilon * z) - np.exp(epsilon) * stats.norm.cdf(-0.5 / z - epsilon * z) - delta

    return float(optimize.brentq(excess, 1e-3, 100.0))  # pyright: ignore[reportArgumentType]


def test_fifty_random_plans_agree_with_an_independent_computation_and_renyi_lies_above():
    finite = 0
    for plan in PLANS:
        (exact, renyi), delta = measured.ours(plan)
        assert delta == plan.clients**-1.1
        assert exact == pytest.approx(measured.independent(plan), rel=1e-3), plan
        assert renyi >= exact, plan
        finite += math.isfinite(renyi)
    assert finite >= 40  # the others overflow too often for their delta


@pytest.mark.parametrize("wrong", [{"more_rounds": 1.01}, {"more_sampling": 1.02}])
def test_a_slightly_wrong_plan_is_told_apart(wrong):
    for plan in PLANS[:8]:
        (exact, _), _ = measured.ours(plan)
        assert measured.independent(plan, **wrong) > (1.0 + 1e-3) * exact, plan


def test_benchmark_figures():
    found = {result["name"]: result for result in measured.results(quick=True)}
    report.check(report.make_report("accounting", "here", {}, list(found.values())))
    assert all(name.startswith("accounting/") for name in found)
    assert found["accounting/worst relative difference from PLDAccountant"]["value"] < 1e-3
    assert found["accounting/least RDP epsilon over PLD epsilon"]["value"] >= 1.0


def test_overflow_is_the_tail_of_the_others():
    chance = 1.0 - float(np.sum(stats.binom.pmf(np.arange(47), 999, 0.02)))
    assert second_opinion.overflow_of(TRUNCATED) == pytest.approx(chance, rel=1e-4) and 1e-8 < chance < 1e-6
    assert second_opinion.overflow_of(POISSON) == second_opinion.overflow_of(GAUSSIAN) == 0.0
    plain, overflow = second_opinion.without_truncation([(TRUNCATED, 100), (POISSON, 3), (GAUSSIAN, 1)])
    assert plain == {POISSON: 103, GAUSSIAN: 1}
    assert overflow == pytest.approx(1.0 - (1.0 - chance) ** 100, rel=1e-4)


def test_overflow_bounds_how_truncation_moves_a_whole_guarantee():
    """PLD of the truncated event at delta is at most that of the plain one at delta - delta_overflow."""
    event = dp_event.TruncatedSubsampledGaussianDpEvent(1000, 0.02, 38, 1.0)
    plain, overflow = second_opinion.without_truncation([(event, 20)])
    delta = 2.0 * overflow
    exact = accounting.epsilon_of([(event, 20)], delta)
    assert accounting.epsilon_of(list(plain.items()), delta) < exact
    assert exact <= accounting.epsilon_of(list(plain.items()), delta - overflow)


def test_renyi_epsilon_equals_the_accountant_and_needs_some_delta():
    accountant = rdp.RdpAccountant(neighboring_relation=accounting.RELATION)
    accountant.compose(POISSON, 40).compose(GAUSSIAN, 2)
    mixed = [(POISSON, 40), (dp_event.SelfComposedDpEvent(GAUSSIAN, 2), 1)]
    assert second_opinion.rdp_epsilon_of(mixed, DELTA) == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-12)
    truncated = second_opinion.rdp_epsilon_of([(TRUNCATED, 5)], DELTA)
    assert second_opinion.rdp_epsilon_of([(POISSON, 5)], DELTA) < truncated < math.inf
    overflow = second_opinion.without_truncation([(TRUNCATED, 5)])[1]
    assert second_opinion.rdp_epsilon_of([(TRUNCATED, 5)], overflow) == math.inf
    assert second_opinion.rdp_epsilon_of([], DELTA) == 0.0


def test_a_contradiction_stops_and_coarse_discretisation_is_none(monkeypatch):
    events = [(POISSON, 40)]
    exact, renyi = second_opinion.opinions(events, DELTA)
    assert exact < renyi
    monkeypatch.setattr(second_opinion, "rdp_epsilon_of", lambda events, delta: exact - 0.5e-3)
    assert second_opinion.opinions(events, DELTA).pld == exact
    monkeypatch.setattr(second_opinion, "rdp_epsilon_of", lambda events, delta: exact - 5e-3)
    with pytest.raises(UserError, match="contradict each other"):
        second_opinion.opinions(events, DELTA)
    monkeypatch.undo()
    quiet = [(dp_event.PoissonSampledDpEvent(1e-3, dp_event.GaussianDpEvent(10.0)), 10_000)]
    exact, renyi = second_opinion.opinions(quiet, DELTA)
    assert renyi < exact - accounting.DISCRETIZATION  # losses far below 1e-3 a round, all rounded up


def test_replacing_doubles_the_sensitivity():
    found = groups.replace_one([(GAUSSIAN, 3)], DELTA)
    assert (found.delta, found.method) == (DELTA, groups.DIRECT)
    exact = gaussian_epsilon(2.0 / math.sqrt(3.0), DELTA)
    assert exact <= found.epsilon <= 1.01 * exact
    assert found.epsilon > 1.3 * gaussian_epsilon(4.0 / math.sqrt(3.0), DELTA)  # one client more or less


@pytest.mark.parametrize("events", [[(POISSON, 40)], [(TRUNCATED, 40), (GAUSSIAN, 1)]])
def test_replacing_costs_more_than_adding_and_less_than_two_steps(events):
    one, found, steps = (
        accounting.epsilon_of(events, DELTA),
        groups.replace_one(events, DELTA),
        groups.by_group_privacy(events, DELTA, 2),
    )
    assert one < found.epsilon < steps.epsilon and found.method == groups.DIRECT


def test_sampled_replacement_equals_its_integral():
    """One round: sup of the hockey stick between (1 - q) N(0, z^2) + q N(+-1, z^2), integrated on a grid."""
    q, z, x = 0.02, 1.0, np.linspace(-15.0, 15.0, 600_001)
    upper, lower = ((1 - q) * stats.norm.pdf(x, 0.0, z) + q * stats.norm.pdf(x, mean, z) for mean in (-1.0, 1.0))
    epsilon = groups.replace_one([(POISSON, 1)], DELTA).epsilon
    step = float(x[1] - x[0])

    def delta(e):
        return step * float(np.sum(np.maximum(upper - math.exp(e) * lower, 0.0)))

    assert delta(epsilon) <= DELTA < delta(epsilon - 5e-3)


def test_the_smaller_bound_is_taken_and_named(monkeypatch):
    events = [(GAUSSIAN, 3)]
    monkeypatch.setattr(groups, "by_group_privacy", lambda *_: groups.Bound(0.1, DELTA, groups.BY_STEPS))
    assert groups.replace_one(events, DELTA) == (0.1, DELTA, groups.BY_STEPS)


def test_without_a_finite_bound_at_delta_the_plain_group_bound_stands(monkeypatch):
    event = dp_event.TruncatedSubsampledGaussianDpEvent(40, 0.5, 20, 0.3)
    infinite = groups.Bound(math.inf, DELTA, groups.BY_STEPS)
    monkeypatch.setattr(groups, "by_group_privacy", lambda *_: infinite)
    assert groups.replace_one([(event, 1)], DELTA).method == groups.DIRECT

    class Endless:
        def get_epsilon_for_delta(self, delta):
            return math.inf

    monkeypatch.setattr(accounting, "distribution_of", lambda *_: Endless())
    monkeypatch.setattr(accounting, "epsilon_of", lambda *_: 1.0)
    found = groups.replace_one([(event, 1)], DELTA)
    assert found == (2.0, pytest.approx(DELTA * (1 + math.e)), groups.BY_STEPS)


def test_group_privacy():
    assert groups.group_privacy(1.0, 1e-6, 1) == (1.0, pytest.approx(1e-6))
    assert groups.group_privacy(1.0, 1e-6, 2) == (2.0, pytest.approx(1e-6 * (1 + math.e)))
    epsilon, delta = groups.group_privacy(0.5, 1e-8, 5)
    assert epsilon == 2.5 and delta == pytest.approx(1e-8 * math.expm1(2.5) / math.expm1(0.5))
    assert groups.group_privacy(0.0, 1e-6, 5) == (0.0, pytest.approx(5e-6))
    assert groups.group_privacy(1e6, 1e-6, 2)[1] == 1.0


def test_group_bound_holds_for_the_gaussian_and_uses_the_curve():
    """The exact epsilon of g clients is that of noise z / g."""
    for clients in (2, 5):
        found = groups.by_group_privacy([(dp_event.GaussianDpEvent(8.0), 1)], DELTA, clients)
        assert found.epsilon >= gaussian_epsilon(8.0 / clients, DELTA)
        assert found.epsilon < 4.0 * gaussian_epsilon(8.0 / clients, DELTA)
        one, spent = found.epsilon / clients, DELTA
        curve = accounting.distribution_of([(dp_event.GaussianDpEvent(8.0), 1)])
        assert groups.group_privacy(one, float(curve.get_delta_for_epsilon(one)), clients)[1] <= spent
        less = 0.99 * one
        assert groups.group_privacy(less, float(curve.get_delta_for_epsilon(less)), clients)[1] > spent
    one = groups.by_group_privacy([(POISSON, 40)], DELTA, 1).epsilon
    assert one == pytest.approx(accounting.epsilon_of([(POISSON, 40)], DELTA), rel=1e-2)
    assert groups.by_group_privacy([(dp_event.GaussianDpEvent(0.3), 1)], DELTA, 5).epsilon == math.inf


def tuned_gaussian(z: float, mean: float, shape: float, delta: float) -> float:
    """Theorem 2 of arXiv 2110.03620 for geometric trials, by hand: RDP(a) = a / 2z^2, gamma = 1 / mean."""
    orders = np.asarray(rdp.rdp_privacy_accountant.DEFAULT_RDP_ORDERS)
    one = orders / (2.0 * z**2)
    extra = (1.0 + shape) * np.min((1.0 - 1.0 / orders) * one + math.log(mean) / orders)
    sweep = one + math.log(mean) / (orders - 1.0) + extra
    epsilons = sweep + np.log1p(-1.0 / orders) - np.log(delta * orders) / (orders - 1.0)
    return float(epsilons.min())


def test_a_sweep_costs_what_its_theorem_says():
    found = tuning.tuned_epsilon([(GAUSSIAN, 1)], 10.0, 1.0, DELTA)
    assert found == pytest.approx(tuned_gaussian(4.0, 10.0, 1.0, DELTA), rel=1e-3)
    assert found != pytest.approx(tuned_gaussian(4.0, 11.0, 1.0, DELTA), rel=1e-3)
    assert tuning.tuned_epsilon([], 10.0, 1.0, DELTA) == 0.0


def test_a_sweep_costs_more_than_one_trial_and_less_than_publishing_all():
    events = [(GAUSSIAN, 1), (POISSON, 20)]
    one = second_opinion.rdp_epsilon_of(events, DELTA)
    for shape in (0.0, 0.5, 1.0, math.inf):
        few, many = (tuning.tuned_epsilon(events, mean, shape, DELTA) for mean in (5.0, 100.0))
        assert one < few < many < second_opinion.rdp_epsilon_of([(e, 100 * n) for e, n in events], DELTA)


def test_a_sweep_pays_for_overflow_of_every_trial():
    overflow = second_opinion.without_truncation([(TRUNCATED, 10)])[1]
    enough, short = (tuning.tuned_epsilon([(TRUNCATED, 10)], 20.0, 1.0, x * overflow) for x in (21.0, 20.0))
    assert math.isfinite(enough) and short == math.inf


@pytest.mark.parametrize(
    ("mean", "shape", "said"), [(0.5, 1.0, "at least 1"), (math.nan, 1.0, "at least 1"), (3.0, -1.0, "shape=-1")]
)
def test_sweeps_out_of_range_are_refused(mean, shape, said):
    with pytest.raises(UserError, match=said):
        tuning.tuned_epsilon([(GAUSSIAN, 1)], mean, shape, DELTA)


def test_sweeps_of_uncovered_events_are_refused():
    with pytest.raises(UserError, match="does not cover NonPrivateDpEvent"):
        tuning.tuned_epsilon([(dp_accounting.NonPrivateDpEvent(), 1)], 3.0, 1.0, DELTA)
