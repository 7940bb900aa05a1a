"""Shadow federations: many worlds that differ in who took part, as one compiled program over all devices.

An attack that compares worlds needs the whole pipeline again for every one of them. Here the pipeline is a pure function of one
shadow's key and inclusion mask, so the shadows are a mapped axis: dealt over the devices, of which each has its own federations
to itself (no collective, no waiting), and on a device one after the other, or a few at a time. Memory is that of the shadows
that are under way, not of all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from fedjax_health.federated import sharding
from fedjax_health.types import UserError

AXIS = "shadows"
FEWEST = 4  # so that a target is seen both in and out by the shadows that are left, most of the time

One = Callable[[Any, Any], Any]  # (own: one shadow's tree, common: what all share) -> tree of its results


def make_shadow_mesh(num_devices: int = 0) -> Mesh:
    """Mesh of this process's own devices whose axis "shadows" deals federations, each on one device.

    Args:
      num_devices: how many to use; 0 = all.
    """
    devices = np.array(jax.local_devices())
    devices = devices[: num_devices or len(devices)]
    return Mesh(devices.reshape(-1, 1), (AXIS, sharding.AXIS))


def draw_masks(targets: np.ndarray, num_clients: int, shadows: int, generator: np.random.Generator) -> np.ndarray:
    """Who exists in each shadow: every target by an independent fair coin, everybody else always.

    Args:
      targets: i[n], different clients.
      num_clients: K.
      shadows: S.
      generator: of the coins.

    Returns:
      bool[S, K].

    Raises:
      UserError: fewer than 4 shadows.
    """
    if shadows < FEWEST:
        raise UserError(
            f"{shadows} shadow federations cannot attack each other; give at least {FEWEST}, better 16, or 0 for none"
        )
    masks = np.ones((shadows, num_clients), bool)
    masks[:, targets] = generator.random((shadows, len(targets))) < 0.5
    return masks


def over_shadows(one: One, mesh: Mesh, batch: int = 1) -> Callable[[Any, Any], Any]:
    """Maps one shadow's pipeline over all of them, with bounded memory: (own [S, ...], common) -> results [S, ...].

    Each result is that of `one` alone, whatever S, the devices and the batch, up to what vectorisation does to last digits.

    Args:
      one: pure; its federations are built for a mesh of one device.
      mesh: of `make_shadow_mesh`.
      batch: shadows side by side on a device. 1 maps nothing: branches stay branches, loops as long as they need.

    Returns:
      A function to be jitted once; leaves of `own` have a leading axis S, which need not be a multiple of the devices.
    """
    devices = mesh.shape[AXIS]
    split, whole = PartitionSpec(AXIS), PartitionSpec()

    def on_device(own: Any, common: Any) -> Any:
        if batch == 1:
            return jax.lax.map(lambda mine: one(mine, common), own)
        return jax.lax.map(lambda mine: one(mine, common), own, batch_size=batch)

    # the federations inside mark no loop as varying over "shadows", hence no check
    mapped = jax.shard_map(on_device, mesh=mesh, in_specs=(split, whole), out_specs=split, check_vma=False)

    def run(own: Any, common: Any) -> Any:
        count = jax.tree.leaves(own)[0].shape[0]
        filled = jnp.arange(-(-count // devices) * devices) % count  # a device without work repeats another's
        padded = own if len(filled) == count else jax.tree.map(lambda leaf: leaf[filled], own)
        return jax.tree.map(lambda leaf: leaf[:count], mapped(padded, common))

    return run
