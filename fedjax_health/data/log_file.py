"""Logs as they are found: where a file is, and lines that are no records, dropped and counted."""

# pandas' own annotations are unions that a chained expression does not narrow
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false, reportReturnType=false
from __future__ import annotations

import os
from collections.abc import Sequence

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


def without_headers(frame: pd.DataFrame, names: Sequence[str], where: str) -> tuple[pd.DataFrame, list[str]]:
    """Drops header lines that stand among the records, as where logs were joined; other rows keep their index.

    Args:
      frame: its columns are `names`.
      names: cells of a header line.
      where: file, for the sentence.

    Returns:
      (frame, a sentence if some were dropped).
    """
    first = frame[names[0]]
    if pd.api.types.is_numeric_dtype(first.dtype):
        return frame, []
    likely = frame[(first.astype("string").str.strip() == names[0]).fillna(False).to_numpy(dtype=bool)]
    same = sum(
        (likely[name].astype("string").str.strip() == name).fillna(False).to_numpy(dtype=float) for name in names
    )
    rows = likely.index[same >= MOST * len(names)] if len(likely) else likely.index
    if not len(rows):
        return frame, []
    at = ", ".join(f"{1 + row:,}" for row in rows[:3]) + (", …" if len(rows) > 3 else "")
    return frame.drop(index=rows), [
        f"{len(rows):,} header lines among the records of {os.path.basename(where)} were dropped (row {at})."
    ]
