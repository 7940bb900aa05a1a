"""Attack figures against known laws, thresholds from other seeds only, and the published DP ceilings."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from fedjax_health.evaluation.membership import (
    client_scores,
    dp_ceiling,
    dp_tpr,
    membership_figures,
    membership_rows,
    record_rows,
    tpr_interval,
)
from fedjax_health.evaluation.rows import proportion_interval


def gaussian(seed: int, shift: float, n: int = 20_000):
    r = np.random.default_rng(seed)
    return r.normal(shift, 1, n), r.normal(0, 1, n)


def test_gaussian_shift_has_the_known_curve():
    f = {k[1]: v for k, v in membership_figures("a", *gaussian(0, 1.0), 0.5).items()}
    assert f["auc"] == pytest.approx(norm.cdf(1 / math.sqrt(2)), abs=0.01)
    assert f["balanced_accuracy"] == pytest.approx(norm.cdf(0.5), abs=0.01)
    assert f["success (%)"] == 100 * f["balanced_accuracy"]
    assert f["tpr_at_1pct_fpr"] == pytest.approx(norm.cdf(norm.ppf(0.01) + 1), abs=0.015)
    assert f["tpr_at_0p1pct_fpr"] == pytest.approx(norm.cdf(norm.ppf(0.001) + 1), abs=0.01)


def test_rates_are_not_read_where_they_cannot_be_resolved():
    member, nonmember = gaussian(1, 1.0)
    for n0, one, tenth in ((999, False, False), (1000, True, False), (9999, True, False), (10_000, True, True)):
        f = membership_figures("a", member, nonmember[:n0])
        assert np.isfinite(f["a", "tpr_at_1pct_fpr"]) == one
        assert np.isfinite(f["a", "tpr_at_0p1pct_fpr"]) == tenth


def test_no_threshold_no_balanced_accuracy_and_undefined_sides():
    f = membership_figures("a", np.array([1.0, 2.0]), np.array([0.0]))
    assert f["a", "auc"] == 1
    assert np.isnan(f["a", "success (%)"])
    for pair in ((np.empty(0), np.ones(3)), (np.ones(3), np.array([1.0, np.nan]))):
        assert np.isnan(list(membership_figures("a", *pair, 0.5).values())).all()


def test_ties_count_half_in_auc_and_not_at_all_at_low_fpr():
    f = membership_figures("a", np.ones(2000), np.ones(2000), 1.0)
    assert f["a", "auc"] == 0.5
    assert f["a", "balanced_accuracy"] == 0.5
    assert f["a", "tpr_at_1pct_fpr"] == 0.0


@pytest.mark.parametrize(
    ("epsilon", "tenth", "one", "ten", "balanced"),
    [(1, 0.0027, 0.027, 0.272, 0.731), (3, 0.020, 0.201, 0.955, 0.953), (8, 1.0, 1.0, 1.0, 1.0)],
)
def test_ceilings_have_the_published_values(epsilon, tenth, one, ten, balanced):
    f = {k[1]: v for k, v in dp_ceiling(epsilon, 1e-5).items()}
    assert f["tpr_at_0p1pct_fpr"] == pytest.approx(tenth, abs=6e-4)
    assert f["tpr_at_1pct_fpr"] == pytest.approx(one, abs=6e-4)
    assert dp_tpr(epsilon, 1e-5, 0.1) == pytest.approx(ten, abs=6e-4)
    assert f["balanced_accuracy"] == pytest.approx(balanced, abs=6e-4)
    grid = np.linspace(0, 1, 100_001)
    curve = np.array([dp_tpr(epsilon, 1e-5, x) for x in grid])
    assert f["balanced_accuracy"] == pytest.approx(0.5 + (curve - grid).max() / 2, abs=1e-3)
    assert f["auc"] == pytest.approx(np.trapezoid(curve, grid), abs=1e-3)


def test_ceiling_limits():
    assert dp_ceiling(0, 0)["dp-ceiling", "balanced_accuracy"] == 0.5
    assert dp_ceiling(0, 0)["dp-ceiling", "auc"] == pytest.approx(0.5)
    assert set(dp_ceiling(math.inf, 0).values()) == {1.0, 100.0}
    assert ("dp-ceiling", "auc") in membership_figures("a", np.ones(2), np.zeros(2), 0.5, 1.0, 1e-5)


def test_ceiling_bounds_randomised_response():
    # The strongest test of ε-DP: tell the truth with probability e^ε / (1 + e^ε).
    r, epsilon = np.random.default_rng(0), 1.0
    lie = 1 / (1 + math.e**epsilon)
    member, nonmember = (r.random(50_000) > lie).astype(float), (r.random(50_000) < lie).astype(float)
    f = membership_figures("a", member, nonmember, 0.5)
    bound = dp_ceiling(epsilon, 0)["dp-ceiling", "balanced_accuracy"]
    assert f["a", "balanced_accuracy"] == pytest.approx(bound, abs=0.005)


def test_threshold_comes_from_the_other_seeds_only():
    # Seed 0 is separable only at 10; the others at 0. Its own best threshold would succeed at 100 %.
    seeds = [(np.full(50, 11.0), np.full(50, 9.0))] + [(np.full(50, 1.0), np.full(50, -1.0))] * 9
    rows = {r.metric: r for r in membership_rows("vitals", "vae", "domias", seeds)}
    assert rows["auc"].value == 1.0
    assert rows["auc"].n == 10
    assert rows["balanced_accuracy"].value == pytest.approx(0.95)
    assert rows["success (%)"].value == pytest.approx(95)
    assert (rows["auc"].domain, rows["auc"].model, rows["auc"].row) == ("vitals", "vae", "domias")


def test_rows_pool_seeds_on_their_own_scales():
    seeds = [tuple(10.0**s * (x + 5 * s) for x in gaussian(s, 1.0, 500)) for s in range(4)]
    rows = {r.metric: r for r in membership_rows("d", "m", "a", seeds)}
    rate = rows["tpr_at_1pct_fpr"]
    assert rate.n == 2000
    assert rate.low < rate.value < rate.high
    assert rate.value == pytest.approx(norm.cdf(norm.ppf(0.01) + 1), abs=0.04)
    assert np.isnan([rows["tpr_at_0p1pct_fpr"].value, rows["tpr_at_0p1pct_fpr"].high]).all()
    assert rows["auc"].low < norm.cdf(1 / math.sqrt(2)) < rows["auc"].high


@pytest.mark.parametrize("shift", [0.0, 1.5])
def test_the_interval_of_a_rate_knows_that_its_threshold_is_estimated(shift):
    truth, held, known = norm.cdf(norm.ppf(0.01) + shift), [], []
    for seed in range(300):
        member, other = gaussian(seed, shift, 1000)
        low, high = tpr_interval(member, other, 0.01)
        held.append(low <= truth <= high)
        caught = round(1000 * membership_figures("a", member, other)["a", "tpr_at_1pct_fpr"])
        low, high = proportion_interval(caught, 1000)
        known.append(low <= truth <= high)
    assert np.mean(held) >= 0.95
    assert np.mean(known) < 0.9  # Clopper-Pearson alone takes the threshold as known


def test_the_interval_of_a_rate_at_its_ends():
    r = np.random.default_rng(0)
    assert tpr_interval(r.uniform(1, 2, 2000), r.uniform(0, 1, 1000), 0.01)[0] > 0.995
    assert tpr_interval(np.zeros(0), r.uniform(0, 1, 1000), 0.01) == (0.0, 1.0)
    assert tpr_interval(np.zeros(500), np.zeros(1000), 0.01) == pytest.approx((0.0, 1.0), abs=0.01)  # ties say nothing
    few = tpr_interval(r.normal(0, 1, 500), r.normal(0, 1, 20), 0.001)
    assert few[0] == 0.0 and few[1] > 0.01


def test_independent_scores_are_at_chance():
    rows = {r.metric: r for r in membership_rows("d", "m", "a", [gaussian(s, 0.0, 2000) for s in range(5)])}
    assert rows["auc"].value == pytest.approx(0.5, abs=0.02)
    assert rows["success (%)"].value == pytest.approx(50, abs=2)
    assert rows["tpr_at_1pct_fpr"].value < 0.02


def test_one_seed_and_bad_seeds():
    one = {r.metric: r for r in membership_rows("d", "m", "a", [gaussian(0, 1.0, 1000)])}
    assert np.isfinite(one["auc"].value)
    assert np.isnan([one["auc"].low, one["success (%)"].value]).all()
    assert np.isfinite(one["tpr_at_1pct_fpr"].low)
    bad = membership_rows("d", "m", "a", [gaussian(0, 1.0, 1000), (np.empty(0), np.ones(3))])
    assert len(bad) == 5
    assert np.isnan([r.value for r in bad]).all()
    assert np.isnan([r.value for r in membership_rows("d", "m", "a", [])]).all()


def test_client_scores_average_records():
    assert client_scores(np.array([1.0, 3.0, 5.0]), np.array([4, 4, 9])).tolist() == [2.0, 5.0]


def test_record_rows_take_seeds_as_trials_since_records_of_a_client_are_none():
    seeds = [gaussian(s, 1.0, 1500) for s in range(4)]
    rows = {r.metric: r for r in record_rows("d", "m", "a", seeds)}
    assert set(rows) == {"record_auc", "record_tpr_at_1pct_fpr", "record_tpr_at_0p1pct_fpr"}
    assert {r.n for r in rows.values()} == {4}
    assert rows["record_auc"].low < norm.cdf(1 / math.sqrt(2)) < rows["record_auc"].high
    assert 0 < rows["record_tpr_at_1pct_fpr"].low < norm.cdf(norm.ppf(0.01) + 1) < rows["record_tpr_at_1pct_fpr"].high
    assert np.isnan(rows["record_tpr_at_0p1pct_fpr"].value)  # fewer than 10,000 records
