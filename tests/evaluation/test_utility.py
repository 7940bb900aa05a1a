"""Classification figures against scikit-learn and hand counts; thresholds; one-class and diverged inputs."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from fedjax_health.evaluation.utility import (
    balanced_threshold,
    choose_threshold,
    classification_figures,
    positive_score,
    ranking_figures,
)


def two(p) -> np.ndarray:
    p = np.asarray(p, np.float64)
    return np.column_stack([1 - p, p])


def test_matches_scikit_learn():
    r = np.random.default_rng(0)
    label = r.integers(3, size=500).astype(np.int32)
    score = r.dirichlet([1, 1, 1], 500) + 0.3 * np.eye(3)[label]
    score = (score / score.sum(1, keepdims=True)).astype(np.float32)
    p, y = 1 - score[:, 0].astype(np.float64), label != 0
    f = classification_figures("real", label, score, 0.6)
    hat = p >= 0.6
    expected = {
        "accuracy": metrics.accuracy_score(y, hat),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, hat),
        "precision": metrics.precision_score(y, hat),
        "recall": metrics.recall_score(y, hat),
        "f1": metrics.f1_score(y, hat),
        "auroc": metrics.roc_auc_score(y, p),
        "pr_auc": metrics.average_precision_score(y, p),
    }
    assert f == {("real", k): pytest.approx(v) for k, v in expected.items()}


def test_threshold_is_inclusive():
    f = classification_figures("r", np.array([0, 1]), two([0.25, 0.5]), 0.5)
    assert f["r", "accuracy"] == 1.0
    assert classification_figures("r", np.array([0, 1]), two([0.5, 0.5]), 0.5)["r", "precision"] == 0.5


@pytest.mark.parametrize("c", [0, 1])
def test_one_class_leaves_only_what_is_defined(c):
    f = {k[1]: v for k, v in classification_figures("r", np.full(4, c), two([0.1, 0.2, 0.8, 0.9]), 0.5).items()}
    assert f["accuracy"] == 0.5
    assert f["precision"] == (0.0 if c == 0 else 1.0)
    assert np.isnan([f["balanced_accuracy"], f["auroc"], f["pr_auc"]]).all()
    assert np.isnan(f["recall"]) == (c == 0)
    assert np.isnan(f["f1"]) == (c == 0)


def test_nobody_flagged_is_zero_precision_not_a_crash():
    f = classification_figures("r", np.array([0, 1, 1]), two([0.1, 0.2, 0.3]), 0.9)
    assert f["r", "precision"] == 0
    assert f["r", "f1"] == 0
    assert f["r", "recall"] == 0
    assert f["r", "auroc"] == 1


def test_diverged_or_empty_scores_are_undefined():
    label, score = np.array([0, 1]), two([0.2, np.nan])
    assert np.isnan(list(classification_figures("r", label, score, 0.5).values())).all()
    assert np.isnan(list(classification_figures("r", label[:0], score[:0], 0.5).values())).all()
    assert choose_threshold(label, score) == 0.5


def test_threshold_of_separable_scores_is_in_the_middle():
    assert choose_threshold(np.array([0, 0, 1, 2]), two([0.1, 0.2, 0.6, 0.9])) == pytest.approx(0.4)


def test_threshold_balances_classes_not_accuracy():
    # 90 healthy, of whom 20 score 0.4 as all 10 sick do: best accuracy flags nobody, best balance flags at 0.4.
    label = np.repeat([0, 0, 1], [70, 20, 10])
    t = choose_threshold(label, two(np.repeat([0.1, 0.4, 0.4], [70, 20, 10])))
    assert t == pytest.approx(0.25)


def test_equal_cuts_take_the_one_that_flags_fewest():
    # Flagging from 0.8 (TPR ½, FPR 0) and from 0.2 (TPR 1, FPR ½) are equally balanced.
    t = balanced_threshold(np.array([True, False, True, False]), np.array([0.8, 0.6, 0.2, 0.1]))
    assert t == pytest.approx(0.7)


def test_threshold_ties_and_order_do_not_matter():
    r = np.random.default_rng(1)
    label, p = r.integers(2, size=300), np.round(r.random(300), 1)
    order = r.permutation(300)
    t = choose_threshold(label, two(p))
    assert t == choose_threshold(label[order], two(p[order]))
    best = max(metrics.balanced_accuracy_score(label, p >= c) for c in np.unique(p))
    assert metrics.balanced_accuracy_score(label, p >= t) == pytest.approx(best)


def test_one_class_threshold_falls_back():
    assert choose_threshold(np.zeros(3, int), two([0.1, 0.2, 0.3])) == 0.5
    assert np.isnan(balanced_threshold(np.ones(3, bool), np.arange(3.0)))


def test_records_of_which_a_classifier_is_sure_are_still_ranked():
    p = np.array([1e-20, 1e-18, 1e-12])
    score = np.stack([1 - p, p / 4, 3 * p / 4], 1)
    np.testing.assert_allclose(positive_score(score), p)
    assert ranking_figures(np.array([False, True, True]), positive_score(score))[0] == 1.0
