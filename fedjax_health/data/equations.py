"""Columns that follow from others by an equation: given back on decoding, and counted where real records break them.

A column whose equation does not mention itself is *derived*: it is no dimension of model space, and what is published of it is
the equation's value of the other published cells. One whose equation mentions itself is generated and then *settled*: moved to
the nearest value that the others allow, such as min(a, b) for a that never exceeds b.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from fedjax_health.data.expression import Expression, parse
from fedjax_health.data.schema import Column, Schema
from fedjax_health.types import Array

ROUNDED = 5e-4  # relative: a figure printed with four digits is off by as much
SLACK = 0.55  # of a resolution step


def equations_of(schema: Schema) -> list[tuple[int, Column, Expression]]:
    """(place on the F axis, column, its equation), each after those that it reads.

    Args:
      schema: checked for circles when it was made.
    """
    left = {c.name: parse(c.equation, c.name) for c in schema.inputs if c.equation}
    ordered = []
    while left:
        ready = [name for name, e in left.items() if not (set(e.names) & set(left)) - {name}]
        ordered += [(schema.index(name), schema.inputs[schema.index(name)], left.pop(name)) for name in ready]
    return ordered


def make_complete(schema: Schema) -> Callable[[Array], Array]:
    """Cells f32[F] in units, of which derived ones may be anything -> the same with all equations kept; traceable.

    Every result lies inside its public range and at its public resolution; up to that its equation holds.

    Args:
      schema: whose equations.
    """
    steps = equations_of(schema)

    def complete(v: Array) -> Array:
        env = {c.name: v[i] for i, c in enumerate(schema.inputs)}
        for i, c, expression in steps:
            assert c.low is not None and c.high is not None
            cell = jnp.clip(expression.evaluate(env, jnp), c.low, c.high)
            if c.decimals is not None:
                unit = 10.0**c.decimals
                cell = jnp.clip(jnp.round(cell * unit) / unit, c.low, c.high)
            env[c.name] = cell
            v = v.at[i].set(cell)
        return v

    return complete


def completed(values: np.ndarray, schema: Schema) -> np.ndarray:
    """The same of a table on the host, in double precision: f32[M, F] -> f32[M, F].

    Args:
      values: as in `Table`.
      schema: whose equations.
    """
    out = values.copy()
    for i, c, expression in equations_of(schema):
        value = _value(out, schema, c, expression)
        out[:, i] = value if c.decimals is None else np.round(value, c.decimals)
    return out


def broken_equations(values: np.ndarray, schema: Schema) -> dict[str, np.ndarray]:
    """Rows that break each equation beyond rounding: more than .55 of a resolution step and .05 % of the value.

    Each equation is judged on the row's own cells. A missing cell breaks nothing.

    Args:
      values: f[M, F], as in `Table`.
      schema: whose equations.

    Returns:
      column -> bool[M].
    """
    found = {}
    for i, c, expression in equations_of(schema):
        value = _value(values, schema, c, expression)
        step = 0.0 if c.decimals is None else 10.0**-c.decimals
        off = np.abs(values[:, i].astype(np.float64) - value)
        found[c.name] = off > SLACK * step + ROUNDED * np.abs(value)
    return found


def _value(values: np.ndarray, schema: Schema, column: Column, expression: Expression) -> np.ndarray:
    env = {name: values[:, schema.index(name)].astype(np.float64) for name in expression.names}
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.clip(expression.evaluate(env, np), column.low, column.high)
