"""Simulated time that stays exact for years."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from fedjax_health.types import Array

DAY_SECONDS = 86400


class Clock(NamedTuple):
    """A moment: day, second + fraction.

    Attributes:
      day: i32[], since the start of the world.
      second: f32[], whole seconds since midnight, in [0, 86400).
      fraction: f32[], of a second, in [0, 1). Apart, because beside 80,000 s a float32 keeps steps of 8 ms only, and
        short rounds would never add up.
    """

    day: Array
    second: Array
    fraction: Array


def start() -> Clock:
    """Midnight of day 0."""
    return Clock(jnp.int32(0), jnp.float32(0.0), jnp.float32(0.0))


def advance(clock: Clock, seconds: Array) -> Clock:
    """The clock some time later; whole seconds are added as integers, so only the fraction rounds, by at most 6e-8 s.

    Args:
      clock: from `start` or `advance`.
      seconds: f32[], in [0, 2^30).
    """
    whole = jnp.floor(seconds)
    fraction = clock.fraction + (seconds - whole)
    carry = jnp.floor(fraction)
    total = clock.second.astype(jnp.int32) + whole.astype(jnp.int32) + carry.astype(jnp.int32)
    return Clock(clock.day + total // DAY_SECONDS, (total % DAY_SECONDS).astype(jnp.float32), fraction - carry)
