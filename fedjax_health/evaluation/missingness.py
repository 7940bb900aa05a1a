"""Whether synthetic records lack values together, and for the same patients, as real ones do."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fedjax_health.data.schema import Schema
from fedjax_health.types import Table

FEWEST = 2  # rows that a correlation needs


def _companions(table: Table, schema: Schema) -> tuple[np.ndarray, list[int]]:
    """What a missingness indicator may go with, f64[M, E], and which column each stands for (-1: the label).

    Numbers after their transform, categories one by one (of two, one), and the label as positive or not.
    """
    parts, owner = [(table.label != 0).astype(np.float64)], [-1]
    for j, column in enumerate(schema.inputs):
        values = table.values[:, j].astype(np.float64)
        if column.kind == "numeric":
            parts.append(np.log1p(np.maximum(values, 0.0)) if column.transform == "log1p" else values)
            owner.append(j)
            continue
        codes = range(1 if len(column.categories) == 2 else 0, len(column.categories))
        parts += [np.where(np.isnan(values), np.nan, values == code) for code in codes]
        owner += [j] * len(codes)
    return np.stack(parts, axis=1), owner


def _correlations(table: Table, schema: Schema, gaps: list[int]) -> np.ndarray:
    """Pearson correlations f64[pairs] in a fixed order, each over the rows where both are present; NaN where undefined."""
    beside, owner = _companions(table, schema)
    missing = np.isnan(table.values[:, gaps]).astype(np.float64)
    rho = pd.DataFrame(np.concatenate([missing, beside], axis=1)).corr(min_periods=FEWEST).to_numpy()
    n = len(gaps)
    pairs = rho[:n, :n][np.triu_indices(n, 1)]
    # where a column is present its own indicator is 0 throughout
    others = [rho[i, n + e] for i, j in enumerate(gaps) for e, at in enumerate(owner) if at != j]
    return np.concatenate([pairs, others])


def missing_correlation_errors(real: Table, synthetic: Table, schema: Schema) -> np.ndarray:
    """|Δ Pearson ρ| of which values are missing: |ρ_S - ρ_R| for each pair of an indicator 1[missing] and what it may go with.

    An indicator is paired with the indicators of other nullable columns, with the label (any class but 0), and with the values
    of other columns where they are observed (numbers after their `transform`, each category by itself).

    Args:
      real, synthetic: records, values in units, NaN = missing.
      schema: their columns; only nullable ones have an indicator, and of these only ones that are sometimes and not always
        missing in the real table.

    Returns:
      f64[pairs], each in [0, 2]; empty without such columns. A pair whose real correlation is undefined (one side constant
      where both are present) is left out; an undefined synthetic one counts as 0, since it then says nothing.
    """
    rate = np.isnan(real.values).mean(0)
    gaps = [j for j, column in enumerate(schema.inputs) if column.nullable and 0 < rate[j] < 1]
    if not gaps:
        return np.zeros(0)
    before, after = (_correlations(table, schema, gaps) for table in (real, synthetic))
    known = ~np.isnan(before)
    return np.abs(np.nan_to_num(after[known]) - before[known])
