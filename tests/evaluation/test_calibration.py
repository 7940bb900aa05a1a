"""Calibration of probabilities that are right, too extreme, too low, constant, or of one class."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from fedjax_health.evaluation.calibration import FIGURES, calibration_error, calibration_figures, calibration_line

M = 20_000


@pytest.fixture(scope="module")
def right():
    r = np.random.default_rng(0)
    p = expit(r.normal(-1, 1.5, M))
    return p, r.random(M) < p


def test_probabilities_that_are_right(right):
    p, positive = right
    assert calibration_error(positive, p) < 0.02
    slope, intercept = calibration_line(positive, p)
    assert slope == pytest.approx(1, abs=0.06) and intercept == pytest.approx(0, abs=0.06)


@pytest.mark.parametrize(("factor", "shift"), [(2.0, 0.0), (0.5, 0.0), (1.0, -1.0)])
def test_slope_and_intercept_undo_what_was_done_to_the_log_odds(right, factor, shift):
    p, positive = right
    wrong = expit(factor * logit(p) + shift)
    slope, intercept = calibration_line(positive, wrong)
    assert slope == pytest.approx(1 / factor, rel=0.06)
    if factor == 1:
        assert intercept == pytest.approx(-shift, abs=0.06)
    assert calibration_error(positive, wrong) > 0.04


def test_the_slope_is_scikit_learns_and_undefined_where_classes_are_apart(right):
    p, positive = (values[:500] for values in right)
    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit(p)[:, None], positive)
    assert calibration_line(positive, p)[0] == pytest.approx(fitted.coef_[0, 0], abs=1e-5)
    assert np.isnan(calibration_line(p > 0.5, p)[0]) and np.isfinite(calibration_line(p > 0.5, p)[1])


def test_error_by_hand_and_ties_stay_together():
    p, positive = np.repeat([0.2, 0.9], 50), np.repeat([0, 1, 1], [40, 20, 40]).astype(bool)
    # ten bins of ten records would tear ties apart: two bins, |10/50 - .2| = 0 and |50/50 - .9| = .1, half the records each
    assert calibration_error(positive, p) == pytest.approx(0.05)
    order = np.random.default_rng(0).permutation(100)
    assert calibration_error(positive[order], p[order]) == pytest.approx(0.05)


def test_brier_by_hand_and_what_is_undefined():
    label, p = np.array([0, 1, 2, 0]), np.array([0.1, 0.6, 1.0, 0.7])
    score = np.column_stack([1 - p, p / 2, p / 2])
    f = calibration_figures("r", label, score)
    assert f["r", "brier"] == pytest.approx((0.01 + 0.16 + 0.49) / 4)
    assert {m for _, m in f} == set(FIGURES) and np.isfinite(list(f.values())).all()
    assert np.isnan(list(calibration_figures("r", label, score * np.nan).values())).all()
    one = calibration_figures("r", np.zeros(4, int), score)
    assert np.isnan(one["r", "calibration[slope]"]) and one["r", "ece"] > 0.5
    flat = calibration_line(np.array([True, False, False]), np.full(3, 0.5))
    assert np.isnan(flat[0]) and flat[1] == pytest.approx(logit(1 / 3))
