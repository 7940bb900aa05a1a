"""Small tidy tables behind the report's figures: densities, correlations, ROC curves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.metrics import roc_curve

from fedjax_health.data.schema import Column, Schema
from fedjax_health.evaluation.pairs import correlations
from fedjax_health.types import Table

BINS = 40
ROC_POINTS = 200


class CurveBin(NamedTuple):
    """One bar: `density` is the share of the model's present values per unit of the column, over [left, right).

    A category has left = right = its index, and `density` is its share.
    """

    domain: str
    model: str
    feature: str
    left: float
    right: float
    density: float


def shared_edges(column: Column, real: np.ndarray) -> np.ndarray:
    """Bin edges that all tables of a numeric feature share.

    Args:
      column: the feature.
      real: f64[n], present real values, not empty.

    Returns:
      f64[bins + 1]: 40 bins over the 0.5-99.5 % range of the real values; fewer, and whole steps wide, where the column
      has a published resolution, so that no bin is empty by arithmetic.
    """
    low, high = np.quantile(real, [0.005, 0.995])
    if column.decimals is None:
        return np.linspace(low, high, BINS + 1) if high > low else np.array([low - 0.5, low + 0.5])
    step = 10.0**-column.decimals
    first, last = round(low / step), round(high / step)
    width = max(1, -(-(last - first + 1) // BINS))
    bins = -(-(last - first + 1) // width)
    return (first - 0.5 + width * np.arange(bins + 1)) * step


def distribution_curves(real: Table, synthetic: dict[str, Table], schema: Schema) -> list[CurveBin]:
    """Histograms of every feature for the real table (model "real") and every synthetic one, on shared bins.

    Args:
      real: real records.
      synthetic: model -> its records.
      schema: their columns.

    Returns:
      One `CurveBin` a feature, model and bin or category. Shares are of all present values, so mass outside the bins is
      missing from the bars. Features without real values, and models without values of a feature, are left out.
    """
    bins = []
    for j, column in enumerate(schema.inputs):
        present = {m: t.values[:, j].astype(np.float64) for m, t in {"real": real, **synthetic}.items()}
        present = {m: v[~np.isnan(v)] for m, v in present.items()}
        if not len(present["real"]):
            continue
        if column.kind == "numeric":
            edges = shared_edges(column, present["real"])
            left, right, width = edges[:-1], edges[1:], np.diff(edges)
        else:
            edges = np.arange(len(column.categories) + 1) - 0.5
            left = right = np.arange(len(column.categories))
            width = np.ones(len(column.categories))
        for model, values in present.items():
            if len(values):
                density = np.histogram(values, edges)[0] / len(values) / width
                for a, b, height in zip(left, right, density, strict=True):
                    bins.append(CurveBin(schema.name, model, column.name, float(a), float(b), float(height)))
    return bins


def correlation_cells(table: Table, schema: Schema) -> list[tuple[str, str, float]]:
    """Cells (feature_a, feature_b, Spearman ρ) of the correlation matrix of the numeric columns, both halves.

    Args:
      table: records in physical units.
      schema: their columns.
    """
    numeric = [j for j, c in enumerate(schema.inputs) if c.kind == "numeric"]
    names = [schema.inputs[j].name for j in numeric]
    if not names:
        return []
    rho = correlations(table.values[:, numeric], "spearman")
    return [(a, b, float(rho[i, k])) for i, a in enumerate(names) for k, b in enumerate(names)]


def roc_points(member: np.ndarray, nonmember: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ROC curve of a membership attack in at most 200 points, dense at low false-positive rates.

    Args:
      member, nonmember: f64[n1], f64[n0], higher = member.

    Returns:
      (fpr, tpr), both f64[<= 200], ascending from (0, 0) to (1, 1), points of the exact curve; evenly spaced in log FPR
      from 1/n0 and in FPR. Empty arrays where a side is empty or a score is not finite.
    """
    scores = np.concatenate([member, nonmember]).astype(np.float64)
    if not (len(member) and len(nonmember) and np.isfinite(scores).all()):
        return np.empty(0), np.empty(0)
    fpr, tpr, _ = roc_curve(np.repeat([1, 0], [len(member), len(nonmember)]), scores)
    if len(fpr) > ROC_POINTS:
        half = (ROC_POINTS - 2) // 2
        wanted = np.concatenate([np.geomspace(1 / len(nonmember), 1, half), np.linspace(0, 1, half)])
        # The last point at or below each wanted rate: the curve's own best there, never interpolated.
        keep = np.unique([0, len(fpr) - 1, *(np.searchsorted(fpr, wanted, side="right") - 1)])
        fpr, tpr = fpr[keep], tpr[keep]
    return fpr, tpr
