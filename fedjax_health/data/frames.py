"""Between data frames and tables: check a frame against its schema and code it; turn a table back; write it whole."""

# pandas' own annotations are unions that a chained expression does not narrow
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from fedjax_health.data.equations import broken_equations, completed
from fedjax_health.data.schema import Column, Schema
from fedjax_health.types import Table, UserError


def table_from_frame(
    frame: pd.DataFrame, schema: Schema, client: pd.Series | None, where: str
) -> tuple[Table, tuple[str, ...]]:
    """Checks a frame against its schema and codes it, client by client: v ← min(max(v, low), high).

    Clients are numbered in the order of their first row; a client's rows keep their order. Messages count rows from 1,
    by the frame's index where that holds integers, so that rows dropped beforehand do not shift the count.

    Args:
      frame: one row a record, values in the columns' units; other columns are ignored.
      schema: what the columns must be.
      client: id of the client of each row, any type, aligned by position; None takes the schema's client column, and
        where it has none every row is a client of its own.
      where: file or folder, for messages.

    Returns:
      Table of M rows and K dense clients, and one sentence for each column whose values were clipped.

    Raises:
      UserError: a column, value, label or client id that breaks the schema; no rows; a label of one class.
    """
    require_columns(frame.columns, schema, where)
    if not len(frame):
        raise UserError(f"{where}: no rows are left, so there are no clients; give a file with at least two records")
    if client is None and schema.client is not None:
        client = frame[schema.client.name]
    ids = np.arange(len(frame)) if client is None else _client_codes(client, where)
    order = np.argsort(ids, kind="stable")
    values = np.empty((len(frame), len(schema.inputs)), np.float32)
    notes: list[str] = []
    for number, column in enumerate(schema.inputs):
        cells, note = _coded(frame[column.name], column, where)
        values[:, number] = cells[order]
        notes.extend(note)
    notes += _mend(values, schema)
    label = _coded(frame[schema.label.name], schema.label, where)[0].astype(np.int32)
    present = np.unique(label)
    if len(present) < 2:
        only = schema.label.categories[int(present[0])]
        raise UserError(
            f"{where}: all {len(label):,} rows have the label {schema.label.name!r} = {only!r}, so nothing can "
            "be learned from it; give records of at least two classes"
        )
    return Table(values, label[order], ids[order].astype(np.int32)), tuple(notes)


def _mend(values: np.ndarray, schema: Schema) -> list[str]:
    """Fills in derived cells that are infinite, such as a rate over no time, in place; and says so, and of broken equations."""
    notes: list[str] = []
    endless = np.isinf(values)
    if endless.any():
        values[endless] = completed(np.where(endless, 0.0, values).astype(np.float32), schema)[endless]
        names = [c.name for c, any_ in zip(schema.inputs, endless.any(0), strict=True) if any_]
        notes.append(
            f"{endless.sum():,} infinite values ({', '.join(names)}) were replaced by what their equations give."
        )
    for name, rows in broken_equations(values, schema).items():
        if rows.any():
            rule = schema.inputs[schema.index(name)].equation
            notes.append(
                f"{rows.sum():,} of {len(rows):,} rows break {name} = {rule} beyond rounding; they are kept as they are, and "
                "no generated row will break it."
            )
    return notes


def require_columns(names: Iterable[Any], schema: Schema, where: str) -> None:
    """Checks that a file has every column of a schema.

    Args:
      names: the file's columns.
      schema: the columns it must have.
      where: file name, for messages.

    Raises:
      UserError: a missing column; says the nearest one that exists.
    """
    existing = [str(name) for name in names]
    for column in schema.columns:
        if column.name not in existing:
            folded = {name.casefold(): name for name in existing}
            near = difflib.get_close_matches(column.name.casefold(), folded, 1)
            hint = f"the nearest is {folded[near[0]]!r}" if near else f"it has {', '.join(existing[:12]) or 'none'}"
            raise UserError(
                f"{where}: the schema's column {column.name!r} is missing in the file ({hint}); "
                "rename it in the file or in the schema"
            )


def numbers(cells: pd.Series, where: str) -> np.ndarray:
    """A column as numbers.

    Args:
      cells: numbers, or text that says numbers; empty text and "nan" are missing.
      where: file name, for messages.

    Returns:
      f64[M], NaN where missing.

    Raises:
      UserError: text in a cell; says the first one and its row.
    """
    if pd.api.types.is_numeric_dtype(cells.dtype):
        return cells.to_numpy(dtype=np.float64, na_value=np.nan)
    text = cells.astype("string").str.strip()
    text = text.mask(text.str.lower().isin(["", "nan"]))
    parsed = pd.to_numeric(text, errors="coerce")
    bad = (text.notna() & parsed.isna()).to_numpy(dtype=bool)
    if bad.any():
        word = str(text[bad].iloc[0])
        raise UserError(
            f"{where}: numeric column {cells.name!r} holds the text {word!r} in row {_row(cells, bad)}; "
            "put a number there, or make the column categorical in the schema"
        )
    return parsed.to_numpy(dtype=np.float64, na_value=np.nan)


def _coded(cells: pd.Series, column: Column, where: str) -> tuple[np.ndarray, list[str]]:
    """f64[M] with NaN = missing, and a note where values were clipped."""
    values = numbers(cells, where) if column.kind == "numeric" else _category_codes(cells, column, where)
    missing = np.isnan(values)
    if missing.any() and (column.role == "label" or not column.nullable):
        remedy = (
            "drop such rows" if column.role == "label" else "drop such rows, or mark the column nullable in the schema"
        )
        raise UserError(
            f"{where}: column {column.name!r} has no value in row {_row(cells, missing)} ({missing.sum():,} of "
            f"{len(values):,} rows); {remedy}"
        )
    if column.kind != "numeric":
        return values, []
    notes: list[str] = []
    infinite = np.isinf(values)
    if infinite.any() and column.nullable:
        notes.append(f"{column.name}: {infinite.sum():,} infinite values were treated as missing.")
        values = np.where(infinite, np.nan, values)
        missing, infinite = missing | infinite, np.zeros_like(infinite)
    left = infinite & column.derived  # filled in when the row is whole
    outside = ((values < column.low) | (values > column.high)) & ~left
    if outside.any():
        span = f"{column.low:,.10g}–{column.high:,.10g} {column.unit}".strip()
        count = f"{outside.sum():,} of {len(values) - missing.sum():,} values outside {span}"
        endless = f" ({infinite.sum():,} of them infinite)" if infinite.any() else ""
        notes.append(f"{column.name}: {count} were clipped{endless}.")
    return np.where(left, values, np.clip(values, column.low, column.high)), notes


def _category_codes(cells: pd.Series, column: Column, where: str) -> np.ndarray:
    codes, uniques = pd.factorize(cells)
    known = np.array([*(category_index(value, column.categories) for value in uniques), np.nan])
    values = known[codes]
    unknown = values < 0
    if unknown.any():
        value = cells[unknown].iloc[0]
        book = ", ".join(column.categories[:12]) + (", …" if len(column.categories) > 12 else "")
        raise UserError(
            f"{where}: column {column.name!r} holds {str(value)!r} in row {_row(cells, unknown)}, which its code book "
            f"({book}) does not know; correct the cell or add the category to the schema"
        )
    return values


def category_index(value: Any, categories: tuple[str, ...]) -> float:
    """Index in the code book; -1 unknown, NaN blank. A number or truth value matches in any spelling: 1, 1.0, True."""
    text = str(value).strip()
    spellings = [text]
    if isinstance(value, (bool, np.bool_)):
        spellings += [text.lower(), str(int(value))]
    elif re.fullmatch(r"[+-]?\d+(\.0*)?", text):
        spellings.append(str(int(text.split(".")[0])))
    for spelling in spellings:
        if spelling in categories:
            return float(categories.index(spelling))
    return -1.0 if text else np.nan


def _client_codes(client: pd.Series, where: str) -> np.ndarray:
    if not pd.api.types.is_numeric_dtype(client.dtype):
        client = client.astype("string").str.strip()
        client = client.mask(client == "")
    codes, _ = pd.factorize(client)
    if (codes < 0).any():
        raise UserError(
            f"{where}: the client id is missing in row {_row(client, codes < 0)}, so the row belongs to nobody; "
            f"fill the column {str(client.name)!r} or drop the row"
        )
    return codes


def _row(cells: pd.Series, mask: np.ndarray) -> int:
    """The first row of a mask, counted from 1."""
    position = int(np.flatnonzero(mask)[0])
    return 1 + (int(cells.index[position]) if pd.api.types.is_integer_dtype(cells.index.dtype) else position)


def frame_from_table(table: Table, schema: Schema) -> pd.DataFrame:
    """A table in units and category names, ready to publish: the schema's columns in order, without the client.

    Args:
      table: M coded records.
      schema: their columns.

    Returns:
      Frame of M rows: numeric columns rounded to their decimals (integers where decimals = 0 and nothing is missing),
      category strings, NaN for missing.

    Raises:
      ValueError: a code outside its code book.
    """
    columns: dict[str, Any] = {}
    for column in schema.columns:
        if column.role == "client":
            continue
        cells = table.label if column.role == "label" else table.values[:, schema.index(column.name)]
        columns[column.name] = _decimal(cells, column) if column.kind == "numeric" else _named(cells, column)
    return pd.DataFrame(columns)


def _decimal(cells: np.ndarray, column: Column) -> np.ndarray:
    if column.decimals is None:
        return _with_spikes(cells, column) if column.spikes else cells
    rounded = np.round(cells.astype(np.float64), column.decimals) + 0.0  # + 0.0 so that no cell reads "-0.0"
    return rounded.astype(np.int64) if column.decimals == 0 and not np.isnan(rounded).any() else rounded


def _with_spikes(cells: np.ndarray, column: Column) -> np.ndarray:
    """f64 cells with spikes as the schema has them, not as float32 does."""
    exact = np.asarray(column.spikes)
    near = exact.astype(np.float32)
    place = np.minimum(np.searchsorted(near, cells), len(near) - 1)
    return np.where(cells == near[place], exact[place], cells.astype(np.float64))


def _named(cells: np.ndarray, column: Column) -> np.ndarray:
    missing = np.isnan(cells)
    codes = np.where(missing, -1, cells).astype(np.int64)
    wrong = (codes >= len(column.categories)) | ((codes < 0) & ~missing)
    if wrong.any():
        raise ValueError(f"column {column.name!r}: code {codes[wrong][0]} is not one of its {len(column.categories)}")
    return np.array([*column.categories, np.nan], dtype=object)[codes]


def write_frame(frame: pd.DataFrame, path: str) -> None:
    """Writes a frame as Parquet or CSV, whole or not at all: the bytes depend on the frame only.

    Args:
      frame: what to write, without its index.
      path: file ending in .parquet or .csv; its folder is made.

    Raises:
      UserError: another ending.
    """
    ending = os.path.splitext(path)[1]
    if ending not in (".parquet", ".csv"):
        raise UserError(f"cannot write {path!r}: the ending {ending!r} is neither .parquet nor .csv; use one of them")
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    partial = f"{path}.partial"
    try:
        if ending == ".parquet":
            frame.to_parquet(partial, engine="pyarrow", compression="zstd", index=False)
        else:
            frame.to_csv(partial, index=False, lineterminator="\n", encoding="utf-8")
        os.replace(partial, path)
    finally:
        if os.path.exists(partial):
            os.remove(partial)
