"""A density of windows in the order of time: each cell is a mixture of Gaussians given the steps before and its context."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health.types import Array

MIN_SCALE = (
    0.02  # floor of a component's spread: a likelihood that can grow without bound makes steep, clipped gradients
)
LOG_ROOT = 0.9189385  # log(sqrt(2 pi))


class CausalMixture(nn.Module):
    """p(x | context) = prod_t prod_c p(x[t, c] | past of t, x[t, 0..c-1], context[t]), mixtures of K Gaussians.

    The past of t is x[t-1], ..., x[t-P], and two sums of all steps before t: their mean, and the mean of |x[u] - x[u-1]|,
    which tell a patient's level and how noisy the sensor is. What lies before the window reads as 0; the context tells the
    first steps apart. Channels of a step follow one another, so that what moves them at the same moment is kept.

    Attributes:
      channels: C.
      past: P, steps back.
      width: of the hidden layers.
      components: K.

    Source: mixture density networks (Bishop 1994); an autoregressive decoder of a VAE (Chen et al. 2017, arXiv 1611.02731).
    """

    channels: int
    past: int
    width: int
    components: int

    def setup(self) -> None:
        """The trunk of a step, and two layers for every channel."""
        self.trunk = nn.Dense(self.width)
        self.hidden = [nn.Dense(self.width) for _ in range(self.channels)]
        self.last = [nn.Dense(3 * self.components) for _ in range(self.channels)]

    def _cell(self, h: Array, before: Array, c: int) -> tuple[Array, Array, Array]:
        """(log weights, means, spreads), f32[..., K] each, of channel c after the channels `before` of the step."""
        own = nn.leaky_relu(self.hidden[c](jnp.concatenate([h, before], -1)), 0.2)
        logits, mean, raw = jnp.split(self.last[c](own), 3, -1)
        return jax.nn.log_softmax(logits), mean, jax.nn.softplus(raw) + MIN_SCALE

    def log_prob(self, x: Array, context: Array) -> Array:
        """Log-density in nats: x f32[n, T, C], context f32[n, T, E] -> f32[n]."""
        padded = jnp.pad(x, ((0, 0), (self.past, 0), (0, 0)))
        back = [padded[:, self.past - p : padded.shape[1] - p] for p in range(1, self.past + 1)]
        moves = jnp.pad(jnp.abs(x[:, 1:] - x[:, :-1]), ((0, 0), (1, 0), (0, 0)))
        before = np.arange(x.shape[1], dtype=np.float32)[None, :, None]
        level = (jnp.cumsum(x, 1) - x) / np.maximum(before, 1)
        unrest = (jnp.cumsum(moves, 1) - moves) / np.maximum(before - 1, 1)
        h = nn.leaky_relu(self.trunk(jnp.concatenate([*back, level, unrest, context], -1)), 0.2)
        total = jnp.zeros(x.shape[0], jnp.float32)
        for c in range(self.channels):
            weight, mean, scale = self._cell(h, x[..., :c], c)
            terms = weight - 0.5 * jnp.square((x[..., c, None] - mean) / scale) - jnp.log(scale)
            total += jnp.sum(jax.nn.logsumexp(terms, -1) - LOG_ROOT, -1)
        return total

    def draw(self, context: Array, key: Array) -> Array:
        """A window step by step: context f32[n, T, E] -> f32[n, T, C]."""
        n, steps = context.shape[:2]
        key_k, key_x = jax.random.split(key)
        gumbel = jax.random.gumbel(key_k, (steps, self.channels, n, self.components))
        normal = jax.random.normal(key_x, (steps, self.channels, n))

        def step(module: CausalMixture, carry: tuple[Array, Array, Array], given: Any) -> tuple[Any, Array]:
            back, total, moved = carry
            t, now, choice, noise = given
            level, unrest = total / jnp.maximum(t, 1.0), moved / jnp.maximum(t - 1.0, 1.0)
            h = nn.leaky_relu(module.trunk(jnp.concatenate([back, level, unrest, now], -1)), 0.2)
            x = jnp.zeros((n, 0), jnp.float32)
            for c in range(module.channels):
                weight, mean, scale = module._cell(h, x, c)
                picked = jax.nn.one_hot(jnp.argmax(weight + choice[c], -1), module.components, dtype=jnp.float32)
                cell = jnp.sum(picked * mean, -1) + jnp.sum(picked * scale, -1) * noise[c]
                x = jnp.concatenate([x, cell[:, None]], -1)
            moved += jnp.where(t > 0, jnp.abs(x - back[:, : module.channels]), 0.0)
            return (jnp.concatenate([x, back[:, : -module.channels]], -1), total + x, moved), x

        scan = nn.scan(step, variable_broadcast="params", split_rngs={"params": False})
        nothing = jnp.zeros((n, self.channels), jnp.float32)
        start = (jnp.tile(nothing, (1, self.past)), nothing, nothing)
        _, window = scan(self, start, (jnp.arange(steps, dtype=jnp.float32), context.swapaxes(0, 1), gumbel, normal))
        return window.swapaxes(0, 1)
