"""What a membership attacker sees, what an attack is, and the public space in which attackers measure distance."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fedjax_health.data.encode import public_scaling
from fedjax_health.data.schema import Column, Schema
from fedjax_health.types import Table, UserError


class Published(NamedTuple):
    """What the attacker has.

    Attributes:
      synthetic: the published synthetic records, or None where only a model is published.
      reference: real records of the attacker's own, disjoint from members and targets (the validation clients).
      loss: records -> f64[M], the published model's loss on each (higher = fits worse), or None where no model is.
    """

    synthetic: Table | None
    reference: Table
    loss: Callable[[Table], np.ndarray] | None


class Attack(NamedTuple):
    """A membership attack.

    Attributes:
      name: row of the attack in the table.
      threat_model: what the attacker must have, in words.
      score: (published, records, schema, rng) -> f64[M], higher = more likely a member.
    """

    name: str
    threat_model: str
    score: Callable[[Published, Table, Schema, np.random.Generator], np.ndarray]


def require_synthetic(published: Published, attack: str) -> Table:
    """The published synthetic table.

    Args:
      published: what the attacker has.
      attack: name of the attack, for the message.

    Raises:
      UserError: no synthetic table is published, or it has no rows.
    """
    if published.synthetic is None or not len(published.synthetic.label):
        raise UserError(f"attack {attack!r} needs a synthetic table, and none is published; drop the attack")
    return published.synthetic


def at_most(rows: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """All rows, or `most` of them at random, [<= most, ...].

    Args:
      rows: [n, ...].
      most: rows.
      rng: host generator; not asked where all are kept.
    """
    return rows if len(rows) <= most else rows[rng.choice(len(rows), most, replace=False)]


def _one_hot(index: np.ndarray, size: int) -> np.ndarray:
    # 1/sqrt(2): two different categories are then one unit apart, as two values one public scale apart are.
    return (index[:, None] == np.arange(size)[None, :]) / np.sqrt(2.0)


def _numeric(values: np.ndarray, column: Column) -> np.ndarray:
    values = np.clip(values, column.low, column.high)
    center, scale = public_scaling(column)
    return (((np.log1p(values) if column.transform == "log1p" else values) - center) / scale)[:, None]


def public_blocks(table: Table, schema: Schema) -> list[np.ndarray]:
    """The coordinates of `public_space`, column by column: those of `schema.inputs` in order, then the label's.

    Args:
      table: M records in physical units.
      schema: columns.

    Returns:
      F + 1 arrays f64[M, d_j].
    """
    blocks = []
    for j, column in enumerate(schema.inputs):
        values = table.values[:, j].astype(np.float64)
        if column.kind != "numeric":
            blocks.append(_one_hot(values, len(column.categories)))
            continue
        missing = np.isnan(values)
        block = np.where(missing[:, None], 0.0, _numeric(values, column))
        blocks.append(np.concatenate([block, missing[:, None]], 1) if column.nullable else block)
    return [*blocks, _one_hot(table.label, schema.num_classes)]


def public_space(table: Table, schema: Schema) -> np.ndarray:
    """Records as points scaled by public knowledge only, label included; numeric: (transform(x) - center) / scale.

    Args:
      table: M records in physical units.
      schema: columns; nothing is estimated from the records.

    Returns:
      f64[M, D]; categories and the label one-hot over √2 (different ones are 1 apart). A missing value stands at the
      column's center with an indicator 1; a missing category is all zeros.
    """
    return np.concatenate(public_blocks(table, schema), axis=1)
