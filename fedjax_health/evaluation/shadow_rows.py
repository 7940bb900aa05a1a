"""Figures of attacks that compare shadow federations, with intervals that know that shadows share their targets."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fedjax_health.evaluation.membership import FPRS, RESOLVED, SUCCESS, membership_figures
from fedjax_health.evaluation.rows import mean_interval
from fedjax_health.evaluation.utility import NAN
from fedjax_health.types import Row

RESAMPLES = 200


def by_client(record: np.ndarray, client: np.ndarray) -> np.ndarray:
    """Mean over the records of each client: f64[S, R], i[R] -> f64[S, clients], in ascending order of ids.

    Args:
      record: a score of every record in every shadow.
      client: whose record it is.
    """
    _, index, count = np.unique(client, return_inverse=True, return_counts=True)
    sums = np.zeros((len(count), len(record)))
    np.add.at(sums, index, np.asarray(record, np.float64).T)
    return (sums / count[:, None]).T


class _Ranked(NamedTuple):
    """All scores from the highest: shadow i[n], column i[n], whether a member bool[n], score f64[n], ends of ties bool[n]."""

    shadow: np.ndarray
    column: np.ndarray
    inside: np.ndarray
    score: np.ndarray
    ends: np.ndarray

    def counts(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weighted members and others that a cut calls, f64[cuts] each; equal scores are called together."""
        return np.cumsum(weight * self.inside)[self.ends], np.cumsum(weight * ~self.inside)[self.ends]


def _rank(score: np.ndarray, member: np.ndarray) -> _Ranked:
    order = np.argsort(-score, axis=None, kind="stable")
    ranked = score.ravel()[order]
    ends = np.append(ranked[1:] != ranked[:-1], True)
    shadow, column = np.unravel_index(order, score.shape)
    return _Ranked(shadow, column, member.ravel()[order], ranked, ends)


def thresholds(score: np.ndarray, member: np.ndarray) -> np.ndarray:
    """For each shadow the threshold with the best balanced accuracy on all other shadows together, f64[S].

    Args:
      score: f64[S, M].
      member: bool[S, M].
    """
    ranked, cuts = _rank(score, member), []
    values = ranked.score[ranked.ends]
    for s in range(len(score)):
        caught, false = ranked.counts((ranked.shadow != s).astype(np.float64))
        gain = caught / max(caught[-1], 1.0) - false / max(false[-1], 1.0)
        best = int(np.argmax(np.round(gain, 12)))
        cuts.append((values[best] + values[min(best + 1, len(values) - 1)]) / 2)
    return np.array(cuts)


class Rates(NamedTuple):
    """True-positive rates: metric -> rate, and f64[resamples] of the same draws for the same generator's state."""

    value: dict[str, float]
    drawn: dict[str, np.ndarray]

    def interval(self, metric: str, level: float = 0.95) -> tuple[float, float, float]:
        """(rate, low, high) by percentiles of the resamples."""
        value, drawn = self.value[metric], self.drawn[metric]
        if np.isnan(value):
            return NAN, NAN, NAN
        low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
        return value, min(float(low), value), max(float(high), value)


def tpr_rates(score: np.ndarray, member: np.ndarray, cluster: np.ndarray, generator: np.random.Generator) -> Rates:
    """True-positive rates at one threshold for all shadows, whose scores are on one scale.

    Shadows and clients are resampled, both with replacement and independently, since the scores of one target in several
    shadows depend on each other, as do those of one shadow (the pigeonhole bootstrap, which errs to the wide side).

    Args:
      score: f64[S, M].
      member: bool[S, M].
      cluster: i[M], columns that are in or out together: the client of a record, the client itself.
      generator: of the resampling.

    Returns:
      Rates; NaN with fewer than 10 / FPR non-members, pooled.

    Source: Owen (2007), arXiv 0712.1111.
    """
    ranked = _rank(score, member)
    clusters, column = np.unique(cluster, return_inverse=True)
    mine = column[ranked.column]

    def rates(weight: np.ndarray) -> list[float]:
        caught, false = ranked.counts(weight)
        if not caught[-1] or not false[-1]:
            return [NAN] * len(FPRS)
        allowed = [np.searchsorted(false, f * false[-1] * (1 + 1e-12), side="right") - 1 for f in FPRS.values()]
        return [float(caught[i] / caught[-1]) if i >= 0 else 0.0 for i in allowed]

    def draw() -> np.ndarray:
        shadows, owners = (
            generator.multinomial(n, np.full(n, 1 / n)).astype(np.float64) for n in (len(score), len(clusters))
        )
        return shadows[ranked.shadow] * owners[mine]

    whole, few = rates(np.ones(score.size)), int((~member).sum())
    drawn = np.array([rates(draw()) for _ in range(RESAMPLES)])
    known = [f * few >= RESOLVED - 1e-9 for f in FPRS.values()]
    value = {metric: whole[i] if known[i] else NAN for i, metric in enumerate(FPRS)}
    return Rates(value, {metric: drawn[:, i] for i, metric in enumerate(FPRS)})


def shadow_rows(
    domain: str,
    model: str,
    row: str,
    score: np.ndarray,
    member: np.ndarray,
    cluster: np.ndarray,
    generator: np.random.Generator,
) -> list[Row]:
    """Rows of one attack, each shadow having been the target in turn.

    Args:
      domain, model, row: where the rows stand; `row` is the attack.
      score: f64[S, M], higher = called a member; shadow s was attacked by means of the others.
      member: bool[S, M].
      cluster: i[M], see `tpr_rates`.
      generator: of the intervals' resampling.

    Returns:
      auc, balanced_accuracy, success (%): mean over shadows with Student-t interval, n = S; a shadow's threshold is the best
      one on all others together. tpr_at_1pct_fpr, tpr_at_0p1pct_fpr: see `tpr_rates`, n = members pooled.
    """
    per_shadow = []
    for s, cut in enumerate(thresholds(score, member)):
        per_shadow.append(membership_figures(row, score[s][member[s]], score[s][~member[s]], cut))
    rows = []
    for metric in ("auc", "balanced_accuracy", SUCCESS):
        values = [figures[row, metric] for figures in per_shadow]
        rows.append(Row(domain, model, row, metric, *mean_interval(values), len(score)))
    rates = tpr_rates(score, member, cluster, generator)
    for metric in FPRS:
        rows.append(Row(domain, model, row, metric, *rates.interval(metric), int(member.sum())))
    return rows
