"""Figures over shadows: thresholds come from the others, rates at one cut, intervals that know who shares what."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from fedjax_health.evaluation.detection import rate_at_fpr
from fedjax_health.evaluation.shadow_rows import by_client, shadow_rows, thresholds, tpr_rates
from fedjax_health.evaluation.utility import balanced_threshold


def draw(shadows=12, targets=300, effect=1.0, shared=0.0, seed=0):
    r = np.random.default_rng(seed)
    member = r.random((shadows, targets)) < 0.5
    return shared * r.normal(size=targets) + r.normal(size=member.shape) + effect * member, member


def test_mean_over_the_records_of_each_client():
    record = np.array([[1.0, 3.0, 5.0, 7.0], [0.0, 0.0, 4.0, 2.0]])
    np.testing.assert_array_equal(by_client(record, np.array([4, 4, 9, 9])), [[2.0, 6.0], [0.0, 3.0]])


def test_a_threshold_is_the_best_of_all_other_shadows():
    score, member = draw()
    score = np.round(score, 1)  # with ties
    cuts = thresholds(score, member)
    for s in range(12):
        rest = np.arange(12) != s

        def balanced(cut, rest=rest):
            called = score[rest] >= cut
            return called[member[rest]].mean() - called[~member[rest]].mean()

        best = balanced_threshold(member[rest].ravel(), score[rest].ravel())
        assert balanced(cuts[s]) == pytest.approx(balanced(best), abs=1e-12)
    score[0] += 100.0
    assert thresholds(score, member)[0] == cuts[0]  # its own scores do not choose


def test_rates_are_those_of_one_cut_and_intervals_cover():
    score, member = draw(effect=2.0)
    found = tpr_rates(score, member, np.arange(300), np.random.default_rng(0))
    rate, low, high = found.interval("tpr_at_1pct_fpr")
    assert rate == pytest.approx(rate_at_fpr(member.ravel(), score.ravel(), 0.01), abs=1e-12)
    assert low < scipy.stats.norm.cdf(scipy.stats.norm.ppf(0.01) + 2.0) < high
    assert np.isnan(found.interval("tpr_at_0p1pct_fpr")).all()  # 1,800 non-members resolve no 0.1 %


def test_an_interval_is_wider_where_shadows_share_what_makes_targets_differ():
    def width(shared, cluster):
        score, member = draw(effect=2.0)
        score = score + shared * np.random.default_rng(1).normal(size=30).repeat(10)
        _, low, high = tpr_rates(score, member, cluster, np.random.default_rng(0)).interval("tpr_at_1pct_fpr")
        return high - low

    assert width(4.0, np.arange(300) // 10) > 1.15 * width(4.0, np.arange(300))
    wilson = 2 * 1.96 * np.sqrt(0.25 * 0.75 / 1800)
    assert width(0.0, np.arange(300)) > wilson


def test_rows_of_guessing_and_of_a_perfect_attack():
    score, member = draw(effect=0.0)
    rows = {r.metric: r for r in shadow_rows("d", "m", "a", score, member, np.arange(300), np.random.default_rng(0))}
    assert list(rows) == ["auc", "balanced_accuracy", "success (%)", "tpr_at_1pct_fpr", "tpr_at_0p1pct_fpr"]
    assert rows["auc"].low < 0.5 < rows["auc"].high and rows["success (%)"].low < 50 < rows["success (%)"].high
    assert rows["auc"].n == 12 and rows["tpr_at_1pct_fpr"].n == member.sum()
    assert 0.45 < rows["balanced_accuracy"].value < 0.55  # chosen on a shadow's own scores it would be above
    rows = shadow_rows("d", "m", "a", member + 0.1 * score, member, np.arange(300), np.random.default_rng(0))
    assert rows[0].value > 0.999 and rows[2].value > 99 and rows[3].value > 0.99
