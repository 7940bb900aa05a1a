"""Update transforms: what happens to an update on the client before it leaves, and on the server after the sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax

from fedjax_health.types import Array, Hyper, Metrics, Update


class UpdateTransform(NamedTuple):
    """A two-sided transform; chain(a, b, c) runs a, b, c on the client and c, b, a on the server.

    Attributes:
      client: (update, hyper, key) -> (update, metrics), of one client.
      server: (summed update, hyper, key) -> (summed update, metrics).
      l2_bound: (bound of what comes in or None, hyper) -> bound of what goes out; None = unknown.
    """

    client: Callable[[Update, Hyper, Array], tuple[Update, Metrics]]
    server: Callable[[Update, Hyper, Array], tuple[Update, Metrics]]
    l2_bound: Callable[[Array | None, Hyper], Array | None]


def pass_through(update: Update, hyper: Hyper, key: Array) -> tuple[Update, Metrics]:
    """The identity, for the side on which a transform does nothing."""
    del hyper, key
    return update, {}


def chain(*transforms: UpdateTransform) -> UpdateTransform:
    """Composes transforms; every one gets a key of its own (fold_in by position).

    Args:
      *transforms: in client order.
    """

    def client(update: Update, hyper: Hyper, key: Array) -> tuple[Update, Metrics]:
        metrics: Metrics = {}
        for position, transform in enumerate(transforms):
            update, new = transform.client(update, hyper, jax.random.fold_in(key, position))
            metrics |= new
        return update, metrics

    def server(update: Update, hyper: Hyper, key: Array) -> tuple[Update, Metrics]:
        metrics: Metrics = {}
        for position in reversed(range(len(transforms))):
            update, new = transforms[position].server(update, hyper, jax.random.fold_in(key, position))
            metrics |= new
        return update, metrics

    def l2_bound(bound: Array | None, hyper: Hyper) -> Array | None:
        for transform in transforms:
            bound = transform.l2_bound(bound, hyper)
        return bound

    return UpdateTransform(client, server, l2_bound)
