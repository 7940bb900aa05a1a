"""Figures of one seed, their means and intervals over seeds or clients, and the tidy CSV they are published in."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from typing import Self, TypeAlias

import numpy as np
import scipy.stats

from fedjax_health.types import Row, UserError

Figures: TypeAlias = dict[tuple[str, str], float]  # (row, metric) -> value of one seed

COLUMNS = Row._fields


class SeedRow(Row):
    """A `Row` that is a mean over seeds, with the figure of each of them for whoever needs more than their interval."""

    each: tuple[float, ...] = ()

    @classmethod
    def of(cls, domain: str, model: str, row: str, metric: str, values: Sequence[float]) -> Self:
        """The row of some figures, one a seed.

        Args:
          domain, model, row, metric: as in `Row`.
          values: f64[n], n >= 1.
        """
        found = cls(domain, model, row, metric, *mean_interval(values), len(values))
        found.each = tuple(values)
        return found


def mean_interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Mean with its Student-t interval: mean ± t_{(1 + level) / 2, n - 1} · sd / √n.

    Args:
      values: f64[n], n >= 1, one value a seed. A NaN makes all three results NaN: a seed for which a figure is
        undefined is not dropped, because dropping it would select the seeds.
      level: coverage of the interval.

    Returns:
      (mean, low, high); the interval is NaN for n = 1. It is not clipped to the range of the metric.
    """
    values = np.asarray(values, np.float64)
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = float(scipy.stats.t.ppf((1 + level) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def seed_rows(domain: str, model: str, per_seed: Sequence[Figures]) -> list[Row]:
    """Turns the figures of the seeds into rows: mean over seeds, 95 % Student-t interval, n = number of seeds.

    Args:
      domain: data domain.
      model: generator, or "-".
      per_seed: one `Figures` a seed. A figure that a seed lacks counts as NaN for it.

    Returns:
      One row a figure, in the order in which the figures first appear; none for an empty list.
    """
    keys = dict.fromkeys(key for figures in per_seed for key in figures)
    rows = []
    for row, metric in keys:
        values = [figures.get((row, metric), float("nan")) for figures in per_seed]
        rows.append(SeedRow.of(domain, model, row, metric, values))
    return rows


def exact_row(domain: str, model: str, row: str, metric: str, value: float) -> Row:
    """A figure that is computed and not estimated: its interval is the value itself, n = 1.

    Args:
      domain, model, row, metric, value: as in `Row`.
    """
    return Row(domain, model, row, metric, float(value), float(value), float(value), 1)


def proportion_interval(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson interval of a proportion: the p that the exact binomial test of k out of n does not reject.

    Args:
      k: successes, 0 <= k <= n.
      n: independent trials.
      level: coverage, at least.

    Returns:
      (low, high); (0, 1) for n = 0.

    Source: Clopper and Pearson (1934), Biometrika 26(4).
    """
    if n == 0:
        return 0.0, 1.0
    interval = scipy.stats.binomtest(int(k), int(n)).proportion_ci(level, method="exact")
    return float(interval.low), float(interval.high)


def write_rows(rows: Sequence[Row], path: str) -> None:
    """Writes rows as CSV (domain, model, row, metric, value, low, high, n), whole or not at all.

    Args:
      rows: in the order to be written; numbers keep six significant digits, undefined ones read "nan".
      path: target file; its folder is made.
    """
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    temporary = f"{path}.tmp"
    with open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for r in rows:
            writer.writerow([*r[:4], *(f"{x:.6g}" for x in (r.value, r.low, r.high)), int(r.n)])
    os.replace(temporary, path)


def read_rows(path: str) -> list[Row]:
    """Reads what `write_rows` wrote.

    Args:
      path: CSV file.

    Raises:
      UserError: the file is missing, has other columns, or holds a cell that is not a number.
    """
    if not os.path.isfile(path):
        raise UserError(f"table {path!r} does not exist; run the stage that writes it or correct the path")
    rows = []
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise UserError(f"table {path!r} has the columns {reader.fieldnames}, not {list(COLUMNS)}; write it anew")
        for line in reader:
            try:
                numbers = (float(line["value"]), float(line["low"]), float(line["high"]), int(line["n"]))
            except (TypeError, ValueError) as error:
                raise UserError(f"table {path!r} line {reader.line_num}: {error}; write the table anew") from error
            rows.append(Row(line["domain"], line["model"], line["row"], line["metric"], *numbers))
    return rows
