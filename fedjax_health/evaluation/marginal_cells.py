"""A table as codes: every column on few public cells, and records drawn back from codes at the schema's resolution."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fedjax_health.data.cells import Variable, edges_of, kept, prior_of, variables
from fedjax_health.data.equations import completed
from fedjax_health.data.schema import Schema
from fedjax_health.types import Table, UserError

CELLS = 16  # of a numeric column, at most: of 10, 16, 22 and 32 the best for AIM on PhysioNet 2019 at epsilon 8
FINE = 1024  # public cells from which these are put together


class Grid(NamedTuple):
    """Codes of one column.

    Attributes:
      size: number of codes; the last one says "missing" where the column is nullable.
      variable: what is kept of a numeric column, None for a category or the label.
      edges: f64[n + 1] of a numeric column, in its unit; empty for others.
    """

    size: int
    variable: Variable | None
    edges: np.ndarray


def coarse_edges(variable: Variable, cells: int = CELLS) -> np.ndarray:
    """Edges of few public cells: equal shares of f^{1/3}, f the public prior's density, on edges between published values.

    That spacing loses least squared error under f when there are many cells: narrow at the public centre, wider outside, and
    never so wide as cells of equal mass are in the tails.

    Args:
      variable: what is kept of a numeric column.
      cells: most cells, >= 1.

    Returns:
      f64[n + 1], n <= cells, strictly rising, over the whole range.

    Source: Panter & Dite 1951, "Quantization distortion in pulse-count modulation with nonuniform spacing of levels".
    """
    edges = edges_of(variable, FINE)
    at = np.log1p(np.maximum(edges, 0.0)) if variable.log else edges
    width = np.maximum(np.diff(at), 1e-12)
    share = np.concatenate([[0.0], np.cumsum(np.cbrt(prior_of(variable, edges) / width) * width)])
    wanted = np.linspace(0.0, share[-1], cells + 1)
    place = np.abs(share[None, :] - wanted[:, None]).argmin(1)
    place[0], place[-1] = 0, len(edges) - 1
    return edges[np.unique(place)]


def grids_of(schema: Schema, cells: int = CELLS) -> tuple[Grid, ...]:
    """Codes of every input column and, last, of the label; from public knowledge alone.

    Args:
      schema: ranges, centers, resolutions, code books.
      cells: most cells of a numeric column, >= 1.

    Raises:
      UserError: `cells` is below 1.
    """
    if cells < 1:
        raise UserError(f"cells={cells} of a numeric column must be at least 1; 16 is usual")
    numeric, found = {v.column: v for v in variables(schema)}, []
    for j, column in enumerate(schema.inputs):
        edges = coarse_edges(numeric[j], cells) if j in numeric else np.empty(0)
        values = len(edges) - 1 if j in numeric else 1 if column.derived else len(column.categories)
        found.append(Grid(values + column.nullable, numeric.get(j), edges))
    return (*found, Grid(schema.num_classes, None, np.empty(0)))


def encode_cells(table: Table, schema: Schema, grids: tuple[Grid, ...]) -> np.ndarray:
    """Codes of records, i64[M, F + 1]; the label is the last column.

    Args:
      table: records.
      schema: their columns.
      grids: of `grids_of`.

    Raises:
      UserError: a value is missing in a column that is not nullable.
    """
    parts = variables(schema)
    own = dict(zip((v.column for v in parts), kept(table.values, parts).T, strict=True))
    codes = np.empty((len(table.label), len(grids)), np.int64)
    codes[:, -1] = table.label
    for j, (column, grid) in enumerate(zip(schema.inputs, grids, strict=False)):
        values = own.get(j, table.values[:, j])
        gone = np.isnan(values)
        if gone.any() and not column.nullable:
            raise UserError(
                f"{int(gone.sum())} cells of {schema.name!r} column {column.name!r} are missing; mark it nullable in the schema"
            )
        known = np.where(gone, 0.0, values)
        last = grid.size - 1 - column.nullable
        if grid.variable is not None:
            known = np.searchsorted(grid.edges, np.where(gone, grid.edges[0], values), side="right") - 1
        codes[:, j] = np.where(gone, grid.size - 1, np.clip(known, 0, last))
    return codes


def decode_cells(codes: np.ndarray, schema: Schema, grids: tuple[Grid, ...], rng: np.random.Generator) -> Table:
    """Records of codes: numeric values uniform over their cell, at the schema's resolution; what bounds a column comes first.

    Args:
      codes: i64[M, F + 1].
      schema: their columns.
      grids: of `grids_of`.
      rng: draws inside cells.

    Returns:
      Table with a running client index.
    """
    done: dict[int, np.ndarray] = {}

    def column(j: int) -> np.ndarray:
        if j in done:
            return done[j]
        code, grid, spec = codes[:, j], grids[j], schema.inputs[j]
        gone = (code == grid.size - 1) & spec.nullable
        v = grid.variable
        if v is None:
            values = code.astype(np.float64)
        else:
            cell = np.minimum(code, len(grid.edges) - 2)
            low, high = grid.edges[cell], grid.edges[cell + 1]
            values = low + (high - low) * rng.random(len(code))
            if v.step:  # edges lie half a step from published values, so rounding stays inside the cell
                values = v.low + v.step * np.round((values - v.low) / v.step)
            values = np.clip(values, v.low, v.high)
            if v.other >= 0:
                above = column(v.other)
                own = np.where(np.isnan(above), v.stand_in, above) - values
                values = np.minimum(np.clip(own, spec.low, spec.high), np.where(np.isnan(above), np.inf, above))
        done[j] = np.where(gone, np.nan, values)
        return done[j]

    values = np.stack([column(j) for j in range(len(schema.inputs))], 1).astype(np.float32)
    return Table(completed(values, schema), codes[:, -1].astype(np.int32), np.arange(len(codes), dtype=np.int32))
