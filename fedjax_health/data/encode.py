"""Between physical units and model space: public scaling, one-hot codes, and a missingness bit; with the way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from fedjax_health.data.equations import make_complete
from fedjax_health.data.schema import Column, Schema
from fedjax_health.types import Array, UserError


class Layout(NamedTuple):
    """Where things are on the D axis: numeric columns that are not derived, then bits, then one-hot blocks.

    Attributes:
      numeric: number of numeric dimensions, [0, numeric).
      bits: number of binary dimensions, [numeric, numeric + bits): binary columns, then missingness bits.
      blocks: sizes of the one-hot blocks that follow.
      missing: for each numeric dimension, the dimension of its missingness bit, or -1.
    """

    numeric: int
    bits: int
    blocks: tuple[int, ...]
    missing: tuple[int, ...]

    @property
    def dim(self) -> int:
        """D, the width of model space."""
        return self.numeric + self.bits + sum(self.blocks)


class Encoder(NamedTuple):
    """Both directions, traceable and unbatched over any leading axes.

    Attributes:
      layout: what the D axis means.
      encode: values f32[..., F] in units -> f32[..., D]; a missing value becomes 0 with its bit set.
      decode: f32[..., D] -> values f32[..., F] in units, inside the public range and at the public resolution.
      settle: numeric columns that are not derived, f32[..., J] in units, in the order of the D axis -> the same, inside range,
        resolution and bounds.
      complete: values f32[..., F] in units -> the same with derived columns filled in and all equations kept.
    """

    layout: Layout
    encode: Callable[[Array], Array]
    decode: Callable[[Array], Array]
    settle: Callable[[Array], Array]
    complete: Callable[[Array], Array]


def public_scaling(column: Column) -> tuple[float, float]:
    """Location and spread of a numeric column after its transform: as stated, else from the public range.

    Args:
      column: numeric column.

    Returns:
      (center, scale), both in transformed units; scale > 0.
    """
    assert column.low is not None and column.high is not None
    low, high = (
        (np.log1p(column.low), np.log1p(column.high)) if column.transform == "log1p" else (column.low, column.high)
    )
    center = (low + high) / 2 if column.center is None else column.center
    return float(center), float((high - low) / 4 if column.scale is None else column.scale)


def make_encoder(schema: Schema) -> Encoder:
    """Encoder of a schema: numeric z = (transform(v) - center) / scale; categories one-hot; nullable columns get a bit.

    Args:
      schema: the columns.

    Returns:
      Encoder. Decoding clips to the public range, rounds to `decimals`, enforces `at_most` and evaluates equations: hard
      constraints hold by construction whatever a model samples. Derived columns are not encoded.
    """
    inputs = schema.inputs
    numeric = [i for i, c in enumerate(inputs) if c.kind == "numeric" and not c.derived]
    derived = [i for i, c in enumerate(inputs) if c.derived]
    binary = [i for i, c in enumerate(inputs) if c.kind == "binary"]
    categorical = [i for i, c in enumerate(inputs) if c.kind == "categorical"]
    nullable = [i for i in numeric if inputs[i].nullable]
    if any(c.nullable and c.kind != "numeric" for c in inputs):
        raise UserError(
            f"schema {schema.name!r}: only numeric columns may be nullable; give missing codes a category of their own"
        )
    blocks = tuple(len(inputs[i].categories) for i in categorical)
    first_bit = len(numeric) + len(binary)
    missing = tuple(first_bit + nullable.index(i) if i in nullable else -1 for i in numeric)
    layout = Layout(len(numeric), len(binary) + len(nullable), blocks, missing)
    scaling = np.array([public_scaling(inputs[i]) for i in numeric], np.float32).reshape(-1, 2)
    is_log = np.array([inputs[i].transform == "log1p" for i in numeric], bool)
    low = np.array([inputs[i].low for i in numeric], np.float32)
    high = np.array([inputs[i].high for i in numeric], np.float32)
    no_rounding = 1e9  # stands for "as generated": f32 has fewer digits than that
    decimals = [inputs[i].decimals for i in numeric]
    steps = np.array([no_rounding if d is None else 10.0**d for d in decimals], np.float32)
    at_most = [(k, numeric.index(schema.index(inputs[i].at_most))) for k, i in enumerate(numeric) if inputs[i].at_most]
    position = {column: place for place, column in enumerate(numeric + binary + categorical + derived)}
    complete = make_complete(schema)

    def encode(values: Array) -> Array:
        v = values[..., np.array(numeric, np.int32)] if numeric else values[..., :0]
        absent = jnp.isnan(v)
        safe = jnp.where(absent, 0.0, v)
        t = jnp.where(is_log, jnp.log1p(jnp.maximum(safe, 0.0)), safe)
        z = jnp.where(absent, 0.0, (t - scaling[:, 0]) / scaling[:, 1])
        parts = [z, values[..., np.array(binary, np.int32)]] if binary else [z]
        if nullable:
            parts.append(absent[..., np.array([numeric.index(i) for i in nullable])].astype(jnp.float32))
        for i, width in zip(categorical, blocks, strict=True):
            parts.append((values[..., i, None] == jnp.arange(width, dtype=jnp.float32)).astype(jnp.float32))
        return jnp.concatenate(parts, -1)

    def settle(v: Array) -> Array:
        v = jnp.clip(v, low, high)
        v = jnp.clip(jnp.where(steps < no_rounding, jnp.round(v * steps) / steps, v), low, high)
        for k, other in at_most:
            v = v.at[..., k].min(v[..., other])
        return v

    def decode(x: Array) -> Array:
        t = x[..., : layout.numeric] * scaling[:, 1] + scaling[:, 0]
        v = settle(jnp.where(is_log, jnp.expm1(jnp.minimum(t, 80.0)), t))
        bits = x[..., layout.numeric : layout.numeric + layout.bits] > 0.5
        columns = [v, bits[..., : len(binary)].astype(jnp.float32)]
        start = layout.numeric + layout.bits
        for width in blocks:
            columns.append(jnp.argmax(x[..., start : start + width], -1, keepdims=True).astype(jnp.float32))
            start += width
        for k, bit in enumerate(missing):
            if bit >= 0:
                gone = x[..., bit] > 0.5
                columns[0] = columns[0].at[..., k].set(jnp.where(gone, jnp.nan, columns[0][..., k]))
        stacked = jnp.concatenate([*columns, jnp.zeros(len(derived), x.dtype)], -1)
        return complete(stacked[np.array([position[i] for i in range(len(inputs))], np.int32)])

    # one record at a time inside, any leading axes outside
    each = jnp.vectorize
    return Encoder(
        layout,
        each(encode, signature="(f)->(d)"),
        each(decode, signature="(d)->(f)"),
        each(settle, signature="(j)->(j)"),
        each(complete, signature="(f)->(f)"),
    )
