"""How well a classifier trained on real or synthetic records diagnoses held-out clients."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from fedjax_health.evaluation.rows import Figures

NAN = float("nan")


def positive_score(score: np.ndarray) -> np.ndarray:
    """Probability of any positive class: sum of p(class c), c >= 1.

    Not 1 - p(class 0), in which all records of which a classifier is sure (p of 1e-8 and of 1e-12) would be tied.

    Args:
      score: f32 or f64[M, L], class probabilities.

    Returns:
      f64[M].
    """
    return np.asarray(score, np.float64)[:, 1:].sum(1)


def ranking_figures(positive: np.ndarray, p: np.ndarray) -> tuple[float, float]:
    """Area under the ROC curve, and average precision Σ_t (R_t - R_{t-1}) P_t, the area under precision-recall steps.

    Args:
      positive: bool[M].
      p: f64[M], higher = more likely positive.

    Returns:
      (auroc, pr_auc); NaN where a class is absent or a score is not finite.
    """
    if len(np.unique(positive)) < 2 or not np.isfinite(p).all():
        return NAN, NAN
    return float(roc_auc_score(positive, p)), float(average_precision_score(positive, p))


def balanced_threshold(positive: np.ndarray, p: np.ndarray) -> float:
    """The threshold t for which (TPR + TNR) / 2 of the rule p >= t is largest.

    Args:
      positive: bool[M].
      p: f64[M], finite.

    Returns:
      Middle between the best cut's lowest flagged score and the next lower one. Of equally good cuts the one that flags
      fewest. NaN where a class is absent.

    Source: Youden (1950), index J = TPR + TNR - 1.
    """
    if len(np.unique(positive)) < 2:
        return NAN
    fpr, tpr, cuts = roc_curve(positive, p, drop_intermediate=False)
    fpr, tpr, cuts = fpr[1:], tpr[1:], cuts[1:]  # the first cut, infinity, flags nobody
    # Rounded, because equal balanced accuracies differ in the last bit.
    best = int(np.argmax(np.round(tpr - fpr, 12)))
    return float(cuts[best] if best + 1 == len(cuts) else (cuts[best] + cuts[best + 1]) / 2)


def choose_threshold(label: np.ndarray, score: np.ndarray) -> float:
    """Operating point of the diagnosis table: the best balanced accuracy on validation clients.

    Balanced, because the positive share differs between real and synthetic training sets, and accuracy would reward
    calling everyone healthy.

    Args:
      label: i32[M], validation labels.
      score: f64[M, L], class probabilities.

    Returns:
      Threshold for 1 - p(class 0), as `balanced_threshold` chooses it; 0.5 where a class is absent or a score is not
      finite, since nothing can then be chosen.
    """
    p = positive_score(score)
    if len(np.unique(label != 0)) < 2 or not np.isfinite(p).all():
        return 0.5
    return balanced_threshold(label != 0, p)


def ratio(part: float, whole: float, empty: float = NAN) -> float:
    """part / whole, or `empty` where whole is 0."""
    return float(part / whole) if whole else empty


def classification_figures(row: str, label: np.ndarray, score: np.ndarray, threshold: float) -> Figures:
    """Diagnosis on held-out clients; positive = any class but 0, flagged where 1 - p(class 0) >= threshold.

    Args:
      row: "real", "synthetic", "real+synthetic" or a floor.
      label: i32[M], true classes.
      score: f64[M, L], class probabilities.
      threshold: chosen on validation clients, never here.

    Returns:
      accuracy, balanced_accuracy, precision, recall, f1, auroc, pr_auc under `row`. precision is 0 where nobody is
      flagged. What a missing class leaves undefined is NaN (recall and f1 without positives, balanced_accuracy, auroc
      and pr_auc without either); all are NaN for scores that are not finite (a classifier that diverged).
    """
    names = ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "auroc", "pr_auc")
    p, positive = positive_score(score), np.asarray(label) != 0
    if not len(p) or not np.isfinite(p).all():
        return {(row, name): NAN for name in names}
    flagged = p >= threshold
    hits, positives, negatives = int((flagged & positive).sum()), int(positive.sum()), int((~positive).sum())
    recall, specificity = ratio(hits, positives), ratio(int((~flagged & ~positive).sum()), negatives)
    figures = (
        float(np.mean(flagged == positive)),
        (recall + specificity) / 2,
        ratio(hits, int(flagged.sum()), 0.0),
        recall,
        ratio(2 * hits, positives + int(flagged.sum())) if positives else NAN,
        *ranking_figures(positive, p),
    )
    return {(row, name): value for name, value in zip(names, figures, strict=True)}
