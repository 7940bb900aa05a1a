"""Real, held-out and synthetic frames from anywhere as tables of one schema: matched by name, coded, misfits counted."""

# pandas' own annotations are unions that a chained expression does not narrow
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false, reportReturnType=false
# pyright: reportAssignmentType=false
from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from fedjax_health.data.equations import broken_equations
from fedjax_health.data.foreign_schema import GAP, as_text
from fedjax_health.data.frames import category_index, numbers, require_columns
from fedjax_health.data.schema import Column, Schema
from fedjax_health.types import Table, UserError

OTHER = "(other)"  # what a code book does not know
UNKNOWN, BLANK = -1.0, -2.0


class Coded(NamedTuple):
    """A frame in the schema's terms.

    Attributes:
      table: client-major; numbers clipped to their range, NaN = missing; categories as codes, UNKNOWN or BLANK.
      names: object[K], clients' ids as text, in the order of their index; the row numbers where each row is its own.
      outside: bool[M], rows with a cell that the schema does not allow.
      notes: one sentence for each column with such cells.
    """

    table: Table
    names: np.ndarray
    outside: np.ndarray
    notes: list[str]


class Tables(NamedTuple):
    """Tables of one schema.

    Attributes:
      schema: with a category more where some table needs one: "(other)", "(missing)".
      real, holdout: by client; no client in both.
      synthetic: by name; each row is its own.
      outside: name -> bool[M], synthetic rows with a cell outside the schema as it was given.
      notes: what was changed.
    """

    schema: Schema
    real: Table
    holdout: Table
    synthetic: dict[str, Table]
    outside: dict[str, np.ndarray]
    notes: list[str]


def code_frame(frame: pd.DataFrame, schema: Schema, where: str, lenient: bool) -> Coded:
    """Codes a frame and counts what does not fit: text for numbers, infinities, ranges, code books, gaps, `at_most`.

    Args:
      frame: one row a record; has the schema's columns (its client column may be absent: then each row is its own).
      schema: what cells may be.
      where: file, for sentences.
      lenient: text in a numeric column counts as a missing number, and is no error.

    Raises:
      UserError: text in a numeric column, a row without a client, or no row with a known label.
    """
    notes: list[str] = []
    label = _codes(frame[schema.label.name], schema.label)
    known = label >= 0
    if not known.all():
        some = ", ".join(sorted(map(repr, as_text(frame[schema.label.name][label == UNKNOWN]).unique()))[:3])
        notes.append(
            f"{where}: {(~known).sum():,} of {len(known):,} rows have no label that the code book "
            f"({', '.join(schema.label.categories)}) knows{f' (such as {some})' if some else ''}; they are left out."
        )
        if not known.any():
            raise UserError(
                f"{where}: no row has a label {schema.label.name!r} out of {', '.join(schema.label.categories)}; "
                f"correct the column{f', which holds {some}' if some else ', which is empty'}"
            )
    frame, label = frame[known], label[known]
    names, client = _clients(frame, schema, where)
    order = np.argsort(client, kind="stable")
    values = np.empty((len(frame), len(schema.inputs)), np.float32)
    outside = np.zeros(len(frame), bool)
    for j, column in enumerate(schema.inputs):
        cells = frame[column.name]
        found, faults = (
            _numeric(cells, column, where, lenient) if column.kind == "numeric" else _category(cells, column)
        )
        values[:, j] = found
        for words, rows in faults.items():
            if rows.any():
                outside |= rows
                notes.append(f"{where}, {column.name}: {rows.sum():,} of {len(rows):,} cells are {words}.")
    for j, column in enumerate(schema.inputs):
        if column.at_most:
            rows = values[:, j] > values[:, schema.index(column.at_most)]
            if rows.any():
                outside |= rows
                notes.append(
                    f"{where}: {column.name} is above {column.at_most} in {rows.sum():,} of {len(rows):,} rows."
                )
    for name, rows in broken_equations(values, schema).items():
        if rows.any():
            outside |= rows
            notes.append(f"{where}: {name} is not what its equation gives in {rows.sum():,} of {len(rows):,} rows.")
    table = Table(values[order], label[order].astype(np.int32), client[order].astype(np.int32))
    return Coded(table, names, outside[order], notes)


def _clients(frame: pd.DataFrame, schema: Schema, where: str) -> tuple[np.ndarray, np.ndarray]:
    if schema.client is None or schema.client.name not in frame.columns:
        return np.arange(len(frame)), np.arange(len(frame))
    ids = as_text(frame[schema.client.name])
    if ids.isna().any():
        row = 1 + int(ids.index[ids.isna()][0])
        raise UserError(
            f"{where}: the client id {schema.client.name!r} is missing in row {row}, so the row belongs to nobody; "
            "fill it or drop the row"
        )
    codes, names = pd.factorize(ids)
    return np.asarray(names, object), codes


def _numeric(cells: pd.Series, column: Column, where: str, lenient: bool) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """f64[M] inside the range with NaN = missing, and the rows of each fault."""
    text = np.zeros(len(cells), bool)
    if lenient and not pd.api.types.is_numeric_dtype(cells.dtype):
        parsed = pd.to_numeric(cells, errors="coerce")
        text = (as_text(cells).notna() & parsed.isna()).to_numpy(dtype=bool)
        cells = parsed
    values = numbers(cells, where)
    endless = np.isinf(values)
    values = np.where(endless, np.nan, values)
    beyond = (values < column.low) | (values > column.high)
    span = f"{column.low:,.10g} to {column.high:,.10g} {column.unit}".strip()
    faults = {
        "text, and taken as missing": text,
        "infinite, and taken as missing": endless,
        f"outside {span}, and cut to it": beyond,
    }
    if not column.nullable:
        faults["missing, where the schema says that none is"] = np.isnan(values) & ~text & ~endless
    return np.clip(values, column.low, column.high), faults


def _category(cells: pd.Series, column: Column) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    codes = _codes(cells, column)
    some = ", ".join(sorted(map(repr, as_text(cells[codes == UNKNOWN]).unique()))[:3])
    return codes, {
        f"no category of its code book (such as {some})": codes == UNKNOWN,
        "missing, where the schema says that none is": (codes == BLANK) & (GAP not in column.categories),
    }


def _codes(cells: pd.Series, column: Column) -> np.ndarray:
    """f64[M]: index in the code book, UNKNOWN or BLANK; a code book may have a category for blanks."""
    blank = float(column.categories.index(GAP)) if GAP in column.categories else BLANK
    codes, uniques = pd.factorize(as_text(cells))
    truth = {"True": True, "False": False}  # a book may say 0 and 1, or true and false
    known = np.array([*(category_index(truth.get(value, value), column.categories) for value in uniques), blank])
    return np.where(np.isnan(known), blank, known)[codes]


def make_tables(
    real: tuple[str, pd.DataFrame],
    holdout: tuple[str, pd.DataFrame],
    synthetic: Mapping[str, tuple[str, pd.DataFrame]],
    schema: Schema,
) -> Tables:
    """Codes all frames under one schema.

    Args:
      real, holdout: (file, frame) that the generator learned from, and that it never saw.
      synthetic: name -> (file, frame).
      schema: of all of them.

    Raises:
      UserError: as `code_frame`; a column is missing; the real or held-out rows have one class only; the held-out clients, or
        rows, are the real ones.
    """
    without = dataclasses.replace(schema, columns=tuple(c for c in schema.columns if c.role != "client"))
    notes: list[str] = []

    def code(where: str, frame: pd.DataFrame, mine: Schema) -> Coded:
        require_columns(frame.columns, mine, where)
        notes.extend(_columns_note(frame, real, mine, where))
        found = code_frame(frame, mine, where, lenient=mine is without)
        notes.extend(found.notes)
        return found

    first, second = code(*real, schema), code(*holdout, schema)
    fakes = {name: code(*given, without) for name, given in synthetic.items()}
    held = second.table
    if schema.client is not None:
        held, sentences = _apart(first, second, schema.client.name, holdout[0])
        notes += sentences
    for where, table in ((real[0], first.table), (holdout[0], held)):
        if len(present := np.unique(table.label)) < 2:
            only = schema.label.categories[int(present[0])]
            raise UserError(
                f"{where}: every one of {len(table.label):,} rows has the label {schema.label.name!r} = {only!r}, so nothing "
                "can be learned or tested; give records of two classes or more"
            )
    tables, schema = _extend([first.table, held, *(c.table for c in fakes.values())], schema)
    return Tables(
        schema,
        tables[0],
        tables[1],
        dict(zip(fakes, tables[2:], strict=True)),
        {name: c.outside for name, c in fakes.items()},
        notes,
    )


def _columns_note(frame: pd.DataFrame, real: tuple[str, pd.DataFrame], schema: Schema, where: str) -> list[str]:
    """Sentences on columns that are not read, and on another order."""
    wanted = [c.name for c in schema.columns]
    own = frame is real[1]
    extra = [str(name) for name in frame.columns if name not in wanted and (own or name not in real[1].columns)]
    notes = [f"{where}: {', '.join(extra[:12])} {'are' if extra[1:] else 'is'} not read."] if extra else []
    order = [[name for name in f.columns if name in wanted] for f in (frame, real[1])]
    if order[0] != [name for name in order[1] if name in frame.columns]:
        notes.append(f"{where}: its columns stand in another order than those of {real[0]}; they are matched by name.")
    return notes


def _apart(real: Coded, holdout: Coded, client: str, where: str) -> tuple[Table, list[str]]:
    """Held-out records of clients that have no real ones."""
    both = np.isin(holdout.names, real.names)
    if not both.any():
        return holdout.table, []
    if (~both).sum() < 2:
        raise UserError(
            f"{where}: {both.sum():,} of its {len(both):,} clients (column {client!r}) are also in the training table; "
            "give clients that the generator never saw, or leave --client out where ids start anew in each file"
        )
    keep = ~both[holdout.table.client]
    index = np.cumsum(~both) - 1
    kept = Table(
        holdout.table.values[keep], holdout.table.label[keep], index[holdout.table.client[keep]].astype(np.int32)
    )
    sentence = f"{where}: {both.sum():,} of {len(both):,} clients are also in the training table and are left out."
    return kept, [sentence]


def _extend(tables: Sequence[Table], schema: Schema) -> tuple[list[Table], Schema]:
    """The schema with categories for what is unknown or blank, and the tables with their codes."""
    columns = {c.name: c for c in schema.columns}
    for j, column in enumerate(schema.inputs):
        if column.kind == "numeric":
            gaps = any(np.isnan(t.values[:, j]).any() for t in tables)
            columns[column.name] = dataclasses.replace(column, nullable=gaps)
            continue
        book = column.categories
        for code, name in ((UNKNOWN, OTHER), (BLANK, GAP)):
            if any((t.values[:, j] == code).any() for t in tables):
                for t in tables:
                    t.values[t.values[:, j] == code, j] = len(book)
                book = (*book, name)
        kind = column.kind if len(book) == len(column.categories) else "categorical"
        columns[column.name] = dataclasses.replace(column, categories=book, kind=kind, nullable=False)
    return list(tables), dataclasses.replace(schema, columns=tuple(columns.values()))
