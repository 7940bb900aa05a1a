"""Update transforms: what happens to an update on the client before it leaves, and on the server after the sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from fedjax_health import tree
from fedjax_health.types import Array, Hyper, Metrics, Update


class Keys(NamedTuple):
    """Randomness of a transform in one round.

    Attributes:
      own: typed key of this client (on the server: of the server).
      shared: typed key that server and clients of the round all know, such as the seed of a common rotation.
    """

    own: Array
    shared: Array


class Wire(NamedTuple):
    """The exact size of a message: values * bits_per_value + side bits.

    Attributes:
      size: d, coordinates of the vector that the message describes.
      values: values sent.
      bits_per_value: of each.
      side: bits beside the values: scales, positions.
    """

    size: int
    values: int
    bits_per_value: int
    side: int

    @property
    def bits(self) -> int:
        """Bits of the whole message."""
        return self.values * self.bits_per_value + self.side


class UpdateTransform(NamedTuple):
    """A two-sided transform; chain(a, b, c) runs a, b, c on the client and c, b, a on the server.

    Attributes:
      memory: update-shaped tree -> what one client remembers between rounds, zeroed (() = nothing).
      client: (update, memory, hyper, keys) -> (update, memory, metrics), of one client.
      server: (summed update, hyper, keys) -> (summed update, metrics).
      l2_bound: (bound of what comes in or None, hyper) -> bound of what goes out; None = unknown.
      wire: Wire of what comes in -> Wire of what goes out.
    """

    memory: Callable[[Update], Any]
    client: Callable[[Update, Any, Hyper, Keys], tuple[Update, Any, Metrics]]
    server: Callable[[Update, Hyper, Keys], tuple[Update, Metrics]]
    l2_bound: Callable[[Array | None, Hyper], Array | None]
    wire: Callable[[Wire], Wire]


def full_wire(update: Update) -> Wire:
    """Wire of a whole tree (of arrays or ShapeDtypeStructs) in float32, before any compression."""
    return Wire(tree.size(update), tree.size(update), 32, 0)


def no_memory(update: Update) -> tuple[()]:
    """For a transform that remembers nothing."""
    del update
    return ()


def client_identity(update: Update, memory: Any, hyper: Hyper, keys: Keys) -> tuple[Update, Any, Metrics]:
    """For a transform that does nothing on the client."""
    del hyper, keys
    return update, memory, {}


def server_identity(update: Update, hyper: Hyper, keys: Keys) -> tuple[Update, Metrics]:
    """For a transform that does nothing on the server."""
    del hyper, keys
    return update, {}


def same_wire(wire: Wire) -> Wire:
    """For a transform that does not change what is sent."""
    return wire


def chain(*transforms: UpdateTransform) -> UpdateTransform:
    """Composes transforms; every one gets keys of its own (fold_in by position).

    Args:
      *transforms: in client order; none = the identity.
    """

    def at(keys: Keys, position: int) -> Keys:
        return Keys(jax.random.fold_in(keys.own, position), jax.random.fold_in(keys.shared, position))

    def memory(update: Update) -> tuple[Any, ...]:
        return tuple(t.memory(update) for t in transforms)

    def client(update: Update, memory: Any, hyper: Hyper, keys: Keys) -> tuple[Update, Any, Metrics]:
        metrics: Metrics = {}
        kept = []
        for position, transform in enumerate(transforms):
            update, own, new = transform.client(update, memory[position], hyper, at(keys, position))
            kept.append(own)
            metrics |= new
        return update, tuple(kept), metrics

    def server(update: Update, hyper: Hyper, keys: Keys) -> tuple[Update, Metrics]:
        metrics: Metrics = {}
        for position in reversed(range(len(transforms))):
            update, new = transforms[position].server(update, hyper, at(keys, position))
            metrics |= new
        return update, metrics

    def l2_bound(bound: Array | None, hyper: Hyper) -> Array | None:
        for transform in transforms:
            bound = transform.l2_bound(bound, hyper)
        return bound

    def wire(wire: Wire) -> Wire:
        for transform in transforms:
            wire = transform.wire(wire)
        return wire

    return UpdateTransform(memory, client, server, l2_bound, wire)
