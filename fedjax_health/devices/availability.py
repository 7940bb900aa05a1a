"""When a device is on: a function of (world, client, time), so that no state is kept for the population."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from fedjax_health import rng
from fedjax_health.devices.clock import DAY_SECONDS, Clock
from fedjax_health.devices.profile import draw
from fedjax_health.types import Array

Available: TypeAlias = Callable[[Array, Array, Clock], Array]  # (world key, client i32[C], clock) -> bool[C]

WINDOW_EVENTS = 2.0  # most expected events in a window
MOST_EVENTS = 12  # followed in a window; more have probability 2e-7
LAST, MORE, STATE = 0, 1, 2  # streams: the gap behind a window's last event, those before it, the states drawn
NIGHT_SECONDS = 2 * 3600.0
NIGHT_SPREAD_SECONDS = 4.7 * 3600.0


def make_always() -> Available:
    """Every device is on at any time."""

    def available(world_key: Array, client: Array, clock: Clock) -> Array:
        del world_key, clock
        return jnp.ones(client.shape, bool)

    return available


def make_markov(on_fraction: float, mean_on_seconds: float) -> Available:
    """Each device is a stationary two-state Markov chain in continuous time, independent of the others.

    With rates a (on to off) and b (off to on), at the events of a Poisson process of rate a + b the state is drawn anew
    from its stationary law; that is the same chain, with P(on) = b / (a + b) and autocorrelation exp(-(a + b) dt). So the
    state at a time is the draw at the last event before it. Time is cut into windows of at most two expected events, each
    with a key of its own. The events of a window are laid from its end backwards: an earlier window then needs one number
    to tell its last event, and the search goes back until every client has found one.

    Args:
      on_fraction: b / (a + b), in (0, 1]; 1 = always on.
      mean_on_seconds: 1 / a, > 0, s.

    Returns:
      available; calls at any times see the same trajectories. Cost: about 25 random words a client.
    """
    if on_fraction >= 1.0:
        return make_always()
    rate = 1.0 / (mean_on_seconds * (1.0 - on_fraction))  # a + b, as b = a f / (1 - f)
    wanted = DAY_SECONDS * rate / WINDOW_EVENTS  # windows a day: a whole number, or one window in whole days
    per_day, days = (math.ceil(wanted), 1) if wanted >= 1 else (1, math.floor(1 / wanted))
    length = DAY_SECONDS * days / per_day
    events = rate * length

    def available(world_key: Array, client: Array, clock: Clock) -> Array:
        second = clock.second + clock.fraction
        part = jnp.minimum(jnp.floor(second / jnp.float32(length)), per_day - 1.0) if days == 1 else jnp.float32(0.0)
        index = clock.day // days * per_day + part.astype(jnp.int32)
        inside = (clock.day % days).astype(jnp.float32) * DAY_SECONDS + second - part * jnp.float32(length)
        left = events - jnp.clip(inside * jnp.float32(rate), 0.0, events)  # of the current window

        def window_keys(stream: int, window: Array) -> Array:
            key = jax.random.fold_in(world_key, stream)
            return jax.vmap(lambda c, w: jax.random.fold_in(rng.client_key(key, c), w.astype(jnp.uint32)))(
                client, window
            )

        def last_gap(window: Array) -> Array:  # from a window's end back to its last event, in expected events
            return jax.vmap(jax.random.exponential)(window_keys(LAST, window))

        here = jnp.broadcast_to(index, client.shape)
        more = jax.vmap(lambda k: jax.random.exponential(k, (MOST_EVENTS - 1,)))(window_keys(MORE, here))
        ago = jnp.cumsum(jnp.concatenate([last_gap(here)[:, None], more], axis=1), axis=1)
        happened = (ago >= left) & (ago < events)

        def missing(search: tuple[Array, Array, Array]) -> Array:
            return ~jnp.all(search[1])

        def further(search: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            window, found, before = search
            before = before - 1
            new = ~found & (last_gap(before) < events)
            return jnp.where(new, before, window), found | new, before

        found = jnp.any(happened, axis=1)
        now = jnp.where(found, index, index)  # under shard_map a loop's start must vary over devices as its steps do
        window, _, _ = jax.lax.while_loop(missing, further, (now, found, now))
        event = jnp.argmax(happened, axis=1)  # newest first; 0, the last one, in an earlier window
        states = jax.vmap(jax.random.fold_in)(window_keys(STATE, window), event.astype(jnp.uint32))
        return jax.vmap(jax.random.uniform)(states) < on_fraction

    return available


def make_diurnal(on_fraction: float) -> Available:
    """Each device is on for 24 h x on_fraction every day, around an hour of its own: a daily cycle, mostly on at night.

    The middle of a client's on-time is normal around 02:00 with a deviation of 4.7 h (time zones and habits), so that at
    on_fraction 0.5 four times as many are on at the best hour as at the worst, as Bonawitz et al. 2019 (arXiv 1902.01046)
    saw in one continent. Every client's mean over a day is on_fraction.

    Args:
      on_fraction: in (0, 1]; 1 = always on.
    """
    if on_fraction >= 1.0:
        return make_always()
    on_seconds = on_fraction * DAY_SECONDS

    def available(world_key: Array, client: Array, clock: Clock) -> Array:
        middle = NIGHT_SECONDS + NIGHT_SPREAD_SECONDS * jax.scipy.special.ndtri(draw(world_key, client, 1)[:, 0])
        since = jnp.mod(clock.second + clock.fraction - middle + 0.5 * on_seconds, float(DAY_SECONDS))
        return since < on_seconds

    return available
