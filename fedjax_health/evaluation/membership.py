"""What a membership attack achieves, and the most that the claimed (ε, δ) lets any attack achieve."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.stats
from sklearn.metrics import roc_auc_score

from fedjax_health.evaluation.detection import rate_at_fpr
from fedjax_health.evaluation.rows import Figures, SeedRow, proportion_interval, seed_rows
from fedjax_health.evaluation.utility import NAN, balanced_threshold
from fedjax_health.types import Row

CEILING = "dp-ceiling"
SUCCESS = "success (%)"
FPRS = {"tpr_at_1pct_fpr": 0.01, "tpr_at_0p1pct_fpr": 0.001}
RECORD = "record_"  # before a metric: members are the records of clients that took part
RESOLVED = 10  # false positives that must be possible before a rate is read at an FPR


def client_scores(record_scores: np.ndarray, client: np.ndarray) -> np.ndarray:
    """Attack score of a client, the unit of privacy: the mean over its records.

    Args:
      record_scores: f64[M].
      client: i32[M].

    Returns:
      f64[number of clients], in ascending order of their ids.
    """
    _, index = np.unique(client, return_inverse=True)
    return np.bincount(index, weights=np.asarray(record_scores, np.float64)) / np.bincount(index)


def dp_tpr(epsilon: float, delta: float, fpr: float) -> float:
    """Largest true-positive rate of any test of (ε, δ)-DP: min(e^ε f + δ, 1 - e^{-ε} (1 - δ - f), 1).

    Args:
      epsilon: >= 0; may be infinite.
      delta: in [0, 1].
      fpr: f, in [0, 1].

    Source: Kairouz, Oh, Viswanath (2015), arXiv 1311.0776.
    """
    grow = math.exp(min(epsilon, 700.0))  # e^700 is near the largest double
    return min(grow * fpr + delta, 1 - (1 - delta - fpr) / grow, 1.0)


def dp_ceiling(epsilon: float, delta: float) -> Figures:
    """What no attack can exceed in expectation if the claim holds, under the same names as an attack's figures.

    The largest balanced accuracy is (e^ε + δ) / (e^ε + 1), the area is that under the trade-off curve of `dp_tpr`.
    Holds for the protected unit (a client added or removed, half of the targets members), and for every attack that
    sees no more than the mechanism released.

    Args:
      epsilon, delta: the claim.

    Returns:
      auc, balanced_accuracy, "success (%)", tpr_at_1pct_fpr, tpr_at_0p1pct_fpr under row "dp-ceiling".
    """
    grow = math.exp(min(epsilon, 700.0))
    balanced = (grow + delta) / (grow + 1)
    corner = 1 - balanced  # the curve is symmetric, so false positives = false negatives where both are least
    area = float(np.trapezoid([delta, 1 - corner, 1.0, 1.0], [0.0, corner, 1 - delta, 1.0]))
    figures = {"auc": area, "balanced_accuracy": balanced, SUCCESS: 100 * balanced}
    figures |= {metric: dp_tpr(epsilon, delta, f) for metric, f in FPRS.items()}
    return {(CEILING, metric): value for metric, value in figures.items()}


def _pair(member: np.ndarray, nonmember: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    is_member = np.repeat([True, False], [len(member), len(nonmember)])
    return is_member, np.concatenate([member, nonmember]).astype(np.float64)


def _usable(member: np.ndarray, nonmember: np.ndarray) -> bool:
    return bool(len(member) and len(nonmember) and np.isfinite(member).all() and np.isfinite(nonmember).all())


def _tpr_figures(member: np.ndarray, nonmember: np.ndarray) -> dict[str, float]:
    resolved = {metric: f * len(nonmember) >= RESOLVED - 1e-9 for metric, f in FPRS.items()}
    pair = _pair(member, nonmember)
    return {metric: rate_at_fpr(*pair, f) if resolved[metric] else NAN for metric, f in FPRS.items()}


def tpr_interval(
    member_scores: np.ndarray, nonmember_scores: np.ndarray, fpr: float, level: float = 0.95
) -> tuple[float, float]:
    """Interval of the true-positive rate at a false-positive rate whose threshold is itself an estimate.

    The threshold t with P(non-member > t) = f lies between two order statistics of the n0 non-members, since their number above
    it is Binomial(n0, f); the rate above either is Clopper-Pearson's of the n1 members. Both hold together with probability
    √level · √level, for members and non-members are independent samples.

    Args:
      member_scores: f64[n1], higher = called a member.
      nonmember_scores: f64[n0].
      fpr: f, in (0, 1).
      level: coverage, at least, where all n1 + n0 targets are independent of each other and scores have no ties.

    Returns:
      (low, high); (0, 1) without members. Where n0 is too small to bound the threshold, low is the rate above the largest
      non-member and high is 1.

    Source: David and Nagaraja (2003), Order Statistics, section 7.1; Clopper and Pearson (1934), Biometrika 26(4).
    """
    each = math.sqrt(level)
    n0, n1 = len(nonmember_scores), len(member_scores)
    tail = (1 - each) / 2
    # between `fewest` and `most` non-members lie above the true threshold, with probability `each` at least
    fewest, most = (int(scipy.stats.binom.ppf(q, n0, fpr)) for q in (tail, 1 - tail))
    falling = np.sort(np.asarray(nonmember_scores, np.float64))[::-1]
    strict, loose = falling[fewest] if n0 else np.inf, falling[most] if most < n0 else -np.inf
    low = proportion_interval(int(np.sum(member_scores > strict)), n1, each)[0]
    high = proportion_interval(int(np.sum(member_scores >= loose)), n1, each)[1]
    return low, high


def membership_figures(
    row: str,
    member_scores: np.ndarray,
    nonmember_scores: np.ndarray,
    threshold: float | None = None,
    epsilon: float | None = None,
    delta: float = 0.0,
) -> Figures:
    """Success of one attack on one federation; higher score = called a member.

    Args:
      row: the attack.
      member_scores: f64[n1], one a client (or record) that took part.
      nonmember_scores: f64[n0], one a client that could have, and did not.
      threshold: chosen on other federations; None = no balanced accuracy.
      epsilon, delta: the claim; with an ε the figures of `dp_ceiling` are added.

    Returns:
      auc; balanced_accuracy at the threshold, and "success (%)", the same in % (50 = guessing); tpr_at_1pct_fpr and
      tpr_at_0p1pct_fpr, NaN (not resolvable) with fewer than 10 / FPR non-members, that is 1,000 and 10,000. All NaN
      where a side is empty or a score is not finite.
    """
    member, nonmember = np.asarray(member_scores, np.float64), np.asarray(nonmember_scores, np.float64)
    figures = dict.fromkeys(("auc", "balanced_accuracy", SUCCESS, *FPRS), NAN)
    if _usable(member, nonmember):
        figures["auc"] = float(roc_auc_score(*_pair(member, nonmember)))
        if threshold is not None:
            balanced = (float(np.mean(member >= threshold)) + float(np.mean(nonmember < threshold))) / 2
            figures |= {"balanced_accuracy": balanced, SUCCESS: 100 * balanced}
        figures |= _tpr_figures(member, nonmember)
    named = {(row, metric): value for metric, value in figures.items()}
    return named if epsilon is None else named | dp_ceiling(epsilon, delta)


def _standardise(member: np.ndarray, nonmember: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, middle, high = np.quantile(nonmember, [0.25, 0.5, 0.75])
    scale = high - low if high > low else 1.0
    return (member - middle) / scale, (nonmember - middle) / scale


def membership_rows(
    domain: str, model: str, row: str, per_seed_scores: Sequence[tuple[np.ndarray, np.ndarray]]
) -> list[Row]:
    """Rows of one attack over the federations of several seeds.

    Args:
      domain, model, row: where the rows stand; `row` is the attack.
      per_seed_scores: for each seed (member f64[n1], non-member f64[n0]) scores.

    Returns:
      auc, balanced_accuracy, success (%): mean over seeds, Student-t interval, n = seeds; the threshold for a seed is
      the best one on all other seeds together, so with one seed the last two are NaN. tpr_at_1pct_fpr and
      tpr_at_0p1pct_fpr: every seed's scores are centred and scaled by the median and quartile range of its non-members,
      pooled, and cut at one threshold; interval of `tpr_interval`, n = members pooled; NaN below 1,000 and 10,000
      non-members. That interval counts every target as a trial of its own: where seeds share targets it is too narrow.
      All NaN where a seed has an empty side or a score that is not finite.
    """
    scores = [(np.asarray(m, np.float64), np.asarray(o, np.float64)) for m, o in per_seed_scores]
    usable = bool(scores) and all(_usable(*pair) for pair in scores)
    per_seed = []
    for s, (member, nonmember) in enumerate(scores):
        others = scores[:s] + scores[s + 1 :]
        threshold = None
        if usable and others:
            pooled = [np.concatenate(side) for side in zip(*others, strict=True)]
            threshold = balanced_threshold(*_pair(*pooled))
        per_seed.append(membership_figures(row, member, nonmember, threshold))
    rows = []
    for metric in ("auc", "balanced_accuracy", SUCCESS):
        values = [figures[row, metric] if usable else NAN for figures in per_seed] or [NAN]
        rows.append(SeedRow.of(domain, model, row, metric, values))
    n = sum(len(member) for member, _ in scores)
    sides = zip(*(_standardise(*pair) for pair in scores), strict=True) if usable else (np.zeros((1, 0)),) * 2
    member, nonmember = (np.concatenate(side) for side in sides)
    rates = _tpr_figures(member, nonmember) if usable else dict.fromkeys(FPRS, NAN)
    for metric, rate in rates.items():
        low, high = (NAN, NAN) if math.isnan(rate) else tpr_interval(member, nonmember, FPRS[metric])
        rows.append(Row(domain, model, row, metric, rate, low, high, n))
    return rows


def record_rows(
    domain: str, model: str, row: str, per_seed_scores: Sequence[tuple[np.ndarray, np.ndarray]]
) -> list[Row]:
    """The same attack record by record: what whoever holds one record of a client, not all, learns of its part.

    Args:
      domain, model, row: as in `membership_rows`.
      per_seed_scores: for each seed (member f64[m1], non-member f64[m0]) scores of single records.

    Returns:
      record_auc, record_tpr_at_1pct_fpr, record_tpr_at_0p1pct_fpr: mean over seeds with Student-t interval, n = seeds, since
      the records of one client are no trials of their own; rates are NaN below 1,000 and 10,000 records of non-members.
    """
    per_seed = []
    for scores in per_seed_scores:
        figures = membership_figures(row, *scores)
        per_seed.append({(row, RECORD + metric): figures[row, metric] for metric in ("auc", *FPRS)})
    return seed_rows(domain, model, per_seed)
