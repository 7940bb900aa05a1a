"""Public cells of numeric columns: the grid on which a column's distribution function is kept, and what lies on it.

A column that may never exceed another (`at_most`) is kept as its distance from it, which only has to be positive: diastolic
pressure as pulse pressure. Where the other is missing, the distance is that from its public center, of either sign.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.stats

from fedjax_health.data.encode import public_scaling
from fedjax_health.data.schema import Column, Schema

EVERYWHERE = 1e-3  # share of the public prior that is spread over the whole range
PRIOR_FREEDOM = 8
MOST_EXACT = 1 << 20  # cells of a column that is kept at its full resolution
SPIKE = 2.0**-20  # half the width of a spike's cell in ranges, where a column has no resolution
EXACT = 2.0**-22  # and at least this share of the value, so that float32 can tell its edges
MARGIN = 1e-3  # of a spike's cell that is kept free at either edge, for float32's sake


class Variable(NamedTuple):
    """What is kept of a numeric column.

    Attributes:
      column: place on the F axis.
      other: place of the column that bounds it from above, whose distance is kept instead; -1 = the column itself.
      stand_in: what takes the other's place where it is missing, its public center.
      low, high: range of what is kept, in the column's unit.
      step: resolution, 0 = none.
      log: whether cells are equally wide in log(1 + value), in which center and scale are then meant.
      center, scale: public location and spread, as for scaling.
      spikes: values with a cell of their own, as float32 has them, rising.
    """

    column: int
    other: int
    stand_in: float
    low: float
    high: float
    step: float
    log: bool
    center: float
    scale: float
    spikes: tuple[float, ...] = ()


def variables(schema: Schema) -> tuple[Variable, ...]:
    """The numeric columns of a schema that do not follow from others by an equation, in their order on the D axis.

    Args:
      schema: public ranges, resolutions, bounds.
    """
    inputs, found = schema.inputs, []
    for i, c in enumerate(inputs):
        if c.kind != "numeric" or c.derived:
            continue
        assert c.low is not None and c.high is not None
        step = _step(c)
        if c.at_most:
            other = schema.index(c.at_most)
            ceiling = inputs[other].high
            assert ceiling is not None
            step = min(step, _step(inputs[other])) if step and _step(inputs[other]) else 0.0
            (own, spread), (above, its) = public_values(c), public_values(inputs[other])
            stand_in = step * round(above / step) if step else above
            low, high = min(stand_in - c.high, 0.0), max(ceiling - c.low, step)
            center, scale = max(above - own, 0.0), max(float(np.hypot(spread, its)), 1e-6 * high)
            found.append(Variable(i, other, stand_in, low, high, step, False, center, scale))
        else:
            spikes = tuple(np.unique(np.asarray(c.spikes, np.float32)).astype(np.float64).tolist())
            found.append(Variable(i, -1, 0.0, c.low, c.high, step, c.transform == "log1p", *public_scaling(c), spikes))
    return tuple(found)


def public_values(column: Column) -> tuple[float, float]:
    """Public location and spread of a column in its own unit, whatever its transform."""
    center, scale = public_scaling(column)
    if column.transform != "log1p":
        return center, scale
    return float(np.expm1(center)), float(np.exp(center) * scale)


def prior_of(variable: Variable, edges: np.ndarray) -> np.ndarray:
    """What is publicly known of a variable: Student's t with 8 degrees around its center, and a little everywhere in its range.

    Args:
      variable: gives center and scale.
      edges: f64[n + 1], of `edges_of`.

    Returns:
      f64[n], > 0, sums to 1.
    """
    v = variable
    at = np.log1p(np.maximum(edges, 0.0)) if v.log else edges
    body = np.diff(scipy.stats.t.cdf((at - v.center) / v.scale, df=PRIOR_FREEDOM))
    flat = np.diff(at) / (at[-1] - at[0])
    mixed = (1.0 - EVERYWHERE) * body / body.sum() + EVERYWHERE * flat
    return mixed / mixed.sum()


def moved(variable: Variable, edges: np.ndarray, masses: np.ndarray) -> Variable:
    """The variable with the center and scale that masses show: their median, and their quartiles' distance over that of the t.

    Args:
      variable: as known before.
      edges: f64[n + 1], of `edges_of`.
      masses: f64[n], >= 0, not all 0.
    """
    at = np.log1p(np.maximum(edges, 0.0)) if variable.log else edges
    below = np.append(0.0, np.cumsum(masses)) / masses.sum()
    low, middle, high = np.interp((0.25, 0.5, 0.75), below, at)
    least = variable.scale / 10.0  # a spike has no width
    scale = max((high - low) / (2.0 * scipy.stats.t.ppf(0.75, df=PRIOR_FREEDOM)), least)
    return variable._replace(center=float(middle), scale=float(scale))


def _step(column: Column) -> float:
    return 0.0 if column.decimals is None else 10.0**-column.decimals


def edges_of(variable: Variable, most: int = MOST_EXACT) -> np.ndarray:
    """Edges of a variable's cells: one a published value where these are at most `most`, else equally wide ones and spikes.

    Args:
      variable: what is kept.
      most: cells, >= 1.

    Returns:
      f64[n + 1], strictly rising; every published value lies inside one cell, half a step from its edges or more.
    """
    v, half = variable, variable.step / 2
    count = round((v.high - v.low) / v.step) + 1 if v.step else 0
    if 0 < count <= most:
        return v.low - half + v.step * np.arange(count + 1)
    if v.log:
        edges = np.expm1(np.linspace(np.log1p(v.low), np.log1p(v.high), most + 1))
    else:
        edges = np.linspace(v.low, v.high, most + 1)
    if v.step:  # between two published values
        edges = v.low + v.step * np.round((edges - v.low) / v.step) - half
        edges[-1] = v.high + half
    narrow = spike_edges(v)
    within = np.searchsorted(narrow[:, 0], edges, side="right") == np.searchsorted(narrow[:, 1], edges, side="left")
    return np.unique(np.concatenate([edges[within], narrow.ravel()]))


def spike_edges(variable: Variable) -> np.ndarray:
    """Edges of the spikes' own cells, f64[S, 2], none of which overlap: where two would, each ends halfway.

    Args:
      variable: its range and spikes.
    """
    v, at = variable, np.asarray(variable.spikes, np.float64)
    span = SPIKE * (np.log1p(v.high) - np.log1p(v.low)) * (1.0 + at) if v.log else SPIKE * (v.high - v.low)
    half = np.maximum(v.step / 2 if v.step else span, EXACT * np.abs(at))
    gap = np.diff(at, prepend=-np.inf, append=np.inf) / 2
    edges = np.stack([at - np.minimum(half, gap[:-1]), at + np.minimum(half, gap[1:])], 1)
    return edges.astype(np.float32).astype(np.float64)  # as decoding has them


def spread_out(own: np.ndarray, variable: Variable, uniform: np.ndarray) -> np.ndarray:
    """Values of one variable spread evenly over their resolution, and spikes over their cells.

    Args:
      own: f64[M], of `kept`.
      variable: what is kept.
      uniform: f64[M], in [0, 1); 0.5 = the middle.
    """
    value = own + variable.step * (uniform - 0.5)
    if not variable.spikes:
        return value
    narrow, at = spike_edges(variable), np.asarray(variable.spikes)
    own = own.astype(np.float32).astype(np.float64)  # a range may end at a spike that float32 has a little beyond it
    place = np.minimum(np.searchsorted(at, own), len(at) - 1)
    low, high = narrow[place].T
    inside = MARGIN + (1.0 - 2.0 * MARGIN) * uniform
    return np.where(own == at[place], low + inside * (high - low), value)


def kept(values: np.ndarray, parts: tuple[Variable, ...]) -> np.ndarray:
    """What is kept of a table's numeric columns, in the columns' units: f64[M, J] of f32[M, F]; NaN = missing.

    Args:
      values: as in `Table`.
      parts: of `variables`.
    """
    out = np.empty((len(values), len(parts)))
    for j, v in enumerate(parts):
        own = values[:, v.column].astype(np.float64)
        if v.other >= 0:
            above = values[:, v.other].astype(np.float64)
            own = np.where(np.isnan(above), v.stand_in, np.maximum(above, own)) - own
        out[:, j] = np.clip(own, v.low, v.high)
    return out
