"""Central Gaussian noise on the sum of clipped updates, before the division by the public expected cohort."""

from __future__ import annotations

from collections.abc import Callable

import jax

from fedjax_health import tree
from fedjax_health.transforms.base import Keys, UpdateTransform, client_identity, no_memory, same_wire
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
