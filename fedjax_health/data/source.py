"""What every adapter and simulator hands over: a schema, a task, one table of all records, and what was changed."""

from __future__ import annotations

from typing import NamedTuple

from fedjax_health.data.schema import Schema
from fedjax_health.types import Table


class Source(NamedTuple):
    """One domain's records before the split into training, validation and test clients.

    Attributes:
      schema: columns, units, public ranges.
      task: "diagnosis" or "detection".
      table: all records, client-major, dense client ids 0 … K-1.
      notes: one sentence for each change made to the input (values clipped, rows dropped), shown in the report.
    """

    schema: Schema
    task: str
    table: Table
    notes: tuple[str, ...] = ()
