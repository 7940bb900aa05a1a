"""Clients over devices: a one-axis mesh and the shard_map wrapper around a cohort's work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

AXIS = "clients"


def make_mesh(num_devices: int = 0) -> Mesh:
    """Mesh with the axis "clients" over this process's devices.

    Args:
      num_devices: how many to use; 0 = all.
    """
    devices = jax.devices()
    return Mesh(np.array(devices[: num_devices or len(devices)]), (AXIS,))


def over_clients(mesh: Mesh, work: Callable[..., Any]) -> Callable[..., Any]:
    """Splits the leading axis of the last argument over the mesh; everything else is replicated.

    Args:
      mesh: from `make_mesh`.
      work: (replicated..., per-client tree) -> replicated result; it must merge over `AXIS` itself.

    Returns:
      A function of the same arguments.
    """

    def mapped(*args: Any) -> Any:
        specs = (PartitionSpec(),) * (len(args) - 1) + (PartitionSpec(AXIS),)
        return jax.shard_map(work, mesh=mesh, in_specs=specs, out_specs=PartitionSpec())(*args)

    return mapped


def varying(value: Any) -> Any:
    """Marks a replicated value as different on each device, as a scan carry beside sharded data needs."""
    return jax.tree.map(lambda leaf: jax.lax.pcast(leaf, AXIS, to="varying"), value)


def varying_like(value: Any, like: jax.Array) -> Any:
    """Makes a scan's start value vary over devices wherever `like` does, by adding a zero that is made from it.

    Args:
      value: tree of arrays, some of them constants (an optimiser's counter).
      like: integer array that the loop mixes with the carry.
    """
    zero = like.reshape(-1)[0] * 0
    return jax.tree.map(lambda leaf: leaf + zero.astype(leaf.dtype), value)
