"""Shapes tidy rows into the grids of text that a page shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import ROUND_CEILING, Decimal
from typing import NamedTuple, TypeAlias

from fedjax_health.report.labels import BOUNDS
from fedjax_health.types import Row

DASH = "–"  # what a missing figure looks like
MOST_DECIMALS = 3
Rows: TypeAlias = Sequence[Row]


class Cell(NamedTuple):
    """One figure as text; `interval` is "[low, high]" or ""."""

    value: str = DASH
    interval: str = ""


class Line(NamedTuple):
    """One line of a grid: what it is, one cell a column, n as text; kind is "", "bound", "paper" or "group"."""

    row: str
    model: str
    cells: list[Cell]
    n: str
    kind: str = ""


class Grid(NamedTuple):
    """Column names (of metrics, or "row\\nmodel"), lines, and the n of each column where all of its lines share it.

    `n` is empty where the lines differ, and then each line shows its own.
    """

    columns: list[str]
    lines: list[Line]
    n: dict[str, int]


def number(value: float, digits: int | None = None) -> str:
    """A number for readers: `digits` decimals, else three significant digits; "–" for NaN; thin space at thousands.

    Args:
      value: any float.
      digits: decimals, None to choose by size; -2 rounds to hundreds.
    """
    if math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if digits is None:
        digits = 0 if value == int(value) and abs(value) < 1e6 else max(0, 2 - math.floor(math.log10(abs(value))))
    if digits > 6:
        return f"{value:.2e}".replace("-", "−")
    rounded = round(value, digits) + 0.0  # + 0.0 so that nothing reads "−0.00"
    return f"{rounded:,.{max(digits, 0)}f}".replace(",", "\u2009").replace("-", "−")


def setting(value: float | None) -> str:
    """A setting such as a clip norm: three significant digits without trailing zeros; "–" where there is none."""
    if value is None or math.isnan(value):
        return DASH
    return number(value) if abs(value) >= 1000 or value == 0 else f"{value:.3g}".replace("-", "−")


def epsilon_text(value: float | None) -> str:
    """ε with two decimals, rounded up because a promise may not be rounded down; "–" where there is none."""
    if value is None or math.isnan(value):
        return DASH
    return "∞" if math.isinf(value) else str(Decimal(repr(float(value))).quantize(Decimal("0.01"), ROUND_CEILING))


def power(value: float | None) -> str:
    """A small number such as δ in powers of ten: 1e-5 -> "10⁻⁵", 2.5e-6 -> "2.5 × 10⁻⁶"; from 0.01 on as it is.

    Args:
      value: >= 0; None reads "–".
    """
    if value is None:
        return DASH
    if value == 0 or value >= 0.01:
        return f"{value:.3g}"
    head, exponent = f"{value:.2e}".split("e")
    tail = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return tail if float(head) == 1 else f"{float(head):g}\u00a0×\u00a0{tail}"


def scaled(value: float, unit: str) -> tuple[float, str]:
    """A quantity in the SI prefix that suits it: (2.4e9, "B") -> (2.4, "GB").

    Args:
      value: in `unit`.
      unit: "" for none, which takes no prefix; seconds take none above.

    Returns:
      (scaled value, unit with prefix).
    """
    if not unit or not math.isfinite(value) or value == 0:
        return value, unit
    step = min(max(math.floor(math.log10(abs(value)) / 3), -2), 0 if unit == "s" else 6)
    return value / 1000.0**step, ("µ", "m", "", "k", "M", "G", "T", "P", "E")[step + 2] + unit


def quantity(value: float, unit: str) -> str:
    """A quantity as text with three significant digits: (48_213, "B") -> "48.2 kB"."""
    small, prefixed = scaled(value, unit)
    return f"{number(small)} {prefixed}".strip()


def decimals(rows: Rows) -> int | None:
    """Decimals that a group of figures shares: enough to show the median half-width of their intervals, from 2 to 3.

    Returns:
      None where no figure has an interval of its own (each is then shown to three significant digits).
    """
    halves = sorted(h for h in ((r.high - r.low) / 2 for r in rows) if math.isfinite(h) and h > 0)
    if not halves:
        return 2 if rows and all(0 <= r.value <= 1 for r in rows) else None
    median = halves[len(halves) // 2]
    largest = max((abs(r.value) for r in rows if math.isfinite(r.value)), default=0.0)
    least = 0 if largest >= 100 else 1 if largest > 20 else 2
    return min(max(-math.floor(math.log10(median)), least), MOST_DECIMALS)


def cell(row: Row, digits: int | None) -> Cell:
    """One figure with its interval, which a figure that is known and not estimated does not have.

    Args:
      row: the figure.
      digits: decimals, None for three significant digits.
    """
    known = row.n <= 1 and row.low == row.high
    if known or not (math.isfinite(row.low) and math.isfinite(row.high)):
        return Cell(number(row.value, digits))
    return Cell(number(row.value, digits), f"[{number(row.low, digits)}, {number(row.high, digits)}]")


def in_order(rows: Rows) -> list[Row]:
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
    show: Callable[[Row, int | None], Cell] = cell,
) -> Grid:
    """Sets tidy rows out as lines and columns.

    Args:
      rows: figures; the last of two with the same place wins.
      line: row -> (row name, model) of its line.
      column: row -> name of its column.
      order: columns that come first, where present.
      by_line: share decimals along a line rather than down a column.
      show: (row, decimals) -> cell.

    Returns:
      Grid; a place without a figure has an empty cell ("–").
    """
    place = {(line(r), column(r)): r for r in rows}
    lines = list(dict.fromkeys(line(r) for r in rows))
    found = list(dict.fromkeys(column(r) for r in rows))
    columns = [c for c in order if c in found] + [c for c in found if c not in order]
    owner = line if by_line else column
    groups: dict[str | tuple[str, str], list[Row]] = {}
    for r in rows:
        groups.setdefault(owner(r), []).append(r)
    shared = {key: decimals(group) for key, group in groups.items()}
    result = []
    for key in lines:
        mine = [place.get((key, c)) for c in columns]
        cells = [
            Cell() if r is None else show(r, shared[key if by_line else c]) for r, c in zip(mine, columns, strict=True)
        ]
        counts = sorted({r.n for r in mine if r is not None and r.n > 0})
        text = DASH if not counts else "–".join(number(n) for n in dict.fromkeys((counts[0], counts[-1])))
        result.append(Line(key[0], key[1], cells, text, "bound" if key[0] in BOUNDS else ""))
    counted = {c: {r.n for r in rows if column(r) == c and r.n > 1} for c in columns}
    same = all(len(n) <= 1 for n in counted.values())
    return Grid(columns, result, {c: n.pop() for c, n in counted.items() if n} if same else {})
