"""A population of clients: a CSR store without padding, or records made on the fly from the client's id."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health import rng
from fedjax_health.data.encode import Encoder
from fedjax_health.data.simulator import Simulator
from fedjax_health.types import Array, Batch, Table


class Population(NamedTuple):
    """How the compiled program reads one client.

    Attributes:
      size: K.
      max_count: most records of any client, a static bound.
      min_count: fewest records of any client, a static bound; where it equals max_count no step needs a mask.
      lazy: whether reading batch by batch costs no more than reading all of a client's batches at once.
      count: (data, client i32[]) -> i32[], records of a client, 0 allowed.
      batch: (data, client i32[], index i32[B]) -> Batch; an index outside [0, count) gives an empty slot.
    """

    size: int
    max_count: int
    min_count: int
    lazy: bool
    count: Callable[[Any, Array], Array]
    batch: Callable[[Any, Array, Array], Batch]


class Store(NamedTuple):
    """Records of all clients, client-major: memory is the records' own bytes plus 8 bytes a client.

    Attributes:
      x: f32[M, D], encoded.
      y: i32[M], label.
      offset: i32[K], first record of a client.
      count: i32[K], number of records of a client.
    """

    x: Array
    y: Array
    offset: Array
    count: Array


def make_store(table: Table, encoder: Encoder, num_clients: int) -> Store:
    """Encodes a client-major table.

    Args:
      table: rows of a client contiguous, ids in [0, num_clients) ascending.
      encoder: of the table's schema.
      num_clients: K; clients without rows get count 0.

    Returns:
      Store on the default device.
    """
    count = np.bincount(table.client, minlength=num_clients).astype(np.int32)
    offset = np.concatenate([[0], np.cumsum(count)[:-1]]).astype(np.int32)
    x = jax.jit(encoder.encode)(jnp.asarray(table.values, jnp.float32))
    return Store(x, jnp.asarray(table.label, jnp.int32), jnp.asarray(offset), jnp.asarray(count))


def stored_population(size: int, max_count: int, min_count: int = 0) -> Population:
    """Population over a `Store`, which is passed as data (never closed over).

    Args:
      size: K.
      max_count, min_count: largest and smallest count in the store.
    """

    def count(data: Store, client: Array) -> Array:
        return data.count[client]

    def batch(data: Store, client: Array, index: Array) -> Batch:
        mask = (index >= 0) & (index < data.count[client])
        row = jnp.where(mask, data.offset[client] + index, 0)  # an empty slot must not read a neighbour's record
        return Batch(jnp.where(mask[:, None], data.x[row], 0.0), jnp.where(mask, data.y[row], 0), mask)

    return Population(size, max_count, min_count, True, count, batch)


def procedural_population(simulator: Simulator, encoder: Encoder, size: int) -> Population:
    """Population whose records are simulated from the client's id: any size, memory of one cohort.

    Args:
      simulator: makes one client's records from its key.
      encoder: of the simulator's schema.
      size: K.

    Returns:
      Population; its data is the population key (typed key), so that the world is not baked into the program.
    """

    def count(data: Array, client: Array) -> Array:
        return simulator.simulate(rng.client_key(data, client))[2]

    def batch(data: Array, client: Array, index: Array) -> Batch:
        values, label, total = simulator.simulate(rng.client_key(data, client))
        mask = (index >= 0) & (index < total)
        row = jnp.where(mask, index, 0)
        x = encoder.encode(values)[row]
        return Batch(jnp.where(mask[:, None], x, 0.0), jnp.where(mask, label[row], 0), mask)

    return Population(size, simulator.max_records, 0, False, count, batch)
