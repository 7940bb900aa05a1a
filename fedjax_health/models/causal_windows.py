"""A GAN's windows in the order of time: each step from noise of its own, the steps before it and what the window is to be."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from fedjax_health.models.temporal import WindowDecoder
from fedjax_health.types import Array

PAST = 4  # steps back that a step sees; what lasts longer is for the latent and the sums


class CausalWindows(nn.Module):
    """Noise to a window, step after step: the same small network at every step, with noise of the step's own.

        x[t] = clip(s[t] e[t] + b[t] + W (x[t-1], ..., x[t-P]), low, high),   (log s[t], b[t]) = net(past[t], given[t])

    past is x[t-1], ..., x[t-P], the mean of all steps before, and the mean of |x[u] - x[u-1]| over them, which tell a
    patient's level and how noisy the sensor is. given is a context of the step (doubling convolutions of latent and label), a
    layer of the latent, and two numbers of noise a channel, of which e is one. All channels of a step see the noise of all:
    what moves them at the same moment is kept. A window drawn at once from a latent has no memory but what convolutions spell
    out, and a critic sees that. Readings beyond a channel's range are its ends, where real sensors stop as well.

    Attributes:
      steps, hidden, dense: as in `WindowDecoder`; the steps' network is as wide as the last of `hidden`, a context as the
        first.
      low, high: ends of each channel's range, in model space.

    Source: a generator that goes through time (Esteban et al. 2017, arXiv 1706.02633).
    """

    steps: int
    hidden: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    dense: str = "auto"

    def setup(self) -> None:
        """Layers of the window, and those that every step shares."""
        width, near_zero = self.hidden[-1], nn.initializers.normal(0.01)
        channels = len(self.low)
        self.course = WindowDecoder(self.steps, self.hidden[0], self.hidden, self.dense)
        self.whole = nn.Dense(width)
        self.given = nn.Dense(width)
        self.memory = nn.Dense(width, use_bias=False)
        self.own = nn.Dense(width)
        self.last = nn.Dense(2 * channels, kernel_init=near_zero)
        self.skip = nn.Dense(channels, use_bias=False, kernel_init=near_zero)

    def __call__(self, z: Array) -> Array:
        """f32[n, 2 * T * C + Z] -> f32[n, T * C]; the first numbers are the noise, e before the rest."""
        n, steps, channels = z.shape[0], self.steps, len(self.low)
        size = steps * channels
        noise = jnp.concatenate([z[:, i : i + size].reshape(n, steps, channels) for i in (0, size)], 2)
        latent = z[:, 2 * size :]
        context = self.course(latent).reshape(n, steps, -1)
        whole = nn.leaky_relu(self.whole(latent), 0.2)[:, None]
        # what does not depend on steps before is made of all steps at once
        given = self.given(jnp.concatenate([context, noise, jnp.broadcast_to(whole, (n, steps, whole.shape[-1]))], -1))
        low, high = (jnp.asarray(end, jnp.float32)[None] for end in (self.low, self.high))

        def step(module: CausalWindows, carry: tuple[Array, Array, Array], now: Any) -> tuple[Any, Array]:
            back, total, moved = carry
            t, here, e = now
            past = jnp.concatenate([back, total / jnp.maximum(t, 1.0), moved / jnp.maximum(t - 1.0, 1.0)], -1)
            h = nn.leaky_relu(module.own(nn.leaky_relu(here + module.memory(past), 0.2)), 0.2)
            spread, shift = jnp.split(module.last(h), 2, -1)
            x = e * jnp.exp(jnp.clip(spread, -4.0, 2.0) - 0.7) + shift + module.skip(back)
            x = jnp.clip(x, low, high)
            moved += jnp.where(t > 0, jnp.abs(x - back[:, :channels]), 0.0)
            return (jnp.concatenate([x, back[:, :-channels]], -1), total + x, moved), x

        scan = nn.scan(step, variable_broadcast="params", split_rngs={"params": False})
        nothing = 0.0 * noise[:, 0, :channels]  # made of it, so that a scan sharded over clients starts as it goes on
        start = (jnp.tile(nothing, (1, PAST)), nothing, nothing)
        own = noise[..., :channels].swapaxes(0, 1)
        _, window = scan(self, start, (jnp.arange(steps, dtype=jnp.float32), given.swapaxes(0, 1), own))
        return window.swapaxes(0, 1).reshape(n, -1)
