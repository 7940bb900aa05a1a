"""What rows must be like, as written on a command line: condition=1,age_band=3,heart_rate=60..100."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedjax_health.data.schema import Column, Schema
from fedjax_health.types import UserError

_NUMBER = r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"


class Range(NamedTuple):
    """What one input column must hold; a missing value holds nothing.

    Attributes:
      column: place on the F axis.
      low, high: both included, in the column's unit; of a category both are its code.
      decimals: published resolution at which values are compared, or None.
    """

    column: int
    low: float
    high: float
    decimals: int | None


class Condition(NamedTuple):
    """A conjunction of what columns must hold.

    Attributes:
      text: as written, for messages.
      label: class that the label must be, or None.
      ranges: what inputs must hold.
    """

    text: str
    label: int | None
    ranges: tuple[Range, ...]


def parse_condition(text: str, schema: Schema) -> Condition:
    """Reads a condition: column=value pairs with commas between, each column once; empty text asks for nothing.

    A category is written by its name, which may hold commas, or by its place in the code book from 0, where no name is itself
    a whole number; a numeric value as 60..100 (both included), 60.., ..100 or 72.

    Args:
      text: the pairs.
      schema: columns to choose from: inputs and the label.

    Raises:
      UserError: no pair, an unknown column or category (and the nearest known one), a column named twice, or a range that is
        none, is empty, or lies outside the column's public range.
    """
    label, ranges = None, []
    seen: set[str] = set()
    # a comma ends a pair only where another pair begins
    for pair in re.split(r",(?=[^,=]+=)", text) if text.strip() else []:
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not equals:
            raise UserError(f"condition {pair.strip()!r} is no column=value; write for example {_example(schema)}")
        column = _column(name, schema)
        if name in seen:
            raise UserError(f"condition {text!r} names column {name!r} twice; give one value or one range for it")
        seen.add(name)
        if column.role == "label":
            label = _code(value, column)
        elif column.kind == "numeric":
            ranges.append(Range(schema.index(name), *_limits(value, column), column.decimals))
        else:
            code = float(_code(value, column))
            ranges.append(Range(schema.index(name), code, code, None))
    return Condition(text.strip(), label, tuple(ranges))


def holds(condition: Condition, values: np.ndarray) -> np.ndarray:
    """Which rows meet the ranges of a condition, by the values as they are published; the label is not looked at.

    Args:
      condition: from `parse_condition`.
      values: f32[M, F], in units.

    Returns:
      bool[M].
    """
    kept = np.ones(len(values), bool)
    for r in condition.ranges:
        cells = values[:, r.column].astype(np.float64)
        cells = cells if r.decimals is None else np.round(cells, r.decimals)
        kept &= (r.low <= cells) & (cells <= r.high)  # False for NaN
    return kept


def _column(name: str, schema: Schema) -> Column:
    known = {c.name: c for c in (*schema.inputs, schema.label)}
    if name not in known:
        raise UserError(f"condition on unknown column {name!r}; {_nearest(name, list(known))}")
    return known[name]


def _code(value: str, column: Column) -> int:
    places = [str(place) for place in range(len(column.categories))]
    if value in places and not any(re.fullmatch(r"[+-]?\d+", category) for category in column.categories):
        return int(value)
    if value not in column.categories:
        raise UserError(
            f"condition {column.name}={value}: no such category of {column.name!r}; {_nearest(value, column.categories)}"
        )
    return column.categories.index(value)


def _limits(value: str, column: Column) -> tuple[float, float]:
    """Both ends; those of the column where the text leaves one open."""
    assert column.low is not None and column.high is not None
    where, public = f"condition {column.name}={value}", f"{column.low:.10g}..{column.high:.10g}"
    if re.fullmatch(_NUMBER, value):
        low = high = float(value)
    elif (ends := re.fullmatch(rf"({_NUMBER})?\.\.({_NUMBER})?", value)) and value != "..":
        low = column.low if ends[1] is None else float(ends[1])
        high = column.high if ends[2] is None else float(ends[2])
    else:
        raise UserError(f"{where}: {value!r} is no range of a numeric column; write it as {column.name}={public}")
    if high < column.low or low > column.high:
        raise UserError(f"{where}: lies outside the public range {public} of {column.name!r}; give a range inside it")
    if low > high:
        raise UserError(f"{where}: its ends are the wrong way round; write {column.name}={high:.10g}..{low:.10g}")
    return low, high


def _nearest(name: str, known: Sequence[str]) -> str:
    folded = {k.casefold(): k for k in known}
    near = difflib.get_close_matches(name.casefold(), folded, 1)
    return f"did you mean {folded[near[0]]!r}?" if near else f"known: {', '.join(known)}"


def _example(schema: Schema) -> str:
    return f"{schema.label.name}={schema.label.categories[-1]}"
