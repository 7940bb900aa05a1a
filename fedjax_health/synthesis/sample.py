"""Draws synthetic records from a released generator: condition, sample, decode to units inside hard constraints."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from fedjax_health import rng
from fedjax_health.data.encode import make_encoder
from fedjax_health.data.representation import make_decode
from fedjax_health.data.schema import Schema
from fedjax_health.federated.sharding import AXIS
from fedjax_health.models.base import Generative
from fedjax_health.types import Array, Table

CHUNK = 4096  # rows a compiled call; memory does not grow with the number of rows asked for
_AHEAD = 2  # calls that are under way while the rows of an earlier one are used


class Published(NamedTuple):
    """All that rows are drawn from, besides class shares.

    Attributes:
      network: what the model releases.
      fitted: `Fitted` of the representation, () with public scaling.
    """

    network: Any
    fitted: Any = ()


Decode = Callable[
    [Array, Array, Any], Array
]  # (x f32[M, D], label i32[M], Published.fitted) -> values f32[M, F] in units


def decoder_of(schema: Schema, kind: str) -> Decode:
    """From model space to units, clipped to public ranges and rounded to the public resolution.

    Args:
      schema: the columns.
      kind: of `schema.REPRESENTATIONS`.
    """
    if kind == "public":
        decode = make_encoder(schema).decode
        return lambda x, label, fitted: decode(x)
    return make_decode(schema)


def make_draw(model: Generative, decode: Decode) -> Callable[[Published, Array, Array], tuple[Array, Array]]:
    """(released, shares f32[L], typed key) -> values f32[CHUNK, F] in units, label i32[CHUNK]."""

    def draw(released: Published, shares: Array, key: Array) -> tuple[Array, Array]:
        key_y, key_x = jax.random.split(key)
        label = jax.random.categorical(key_y, jnp.log(shares), shape=(CHUNK,)).astype(jnp.int32)
        return decode(model.sample(released.network, label, key_x), label, released.fitted), label

    return draw


def make_sampler(model: Generative, decode: Decode) -> Callable[[Published, np.ndarray, Array, int], Table]:
    """Sampler of a model.

    Args:
      model: gives `sample`.
      decode: of `decoder_of`.

    Returns:
      sample(released, class shares f32[L], typed key, rows) -> Table of that many rows; the label is drawn from the
      shares, `client` is a running index (a synthetic row belongs to nobody). Compiled once.
    """
    draw = jax.jit(make_draw(model, decode))

    def sample(released: Published, shares: np.ndarray, key: Array, rows: int) -> Table:
        parts = [
            jax.device_get(
                draw(released, jnp.asarray(shares, jnp.float32), rng.stream_key(key, i, rng.Stream.SYNTHESIS))
            )
            for i in range(-(-rows // CHUNK))
        ]
        values = np.concatenate([p[0] for p in parts])[:rows]
        label = np.concatenate([p[1] for p in parts])[:rows]
        return Table(values, label, np.arange(rows, dtype=np.int32))

    return sample


def make_stream(
    model: Generative, decode: Decode, mesh: Mesh
) -> Callable[[Published, np.ndarray, Array], Iterator[tuple[np.ndarray, np.ndarray]]]:
    """Endless sampler of a model over all devices of a mesh: the rows of `make_sampler`, in its order, on any number of them.

    Args:
      model, decode: as for `make_sampler`.
      mesh: devices, each of which draws a chunk at a time.

    Returns:
      stream(released, class shares f32[L], typed key) -> iterator over (values f32[n, F] in units, label i32[n]), n one
      chunk a device. Compiled once; memory is that of a few chunks a device.
    """
    draw, devices = make_draw(model, decode), mesh.devices.size

    def one(released: Published, shares: Array, key: Array, chunk: Array) -> tuple[Array, Array]:
        return draw(released, shares, rng.stream_key(key, chunk[0], rng.Stream.SYNTHESIS))

    whole, split = PartitionSpec(), PartitionSpec(AXIS)
    draw_all = jax.jit(jax.shard_map(one, mesh=mesh, in_specs=(whole, whole, whole, split), out_specs=split))

    def stream(released: Published, shares: np.ndarray, key: Array) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        weights = jnp.asarray(shares, jnp.float32)
        waiting: collections.deque[tuple[Array, Array]] = collections.deque()
        for first in itertools.count(0, devices):
            waiting.append(draw_all(released, weights, key, jnp.arange(first, first + devices, dtype=jnp.uint32)))
            if len(waiting) > _AHEAD:
                yield jax.device_get(waiting.popleft())

    return stream
