"""Saves and restores the whole training state with orbax; a damaged checkpoint gets one clear sentence.

Of several processes the first alone touches the disk, and the others hear from it.
"""

from __future__ import annotations

import json
import os
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from fedjax_health.chacha import CHACHA20, KEY_WORDS
from fedjax_health.federated import distributed
from fedjax_health.files import write_text
from fedjax_health.threefry import UNROLLED, is_key
from fedjax_health.types import UserError

GENERATORS = {2: UNROLLED, KEY_WORDS: CHACHA20}  # by the words of a key
END = "end.json"  # of a stage that may never be trained further


def _plain(leaf: Any) -> Any:
    """Typed keys as their words: orbax knows JAX's own generators by name, and not ours."""
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def _plain_shape(leaf: Any) -> Any:
    if not is_key(leaf):
        return leaf
    words = jax.eval_shape(jax.random.key_data, leaf)
    return jax.ShapeDtypeStruct(words.shape, words.dtype, sharding=leaf.sharding)


def _withheld(leaf: Any) -> Any:
    """Zeros in place of a key's words."""
    if not is_key(leaf):
        return leaf
    words = jax.eval_shape(jax.random.key_data, leaf)
    return np.zeros(words.shape, words.dtype)


def _read_end(folder: str) -> tuple[int, bool] | None:
    path = os.path.join(folder, END)
    if not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8") as file:
        try:
            end = json.load(file)
            return int(end["rounds"]), bool(end["done"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path!r} does not say where the stage ended; start in a new workdir") from error


def has_ended(folder: str) -> bool:
    """Whether `Checkpoints.finish` was done with a stage's folder.

    Args:
      folder: of the stage.

    Raises:
      UserError: the file that says so is damaged.
    """
    end = _read_end(folder)
    return end is not None and end[1]


def _manager(folder: str) -> ocp.CheckpointManager:
    if jax.process_count() == 1:
        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True, enable_async_checkpointing=False)
        return ocp.CheckpointManager(folder, options=options)
    os.makedirs(folder, exist_ok=True)  # orbax makes no folder where not all processes take part
    alone = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0}, barrier_sync_key_prefix="main")
    options = ocp.CheckpointManagerOptions(
        max_to_keep=2, create=False, enable_async_checkpointing=False, multiprocessing_options=alone
    )
    return ocp.CheckpointManager(folder, options=options)


class Checkpoints:
    """The checkpoints of one stage, numbered by rounds done; the last two are kept. Use as a context manager."""

    def __init__(self, folder: str, withhold: bool = False):
        """Opens (and makes) the folder.

        Args:
          folder: where to keep the checkpoints.
          withhold: whether keys are a secret: zeros are written in their place.
        """
        self._folder = os.path.abspath(folder)
        self._words = _withheld if withhold else _plain
        self._manager = _manager(self._folder) if distributed.is_main() else None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._manager is not None:
            self._manager.close()

    def latest(self) -> int | None:
        """Rounds done at the newest complete checkpoint, or None; all processes must ask."""
        step = None if self._manager is None else self._manager.latest_step()
        agreed = int(distributed.from_main(np.int32(-1 if step is None else step)))
        return None if agreed < 0 else agreed

    def save(self, rounds: int, state: Any) -> None:
        """Writes a state (orbax writes to a temporary name and renames); nothing in a process other than the first.

        Args:
          rounds: rounds done.
          state: any pytree of arrays and typed keys.
        """
        if self._manager is not None:
            plain = jax.tree.map(self._words, state)
            if jax.process_count() > 1:  # orbax would have every process write its share of an array
                plain = jax.device_get(plain)
            self._manager.save(rounds, args=ocp.args.StandardSave(plain))

    def finish(self, rounds: int, state: Any) -> None:
        """Makes a state the only checkpoint, of a stage that ends there for good; cut short, it is done again.

        Args:
          rounds: rounds done.
          state: what may stay on the disk, a checkpoint of the same number included.
        """
        if self._manager is None or has_ended(self._folder):
            return
        self._write_end(rounds, False)  # before the state can lose what further rounds need
        if rounds in self._manager.all_steps():
            self._manager.delete(rounds)
        self.save(rounds, state)
        for step in self._manager.all_steps():
            if step != rounds:
                self._manager.delete(step)
        self._write_end(rounds, True)

    def _write_end(self, rounds: int, done: bool) -> None:
        write_text(os.path.join(self._folder, END), json.dumps({"rounds": rounds, "done": done}) + "\n")

    def end(self) -> int | None:
        """Rounds at which `finish` ended the stage, or began to; None of a stage that may go on. All processes must ask.

        Raises:
          UserError: the file that says so is damaged.
        """
        end = _read_end(self._folder) if distributed.is_main() else None
        agreed = int(distributed.from_main(np.int32(-1 if end is None else end[0])))
        return None if agreed < 0 else agreed

    def restore(self, abstract: Any) -> Any:
        """Reads the newest checkpoint; all processes must call it.

        Args:
          abstract: tree of ShapeDtypeStructs with shardings (jax.eval_shape of `Train.init`): the state comes back on the
            same devices. Keys that were withheld come back as zeros.

        Raises:
          UserError: truncated, damaged, or of another model.
        """
        plain = jax.tree.map(_plain_shape, abstract)
        state = plain if self._manager is None else self._read(self._manager, plain)
        if jax.process_count() > 1:
            state = distributed.from_main(state)
            state = jax.tree.map(lambda value, leaf: distributed.replicate(value, leaf.sharding.mesh), state, plain)

        def typed(leaf: Any, value: Any) -> Any:
            return jax.random.wrap_key_data(value, impl=GENERATORS[value.shape[-1]]) if is_key(leaf) else value

        return jax.tree.map(typed, abstract, state)

    def _read(self, manager: ocp.CheckpointManager, plain: Any) -> Any:
        step = manager.latest_step()
        path = os.path.join(self._folder, str(step))
        if jax.process_count() > 1:  # to the host, since the others do not read
            plain = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), plain)
        try:
            return manager.restore(step, args=ocp.args.StandardRestore(plain))
        except Exception as error:  # orbax raises many kinds, from FileNotFoundError to XlaRuntimeError
            reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
            remedy = (
                "start in a new workdir"
                if has_ended(self._folder)
                else "delete that folder to go on from the one before"
            )
            raise UserError(
                f"checkpoint {path!r} cannot be read, it is truncated, damaged or of another model ({reason}); {remedy}"
            ) from error
