"""A simulator makes one client's records from its key, so that they can be made inside the compiled program."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health import rng
from fedjax_health.data.schema import Schema
from fedjax_health.threefry import root_key
from fedjax_health.types import Array, Table


class Simulator(NamedTuple):
    """One simulated domain.

    Attributes:
      schema: columns, units, public ranges.
      task: "diagnosis" or "detection".
      max_records: H, the most records a client can have.
      simulate: key -> (values f32[H, F], label i32[H], count i32[]): records of one client in physical units, coded as
        in `Table`; only the first `count` rows are real. Pure, unbatched, traceable.
    """

    schema: Schema
    task: str
    max_records: int
    simulate: Callable[[Array], tuple[Array, Array, Array]]


def population_key(seed: int) -> Array:
    """Key under which every simulated client has its own address.

    Args:
      seed: seed of the simulated world, >= 0.

    Returns:
      Typed key.
    """
    return rng.stream_key(root_key(seed), 0, rng.Stream.SIMULATE)


def simulate_clients(simulator: Simulator, clients: np.ndarray, root: Array, batch_size: int = 64) -> Table:
    """Stores the records of some clients (the same records the procedural population makes), renumbered in order.

    Args:
      simulator: the domain.
      clients: i32[n], client ids.
      root: typed key from `population_key`.
      batch_size: clients made at once; bounds memory, cannot change the result.

    Returns:
      Table with M = sum of counts rows, client-major, dense ids 0 … n-1.
    """

    @jax.jit
    def make(ids: Array):
        return jax.lax.map(lambda k: simulator.simulate(rng.client_key(root, k)), ids, batch_size=batch_size)

    values, label, count = jax.device_get(make(jnp.asarray(clients, jnp.int32)))
    live = np.arange(values.shape[1])[None, :] < count[:, None]
    client = np.repeat(np.arange(len(clients), dtype=np.int32), count)
    return Table(values[live], label[live].astype(np.int32), client)


def simulate_table(simulator: Simulator, num_clients: int, seed: int, batch_size: int = 64) -> Table:
    """Records of clients 0 … num_clients - 1 of the world with that seed.

    Args:
      simulator: the domain.
      num_clients: K, > 0.
      seed: seed of the simulated world.
      batch_size: as in `simulate_clients`.
    """
    return simulate_clients(simulator, np.arange(num_clients), population_key(seed), batch_size)
