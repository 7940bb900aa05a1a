"""What a frame's columns were before they are coded, so that generated rows come back in the same names and types.

A schema knows numbers and code books. Dates become numbers, a constant column is put aside, gaps in text become a category, and
all of it is undone on generated rows. What is remembered is a statistic of the data, so no guarantee covers it.
"""

# pandas' own annotations are unions that a chained expression does not narrow
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

import numpy as np
import pandas as pd

from fedjax_health.files import write_text
from fedjax_health.types import UserError

GAP = "(missing)"  # the category of gaps
UNITS = {
    "D": 86_400_000_000_000,
    "h": 3_600_000_000_000,
    "min": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "ns": 1,
}
FILE = "frame_types.json"


@dataclasses.dataclass(frozen=True)
class Origin:
    """What one column of a frame was.

    Attributes:
      name: as in the frame: text or a whole number.
      dtype: as pandas writes it.
      kind: "number", "time" (a whole number of `unit` since `start`), "constant" (`values` holds it, or None), or "code".
      values: of a code: what each text stands for, in the order of `texts`.
      texts: of a code, as text; `GAP` stands for None.
      unit, start: of a time; ns since 1970, or 0 for durations.
    """

    name: Any
    dtype: str
    kind: str
    values: tuple[Any, ...] = ()
    texts: tuple[str, ...] = ()
    unit: str = ""
    start: int = 0


def coded_frame(frame: pd.DataFrame, label: str, client: str = "") -> tuple[pd.DataFrame, tuple[Origin, ...]]:
    """A frame of numbers and texts under names that are text, and what its columns were.

    Args:
      frame: one row a record.
      label: column of the class, whose gaps are left for the schema to refuse.
      client: column of the client, which is passed on as it is; "" = none.

    Returns:
      (frame without constant columns, an origin for each column but the client's, in their order).

    Raises:
      UserError: no rows, two columns of one name, or a value that is infinite.
    """
    if not len(frame):
        raise UserError("the frame has no rows; give at least two records")
    names = [str(name) for name in frame.columns]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"the frame has {names.count(twice)} columns named {twice!r}; rename all but one")
    columns: dict[str, pd.Series] = {}
    origins: list[Origin] = []
    for name, given in zip(names, frame.columns, strict=True):
        cells = frame[given]
        if name == client:
            columns[name] = cells
            continue
        cells, origin = _coded(
            cells.rename(name), given.item() if isinstance(given, np.generic) else given, name == label
        )
        origins.append(origin)
        if origin.kind != "constant":
            columns[name] = cells
    return pd.DataFrame(columns, index=frame.index), tuple(origins)


def _coded(cells: pd.Series, name: Any, label: bool) -> tuple[pd.Series, Origin]:
    dtype, present = str(cells.dtype), cells.dropna()
    number = pd.api.types.is_numeric_dtype(cells.dtype) and not pd.api.types.is_bool_dtype(cells.dtype)
    if number and np.isinf(present.to_numpy(float)).any():
        count = int(np.isinf(present.to_numpy(float)).sum())
        raise UserError(f"column {str(name)!r} holds {count:,} infinite values; put gaps or numbers in their place")
    gaps = len(present) < len(cells)
    texts = cells if number else present.map(str)
    if not label and (not len(present) or (not gaps and texts.nunique() == 1)):
        return cells, Origin(name, dtype, "constant", (_plain(present.iloc[0]) if len(present) else None,))
    if pd.api.types.is_datetime64_any_dtype(cells.dtype) or pd.api.types.is_timedelta64_dtype(cells.dtype):
        return _timed(cells, name, dtype)
    if number and not label and present.nunique() > 2:
        return cells, Origin(name, dtype, "number")
    by_text = {_text(v): _plain(v) for v in present.unique()}
    coded = pd.Series(
        [_text(v) if there else None for v, there in zip(cells, cells.notna(), strict=True)], cells.index, dtype=object
    )
    if gaps and not label:
        by_text[GAP], coded = None, coded.fillna(GAP)
    return coded, Origin(name, dtype, "code", tuple(by_text.values()), tuple(by_text))


def _text(value: Any) -> str:
    whole = isinstance(value, (float, np.floating)) and float(value).is_integer()
    return str(int(value)) if whole else str(value)


def _plain(value: Any) -> Any:
    """A value that JSON can hold; others as their text."""
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def _timed(cells: pd.Series, name: Any, dtype: str) -> tuple[pd.Series, Origin]:
    """Times as whole numbers of the coarsest unit that all of them are, since the earliest."""
    there = cells.notna().to_numpy()
    plain = cells.dt.tz_convert("UTC").dt.tz_localize(None) if getattr(cells.dt, "tz", None) is not None else cells
    duration = pd.api.types.is_timedelta64_dtype(cells.dtype)
    ns = plain[there].astype("timedelta64[ns]" if duration else "datetime64[ns]").astype(np.int64).to_numpy()
    start = int(ns.min())
    unit = next(u for u, size in UNITS.items() if not ((ns - start) % size).any())
    numbers = np.full(len(cells), np.nan)
    numbers[there] = (ns - start) // UNITS[unit]
    return pd.Series(numbers, cells.index, name=cells.name), Origin(name, dtype, "time", unit=unit, start=start)


def restored_frame(frame: pd.DataFrame, origins: tuple[Origin, ...]) -> pd.DataFrame:
    """Generated rows in the columns, order and types of the frame that a generator was fitted to.

    Args:
      frame: of `frames.frame_from_table`.
      origins: of `coded_frame`; none = the frame as it is.

    Returns:
      The frame; whole numbers with gaps become pandas' `Int64` only where they were, else floats.
    """
    if not origins:
        return frame
    columns = [_restored(frame.get(str(o.name)), o, frame.index) for o in origins]
    out = pd.concat(columns, axis=1) if columns else frame
    out.columns = pd.Index([o.name for o in origins])
    return out


def _restored(cells: pd.Series | None, origin: Origin, index: pd.Index) -> pd.Series:
    if origin.kind == "constant":
        cells = pd.Series([origin.values[0]] * len(index), index, dtype=object)
    elif origin.kind == "code":
        assert cells is not None
        meaning = dict(zip(origin.texts, origin.values, strict=True))
        cells = cells.map(lambda text: meaning.get(text, text)).astype(object)
    assert cells is not None
    if origin.kind == "time":
        ns = np.where(cells.isna(), 0, cells).astype(np.float64) * UNITS[origin.unit]
        whole = pd.Series(np.round(ns).astype(np.int64) + origin.start, index)
        times = (
            pd.to_timedelta(whole, unit="ns")
            if origin.dtype.startswith("timedelta")
            else pd.to_datetime(whole, unit="ns")
        )
        if "," in origin.dtype:  # datetime64[ns, Europe/Zurich]
            times = times.dt.tz_localize("UTC")
        return times.where(cells.notna().to_numpy()).astype(origin.dtype)
    if pd.api.types.is_integer_dtype(origin.dtype) and not cells.isna().any():
        return (
            cells.astype(np.float64).round().astype(origin.dtype)
            if origin.kind == "number"
            else cells.astype(origin.dtype)
        )
    return cells if origin.dtype == "object" else cells.astype(origin.dtype)


def write_origins(folder: str, origins: tuple[Origin, ...]) -> None:
    """Writes what columns were into a folder, as JSON.

    Args:
      folder: exists.
      origins: of `coded_frame`.
    """
    write_text(os.path.join(folder, FILE), json.dumps([dataclasses.asdict(o) for o in origins], indent=1) + "\n")


def read_origins(folder: str) -> tuple[Origin, ...]:
    """What `write_origins` wrote; none where there is no such file.

    Args:
      folder: to look in.

    Raises:
      UserError: a file that is damaged.
    """
    path = os.path.join(folder, FILE)
    if not os.path.isfile(path):
        return ()
    try:
        with open(path, encoding="utf-8") as file:
            raw = json.load(file)
        return tuple(Origin(**{k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}) for entry in raw)
    except (json.JSONDecodeError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}); save the synthesizer again") from error
