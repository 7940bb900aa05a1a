"""Logs as they are found: where a file is, and lines of it that are no records, dropped and counted."""

# pandas' own annotations are unions that a chained expression does not narrow
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false, reportReturnType=false
from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd

from fedjax_health.types import UserError

MOST = 0.5  # share of a line's cells that must be names of their columns for it to be a header


def find_file(path: str, name: str, where_to_get: str, single: bool = False) -> str:
    """The path of a data set's file, compressed or not.

    Args:
      path: its folder.
      name: as published, such as "log.csv"; "log.csv.gz" is found too.
      where_to_get: the remedy, such as "download log.csv from ...".
      single: whether the file itself may be given instead of its folder, under any name.

    Raises:
      UserError: it is not there.
    """
    if single and os.path.isfile(path):
        return path
    for found in (os.path.join(path, name), os.path.join(path, name + ".gz")):
        if os.path.isfile(found):
            return found
    if os.path.isdir(path):
        raise UserError(f"folder {path!r} does not hold {name} or {name}.gz; {where_to_get} into it")
    kind = "" if single or not os.path.exists(path) else " as a folder"
    raise UserError(f"{path!r} does not exist{kind}; {where_to_get} and give its {'path' if single else 'folder'}")


def header_of(path: str, separator: str = ",") -> list[str]:
    """Cells of a text file's first line, as they stand there.

    Args:
      path: plain or .gz.
      separator: between cells.

    Raises:
      ValueError, OSError: as pandas reads it.
    """
    first = pd.read_csv(
        path, sep=separator, header=None, nrows=1, dtype=str, keep_default_na=False, skipinitialspace=True
    )
    return first.iloc[0].tolist()


def require_once(names: Sequence[str], where: str) -> None:
    """Refuses a header that names a column twice: which one is meant nobody can tell.

    Args:
      names: of the header.
      where: file, for the message.

    Raises:
      UserError: says the first such name.
    """
    named = [str(name).strip() for name in names]
    for name in named:
        if name and named.count(name) > 1:
            raise UserError(
                f"{where}: column {name!r} stands {named.count(name)} times in the header; rename all but one"
            )


def records_of(
    frame: pd.DataFrame, names: Sequence[str], where: str, client: str = ""
) -> tuple[pd.DataFrame, list[str]]:
    """Drops lines that are no records: header lines among them, as where logs were joined, and rows without any value.

    Other rows keep their index, so that messages count them as they stand in the file.

    Args:
      frame: one row a line.
      names: its columns that are read, as a header line has them.
      where: file, for the sentences.
      client: column of the device, which alone makes no record; "" = none.

    Returns:
      (frame, a sentence for each kind that was dropped, and one where devices have no other rows).
    """
    file, notes = os.path.basename(where), []
    rows = _headers(frame, names)
    if len(rows):
        notes.append(f"{len(rows):,} header lines among the records of {file} were dropped ({_places(rows)}).")
        frame = frame.drop(index=rows)
    blank = frame.index[frame[[name for name in names if name != client]].isna().all(axis=1).to_numpy(dtype=bool)]
    if len(blank):
        notes.append(f"{len(blank):,} rows of {file} without any value were dropped ({_places(blank)}).")
        kept = frame.drop(index=blank)
        if client:
            lost = sorted(map(str, set(frame[client].dropna()) - set(kept[client].dropna())))
            if lost:
                some = ", ".join(lost[:3]) + (", …" if len(lost) > 3 else "")
                notes.append(f"{len(lost):,} devices of {file} had no other rows and are left out ({some}).")
        frame = kept
    return frame, notes


def _headers(frame: pd.DataFrame, names: Sequence[str]) -> pd.Index:
    first = frame[names[0]]
    if pd.api.types.is_numeric_dtype(first.dtype):
        return frame.index[:0]

    def said(rows: pd.DataFrame, name: str) -> np.ndarray:
        return (rows[name].astype("string").str.strip() == name).fillna(False).to_numpy(dtype=bool)

    likely = frame[said(frame, names[0])]
    same = np.zeros(len(likely))
    for name in names:
        same += said(likely, name)
    return likely.index[same >= MOST * len(names)]


def _places(rows: pd.Index) -> str:
    return "row " + ", ".join(f"{1 + row:,}" for row in rows[:3]) + (", …" if len(rows) > 3 else "")
