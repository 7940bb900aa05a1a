"""What a folder does not hold, and what follows from that, so that a reader does not take silence for a good result."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from fedjax_health.types import Row

TABLES = {
    "similarity": "Table 1 (similarity): whether the records look like real ones was not measured",
    "utility": "Table 2 (utility): no classifier was trained on the records",
    "membership": "Table 3 (membership): no attack was run, which says nothing about whether one would succeed",
    "detection": "Table 4 (detection): no domain of this folder is traffic with attacks",
    "efficiency": "Cost: nothing was trained here, or nothing of it was measured",
    "fairness": "Fairness: no column names subgroups, or none was measured",
}
FILES = {
    "privacy_ledger.json": "Promise: there is no privacy ledger, so how the records were made is unknown and nothing is proven",
    "metrics.jsonl": "Training curves: nothing was trained in this folder",
    "synthetic/schema.json": "Units, ranges and names of categories: there is no schema of the published columns",
    "tables/distributions.csv": "Pictures of distributions: their points were not written",
    "tables/correlations.csv": "Pictures of correlations: their points were not written",
    "tables/roc.csv": "Pictures of attacks: their points were not written",
}


def absent(workdir: str, tidy: Mapping[str, Sequence[Row]]) -> list[str]:
    """A sentence for each part of a report that this folder has no figures for; names the file that would hold them.

    Args:
      workdir: the folder.
      tidy: rows by table.
    """
    lines = [f"{why} (tables/{name}.csv)." for name, why in TABLES.items() if not tidy.get(name)]
    lines += [f"{why} ({name})." for name, why in FILES.items() if not os.path.exists(os.path.join(workdir, name))]
    return lines


def in_domain(name: str, mine: Mapping[str, Sequence[Row]]) -> dict[str, str]:
    """For each of the paper's tables why the domain has no line of it; "" where it has, or needs none.

    A domain has Table 4 if it is traffic with attacks, else Table 2.

    Args:
      name: the domain.
      mine: its rows by table.
    """
    wanted = ("similarity", "detection" if mine["detection"] else "utility", "membership")
    missing = [table for table in wanted if not mine[table]]
    return {
        table: f"Not measured for {name}: tables/{table}.csv has no line of it." if table in missing else ""
        for table in ("similarity", "utility", "membership", "detection")
    }


def others(workdir: str, known: Sequence[str]) -> list[str]:
    """Names of further tables of figures in a folder, those with the columns of `Row`, in order of their letters.

    Args:
      workdir: the folder.
      known: tables that have a place of their own.
    """
    folder = os.path.join(workdir, "tables")
    found = []
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        stem, end = os.path.splitext(name)
        if end == ".csv" and stem not in known:
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                if set(Row._fields) <= set(file.readline().strip().split(",")):
                    found.append(stem)
    return found
