"""Intervals of any figure of tables: its spread over random halves of the units, without a record twice.

A bootstrap repeats records, and a nearest neighbour or a fold would then see copies. A half of n units drawn without
replacement has, given the n, the variance S²/(n/2) · (1 - 1/2) = S²/n of a mean: that of the mean of all n.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.stats

from fedjax_health.evaluation.rows import Figures
from fedjax_health.types import Row, Table

HALVES = 20
FEWEST = 10  # units; a half of fewer says nothing
NO_INTERVAL = ("welch_p", "tost_p")  # of half as many records a p-value is another figure


def half_masks(table: Table, generator: np.random.Generator, count: int = HALVES) -> list[np.ndarray]:
    """bool[M] for each of B random halves of the clients (⌊K/2⌋ of K).

    Args:
      table: K clients; ids need not be dense.
      generator: draws.
      count: B.
    """
    clients, index = np.unique(table.client, return_inverse=True)
    kept = np.arange(len(clients)) < len(clients) // 2
    return [generator.permutation(kept)[index] for _ in range(count)]


def half(table: Table, generator: np.random.Generator) -> Table:
    """Records of one such half."""
    (kept,) = half_masks(table, generator, 1)
    return Table(*(column[kept] for column in table))


def spread_interval(value: float, halves: Sequence[float] | np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """value ± t_{(1 + level) / 2, B - 1} · sd over halves; the halves' own mean has the bias of fewer units, and is not used.

    Args:
      value: figure of all units.
      halves: f64[B], the figure of each half.
      level: coverage.

    Returns:
      (low, high), not cut to the range of the figure; NaN where the value or a half is not finite, or B < 2.

    Source: Shao and Wu (1989), Annals of Statistics 17(3), delete-d jackknife with d = n/2.
    """
    halves = np.asarray(halves, np.float64)
    if len(halves) < 2 or not (np.isfinite(halves).all() and np.isfinite(value)):
        return float("nan"), float("nan")
    margin = float(scipy.stats.t.ppf((1 + level) / 2, len(halves) - 1) * np.std(halves, ddof=1))
    return value - margin, value + margin


def half_rows(domain: str, model: str, figures: Figures, halves: Sequence[Figures], n: int) -> list[Row]:
    """Figures with their intervals as rows.

    Args:
      domain, model: as in `Row`.
      figures: of all units.
      halves: figures of each half.
      n: units, for the rows.

    Returns:
      A row a figure; without an interval with fewer than 10 units, and for p-values.
    """
    nan = (float("nan"), float("nan"))
    rows = []
    for (row, metric), value in figures.items():
        bare = n < FEWEST or metric in NO_INTERVAL
        interval = nan if bare else spread_interval(value, [h.get((row, metric), np.nan) for h in halves])
        rows.append(Row(domain, model, row, metric, value, *interval, n))
    return rows
