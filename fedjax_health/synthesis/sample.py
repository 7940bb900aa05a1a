"""Draws synthetic records from a released generator: condition, sample, decode to units inside hard constraints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health import rng
from fedjax_health.data.encode import Encoder
from fedjax_health.models.base import GenerativeModel
from fedjax_health.types import Array, Table

CHUNK = 4096  # rows a compiled call; memory does not grow with the number of rows asked for


def make_sampler(model: GenerativeModel, encoder: Encoder) -> Callable[[Any, np.ndarray, Array, int], Table]:
    """Sampler of a model.

    Args:
      model: gives `sample`.
      encoder: decodes to physical units, clipped to public ranges and rounded to the public resolution.

    Returns:
      sample(released, class shares f32[L], typed key, rows) -> Table of that many rows; the label is drawn from the
      shares, `client` is a running index (a synthetic row belongs to nobody). Compiled once.
    """

    @jax.jit
    def draw(released: Any, shares: Array, key: Array) -> tuple[Array, Array]:
        key_y, key_x = jax.random.split(key)
        label = jax.random.categorical(key_y, jnp.log(shares), shape=(CHUNK,)).astype(jnp.int32)
        return encoder.decode(model.sample(released, label, key_x)), label

    def sample(released: Any, shares: np.ndarray, key: Array, rows: int) -> Table:
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
