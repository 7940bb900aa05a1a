"""A schema from a frame: kinds, ranges, resolutions and code books as they are found, for data that may be looked at."""

# pandas' own annotations are unions that a chained expression does not narrow
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false
from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from fedjax_health.data.cells import MOST_EXACT
from fedjax_health.data.schema import Column, Schema
from fedjax_health.types import UserError

MOST_CATEGORIES = 50  # distinct values of text
FEW_NUMBERS = 2  # distinct numbers that are a binary code, not a measurement
MOST_DECIMALS = 4
MOST_SPIKES = 512


def infer_schema(frame: pd.DataFrame, label: str, client: str = "", name: str = "table") -> Schema:
    """Reads off what a schema says: numbers are numeric (two values: binary), text is categorical, gaps make a column nullable.

    Ranges and code books are then statistics of the data: no guarantee covers what is trained with them.

    Args:
      frame: one row a record.
      label: column of the class; its most frequent value is the first, negative one.
      client: column of the client, "" = none.
      name: of the schema.

    Raises:
      UserError: no such column, a column that is empty, text with more than 50 values, or gaps where they cannot be modelled.
    """
    for column in (label, *([client] if client else [])):
        if column not in frame.columns:
            raise UserError(f"the frame has no column {column!r}; it has {', '.join(map(str, frame.columns))}")
    columns = [_column(frame[c], str(c), c == label) for c in frame.columns if c != client]
    if client:
        columns.insert(0, Column(name=client, role="client"))
    return Schema(name, tuple(columns))


def _column(cells: pd.Series, name: str, label: bool) -> Column:
    present = cells.dropna()
    role: Any = "label" if label else "feature"
    if not len(present):
        raise UserError(f"column {name!r} has no value; leave it out of the frame")
    numeric = pd.api.types.is_numeric_dtype(present.dtype) and not pd.api.types.is_bool_dtype(present.dtype)
    distinct = present.nunique()
    if numeric and not label and distinct > FEW_NUMBERS:
        values = present.to_numpy(float)
        low, high, decimals = float(values.min()), float(values.max()), _decimals(values)
        heavy = low >= 0 and present.std() > 2 * present.mean()
        exact = decimals is not None and (high - low) * 10**decimals < MOST_EXACT
        return Column(
            name=name, low=low, high=high, decimals=decimals, spikes=() if exact else _spikes(values),
            nullable=len(present) < len(cells), transform="log1p" if heavy else "identity", **_location(values, heavy),
        )  # fmt: skip
    if len(present) < len(cells):
        raise UserError(
            f"column {name!r} has gaps in {len(cells) - len(present):,} rows and is no number; fill them with a category of "
            "their own"
        )
    if distinct > MOST_CATEGORIES:
        raise UserError(
            f"column {name!r} has {distinct:,} different {'classes' if label else 'texts'}, too many for a code book; "
            + ("a label needs 50 or fewer: group its values" if label else "leave it out or group them")
        )
    counts = present.value_counts()
    texts = tuple(map(str, counts.index if label else sorted(counts.index)))
    if len(texts) < 2:
        raise UserError(f"column {name!r} holds {', '.join(texts)} only; leave it out of the frame")
    return Column(name=name, kind="binary" if len(texts) == 2 else "categorical", role=role, categories=texts)


def _decimals(values: np.ndarray) -> int | None:
    for decimals in range(MOST_DECIMALS + 1):
        if np.allclose(values, np.round(values, decimals), rtol=0, atol=10.0 ** -(MOST_DECIMALS + 2)):
            return decimals
    return None


def _spikes(values: np.ndarray) -> tuple[float, ...]:
    """Values that occur more than once, the most frequent ones of many: numbers drawn from a density never do."""
    found, count = np.unique(values, return_counts=True)
    repeated = np.argsort(-count, kind="stable")[: min(MOST_SPIKES, int((count > 1).sum()))]
    return tuple(np.sort(found[repeated]).tolist())


def _location(values: np.ndarray, log: bool) -> dict[str, float]:
    seen = np.log1p(values) if log else values
    return {"center": float(np.mean(seen)), "scale": float(max(np.std(seen), 1e-9))}
