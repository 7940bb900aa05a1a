"""Saves and restores the whole training state with orbax; a damaged checkpoint gets one clear sentence."""

from __future__ import annotations

import os
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from fedjax_health.threefry import UNROLLED
from fedjax_health.types import UserError


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: Any) -> Any:
    """Typed keys as their words: orbax knows JAX's own generators by name, and not ours."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _plain_shape(leaf: Any) -> Any:
    if not _is_key(leaf):
        return leaf
    return jax.ShapeDtypeStruct((*leaf.shape, 2), jnp.uint32, sharding=leaf.sharding)


class Checkpoints:
    """The checkpoints of one stage, numbered by rounds done; the last two are kept. Use as a context manager."""

    def __init__(self, folder: str):
        """Opens (and makes) the folder.

        Args:
          folder: where to keep the checkpoints.
        """
        self._folder = os.path.abspath(folder)
        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: Any) -> None:
        self._manager.close()

    def latest(self) -> int | None:
        """Rounds done at the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, rounds: int, state: Any) -> None:
        """Writes a state (orbax writes to a temporary name and renames).

        Args:
          rounds: rounds done.
          state: any pytree of arrays and typed keys.
        """
        self._manager.save(rounds, args=ocp.args.StandardSave(jax.tree.map(_plain, state)))

    def restore(self, abstract: Any) -> Any:
        """Reads the newest checkpoint.

        Args:
          abstract: tree of ShapeDtypeStructs with shardings (jax.eval_shape of `Train.init`): the state comes back on the
            same devices.

        Raises:
          UserError: truncated, damaged, or of another model.
        """
        step = self._manager.latest_step()
        path = os.path.join(self._folder, str(step))
        try:
            plain = jax.tree.map(_plain_shape, abstract)
            state = self._manager.restore(step, args=ocp.args.StandardRestore(plain))
        except Exception as error:  # orbax raises many kinds, from FileNotFoundError to XlaRuntimeError
            reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
            raise UserError(
                f"checkpoint {path!r} cannot be read, it is truncated, damaged or of another model ({reason}); delete that "
                "folder to go on from the one before"
            ) from error

        def typed(leaf: Any, value: Any) -> Any:
            return jax.random.wrap_key_data(value, impl=UNROLLED) if _is_key(leaf) else value

        return jax.tree.map(typed, abstract, state)
