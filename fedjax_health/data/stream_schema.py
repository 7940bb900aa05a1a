"""Windows of a sensor stream as records: a window of T steps and C channels is one record of T * C numeric columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fedjax_health.data.schema import Column, Schema
from fedjax_health.types import UserError


@dataclasses.dataclass(frozen=True)
class StreamSchema(Schema):
    """A schema whose inputs are the cells of a window, step by step: column t * C + c is channel c at step t.

    As a schema it gives the layout, the public scaling and the constraints of each cell, so that populations, training and
    privacy need not know of streams.

    Attributes:
      channels: C columns with unit, range, scaling and resolution, the same at every step.
      steps: T, steps of a window.
      seconds: time between two steps.
    """

    channels: tuple[Column, ...] = ()
    steps: int = 0
    seconds: float = 0.0

    def windows(self, values: np.ndarray) -> np.ndarray:
        """Records as windows: f32[M, T * C] -> f32[M, T, C]."""
        return values.reshape(len(values), self.steps, len(self.channels))


def stream_schema(name: str, channels: Sequence[Column], label: Column, steps: int, seconds: float) -> StreamSchema:
    """Schema of windows.

    Args:
      name: domain.
      channels: numeric columns without missing cells.
      label: of a window.
      steps: T >= 2.
      seconds: between two steps, > 0.

    Raises:
      UserError: a channel that is not such a column, or fewer than two steps.
    """
    for c in channels:
        if c.kind != "numeric" or c.nullable or c.at_most or c.equation:
            raise UserError(
                f"stream {name!r}: channel {c.name!r} must be numeric, never missing and without at_most or equation; drop it "
                "or fill it"
            )
    if steps < 2 or seconds <= 0:
        raise UserError(f"stream {name!r}: needs 2 steps or more and a time between them, got {steps} and {seconds} s")
    cells = [dataclasses.replace(c, name=f"{c.name}[{t}]") for t in range(steps) for c in channels]
    return StreamSchema(name, (*cells, label), tuple(channels), steps, seconds)
