"""Rows of one table that stand, in every column, in another: the plainest leak, and a sign of files mixed up."""

from __future__ import annotations

import numpy as np
import pandas as pd
from pandas.util import hash_pandas_object

from fedjax_health.evaluation.rows import mean_interval
from fedjax_health.types import Table


def row_hashes(table: Table) -> np.ndarray:
    """u64[M], equal for rows that are equal in every column and the label; missing cells are equal to one another.

    Two different rows agree by chance once in 2^64 pairs.

    Args:
      table: M records.
    """
    frame = pd.DataFrame(table.values + np.float32(0.0))  # -0 is 0
    frame["label"] = table.label
    return hash_pandas_object(frame, index=False).to_numpy()  # pyright: ignore[reportCallIssue]


def copied_rows(table: Table, of: Table) -> np.ndarray:
    """bool[M]: rows that are equal to some row of another table.

    Args:
      table: M records.
      of: records of the same schema.
    """
    return np.isin(row_hashes(table), row_hashes(of))


def same_rows(a: Table, b: Table) -> bool:
    """Whether two tables hold the same rows, in any order."""
    return len(a.label) == len(b.label) and np.array_equal(np.sort(row_hashes(a)), np.sort(row_hashes(b)))


def copy_shares(
    table: Table, real: Table, holdout: Table, generator: np.random.Generator
) -> tuple[float, float, tuple[float, float]]:
    """Shares of rows equal to one of n real rows, and to one of n held-out rows: chance finds both alike, memory the first.

    Args:
      table: M >= 1 records.
      real, holdout: n is the size of the smaller one; of the other so many are drawn.
      generator: draws.

    Returns:
      (share of the real rows, share of the held-out rows, 95 % interval of their difference over the M rows).
    """
    n, hashes = min(len(real.label), len(holdout.label)), row_hashes(table)
    seen, control = (np.isin(hashes, generator.permutation(row_hashes(of))[:n]).astype(float) for of in (real, holdout))
    return float(seen.mean()), float(control.mean()), mean_interval(seen - control)[1:]


def repeated_elsewhere(table: Table) -> float:
    """Share of rows that are equal to a row of another client: what coincidence alone repeats.

    Args:
      table: M >= 1 records; without clients each row has its own.
    """
    pairs = pd.DataFrame({"row": row_hashes(table), "client": table.client}).drop_duplicates()
    shared = pairs["row"].value_counts()
    return float(np.isin(row_hashes(table), shared[shared > 1].index.to_numpy()).mean())
