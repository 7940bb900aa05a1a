"""Alarm thresholds keep their false-positive promise; rates per attack type; missing types."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_health.data.schema import Column, Schema
from fedjax_health.evaluation.detection import detection_figures, detection_threshold, rate_at_fpr
from fedjax_health.types import UserError

SCHEMA = Schema(
    "threats",
    (
        Column(name="bytes", low=0, high=1),
        Column(name="kind", kind="categorical", role="label", categories=("benign", "dos", "spoof")),
    ),
)


def three(p, kind) -> np.ndarray:
    p = np.asarray(p, np.float64)
    share = np.where(np.asarray(kind) == 2, 0.1, 0.9)
    return np.column_stack([1 - p, p * share, p * (1 - share)])


def test_hand_counted_figures():
    label = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    f = detection_figures("real", SCHEMA, label, three([0.1, 0.2, 0.3, 0.8, 0.9, 0.4, 0.7, 0.6], label), 0.5)
    f = {metric: value for (_, metric), value in f.items()}
    assert f["detection_rate"] == 0.75
    assert f["false_positive_rate"] == 0.25
    assert f["detection_rate[dos]"] == 0.5
    assert f["detection_rate[spoof]"] == 1.0
    assert f["detection_at_1pct_fpr"] == 0.25
    assert f["auroc"] == pytest.approx(13 / 16)
    # argmax: benign 3 of 4 right, one benign -> dos; dos at 0.4 -> benign: F1 = 6/8, 2/4, 4/4
    assert f["macro_f1"] == pytest.approx((0.75 + 0.5 + 1.0) / 3)


@pytest.mark.parametrize("max_fpr", [0.0, 0.01, 0.05, 0.5])
@pytest.mark.parametrize("digits", [1, 8])
def test_threshold_keeps_the_rate_and_is_the_lowest_that_does(max_fpr, digits):
    r = np.random.default_rng(0)
    label = r.integers(3, size=1000)
    p = np.round(np.clip(r.normal(0.4 + 0.2 * (label > 0), 0.15), 0, 1), digits)
    t = detection_threshold(label, three(p, label), max_fpr)
    score = 1 - three(p, label)[:, 0]
    benign = score[label == 0]
    assert np.mean(benign >= t) <= max_fpr
    below = benign[benign < t].max()
    assert np.mean(benign >= below) > max_fpr
    assert np.mean(score[label > 0] >= t) == pytest.approx(rate_at_fpr(label > 0, score, max_fpr))


def test_tied_benign_scores_are_all_kept_below():
    label, p = np.array([0] * 10 + [1]), np.array([0.5] * 10 + [0.9])
    assert 0.5 < detection_threshold(label, three(p, label), 0.05) <= 0.9
    assert detection_threshold(np.zeros(10, int), three(p[:10], label[:10]), 0.05) > 0.5


def test_rate_at_fpr_does_not_interpolate():
    positive, p = np.array([True, True, False, False]), np.array([4.0, 2.0, 3.0, 1.0])
    assert [rate_at_fpr(positive, p, f) for f in (0.0, 0.25, 0.49, 0.5)] == [0.5, 0.5, 0.5, 1.0]
    # ties: members and non-members that share a score cannot be told apart
    assert rate_at_fpr(positive, np.ones(4), 0.4) == 0.0


def test_missing_types_and_one_class_do_not_crash():
    label = np.array([0, 0, 1])
    f = detection_figures("r", SCHEMA, label, three([0.1, 0.2, 0.9], label), 0.5)
    assert np.isnan(f["r", "detection_rate[spoof]"])
    assert f["r", "macro_f1"] == 1.0
    f = detection_figures("r", SCHEMA, np.zeros(3, int), three([0.1, 0.2, 0.9], [0, 0, 0]), 0.5)
    assert f["r", "false_positive_rate"] == pytest.approx(1 / 3)
    assert np.isnan([f["r", "detection_rate"], f["r", "auroc"], f["r", "detection_at_1pct_fpr"]]).all()
    f = detection_figures("r", SCHEMA, label, np.full((3, 3), np.nan), 0.5)
    assert len(f) == 8
    assert np.isnan(list(f.values())).all()


def test_threshold_without_benign_records_and_bad_rates():
    label = np.array([1, 2])
    assert detection_threshold(label, three([0.4, 0.6], label), 0.05) == 0.5
    for bad in (1.0, -0.1, 5):
        with pytest.raises(UserError, match=str(bad)):
            detection_threshold(label, three([0.4, 0.6], label), bad)
