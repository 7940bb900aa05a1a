"""A device class whose times come out exactly, and short ways to let cohorts of it play a round."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health.devices import clock
from fedjax_health.devices.profile import DeviceClass
from fedjax_health.devices.round import Work, make_devices
from fedjax_health.federation_config import DevicesConfig

# 0.25 s + 2000 B at 16 kbit/s + 1e6 flop at 1e6 flop/s + 1000 B at 8 kbit/s = 3.25 s
EXACT = DeviceClass("exact", "exact", 1e6, 1e6, 8e3, 16e3, 0.25, 1e-9, 3e-6, 1e-6, 0.5, 0.25, 0.4, 0.0, 0.0)
TINY = EXACT._replace(slug="tiny", memory_bytes=1e3)
PLAIN = DevicesConfig((1.0,), "always", 1.0, 600.0, 0.0, 0.0, 1.0)
FLEET = DevicesConfig((0.4, 0.3, 0.2, 0.1), "markov", 0.6, 600.0, 20.0, 300.0, 1.0)
WORLD, ROUND = jax.random.key(1), jax.random.key(2)
MORNING = clock.advance(clock.start(), jnp.float32(5e6))


def work_of(clients: int, flops=1e6, up=1000.0, down=2000.0, memory=1e5) -> Work:
    return Work(
        jnp.full(clients, flops, jnp.float32), jnp.float32(up), jnp.float32(down), jnp.float32(memory), jnp.float32(1.0)
    )


def play(layer, clients, work=None, mask=None, key=ROUND, jit=True):
    client = jnp.arange(clients, dtype=jnp.int32)
    mask = jnp.ones(clients, bool) if mask is None else jnp.asarray(mask)
    play = jax.jit(layer.play) if jit else layer.play
    out = play(WORLD, client, mask, work_of(clients) if work is None else work, MORNING, key)
    return np.asarray(out.alive), float(out.seconds), {k: float(v) for k, v in out.metrics.items()}


def plain_config(**changes):
    return dataclasses.replace(PLAIN, **changes)


def exact(cohort=1, timetable=False, classes=(EXACT,), **changes):
    return make_devices(plain_config(**changes), cohort, timetable, classes)
