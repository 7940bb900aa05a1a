"""Whether a generator collapsed: the one rule, in four signs with a bound each.

A table has collapsed if any of these holds, and a generator if the table of any seed has:

* coverage: its coverage and its sample recall are both less than half of what the weaker mark has, real records of other
  clients or a Gaussian copula. Coverage alone also falls for a generator that strays from the records, as one does under much
  noise; its recall stays high, because its rows lie far apart and what is between them counts as reached;
* classes: it has no row of a class that the training records have and of which ten or more rows were to be expected;
* spread: a column's spread is less than a fifth of the real one, columns left out that hardly vary in the real table;
* duplicates: its rows repeat one another more often, by a tenth of all rows or more, than as many real ones do, which are
  as coarse (public resolution, few categories).

The bounds are far from what sampling does: three seeds of either mark stay clear of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fedjax_health.attacks.base import public_space
from fedjax_health.data.schema import Column, Schema
from fedjax_health.evaluation.manifold import NEIGHBOURS, reach
from fedjax_health.evaluation.rows import Figures, exact_row
from fedjax_health.evaluation.similarity import ROW
from fedjax_health.neighbours import ball_counts, nearest_others
from fedjax_health.types import Row, Table

MARK_SHARE = 0.5  # of the weaker mark's mean coverage, and of its mean sample recall
EXPECTED = 10  # rows (or clients) of a class: none would then come by chance once in 22,000 tables
SPREAD_SHARE = 0.2  # of the real spread
USUAL_SHARE = 0.95  # of the commonest value from which on a column hardly varies
MORE_DUPLICATES = 0.1  # of all rows
SIGNS = {  # in words for readers
    "coverage": "it reaches less than half of the real records that real records of other clients, or a Gaussian copula, reach",
    "classes": "a class of the label is missing",
    "spread": "a column has less than a fifth of its real spread",
    "duplicates": "its rows repeat one another more often than real ones do",
}
FIGURES = ("sample_recall", "lost_classes", "narrow_columns", "excess_duplicates")  # beside the coverage


def spread(column: Column, values: np.ndarray) -> float:
    """Spread of a column: numeric: standard deviation after `transform`; else √(1 - Σ p_c²), 0 where all are of one category.

    Args:
      column: its kind and transform.
      values: f32[M], in the unit or as codes; NaN = missing, left out.

    Returns:
      NaN where nothing is present.
    """
    present = values[~np.isnan(values)].astype(np.float64)
    if not len(present):
        return float("nan")
    if column.kind == "numeric":
        # of a heavy tail the plain one would tell how long the tail is
        return float(np.std(np.log1p(np.maximum(present, 0.0)) if column.transform == "log1p" else present))
    share = np.bincount(present.astype(np.int64)) / len(present)
    return float(np.sqrt(max(0.0, 1.0 - np.square(share).sum())))


def hardly_varies(values: np.ndarray) -> bool:
    """Whether one value makes up more than 95 % of what is present, so that a few rows may well hold no other."""
    present = values[~np.isnan(values)]
    return not len(present) or np.unique(present, return_counts=True)[1].max() > USUAL_SHARE * len(present)


def sample_recall(real: np.ndarray, synthetic: np.ndarray, k: int = NEIGHBOURS) -> float:
    """Share of real records within reach of the synthetic ones: 1/N Σ_i 1[min_j (d(R_i, S_j) - NND_k(S_j)) <= 0].

    NND_k(S_j) is the distance of a synthetic record to its k-th synthetic neighbour, so a generator whose rows lie close
    together reaches little, and one whose rows are scattered reaches much, right or wrong: of use only beside `coverage`.

    Args:
      real, synthetic: f64[n, D], f64[m, D], in a scaled space.
      k: neighbours.

    Returns:
      In [0, 1]; NaN with k or fewer synthetic records or without real ones.

    Source: Kynkäänniemi et al. (2019), arXiv 1904.06991.
    """
    if len(synthetic) <= k or not len(real):
        return float("nan")
    held, _ = ball_counts(real, synthetic, reach(nearest_others(synthetic, k)[0][:, -1]))
    return float(np.mean(held > 0))


def _share_by_class(table: Table, classes: int) -> tuple[np.ndarray, int]:
    """Share of a table's units that hold each class, f64[L], and how many units: clients, or rows where each is its own."""
    units, unit = np.unique(table.client, return_inverse=True)
    pairs = np.unique(np.stack([unit, table.label]), axis=1)
    return np.bincount(pairs[1], minlength=classes) / max(len(units), 1), len(units)


def lost_classes(trained: Table, synthetic: Table, classes: int) -> int:
    """Classes without a synthetic row of which at least ten were to be expected by their share of the training records.

    A second real table has whole clients, and then ten clients with that class must be expected.

    Args:
      trained: training records, at least one.
      synthetic: records to judge; generated ones have a running client index.
      classes: L.
    """
    _, units = _share_by_class(synthetic, classes)
    own = units == len(synthetic.label)
    share = (
        np.bincount(trained.label, minlength=classes) / len(trained.label)
        if own
        else _share_by_class(trained, classes)[0]
    )
    none = np.bincount(synthetic.label, minlength=classes) == 0
    return int((none & (share * units >= EXPECTED)).sum())


def duplicate_share(table: Table) -> float:
    """Share of rows that are equal to an earlier one, label included: 1 - different rows / rows.

    Args:
      table: M >= 1 records; missing values are equal to one another.
    """
    values = np.where(np.isnan(table.values), np.float32(np.inf), table.values)
    rows = np.column_stack([values, table.label.astype(np.float32)])
    return 1.0 - len(np.unique(rows, axis=0)) / len(rows)


def collapse_figures(real: Table, synthetic: Table, trained: Table, schema: Schema, max_rows: int) -> Figures:
    """What the signs of collapse are read from, beside the coverage.

    Args:
      real: held-out real records, at least one.
      synthetic: records to judge, at least one.
      trained: the records trained on.
      schema: their columns.
      max_rows: most rows a side for what compares row with row.

    Returns:
      Row "synthetic": sample_recall; lost_classes and narrow_columns (how many); excess_duplicates (share of rows, synthetic -
      real). The first and the last look at as many rows of both sides, since a larger table repeats itself more.
    """
    narrow = 0
    for j, column in enumerate(schema.inputs):
        before, after = real.values[:, j], synthetic.values[:, j]
        # a column that is missing throughout has no spread left, either
        narrow += not hardly_varies(before) and not spread(column, after) >= SPREAD_SHARE * spread(column, before)
    n = min(len(real.label), len(synthetic.label), max_rows)
    few = []
    for table in (real, synthetic):
        # evenly spaced, because rows of a client resemble one another and stand together
        rows = np.linspace(0, len(table.label) - 1, n).round().astype(np.int64)
        few.append(Table(table.values[rows], table.label[rows], table.client[rows]))
    return {
        (ROW, "sample_recall"): sample_recall(public_space(few[0], schema), public_space(few[1], schema)),
        (ROW, "lost_classes"): float(lost_classes(trained, synthetic, schema.num_classes)),
        (ROW, "narrow_columns"): float(narrow),
        (ROW, "excess_duplicates"): duplicate_share(few[1]) - duplicate_share(few[0]),
    }


def signs(figures: Figures, marks: Mapping[str, float]) -> dict[str, bool]:
    """Which signs of collapse the table of one seed shows.

    Args:
      figures: row "synthetic" of that seed: coverage and those of `FIGURES`.
      marks: mean coverage and sample_recall of the weaker mark.

    Returns:
      Name of the sign -> whether it holds; a figure that is not defined is no sign.
    """
    return {
        "coverage": all(figures[ROW, metric] < MARK_SHARE * mark for metric, mark in marks.items()),
        "classes": figures[ROW, "lost_classes"] > 0,
        "spread": figures[ROW, "narrow_columns"] > 0,
        "duplicates": figures[ROW, "excess_duplicates"] > MORE_DUPLICATES,
    }


def verdict_rows(
    domain: str, model: str, per_seed: Sequence[Figures], *marks: tuple[str, Sequence[Figures]]
) -> list[Row]:
    """The verdict on a generator.

    Args:
      domain, model: as in `Row`.
      per_seed: figures of its tables, one a seed.
      *marks: (row, figures one a seed) of what its coverage and recall are compared with.

    Returns:
      Row "synthetic": collapsed, 1 if any seed shows any sign, else 0; collapsed[<sign>], the same of one sign.
    """
    weaker = {
        metric: min(float(np.mean([figures[row, metric] for figures in seeds])) for row, seeds in marks)
        for metric in ("coverage", "sample_recall")
    }
    shown = [signs(figures, weaker) for figures in per_seed]
    found = {sign: any(seed[sign] for seed in shown) for sign in SIGNS}
    verdicts = {"collapsed": any(found.values()), **{f"collapsed[{sign}]": found[sign] for sign in SIGNS}}
    return [exact_row(domain, model, ROW, metric, float(value)) for metric, value in verdicts.items()]


def reasons(rows: Sequence[Row], domain: str, model: str) -> list[str]:
    """What signs of collapse a generator shows, in words; empty where it shows none or was not judged.

    Args:
      rows: of similarity.csv.
      domain, model: of the generator.
    """
    held = {r.metric for r in rows if (r.domain, r.model, r.row) == (domain, model, ROW) and r.value == 1.0}
    return [words for sign, words in SIGNS.items() if f"collapsed[{sign}]" in held]


def warnings(rows: Sequence[Row], domain: str, name: Callable[[str], str] = str) -> list[str]:
    """A sentence for each generator of a domain that collapsed.

    Args:
      rows: of similarity.csv.
      domain: of them.
      name: what to call a model.
    """
    models = dict.fromkeys(r.model for r in rows if r.domain == domain)
    found = {model: reasons(rows, domain, model) for model in models}
    return [
        f"{name(model)} on {domain} collapsed in at least one seed: {'; '.join(why)}. Do not use its records as they are."
        for model, why in found.items()
        if why
    ]
