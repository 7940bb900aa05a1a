"""How well an intrusion detector finds attack traffic, at the false-positive rate its operator allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from sklearn.metrics import f1_score, roc_curve

from fedjax_health.data.schema import Schema
from fedjax_health.evaluation.rows import Figures
from fedjax_health.evaluation.utility import NAN, positive_score, ranking_figures, ratio
from fedjax_health.types import UserError

ENOUGH = 10  # benign records that must be allowed to raise an alarm before a rate is read


class Curve(NamedTuple):
    """Every threshold's false- and true-positive rate, f64[T] each, never interpolated; NaN where they are not defined."""

    fpr: np.ndarray
    tpr: np.ndarray

    def rate_at(self, max_fpr: float) -> float:
        """Largest true-positive rate of any threshold whose false-positive rate is at most `max_fpr`, or NaN."""
        return NAN if np.isnan(self.fpr[0]) else float(self.tpr[self.fpr <= max_fpr + 1e-12].max())

    def fpr_at(self, rate: float) -> float:
        """Least false-positive rate of any threshold that finds at least a share `rate` of the positives, or NaN."""
        return NAN if np.isnan(self.fpr[0]) else float(self.fpr[self.tpr >= rate - 1e-12].min())


def roc(positive: np.ndarray, p: np.ndarray) -> Curve:
    """The curve that rates are read from.

    Args:
      positive: bool[M].
      p: f64[M], higher = more likely positive.

    Returns:
      NaN where a class is absent or a score is not finite.
    """
    if len(np.unique(positive)) < 2 or not np.isfinite(p).all():
        return Curve(np.full(1, NAN), np.full(1, NAN))
    fpr, tpr, _ = roc_curve(positive, p, drop_intermediate=False)
    return Curve(fpr, tpr)


def rate_at_fpr(positive: np.ndarray, p: np.ndarray, max_fpr: float) -> float:
    """Largest true-positive rate of any threshold whose false-positive rate is at most `max_fpr` (not interpolated).

    Args:
      positive: bool[M].
      p: f64[M], higher = more likely positive.
      max_fpr: largest false-positive rate, in [0, 1].

    Returns:
      In [0, 1]; NaN where a class is absent or a score is not finite.
    """
    return roc(positive, p).rate_at(max_fpr)


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


def detection_figures(
    row: str,
    schema: Schema,
    label: np.ndarray,
    score: np.ndarray,
    threshold: float,
    groups: Mapping[str, np.ndarray] | None = None,
) -> Figures:
    """Detection on held-out devices or time blocks; an alarm is 1 - p(class 0) >= threshold.

    Args:
      row: "real", "synthetic", "real+synthetic" or an augmentation it is compared with.
      schema: its label categories name the attack types.
      label: i32[M], true classes, 0 = benign.
      score: f64[M, L], class probabilities; f64[M, 2] of a detector that names no types, (1 - alarm, alarm), whose alarm need
        not be a probability.
      threshold: chosen on validation records (`detection_threshold`), never here.
      groups: name -> bool[M], test records that are reported apart.

    Returns:
      detection_rate (share of attack records that raise an alarm), false_positive_rate (of benign ones), accuracy (of alarm
      or none), detection_at_1pct_fpr and detection_at_0p1pct_fpr (at the best threshold with such an FPR on these records; the
      latter NaN with fewer than 10,000 benign ones), fpr_at_95pct_detection, pr_auc, auroc, macro_f1 (most probable class; mean
      over the classes that occur; NaN where no types are named), detection_rate[<type>] for each attack type, and for each
      group detection_rate, false_positive_rate, accuracy, detection_at_1pct_fpr and auroc as "<metric>[<group>]". NaN where the
      records it is a share of do not occur, and everywhere for scores that are not finite.
    """
    label, p = np.asarray(label), positive_score(score)
    finite = bool(np.isfinite(p).all())
    positive = label != 0

    def rate(what: np.ndarray, where: np.ndarray) -> float:
        return ratio(int((what & where).sum()), int(where.sum())) if finite else NAN

    every, alarm = np.ones(len(p), bool), p >= threshold
    right = alarm == positive
    auroc, pr_auc = ranking_figures(positive, p)
    curve = roc(positive, p)
    resolved = np.count_nonzero(~positive) >= ENOUGH / 0.001
    figures = {
        "detection_rate": rate(alarm, positive),
        "false_positive_rate": rate(alarm, ~positive),
        "accuracy": rate(right, every),
        "detection_at_1pct_fpr": curve.rate_at(0.01),
        "detection_at_0p1pct_fpr": curve.rate_at(0.001) if resolved else NAN,
        "fpr_at_95pct_detection": curve.fpr_at(0.95),
        "pr_auc": pr_auc,
        "auroc": auroc,
        "macro_f1": _macro_f1(label, score) if finite and score.shape[1] == schema.num_classes else NAN,
    }
    for c, name in enumerate(schema.label.categories[1:], start=1):
        figures[f"detection_rate[{name}]"] = rate(alarm, label == c)
    for name, some in (groups or {}).items():
        figures[f"detection_rate[{name}]"] = rate(alarm, positive & some)
        figures[f"false_positive_rate[{name}]"] = rate(alarm, ~positive & some)
        figures[f"accuracy[{name}]"] = rate(right, some)
        figures[f"detection_at_1pct_fpr[{name}]"] = rate_at_fpr(positive[some], p[some], 0.01)
        figures[f"auroc[{name}]"] = ranking_figures(positive[some], p[some])[0]
    return {(row, metric): value for metric, value in figures.items()}


def _macro_f1(label: np.ndarray, score: np.ndarray) -> float:
    if not len(label):
        return NAN
    found = f1_score(label, np.argmax(score, 1), labels=np.unique(label), average="macro", zero_division=0)  # pyright: ignore[reportArgumentType]
    return float(found)  # pyright: ignore[reportArgumentType]
