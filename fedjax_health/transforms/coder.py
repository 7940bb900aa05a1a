"""How the values of an update are written on the wire; each coder returns what the receiver decodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_health.transforms.base import Keys, UpdateTransform, Wire, no_memory, same_wire, server_identity
from fedjax_health.types import Array, Hyper, Metrics, Update

SCALE_BITS = 32  # of a float32 sent beside the values


class Coder(NamedTuple):
    """Encoding and decoding of values in one step.

    Attributes:
      code: (update tree f32, kept, typed key of the sender) -> decoded tree. kept: bool tree of the same shapes, the
        coordinates that are sent (the others hold zero, must not be looked at, and decode to zero); None = all of them.
      wire: Wire of float values -> Wire of coded values.
    """

    code: Callable[[Update, Any, Array], Update]
    wire: Callable[[Wire], Wire]


def only(kept: Any, update: Update) -> Update:
    """Zeroes what is not kept (bool tree of the same shapes); kept None keeps all."""
    return update if kept is None else jax.tree.map(lambda k, u: jnp.where(k, u, 0.0), kept, update)


def _as_it_is(update: Update, kept: Any, key: Array) -> Update:
    del kept, key
    return update


FLOAT = Coder(_as_it_is, same_wire)


def make_coded(coder: Coder) -> UpdateTransform:
    """The transform that sends every coordinate through a lossy coder; no bound on the norm of what comes out."""

    def client(update: Update, memory: Any, hyper: Hyper, keys: Keys) -> tuple[Update, Any, Metrics]:
        del hyper
        return coder.code(update, None, keys.own), memory, {}

    def l2_bound(bound: Array | None, hyper: Hyper) -> None:
        del bound, hyper

    return UpdateTransform(no_memory, client, server_identity, l2_bound, coder.wire)
