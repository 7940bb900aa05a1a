"""A schema for frames from anywhere: inferred from the real ones, columns that cannot be judged left out with the reason."""

# pandas' own annotations are unions that a chained expression does not narrow
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false, reportReturnType=false
from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fedjax_health.data.frames import numbers
from fedjax_health.data.infer import FEW_NUMBERS, MOST_CATEGORIES, infer_schema
from fedjax_health.data.schema import Column, Schema
from fedjax_health.types import UserError

GAP = "(missing)"  # category of blank cells
MOSTLY = 0.9  # share of numbers from which on a column of text is one of numbers with mistakes in it


def as_text(cells: pd.Series) -> pd.Series:
    """Cells as stripped text, whole numbers without ".0"; object[M], None where blank."""
    if pd.api.types.is_bool_dtype(cells.dtype) or not pd.api.types.is_numeric_dtype(cells.dtype):
        text = cells.astype("string").str.strip()
        return text.mask(text == "").astype(object).where(lambda t: t.notna(), None)
    values, at = np.unique(cells.dropna().to_numpy(), return_inverse=True)
    names = np.array([str(int(v)) if np.isfinite(v) and v == int(v) else str(v) for v in values], object)
    text = pd.Series(None, index=cells.index, dtype=object)
    text[cells.notna()] = names[at]
    return text


def measured(cells: pd.Series) -> bool:
    """Whether a column holds numbers, or text of which nine in ten cells or more are numbers."""
    if pd.api.types.is_bool_dtype(cells.dtype):
        return False
    if pd.api.types.is_numeric_dtype(cells.dtype):
        return True
    text = as_text(cells).dropna()
    return bool(len(text)) and float(pd.to_numeric(text, errors="coerce").notna().mean()) >= MOSTLY


def with_roles(schema: Schema, client: str, groups: Sequence[str]) -> Schema:
    """The schema with a client column, and with group columns.

    Args:
      schema: any.
      client: column of the client, "" = as in the schema.
      groups: columns by which fairness is reported, beside those of the schema.

    Raises:
      UserError: a group that is no input column.
    """
    columns = list(schema.columns)
    if client:
        columns = [c for c in columns if c.role != "client" and c.name != client]
        columns.insert(0, Column(name=client, role="client"))
        schema = Schema(schema.name, tuple(columns))
    for name in groups:
        schema.index(name)
    columns = [dataclasses.replace(c, role="group") if c.name in groups else c for c in schema.columns]
    return Schema(schema.name, tuple(columns))


def infer_foreign(
    real: tuple[str, pd.DataFrame], holdout: tuple[str, pd.DataFrame], label: str, client: str, name: str
) -> tuple[Schema, list[str]]:
    """Schema of what the real and the held-out rows hold, as `infer_schema` reads it.

    Left out, with a sentence each: columns without a value, with one value only, or of text with more than 50. Blanks among
    categories are a category; infinities count as missing.

    Args:
      real, holdout: (file, frame).
      label: column of the class.
      client: column of the client, "" = none.
      name: of the schema.

    Raises:
      UserError: no label, a column that one file lacks, text among numbers, a label of one class or of more than 50, no column
        that can be judged.
    """
    where, first = real
    for column, option in ((label, "--label"), (client, "--client")):
        if column and column not in first.columns:
            raise UserError(f"{where}: {option}={column} is no column of it{_nearest(column, list(first.columns))}")
    if not label:
        raise UserError(
            f"neither a schema nor a label is given; name the column of the class with --label, one of {_some(first.columns)}"
        )
    kept: dict[str, pd.Series] = {}
    notes: list[str] = []
    for column in first.columns:
        if column == client:
            continue
        for file, frame in (real, holdout):
            if column not in frame.columns:
                near = _nearest(column, list(frame.columns))
                raise UserError(f"{file}: column {column!r} of {where} is missing in it{near}; rename or add it")
        found = _judged([(file, frame[column]) for file, frame in (real, holdout)], column == label)
        if isinstance(found, str):
            notes.append(f"{column} is left out: {found}.")
        else:
            kept[column] = found
    frame = pd.DataFrame(kept)
    if len(frame.columns) < 2:
        raise UserError(f"{where}: no column beside the label {label!r} can be judged ({' '.join(notes)}); give others")
    schema = infer_schema(frame[frame[label].notna()], label, "", name)
    return with_roles(schema, client, ()), notes


def _judged(parts: list[tuple[str, pd.Series]], label: bool) -> pd.Series | str:
    """Cells of a column in both files as numbers or text, or why it is left out."""
    name = str(parts[0][1].name)
    text = pd.concat([as_text(cells) for _, cells in parts], ignore_index=True)
    distinct = text.nunique()
    if label:
        if not 2 <= distinct <= MOST_CATEGORIES:
            some = f" ({_some(text.dropna())})" if distinct else ""
            raise UserError(
                f"{parts[0][0]}: the label {name!r} has {distinct:,} different values{some}; it must be a class, one of 2 to "
                f"{MOST_CATEGORIES}"
            )
        return text
    if measured(pd.concat([cells for _, cells in parts], ignore_index=True)):
        values = np.concatenate([numbers(cells, file) for file, cells in parts])
        values = pd.Series(np.where(np.isinf(values), np.nan, values))
        if values.nunique() > FEW_NUMBERS:
            return values
    if not distinct:
        return "it has no value"
    text = text.fillna(GAP)
    if text.nunique() == 1:
        return f"every cell is {text.iloc[0]!r}"
    if distinct > MOST_CATEGORIES:
        return f"it holds {distinct:,} different texts, too many for a code book"
    return text


def _some(names: Iterable[Any]) -> str:
    several = list(dict.fromkeys(map(str, names)))
    return ", ".join(several[:12]) + (", …" if len(several) > 12 else "")


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, 1)
    return f" (the nearest is {near[0]!r})" if near else f" (it has {_some(names)})"
