"""Gaussian noise: central, on the sum of clipped updates before its division, or local, on each client's own update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from fedjax_health import tree
from fedjax_health.transforms.base import (
    Keys,
    UpdateTransform,
    client_identity,
    no_memory,
    same_wire,
    server_identity,
)
from fedjax_health.types import Array, Hyper, Metrics, Update


def make_gaussian_noise(l2_bound: Callable[[Hyper], Array]) -> UpdateTransform:
    """sum <- sum + N(0, (noise_multiplier * bound)^2 I), bound the sensitivity the client side of the chain states.

    Args:
      l2_bound: hyper -> f32[], the proven bound of one client's contribution; never typed a second time.
    """

    def server(update: Update, hyper: Hyper, keys: Keys) -> tuple[Update, Metrics]:
        deviation = hyper["noise_multiplier"] * l2_bound(hyper)
        noise = tree.normal_like(keys.own, update)
        noisy = jax.tree.map(lambda u, z: u + deviation * z, update, noise)
        return noisy, {"public/noise_std": deviation}

    return UpdateTransform(no_memory, client_identity, server, lambda bound, hyper: bound, same_wire)


def make_local_noise(l2_bound: Callable[[Hyper], Array]) -> UpdateTransform:
    """u <- u + N(0, (noise_multiplier * bound)^2 I) on the client, before anything leaves it; the server adds nothing.

    Every client draws anew in every round, from its own key. A noised message has no bound, so none is stated.

    Args:
      l2_bound: hyper -> f32[], the proven bound of the update that comes in.

    Source: Dwork, McSherry, Nissim & Smith 2006, "Calibrating noise to sensitivity in private data analysis"; on each
    client's own message as in Duchi, Jordan & Wainwright 2013, arXiv 1302.3203.
    """

    def client(update: Update, memory: Any, hyper: Hyper, keys: Keys) -> tuple[Update, Any, Metrics]:
        deviation = hyper["noise_multiplier"] * l2_bound(hyper)
        noise = tree.normal_like(keys.own, update)
        noisy = jax.tree.map(lambda u, z: u + deviation * z, update, noise)
        return noisy, memory, {"sim/local_noise_std": deviation}

    def unbounded(bound: Array | None, hyper: Hyper) -> None:
        del bound, hyper

    return UpdateTransform(no_memory, client, server_identity, unbounded, same_wire)
