"""Writes synthetic windows as a long table: one row a step, with the window it belongs to, its time and its label."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd

from fedjax_health.data.frames import write_frame
from fedjax_health.data.stream_schema import StreamSchema
from fedjax_health.types import Table


def frame_from_windows(table: Table, schema: StreamSchema) -> pd.DataFrame:
    """Windows as a frame of M * T rows: window, step, seconds since the window began, the channels in their units, the label.

    Args:
      table: M windows.
      schema: theirs.
    """
    count = len(table.label)
    step = np.tile(np.arange(schema.steps), count)
    columns: dict[str, np.ndarray] = {"window": np.repeat(np.arange(count), schema.steps), "step": step}
    columns["seconds"] = step * schema.seconds
    for c, channel in enumerate(schema.channels):
        cells = schema.windows(table.values)[..., c].ravel().astype(np.float64)
        columns[channel.name] = cells if channel.decimals is None else np.round(cells, channel.decimals)
    categories = np.asarray(schema.label.categories, dtype=object)
    return pd.DataFrame({**columns, schema.label.name: np.repeat(categories[table.label], schema.steps)})


def publish_windows(folder: str, name: str, table: Table, schema: StreamSchema) -> None:
    """Writes <name>.parquet.

    Args:
      folder: the run's synthetic/ folder.
      name: "<domain>_<model>".
      table: synthetic windows.
      schema: theirs.
    """
    write_frame(frame_from_windows(table, schema), os.path.join(folder, f"{name}.parquet"))
