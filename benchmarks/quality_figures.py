"""Figures of `benchmarks.quality`: one table against another, and means over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats

from fedjax_health.data.schema import Schema
from fedjax_health.evaluation.similarity import ROW, c2st_auc, similarity
from fedjax_health.types import Table

METRICS = ("ks_complement", "wasserstein_sd", "correlation_error_mean", "correlation_error_max")
MOST_ROWS = 2000  # of coverage
LEAST = 1e-3  # share of rows that are missing, and that are there, below which a column's indicator says nothing


def judge(real: Table, made: Table, schema: Schema, seed: int, means: Sequence[str] = ()) -> dict[str, float]:
    """Figures of one table against another; the classifier test sees all rows.

    Args:
      real, made: tables.
      schema: their columns.
      seed: of folds.
      means: columns whose TOST p (margin 0.2 SD, unit = client) is a figure too.

    Returns:
      KS complement, W1 in SD, correlation error (mean, max), coverage, C2ST AUC, label rate, tost_p[column]; where a column is
      nullable also `missing_figures`. What is not defined is NaN.
    """
    found = similarity(real, made, schema, np.random.default_rng(seed), max_rows=MOST_ROWS)
    rows = min(len(real.label), len(made.label))
    parts = [np.random.default_rng([seed, i]).permutation(len(t.label))[:rows] for i, t in enumerate((real, made))]
    cut = [Table(t.values[p], t.label[p], t.client[p]) for t, p in zip((real, made), parts, strict=True)]
    auc = c2st_auc(cut[0], cut[1], schema, np.random.default_rng(seed))
    label = float(np.mean(made.label != 0))
    shown = {m: found[ROW, m] for m in (*METRICS, "coverage")}
    shown |= {"c2st_auc": auc, "label_rate": label, **{f"tost_p[{name}]": found[name, "tost_p"] for name in means}}
    return shown | missing_figures(real, made, schema)


def missing_figures(real: Table, made: Table, schema: Schema) -> dict[str, float]:
    """How well gaps are kept: their rates, their correlation with one another, and with the values of other columns.

    r_jk = corr(1[x_j missing], 1[x_k missing]), q_jk = corr(1[x_j missing], x_k | x_k there), Pearson's; columns that are
    missing or there in less than 0.1 % of the real rows are left out, and a correlation with a constant is 0.

    Args:
      real, made: tables.
      schema: their columns.

    Returns:
      null_rate_difference_mean and _max, |made - real| over nullable columns; null_correlation_error_max, greatest
      |r_made - r_real|; null_value_correlation_error_max, greatest |q_made - q_real|. Empty where no column is nullable.
    """
    nullable = [j for j, c in enumerate(schema.inputs) if c.nullable]
    if not nullable:
        return {}
    gone = [np.isnan(t.values[:, nullable]) for t in (real, made)]
    rate = np.abs(gone[1].mean(0) - gone[0].mean(0))
    telling = [j for j, share in zip(nullable, gone[0].mean(0), strict=True) if LEAST <= share <= 1.0 - LEAST]
    numeric = [k for k, c in enumerate(schema.inputs) if c.kind == "numeric"]

    def correlations(table: Table) -> tuple[np.ndarray, np.ndarray]:
        marks = np.isnan(table.values[:, telling]).astype(np.float64)
        among = [_correlation(marks[:, a], marks[:, b]) for a in range(len(telling)) for b in range(a)]
        with_values = []
        for a, j in enumerate(telling):
            for k in numeric:
                there = ~np.isnan(table.values[:, k])
                if k != j:
                    with_values.append(_correlation(marks[there, a], table.values[there, k].astype(np.float64)))
        return np.asarray(among), np.asarray(with_values)

    (r, q), (r_made, q_made) = correlations(real), correlations(made)
    return {
        "null_rate_difference_mean": float(rate.mean()),
        "null_rate_difference_max": float(rate.max()),
        "null_correlation_error_max": float(np.abs(r_made - r).max()) if len(r) else math.nan,
        "null_value_correlation_error_max": float(np.abs(q_made - q).max()) if len(q) else math.nan,
    }


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation; 0 with a constant or without two rows."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def mean_of(name: str, values: Sequence[float], unit: str) -> dict[str, Any]:
    """One figure as a mean over seeds with its 95 % Student-t interval.

    Args:
      name: what was measured.
      values: one a seed.
      unit: of them.
    """
    mean, n = float(np.mean(values)), len(values)
    half = float(scipy.stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n)) if n > 1 else 0.0
    return {"name": name, "value": mean, "low": mean - half, "high": mean + half, "n": n, "unit": unit}


def results_of(found: Mapping[str, Mapping[str, Sequence[float]]]) -> list[dict[str, Any]]:
    """All figures as results; fit times of other programs as multiples of the VAE's in the same run.

    Args:
      found: row, such as "physionet2019/central/vae" -> figure -> one value a seed; those not always defined are
        left out.
    """
    made = []
    for row, figures in found.items():
        for metric, values in figures.items():
            if not np.isfinite(values).all():
                continue
            name = f"quality/{row}: {metric}"
            result = mean_of(name, values, "s" if "seconds" in metric else "figure")
            parent, own = row.rsplit("/", 1)
            ours = f"{parent}/vae"
            if metric == "fit_seconds" and own in ("ctgan", "tvae") and ours in found:
                base = float(np.mean(found[ours][metric]))
                result |= {"against": f"quality/{ours}: {metric}", "ratio": result["value"] / base}
            made.append(result)
    return made
