"""Alarm thresholds keep their false-positive promise; rates per attack type; missing types."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_health.data.schema import Column, Schema
from fedjax_health.evaluation.detection import detection_figures, detection_threshold, rate_at_fpr, roc
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
    assert f["accuracy"] == 0.75
    assert f["fpr_at_95pct_detection"] == 0.25  # all four attacks are found from .4 on, and one benign record with them
    assert np.isnan(f["detection_at_0p1pct_fpr"])  # of four benign records


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
    assert len(f) == 11
    assert np.isnan(list(f.values())).all()


def test_threshold_without_benign_records_and_bad_rates():
    label = np.array([1, 2])
    assert detection_threshold(label, three([0.4, 0.6], label), 0.05) == 0.5
    for bad in (1.0, -0.1, 5):
        with pytest.raises(UserError, match=str(bad)):
            detection_threshold(label, three([0.4, 0.6], label), bad)


def test_a_rate_of_one_in_a_thousand_is_read_from_ten_thousand_benign_records_and_not_from_fewer():
    r = np.random.default_rng(0)
    for benign in (9_999, 10_000):
        label = np.repeat([0, 1], [benign, 500])
        p = np.clip(r.normal(0.3 + 0.3 * label, 0.1), 0, 1)
        f = detection_figures("r", SCHEMA, label, three(p, label), 0.5)["r", "detection_at_0p1pct_fpr"]
        if benign < 10_000:
            assert np.isnan(f)
        else:
            cut = np.sort(p[label == 0])[::-1][10]  # at most ten may be flagged
            assert f == np.mean(p[label == 1] > cut)


def test_least_false_alarms_at_a_detection_rate():
    positive, p = np.array([True] * 4 + [False] * 4), np.array([0.9, 0.8, 0.7, 0.1, 0.75, 0.3, 0.2, 0.05])
    curve = roc(positive, p)
    assert [curve.fpr_at(rate) for rate in (0.0, 0.5, 0.75, 0.76, 1.0)] == [0.0, 0.0, 0.25, 0.75, 0.75]
    assert np.isnan([roc(positive, p * np.nan).fpr_at(0.5), roc(positive[:4], p[:4]).rate_at(0.5)]).all()


def test_groups_are_judged_apart_at_the_same_threshold():
    label = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    p = three([0.1, 0.2, 0.3, 0.8, 0.9, 0.4, 0.7, 0.6], label)
    hard = np.array([False, False, True, True, False, True, True, False])
    f = detection_figures("r", SCHEMA, label, p, 0.5, {"hard": hard, "none": np.zeros(8, bool)})
    assert f["r", "detection_rate[hard]"] == 0.5 and f["r", "false_positive_rate[hard]"] == 0.5
    assert f["r", "accuracy[hard]"] == 0.5 and f["r", "auroc[hard]"] == 0.5
    assert f["r", "detection_at_1pct_fpr[hard]"] == 0.0
    assert f["r", "detection_rate"] == 0.75  # the whole is not changed by them
    assert np.isnan([f["r", f"{m}[none]"] for m in ("detection_rate", "accuracy", "auroc")]).all()


def test_a_detector_that_names_no_types_may_say_more_than_one_and_has_no_macro_f1():
    label = np.array([0, 0, 1, 2])
    surprise = np.array([-3.0, 10.0, 55.0, 7.0])
    f = detection_figures("a", SCHEMA, label, np.stack([1 - surprise, surprise], 1), 8.0)
    assert f["a", "detection_rate"] == 0.5 and f["a", "auroc"] == 0.75 and np.isnan(f["a", "macro_f1"])
