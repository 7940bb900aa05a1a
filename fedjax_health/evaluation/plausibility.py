"""Records that cannot be, and rare ones that should be there: hard rules of the schema, and tails of numeric columns."""

from __future__ import annotations

import numpy as np

from fedjax_health.data.equations import broken_equations
from fedjax_health.data.schema import Schema
from fedjax_health.types import Table

TAIL = 0.01
NAN = float("nan")


def rule_violations(table: Table, schema: Schema) -> float:
    """Share of records that break a hard rule: a number outside its public range, above its `at_most`
    column, or off its equation by more than rounding (see `data.equations.broken_equations`).

    Args:
      table: records in physical units; a missing value breaks no rule.
      schema: the rules. This project's generators keep them by construction; other tables need not.

    Returns:
      In [0, 1]; NaN without rows.
    """
    broken = np.zeros(len(table.label), bool)
    for j, column in enumerate(schema.inputs):
        if column.kind == "numeric":
            values = table.values[:, j].astype(np.float64)
            low, high = (np.float64(np.float32(end)) for end in (column.low, column.high))  # as tables hold them
            broken |= (values < low) | (values > high)
            if column.at_most:
                broken |= values > table.values[:, schema.index(column.at_most)]
    for rows in broken_equations(table.values, schema).values():
        broken |= rows
    return float(broken.mean()) if len(broken) else NAN


def tail_coverage(real: np.ndarray, synthetic: np.ndarray) -> float:
    """How much of both tails a column keeps: min over tails of min(1, P_S(tail) / P_R(tail)); the rare is what generators lose.

    The tails are the values at or below the real 1 % quantile, and at or above the 99 % quantile. Too much in a tail costs
    nothing here; `ks_complement` and `wasserstein_sd` see it.

    Args:
      real, synthetic: f64[n], f64[m], NaN = missing.

    Returns:
      In [0, 1]; 0 where a tail is empty. NaN where a side is missing throughout.
    """
    r, s = real[~np.isnan(real)], synthetic[~np.isnan(synthetic)]
    if not (len(r) and len(s)):
        return NAN
    low, high = np.quantile(r, [TAIL, 1 - TAIL])
    shares = [np.mean(s <= low) / np.mean(r <= low), np.mean(s >= high) / np.mean(r >= high)]
    return float(min(1.0, *shares))
