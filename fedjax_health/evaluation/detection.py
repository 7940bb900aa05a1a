"""How well an intrusion detector finds attack traffic, at the false-positive rate its operator allows."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import f1_score, roc_curve

from fedjax_health.data.schema import Schema
from fedjax_health.evaluation.rows import Figures
from fedjax_health.evaluation.utility import NAN, positive_score, ranking_figures, ratio
from fedjax_health.types import UserError


def rate_at_fpr(positive: np.ndarray, p: np.ndarray, max_fpr: float) -> float:
    """Largest true-positive rate of any threshold whose false-positive rate is at most `max_fpr` (not interpolated).

    Args:
      positive: bool[M].
      p: f64[M], higher = more likely positive.
      max_fpr: largest false-positive rate, in [0, 1].

    Returns:
      In [0, 1]; NaN where a class is absent or a score is not finite.
    """
    if len(np.unique(positive)) < 2 or not np.isfinite(p).all():
        return NAN
    fpr, tpr, _ = roc_curve(positive, p, drop_intermediate=False)
    return float(tpr[fpr <= max_fpr + 1e-12].max())


def detection_threshold(label: np.ndarray, score: np.ndarray, max_fpr: float) -> float:
    """The lowest alarm threshold with at most `max_fpr` false alarms among benign validation records.

    Args:
      label: i32[M], validation labels; class 0 is benign.
      score: f64[M, L], class probabilities.
      max_fpr: allowed share of benign records that raise an alarm (1 - p(class 0) >= threshold), in [0, 1).

    Returns:
      Threshold strictly above the first benign score that may not be flagged, so tied benign scores stay below it all
      together; half-way to the next higher score of any record. 0.5 without benign records or with scores that are not
      finite, since nothing can then be chosen.

    Raises:
      UserError: max_fpr outside [0, 1).
    """
    if not 0 <= max_fpr < 1:
        raise UserError(f"the allowed false-positive rate is {max_fpr}; give a share in [0, 1), such as 0.05")
    p = positive_score(score)
    benign = np.sort(p[np.asarray(label) == 0])[::-1]
    if not len(benign) or not np.isfinite(p).all():
        return 0.5
    edge = benign[int(np.floor(max_fpr * len(benign) + 1e-9))]
    above = p[p > edge]
    middle = (edge + above.min()) / 2 if len(above) else edge
    return float(max(middle, np.nextafter(edge, np.inf)))


def detection_figures(row: str, schema: Schema, label: np.ndarray, score: np.ndarray, threshold: float) -> Figures:
    """Detection on held-out devices or time blocks; an alarm is 1 - p(class 0) >= threshold.

    Args:
      row: "real", "synthetic", "real+synthetic" or an augmentation it is compared with.
      schema: its label categories name the attack types.
      label: i32[M], true classes, 0 = benign.
      score: f64[M, L], class probabilities.
      threshold: chosen on validation records (`detection_threshold`), never here.

    Returns:
      detection_rate (share of attack records that raise an alarm), false_positive_rate (of benign ones),
      detection_at_1pct_fpr (at the best threshold with FPR <= 1 % on these records), pr_auc, auroc, macro_f1 (most
      probable class; mean over the classes that occur), and detection_rate[<type>] for each attack type. NaN where the
      records it is a share of do not occur, and everywhere for scores that are not finite.
    """
    label, p = np.asarray(label), positive_score(score)
    finite = bool(np.isfinite(p).all())
    positive = label != 0

    def alarm_rate(where: np.ndarray) -> float:
        return ratio(int(((p >= threshold) & where).sum()), int(where.sum())) if finite else NAN

    auroc, pr_auc = ranking_figures(positive, p)
    present = np.unique(label)
    macro = NAN
    if finite and len(label):
        macro = float(f1_score(label, np.argmax(score, 1), labels=present, average="macro", zero_division=0))  # pyright: ignore[reportArgumentType]
    figures = {
        "detection_rate": alarm_rate(positive),
        "false_positive_rate": alarm_rate(~positive),
        "detection_at_1pct_fpr": rate_at_fpr(positive, p, 0.01),
        "pr_auc": pr_auc,
        "auroc": auroc,
        "macro_f1": macro,
    }
    for c, name in enumerate(schema.label.categories[1:], start=1):
        figures[f"detection_rate[{name}]"] = alarm_rate(label == c)
    return {(row, metric): value for metric, value in figures.items()}
