"""The vocabulary every part shares: axis letters, batches, tables, rows, and the error a user sees.

Axis letters, used in every docstring: K clients, C cohort slots, S local steps, B batch, F raw columns, D model-space
features, M records, L label classes, R rounds a chunk, T rounds, N federations trained side by side (seeds).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import numpy as np

Array: TypeAlias = jax.Array
Params: TypeAlias = Any  # a pytree of f32 arrays
Update: TypeAlias = Any  # the same tree: global minus local parameters, a descent direction
Metrics: TypeAlias = dict[str, Array]  # scalars named "group/name"; "sim/..." is what only a simulator can see
Hyper: TypeAlias = dict[str, Array]  # f32 scalars, traced: a change never recompiles


class UserError(ValueError):
    """Something the user can mend: one sentence that names the value, where it stands, and the remedy."""


class Normals(Protocol):
    """What draws standard normal numbers on the host, such as a numpy Generator."""

    def standard_normal(self, size: int, /) -> np.ndarray:
        """f64[size]."""
        ...


class Board(Protocol):
    """What a run's rows are made from and shown on beside its tables; `train.metrics.Writer` is one."""

    def history(self, stage: str, name: str, seeds: int) -> np.ndarray:
        """f64[N, rounds], a metric of a stage."""
        ...

    def histograms(self, tag: str, real: np.ndarray, synthetic: Mapping[str, np.ndarray]) -> None:
        """Shows one column of the real and the synthetic records."""
        ...


class Batch(NamedTuple):
    """Records of one client in model space.

    Attributes:
      x: f32[B, D], encoded features.
      y: i32[B], label class in [0, L).
      mask: bool[B], False where the slot holds no record (x and y are then zero).
    """

    x: Array
    y: Array
    mask: Array


class Cohort(NamedTuple):
    """Clients of one round.

    Attributes:
      client: i32[C], 0 in an empty slot.
      mask: bool[C], False in an empty slot.
    """

    client: Array
    mask: Array


class Table(NamedTuple):
    """Records on the host in physical units; the columns are `schema.inputs`, in that order.

    Attributes:
      values: f32[M, F]; numeric in the column's unit, categorical and binary as the index of the category, NaN = missing.
      label: i32[M], class index into the label column's categories; class 0 is the negative (healthy, benign) one.
      client: i32[M], dense client index; rows of a client are contiguous. Synthetic rows have a running index.
    """

    values: np.ndarray
    label: np.ndarray
    client: np.ndarray


class Row(NamedTuple):
    """One figure of a published table (DESIGN section 5): a value, its 95 % interval, and what is behind it.

    Attributes:
      domain: data domain, such as "vitals".
      model: generator, such as "vae", or "-" where none is involved.
      row: "real", "synthetic", "real+synthetic", a feature, an attack, a floor or a ceiling.
      metric: name of the figure, with its unit where it has one.
      value, low, high: the figure and its 95 % interval (NaN interval only where n = 1).
      n: number of seeds, clients or records behind the interval.
    """

    domain: str
    model: str
    row: str
    metric: str
    value: float
    low: float
    high: float
    n: int
