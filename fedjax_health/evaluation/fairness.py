"""Whether the subgroups of patients are served, and represented, alike."""

from __future__ import annotations

from collections.abc import Container, Sequence

import numpy as np

from fedjax_health.data.schema import Column, Schema
from fedjax_health.evaluation.rows import Figures, exact_row
from fedjax_health.evaluation.utility import NAN, positive_score, ranking_figures, ratio
from fedjax_health.types import Row, Table

BANDS = 4
FEWEST_CLIENTS = 20  # of a subgroup on which a rate is judged
FEWEST_RECORDS = 10  # of either class in it
GAPS = ("accuracy_gap", "auroc_gap", "equalised_odds_difference")


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


def subgroup_sizes(table: Table, schema: Schema) -> dict[str, tuple[int, int, int]]:
    """(clients, positive records, negative records) of every subgroup, by its name "<column>=<category>".

    Args:
      table: records; of a synthetic one every record is a client of its own.
      schema: its group columns.
    """
    sizes = {}
    for column in schema.groups:
        for name, members in subgroups(column, table.values[:, schema.index(column.name)]).items():
            positive = int((members & (table.label != 0)).sum())
            clients = len(np.unique(table.client[members]))
            sizes[f"{column.name}={name}"] = (clients, positive, int(members.sum()) - positive)
    return sizes


def small_groups(table: Table, schema: Schema) -> list[str]:
    """Subgroups too small to be judged: fewer than 20 clients, or fewer than 10 records of either class, among test records.

    Args:
      table: test records.
      schema: its group columns.
    """
    return [
        name
        for name, (clients, *records) in subgroup_sizes(table, schema).items()
        if clients < FEWEST_CLIENTS or min(records) < FEWEST_RECORDS
    ]


def size_rows(domain: str, table: Table, schema: Schema) -> list[Row]:
    """How large the subgroups of the test records are, and which are too small: figures that are known, not estimated.

    Args:
      domain: as in `Row`.
      table: test records.
      schema: its group columns.

    Returns:
      Row "real": clients, records and too_small (1 or 0) [<column>=<category>].
    """
    small, rows = small_groups(table, schema), []
    for name, (clients, *records) in subgroup_sizes(table, schema).items():
        found = {"clients": clients, "records": sum(records), "too_small": name in small}
        rows += [exact_row(domain, "-", "real", f"{m}[{name}]", float(value)) for m, value in found.items()]
    return rows


def small_sentences(rows: Sequence[Row], domain: str) -> list[str]:
    """A sentence that names the subgroups of a domain that are too small to be judged; none where all are large enough.

    Args:
      rows: of fairness.csv.
      domain: of them.
    """
    prefix = "too_small["
    small = [
        r.metric.removeprefix(prefix)[:-1]
        for r in rows
        if r.domain == domain and r.metric.startswith(prefix) and r.value
    ]
    if not small:
        return []
    return [
        f"{domain}: too few test clients to judge {', '.join(small)} (fewer than {FEWEST_CLIENTS} clients, or than "
        f"{FEWEST_RECORDS} records of either class); gaps leave them out."
    ]


def _gap(values: list[float]) -> float:
    known = [v for v in values if not np.isnan(v)]
    return max(known) - min(known) if len(known) > 1 else NAN


def fairness_figures(
    row: str,
    schema: Schema,
    table: Table,
    label: np.ndarray,
    score: np.ndarray,
    threshold: float,
    small: Container[str] = (),
) -> Figures:
    """Accuracy, recall and AUROC of a diagnosis by subgroup, and the gaps between subgroups.

    accuracy_gap = max - min accuracy, auroc_gap likewise; equalised_odds_difference = max(max - min TPR, max - min FPR), over
    the subgroups of a column for which the rate is defined. Being largest less smallest, gaps are above 0 by chance alone;
    what training on synthetic records does to them is in `gap_changes`.

    Args:
      row: "real", "synthetic" or "real+synthetic", what the classifier was trained on.
      schema: its group columns are reported.
      table: the M test records, for their group columns.
      label: i32[M], true classes, positive = any but 0.
      score: f64[M, L], class probabilities.
      threshold: for 1 - p(class 0), chosen on validation clients.
      small: subgroups "<column>=<category>" that gaps leave out (`small_groups`).

    Returns:
      share, accuracy, recall and auroc [<column>=<category>]; those of `GAPS` [<column>]. NaN for an empty subgroup, for
      recall without positives, AUROC without either class, for a gap with fewer than two defined rates, and for scores
      that are not finite. Empty without group columns.

    Source: Hardt, Price, Srebro (2016), arXiv 1610.02413.
    """
    p, positive = positive_score(score), np.asarray(label) != 0
    known = bool(np.isfinite(p).all())
    flagged = p >= threshold
    figures: Figures = {}
    for column in schema.groups:
        accuracy, area, tpr, fpr = [], [], [], []
        for name, members in subgroups(column, table.values[:, schema.index(column.name)]).items():

            def rate(hit: np.ndarray, of: np.ndarray) -> float:
                return ratio(int((hit & of).sum()), int(of.sum())) if known else NAN

            group = f"{column.name}={name}"
            right, recall = rate(flagged == positive, members), rate(flagged, members & positive)
            auroc = ranking_figures(positive[members], p[members])[0]
            figures[row, f"share[{group}]"] = ratio(int(members.sum()), len(members))
            figures[row, f"accuracy[{group}]"] = right
            figures[row, f"recall[{group}]"] = recall
            figures[row, f"auroc[{group}]"] = auroc
            if group not in small:
                accuracy.append(right)
                area.append(auroc)
                tpr.append(recall)
                fpr.append(rate(flagged, members & ~positive))
        figures[row, f"accuracy_gap[{column.name}]"] = _gap(accuracy)
        figures[row, f"auroc_gap[{column.name}]"] = _gap(area)
        gaps = [_gap(tpr), _gap(fpr)]
        figures[row, f"equalised_odds_difference[{column.name}]"] = NAN if np.isnan(gaps).any() else max(gaps)
    return figures


def gap_changes(row: str, mine: Figures, real: Figures) -> Figures:
    """What training on other records does to the gaps: gap - gap of the model trained on real ones, on the same test records.

    Above 0 the bias is amplified, at 0 carried over, below 0 smaller. Paired: a mean over seeds, or over draws of clients, has
    the interval of the differences.

    Args:
      row: such as "synthetic".
      mine: figures of `fairness_figures` under `row`.
      real: the same of row "real", of the same seed and records.

    Returns:
      <gap>_change [<column>] under `row`, for each of `GAPS`; NaN where either side is.
    """
    return {
        (row, f"{name}_change[{group}"): value - real["real", metric]
        for (_, metric), value in mine.items()
        for name, _, group in [metric.partition("[")]
        if name in GAPS and ("real", metric) in real
    }


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
