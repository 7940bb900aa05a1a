"""How alike pairs of columns go together: correlations of numbers, joint shares of categories, and of both."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from fedjax_health.data.schema import Schema
from fedjax_health.types import Table

BINS = 10  # of a numeric column beside a category: deciles of the real one
NAN = float("nan")


def correlations(values: np.ndarray, method: str) -> np.ndarray:
    """Correlation of columns over the rows where both are present: Pearson's, or Spearman's of ranks for skewed columns.

    Args:
      values: f32 or f64[M, J], NaN = missing.
      method: "pearson" or "spearman".

    Returns:
      f64[J, J]; 0 where a column is constant or a pair has fewer than two rows (it then says nothing), 1 on the diagonal.
    """
    frame = pd.DataFrame(values.astype(np.float64))
    rho = np.nan_to_num(frame.corr(method=method, min_periods=2).to_numpy(copy=True))  # pyright: ignore[reportArgumentType]
    np.fill_diagonal(rho, 1.0)
    return rho


def correlation_similarity(real: np.ndarray, synthetic: np.ndarray, method: str = "pearson") -> float:
    """Mean over pairs of columns of 1 - |ρ_S - ρ_R| / 2, as SDMetrics has it. Optimistic: an error of 0.4 in ρ scores 0.8.

    Args:
      real, synthetic: f32 or f64[n, J], f32 or f64[m, J], NaN = missing.
      method: of `correlations`.

    Returns:
      In [0, 1]; NaN with fewer than two columns.

    Source: SDMetrics, CorrelationSimilarity (which refuses constant columns; here their correlation is 0).
    """
    upper = np.triu_indices(real.shape[1], 1)
    if not len(upper[0]):
        return NAN
    error = np.abs(correlations(real, method) - correlations(synthetic, method))[upper]
    return float(np.mean(1 - error / 2))


def contingency_similarity(real: np.ndarray, synthetic: np.ndarray) -> float:
    """1 - ½ Σ_ab |p_R(a, b) - p_S(a, b)| of two columns of codes: how alike their joint shares are.

    Args:
      real, synthetic: i64[n, 2], i64[m, 2], codes >= 0; a missing value is a code of its own.

    Returns:
      In [0, 1], 1 for equal shares; at most the smaller of the two columns' TV complements. NaN where a side has no rows.

    Source: SDMetrics, ContingencySimilarity.
    """
    if not (len(real) and len(synthetic)):
        return NAN
    sizes = np.maximum(real.max(0), synthetic.max(0)) + 1
    p, q = (np.bincount(v[:, 0] * sizes[1] + v[:, 1], minlength=int(sizes.prod())) / len(v) for v in (real, synthetic))
    return float(1 - np.abs(p - q).sum() / 2)


def _codes(real: Table, synthetic: Table, schema: Schema) -> list[tuple[bool, np.ndarray, np.ndarray]]:
    """Every column as codes from 1 on, 0 = missing, and whether it is of categories; numbers by real deciles, label last."""
    columns = []
    for j, column in enumerate(schema.inputs):
        r, s = (t.values[:, j].astype(np.float64) for t in (real, synthetic))
        if column.kind != "numeric":
            coded = [np.where(np.isnan(v), -1, v).astype(np.int64) + 1 for v in (r, s)]
        elif np.isnan(r).all():
            continue
        else:
            edges = np.unique(np.nanquantile(r, np.linspace(0, 1, BINS + 1)[1:-1]))
            coded = [np.where(np.isnan(v), 0, np.searchsorted(edges, v, side="right") + 1) for v in (r, s)]
        columns.append((column.kind != "numeric", *coded))
    columns.append((True, real.label.astype(np.int64) + 1, synthetic.label.astype(np.int64) + 1))
    return columns


def contingency_similarities(real: Table, synthetic: Table, schema: Schema) -> np.ndarray:
    """`contingency_similarity` of every pair of columns that has a category or the label in it; missing is a category.

    Args:
      real, synthetic: records.
      schema: their columns; a number goes in by the decile of the real column that it is in.

    Returns:
      f64[pairs], in [0, 1]; at least one, unless the real table lacks every value of every column.
    """
    columns = _codes(real, synthetic, schema)
    pairs = [(a, b) for a, b in itertools.combinations(columns, 2) if a[0] or b[0]]
    return np.array([contingency_similarity(np.stack([a[1], b[1]], 1), np.stack([a[2], b[2]], 1)) for a, b in pairs])
