"""Reads the files of a run: JSON, metrics.jsonl and the tables; what is absent reads as nothing."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Sequence
from typing import Any

from fedjax_health.types import Row, UserError


def read_json(workdir: str, name: str) -> Any:
    """Parsed JSON file of a run, None where it is absent.

    Raises:
      UserError: not JSON; names the line.
    """
    path = os.path.join(workdir, name)
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        try:
            return json.load(file)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path} line {error.lineno} is not JSON: {error.msg}; restore the file or rerun"
            ) from error


def read_rounds(workdir: str) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl, none where it is absent. A last line without its end (a run still writing) is left out.

    Raises:
      UserError: a line is not JSON; names the line.
    """
    path = os.path.join(workdir, "metrics.jsonl")
    if not os.path.exists(path):
        return []
    rounds = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                break
            try:
                rounds.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise UserError(f"{path} line {number} is not JSON: {error.msg}; remove the line or rerun") from error
    return rounds


def read_csv(workdir: str, name: str, texts: Sequence[str], numbers: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of tables/<name>.csv, none where it is absent; an empty number is NaN.

    Args:
      workdir: directory of the run.
      name: table name.
      texts: columns kept as text.
      numbers: columns read as float.

    Raises:
      UserError: a column is absent or a number is none; names the file, the line and the column.
    """
    path = os.path.join(workdir, "tables", name + ".csv")
    if not os.path.exists(path):
        return []
    rows = []
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        for column in (*texts, *numbers):
            if column not in (reader.fieldnames or ()):
                raise UserError(
                    f"{path} has no column {column!r}; it needs {', '.join((*texts, *numbers))}; restore the file or rerun"
                )
        for raw in reader:
            row: dict[str, Any] = {column: raw[column] or "" for column in texts}
            for column in numbers:
                try:
                    row[column] = float(raw[column] or "nan")
                except ValueError as error:
                    where = f"{path} line {reader.line_num}, column {column}"
                    raise UserError(f"{where}: {raw[column]!r} is not a number; correct the cell or rerun") from error
            rows.append(row)
    return rows


def read_tidy(workdir: str, name: str) -> list[Row]:
    """Rows of a table of figures (columns of `types.Row`), none where it is absent.

    Raises:
      UserError: as `read_csv`.
    """
    raw = read_csv(workdir, name, ("domain", "model", "row", "metric"), ("value", "low", "high", "n"))
    return [Row(**{**r, "n": 0 if math.isnan(r["n"]) else int(r["n"])}) for r in raw]
