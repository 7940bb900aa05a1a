"""Reads a run's tidy files and shapes their rows into the grids of text that a page shows."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Sequence
from decimal import ROUND_CEILING, Decimal
from typing import Any, NamedTuple

from fedjax_health.types import Row, UserError

DASH = "–"  # what a missing figure looks like
BOUNDS = {  # rows that are no result but say how good or bad a result can be
    "real-vs-real": "Real against real (ceiling)",
    "independent-marginals": "Independent marginals (floor)",
    "gaussian-copula": "Gaussian copula (floor)",
    "dp-ceiling": "Most that the DP promise allows (ceiling)",
}
Rows = Sequence[Row]


class Cell(NamedTuple):
    """One figure as text; `interval` is "[low, high]" or ""."""

    value: str = DASH
    interval: str = ""


class Line(NamedTuple):
    """One line of a grid: what it is, one cell a column, and n as text."""

    row: str
    model: str
    cells: list[Cell]
    n: str


class Grid(NamedTuple):
    """Column names (of metrics, or "row\\nmodel") and lines, in the order of the file unless asked otherwise."""

    columns: list[str]
    lines: list[Line]


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
                    f"{path} has no column {column!r}; it needs {', '.join((*texts, *numbers))}; rerun --stage=evaluate"
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


def number(value: float, digits: int | None = None) -> str:
    """A number for readers: `digits` decimals, else three significant digits; "–" for NaN; thin space at thousands.

    Args:
      value: any float.
      digits: decimals, None to choose by size.
    """
    if math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if digits is None:
        digits = 0 if value == int(value) and abs(value) < 1e6 else max(0, 2 - math.floor(math.log10(abs(value))))
    if digits > 6:
        return f"{value:.2e}".replace("-", "−")
    return f"{value:,.{digits}f}".replace(",", "\u2009").replace("-", "−")


def epsilon_text(value: float | None) -> str:
    """ε with two decimals, rounded up because a promise may not be rounded down; "–" where there is none."""
    if value is None or math.isnan(value):
        return DASH
    return "∞" if math.isinf(value) else str(Decimal(repr(float(value))).quantize(Decimal("0.01"), ROUND_CEILING))


def power(value: float | None) -> str:
    """A small number such as δ in powers of ten: 1e-5 -> "10⁻⁵", 2.5e-6 -> "2.5 × 10⁻⁶"; "–" where there is none."""
    if value is None:
        return DASH
    if value == 0:
        return "0"
    head, exponent = f"{value:.2e}".split("e")
    tail = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return tail if float(head) == 1 else f"{float(head):g} × {tail}"


def human(metric: str, value: float) -> str:
    """A cost for readers: bytes, FLOPs and joules with an SI prefix, other numbers to three significant digits.

    Args:
      metric: its name; says the unit ("bytes_up", "flops", "energy_joules", "wall_seconds").
      value: in that unit.
    """
    unit = next(
        (u for part, u in (("byte", "B"), ("flop", "FLOP"), ("joule", "J"), ("energy", "J")) if part in metric.lower()),
        "",
    )
    if not unit or not math.isfinite(value) or value == 0:
        return number(value)
    step = min(max(int(math.log10(abs(value)) // 3), 0), 6)
    return f"{number(value / 1000.0**step)} {('', 'k', 'M', 'G', 'T', 'P', 'E')[step]}{unit}"


def decimals(rows: Rows) -> int | None:
    """Decimals that a group of figures shares: enough to show the median half-width of their intervals, from 2 to 4.

    Returns:
      None where no figure has an interval of its own (each is then shown to three significant digits).
    """
    halves = sorted(h for h in ((r.high - r.low) / 2 for r in rows) if math.isfinite(h) and h > 0)
    if not halves:
        return 2 if rows and all(0 <= r.value <= 1 for r in rows) else None
    median = halves[len(halves) // 2]
    largest = max((abs(r.value) for r in rows if math.isfinite(r.value)), default=0.0)
    return min(max(-math.floor(math.log10(median)), 0 if largest >= 100 else 1 if largest > 20 else 2), 4)


def in_order(rows: Sequence[Row]) -> list[Row]:
    """Rows of one name together: the paper's, then others as they come, floors and ceilings last."""
    names = list(dict.fromkeys(r.row for r in rows))
    paper = ("real", "synthetic", "real+synthetic")
    rank = {n: (n in BOUNDS, paper.index(n) if n in paper else len(paper), i) for i, n in enumerate(names)}
    return sorted(rows, key=lambda r: rank[r.row])


def grid(
    rows: Rows,
    line: Callable[[Row], tuple[str, str]],
    column: Callable[[Row], str],
    order: Sequence[str] = (),
    by_line: bool = False,
    text: Callable[[Row, int | None], str] | None = None,
) -> Grid:
    """Sets tidy rows out as lines and columns.

    Args:
      rows: figures; the last of two with the same place wins.
      line: row -> (row name, model) of its line.
      column: row -> name of its column.
      order: columns that come first, where present.
      by_line: share decimals along a line rather than down a column.
      text: (row, decimals) -> text of the value, low or high in `row.value`; `number` by default.

    Returns:
      Grid; a place without a figure has an empty cell ("–").
    """
    show = text or (lambda r, digits: number(r.value, digits))
    place = {(line(r), column(r)): r for r in rows}
    lines = list(dict.fromkeys(line(r) for r in rows))
    found = list(dict.fromkeys(column(r) for r in rows))
    columns = [c for c in order if c in found] + [c for c in found if c not in order]
    owner = line if by_line else column
    shared = {key: decimals([r for r in rows if owner(r) == key]) for key in (lines if by_line else columns)}
    result = []
    for key in lines:
        mine = [place.get((key, c)) for c in columns]
        cells = [
            Cell() if r is None else _cell(r, shared[key if by_line else c], show)
            for r, c in zip(mine, columns, strict=True)
        ]
        counts = sorted({r.n for r in mine if r is not None and r.n > 0})
        n = (
            DASH
            if not counts
            else number(counts[0])
            if len(counts) == 1
            else f"{number(counts[0])}–{number(counts[-1])}"
        )
        result.append(Line(key[0], key[1], cells, n))
    return Grid(columns, result)


def cell(row: Row | None) -> Cell | None:
    """One figure alone, None for None."""
    return None if row is None else _cell(row, decimals([row]), lambda r, digits: number(r.value, digits))


def _cell(r: Row, digits: int | None, show: Callable[[Row, int | None], str]) -> Cell:
    exact = r.n <= 1 and r.low == r.high  # known, not estimated
    if exact or not (math.isfinite(r.low) and math.isfinite(r.high)):
        return Cell(show(r, digits))
    low, high = show(r._replace(value=r.low), digits), show(r._replace(value=r.high), digits)
    return Cell(show(r, digits), f"[{low}, {high}]")
