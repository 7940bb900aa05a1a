"""Lower bounds: below the truth for ideal scores, better with more canaries, zero where nothing is to be seen."""

from __future__ import annotations

import functools
import math

import dp_accounting
import numpy as np
import pytest
from scipy import stats

from fedjax_health.privacy import audit_bounds
from fedjax_health.privacy.audit_bounds import Guesses, audit_bound, clopper_pearson, one_run, one_run_gaussian
from fedjax_health.types import UserError

DELTA = 1e-5
BOUNDS = [clopper_pearson, one_run, one_run_gaussian]


def ideal(epsilon, m, seed):
    """Scores of a Gaussian mechanism that is exactly (epsilon, DELTA)-private, and the coins."""
    generator = np.random.default_rng(seed)
    inserted = generator.random(m) < 0.5
    distance = 1 / dp_accounting.get_sigma_gaussian(epsilon, DELTA) if epsilon else 0.0
    return distance * inserted + generator.normal(size=m), inserted, generator


@functools.cache
def bounds(bound, epsilon, m, seeds=20):
    values = []
    for seed in range(seeds):
        scores, inserted, generator = ideal(epsilon, m, seed)
        values.append(audit_bound(scores, inserted, DELTA, bound, generator))
    return np.array(values)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("epsilon", [8.0, 3.0, 1.0])
def test_a_bound_lies_below_the_truth(bound, epsilon):
    """20 seeds; a bound that is one at 95 % lies above it at most 4 times but for 0.3 %, and these are not tight."""
    values = bounds(bound, epsilon, 600)
    assert np.sum(values > epsilon) == 0
    assert (values >= 0).all() and (epsilon == 1 or values.mean() > 0.05 * epsilon)  # not empty either


def test_without_a_correction_it_would_not_be_a_bound():
    """The best point estimate over all thresholds, the mistake that the bounds avoid."""

    def naive(scores, inserted):
        rates = [((scores[inserted] >= t).mean(), (scores[~inserted] >= t).mean()) for t in scores]
        return max(math.log((tpr - DELTA) / fpr) for tpr, fpr in rates if tpr > DELTA and fpr > 0)

    broken = np.array([naive(*ideal(1.0, 600, seed)[:2]) for seed in range(20)])
    assert np.mean(broken > 1.0) > 0.5


@pytest.mark.parametrize("bound", BOUNDS)
def test_more_canaries_prove_more(bound):
    few, many = bounds(bound, 3.0, 300, 8), bounds(bound, 3.0, 3000, 8)
    assert many.mean() > few.mean() + 0.2


@pytest.mark.parametrize("bound", BOUNDS)
def test_scores_that_say_nothing_prove_nothing(bound):
    inserted = np.arange(400) % 2 == 0
    assert audit_bound(np.zeros(400), inserted, DELTA, bound, np.random.default_rng(0)) == 0.0
    assert np.mean(bounds(bound, 0.0, 400) > 0) <= 0.2  # 5 % of 20, and four standard deviations


@pytest.mark.parametrize("bound", BOUNDS)
def test_perfect_scores_prove_much_and_mirrored_ones_nothing(bound):
    """Guessing takes high for inserted; the reverse order is a wrong observer and no evidence."""
    inserted = np.random.default_rng(0).random(400) < 0.5
    sure = audit_bound(inserted.astype(float), inserted, DELTA, bound, np.random.default_rng(1))
    assert 3.0 < sure < 10.0
    assert audit_bound(-inserted.astype(float), inserted, DELTA, bound, np.random.default_rng(1)) == 0.0


def test_p_value_without_delta_is_the_binomial_tail():
    for correct, guessed in ((0, 10), (7, 10), (10, 10)):
        p = audit_bounds.one_run_p_value(correct, guessed, 50, 1.0, 0.0)
        assert p == pytest.approx(stats.binom.sf(correct - 1, guessed, math.e / (1 + math.e)))


def test_p_value_equals_its_definition():
    """alpha summed term by term; a delta of 1e-3 changes the figure, so that the test sees it."""
    m, guessed, correct, epsilon, delta = 60, 30, 27, 1.2, 1e-3
    w = guessed, math.exp(epsilon) / (1 + math.exp(epsilon))
    beta = sum(stats.binom.pmf(x, *w) for x in range(correct, guessed + 1))
    alpha = max(sum(stats.binom.pmf(x, *w) for x in range(correct - i, correct)) / i for i in range(1, correct + 1))
    p = audit_bounds.one_run_p_value(correct, guessed, m, epsilon, delta)
    assert p == pytest.approx(beta + 2 * m * delta * alpha, rel=1e-9)
    assert p > 1.01 * beta


def test_one_run_is_where_the_p_value_meets_the_significance():
    guesses = Guesses(40, 5, 38, 6, 60, 60)
    epsilon = one_run(guesses, DELTA)
    assert audit_bounds.one_run_p_value(78, 89, 120, epsilon, DELTA) <= 0.05
    assert audit_bounds.one_run_p_value(78, 89, 120, epsilon + 1e-3, DELTA) > 0.05
    assert one_run(guesses, 1e-3) < epsilon < one_run(guesses, DELTA, 0.3)


def test_clopper_pearson_is_scipys():
    guesses = Guesses(40, 3, 0, 0, 100, 120)
    low = stats.binomtest(40, 100, alternative="greater").proportion_ci(0.9875, "exact").low
    high = stats.binomtest(3, 120, alternative="less").proportion_ci(0.9875, "exact").high
    assert clopper_pearson(guesses, 0.01) == pytest.approx(math.log((low - 0.01) / high), rel=1e-9)
    mirrored = Guesses(0, 0, 40, 3, 120, 100)
    assert clopper_pearson(mirrored, 0.01) == pytest.approx(clopper_pearson(guesses, 0.01), rel=1e-12)


def share_above(bound, epsilon, draws):
    """How often a bound on counts lies above epsilon, over draws of (scores, inserted) at one fixed rule."""
    known: dict[Guesses, float] = {}
    wrong = []
    for scores, inserted, rule in draws:
        guesses = audit_bounds.guess(scores, inserted, rule)
        if guesses not in known:
            known[guesses] = bound(guesses, DELTA)
        wrong.append(known[guesses] > epsilon)
    return np.mean(wrong)


def point_estimate(guesses, delta):
    """The mistake: a rate of rates without any interval."""
    return math.log((guesses.true_in / guesses.inserted - delta) / guesses.false_in * guesses.held_out)


@pytest.mark.parametrize(
    ("bound", "least", "most"), [(clopper_pearson, 0, 0.08), (one_run, 0.005, 0.08), (point_estimate, 0.3, 1)]
)
def test_on_randomised_response_a_bound_is_wrong_in_at_most_one_of_twenty(bound, least, most):
    """The mechanism that is as bad as epsilon allows: it tells a coin truly with probability e^eps / (1 + e^eps)."""

    def draw(seed):
        generator = np.random.default_rng(seed)
        inserted = generator.random(400) < 0.5
        told = inserted ^ (generator.random(400) > math.e / (1 + math.e))
        return told.astype(float), inserted, audit_bounds.Rule(0.5, 0.5)

    assert least <= share_above(bound, 1.0, map(draw, range(400))) <= most


@pytest.mark.parametrize("epsilon", [0.3, 1.0])
def test_for_gaussian_mechanisms_the_bound_on_their_curve_is_one(epsilon):
    distance = 1 / dp_accounting.get_sigma_gaussian(epsilon, DELTA)
    draws = [(*ideal(epsilon, 400, seed)[:2], audit_bounds.Rule(-1.0, 1.0 + distance)) for seed in range(200)]
    assert share_above(one_run_gaussian, epsilon, draws) <= 0.1
    assert share_above(one_run_gaussian, 0.1 * epsilon, draws) > 0.1  # it does say something


def test_guesses_count_both_sides_and_leave_out_the_middle():
    scores = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    inserted = np.array([True, False, True, False, True])
    assert audit_bounds.guess(scores, inserted, audit_bounds.Rule(1.0, 3.0)) == Guesses(1, 1, 1, 1, 3, 2)
    assert audit_bounds.guess(scores, inserted, audit_bounds.Rule(4.0, 0.0)) == Guesses(0, 0, 0, 0, 3, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(3), np.zeros(3), DELTA, one_run), "at least 4 canaries"),
        ((np.zeros(8), np.zeros(7), DELTA, one_run), r"\(8,\) and coins \(7,\)"),
        ((np.full(8, np.nan), np.zeros(8), DELTA, one_run), "8 of 8 scores are not finite"),
        ((np.zeros(8), np.zeros(8), 1.0, one_run), r"delta=1\.0 must lie"),
        ((np.zeros(8), np.zeros(8), 0.0, one_run_gaussian), "delta=0"),
    ],
)
def test_what_cannot_be_audited_is_refused(arguments, message):
    scores, coins, delta, bound = arguments
    with pytest.raises(UserError, match=message):
        audit_bound(scores, coins, delta, bound, np.random.default_rng(0))


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_significance_outside_0_to_1_is_refused(bound):
    with pytest.raises(UserError, match=r"significance=1\.5"):
        bound(Guesses(1, 1, 1, 1, 2, 2), DELTA, 1.5)
