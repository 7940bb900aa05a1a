"""Whether the subgroups of patients are served, and represented, alike."""

from __future__ import annotations

import numpy as np

from fedjax_health.data.schema import Column, Schema
from fedjax_health.evaluation.rows import Figures
from fedjax_health.evaluation.utility import NAN, positive_score, ratio
from fedjax_health.types import Table

BANDS = 4


def subgroups(column: Column, values: np.ndarray) -> dict[str, np.ndarray]:
    """Members of each subgroup of one group column.

    Args:
      column: categorical, binary, or numeric (then cut into four equal bands of its public range).
      values: f32[M], coded as in `Table`.

    Returns:
      Name of the category or band -> bool[M]. Records with a missing value are in none.
    """
    if column.kind != "numeric":
        return {name: values == code for code, name in enumerate(column.categories)}
    assert column.low is not None
    assert column.high is not None
    edges = np.linspace(column.low, column.high, BANDS + 1)
    band = np.clip(np.searchsorted(edges, values.astype(np.float64), side="right") - 1, 0, BANDS - 1)
    names = [f"{edges[b]:g}..{edges[b + 1]:g}" for b in range(BANDS)]
    return {name: (band == b) & ~np.isnan(values) for b, name in enumerate(names)}


def _gap(values: list[float]) -> float:
    known = [v for v in values if not np.isnan(v)]
    return max(known) - min(known) if len(known) > 1 else NAN


def fairness_figures(
    row: str, schema: Schema, table: Table, label: np.ndarray, score: np.ndarray, threshold: float
) -> Figures:
    """Accuracy and recall of a diagnosis by subgroup, and the gaps between subgroups.

    accuracy_gap = max - min accuracy; equalised_odds_difference = max(max - min TPR, max - min FPR), both over the
    subgroups of a column for which the rate is defined. Gaps between small subgroups are partly noise; read them with
    the shares.

    Args:
      row: "real", "synthetic" or "real+synthetic", what the classifier was trained on.
      schema: its group columns are reported.
      table: the M test records, for their group columns.
      label: i32[M], true classes, positive = any but 0.
      score: f64[M, L], class probabilities.
      threshold: for 1 - p(class 0), chosen on validation clients.

    Returns:
      share, accuracy and recall [<column>=<category>]; accuracy_gap and equalised_odds_difference [<column>]. NaN for
      an empty subgroup, for recall without positives, for a gap with fewer than two defined rates, and for scores that
      are not finite. Empty without group columns.

    Source: Hardt, Price, Srebro (2016), arXiv 1610.02413.
    """
    p, positive = positive_score(score), np.asarray(label) != 0
    known = bool(np.isfinite(p).all())
    flagged = p >= threshold
    figures: Figures = {}
    for column in schema.groups:
        accuracy, tpr, fpr = [], [], []
        for name, members in subgroups(column, table.values[:, schema.index(column.name)]).items():

            def rate(hit: np.ndarray, of: np.ndarray) -> float:
                return ratio(int((hit & of).sum()), int(of.sum())) if known else NAN

            accuracy.append(rate(flagged == positive, members))
            tpr.append(rate(flagged, members & positive))
            fpr.append(rate(flagged, members & ~positive))
            figures[row, f"share[{column.name}={name}]"] = ratio(int(members.sum()), len(members))
            figures[row, f"accuracy[{column.name}={name}]"] = accuracy[-1]
            figures[row, f"recall[{column.name}={name}]"] = tpr[-1]
        figures[row, f"accuracy_gap[{column.name}]"] = _gap(accuracy)
        gaps = [_gap(tpr), _gap(fpr)]
        figures[row, f"equalised_odds_difference[{column.name}]"] = NAN if np.isnan(gaps).any() else max(gaps)
    return figures


def subgroup_shift(real: Table, synthetic: Table, schema: Schema) -> Figures:
    """Change of each subgroup's share of records: synthetic - real, so below 0 for a group that the generator drops.

    Args:
      real, synthetic: records in physical units.
      schema: its group columns are reported.

    Returns:
      share_difference[<column>=<category>] under row "synthetic"; NaN where a table has no rows.
    """
    figures: Figures = {}
    for column in schema.groups:
        j = schema.index(column.name)
        before, after = (subgroups(column, t.values[:, j]) for t in (real, synthetic))
        for name in before:
            share = [ratio(int(m.sum()), len(m)) for m in (before[name], after[name])]
            figures["synthetic", f"share_difference[{column.name}={name}]"] = share[1] - share[0]
    return figures
