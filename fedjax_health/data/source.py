"""What every adapter and simulator hands over: a schema, a task, one table of all records, and what was changed."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from fedjax_health.data.schema import Schema
from fedjax_health.types import Table

NO_GROUPS: Mapping[str, np.ndarray] = MappingProxyType({})


class Source(NamedTuple):
    """One domain's records before the split into training, validation and test clients.

    Attributes:
      schema: columns, units, public ranges.
      task: "diagnosis" or "detection".
      table: all records but those of `test`, client-major, dense client ids 0 … K-1.
      notes: one sentence for each change made to the input (values clipped, rows dropped), shown in the report.
      test: the official test set, which is never split or drawn anew, with client ids of its own; None = clients of `table`
        are held out.
      groups: parts of `test` that are also judged by themselves, name -> bool[M_test]; they may overlap.
    """

    schema: Schema
    task: str
    table: Table
    notes: tuple[str, ...] = ()
    test: Table | None = None
    groups: Mapping[str, np.ndarray] = NO_GROUPS
