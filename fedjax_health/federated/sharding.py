"""Clients over devices: a one-axis mesh and the shard_map wrapper around a cohort's work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

AXIS = "clients"


def make_mesh(num_devices: int = 0) -> Mesh:
    """Mesh with the axis "clients" over the devices of all processes.

    Args:
      num_devices: how many to use; 0 = all.
    """
    devices = jax.devices()
    return Mesh(np.array(devices[: num_devices or len(devices)]), (AXIS,))


def make_local_mesh() -> Mesh:
    """Mesh over this process's own devices, for what one process does alone."""
    return Mesh(np.array(jax.local_devices()), (AXIS,))


def over_clients(mesh: Mesh, work: Callable[..., Any]) -> Callable[..., Any]:
    """Splits the leading axis of the last argument over the mesh; everything else is replicated.

    Args:
      mesh: from `make_mesh`.
      work: (replicated..., per-client tree) -> replicated result; it must merge over `AXIS` itself.

    Returns:
      A function of the same arguments.
    """

    def mapped(*args: Any) -> Any:
        if AXIS in jax.sharding.get_abstract_mesh().manual_axes:
            return work(
                *args
            )  # this device has the whole federation to itself: it is one of several (`attacks.shadows`)
        specs = (PartitionSpec(),) * (len(args) - 1) + (PartitionSpec(AXIS),)
        return jax.shard_map(work, mesh=mesh, in_specs=specs, out_specs=PartitionSpec())(*args)

    return mapped


def all_sum(value: Any, axis: str = AXIS) -> Any:
    """Sum over the devices of an axis, inside `over_clients`: one collective for each dtype, not one for each leaf.

    On host devices every array of a collective is a meeting of threads, which costs more than adding thousands of numbers.

    Args:
      value: tree of arrays that differ from device to device.
      axis: name of the mesh axis.

    Returns:
      The same tree, equal on all devices; each number is the sum of the devices' numbers, as `jax.lax.psum` gives it.
    """
    leaves, structure = jax.tree.flatten(value)
    if jax.lax.axis_size(axis) == 1 or len(leaves) == 1:
        return jax.lax.psum(value, axis)
    groups: dict[jnp.dtype, list[int]] = {}
    for i, leaf in enumerate(leaves):
        groups.setdefault(leaf.dtype, []).append(i)
    for members in groups.values():
        ends = np.cumsum([leaves[i].size for i in members])[:-1].tolist()
        total = jax.lax.psum(jnp.concatenate([leaves[i].reshape(-1) for i in members]), axis)
        for i, part in zip(members, jnp.split(total, ends), strict=True):
            leaves[i] = part.reshape(leaves[i].shape)
    return jax.tree.unflatten(structure, leaves)


def _varies(leaf: jax.Array) -> bool:
    return AXIS in jax.typeof(leaf).manual_axis_type.varying


def varying(value: Any) -> Any:
    """Marks a replicated value as different on each device, as a loop's carry beside sharded data needs.

    Args:
      value: tree of arrays, replicated or already varying.
    """

    def mark(leaf: jax.Array) -> jax.Array:
        return leaf if _varies(leaf) else jax.lax.pcast(leaf, AXIS, to="varying")

    return jax.tree.map(mark, value)


def varying_like(value: Any, like: jax.Array) -> Any:
    """Makes a loop's start value vary over devices where `like` does (inside `over_clients`), else leaves it.

    Args:
      value: tree of arrays, some of them constants (an optimiser's counter).
      like: array that the loop mixes with the carry.
    """
    return varying(value) if _varies(like) else value
