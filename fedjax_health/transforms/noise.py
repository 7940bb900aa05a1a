"""Central Gaussian noise on the sum of clipped updates, before the division by the public expected cohort."""

from __future__ import annotations

from collections.abc import Callable

import jax

from fedjax_health import tree
from fedjax_health.transforms.base import UpdateTransform, pass_through
from fedjax_health.types import Array, Hyper, Metrics, Update


def make_gaussian_noise(l2_bound: Callable[[Hyper], Array]) -> UpdateTransform:
    """sum <- sum + N(0, (noise_multiplier * bound)^2 I), bound the sensitivity the client side of the chain states.

    Args:
      l2_bound: hyper -> f32[], the proven bound of one client's contribution; never typed a second time.
    """

    def server(update: Update, hyper: Hyper, key: Array) -> tuple[Update, Metrics]:
        deviation = hyper["noise_multiplier"] * l2_bound(hyper)
        keys = tree.split_key_like(key, update)
        noisy = jax.tree.map(lambda u, k: u + deviation * jax.random.normal(k, u.shape), update, keys)
        return noisy, {"public/noise_std": deviation}

    return UpdateTransform(pass_through, server, lambda bound, hyper: bound)
