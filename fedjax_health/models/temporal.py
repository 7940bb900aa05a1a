"""Small convolutions over the steps of a window, between a flat window and a flat vector.

A layer halves (or doubles) the number of steps and sees each pair with its two neighbours: a convolution of width 6 and stride
2, written as a dense layer on shifted copies, since XLA runs a convolution that is mapped over clients far slower.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from fedjax_health.models.dense import make_dot_general
from fedjax_health.types import Array, UserError


def coarse_steps(steps: int, widths: Sequence[int]) -> int:
    """Steps left after one halving a layer.

    Args:
      steps: T.
      widths: of the layers, the finest first.

    Raises:
      UserError: T is not a multiple of 2^layers.
    """
    if steps % 2 ** len(widths):
        raise UserError(
            f"a window of {steps} steps cannot be halved {len(widths)} times; give `hidden` fewer layers, or windows of a "
            f"multiple of {2 ** len(widths)} steps"
        )
    return steps // 2 ** len(widths)


def with_neighbours(x: Array) -> Array:
    """Every step beside the one before and the one after, zeros beyond the ends: f32[n, T, C] -> f32[n, T, 3 C]."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
    return jnp.concatenate([padded[:, :-2], x, padded[:, 2:]], axis=2)


class WindowEncoder(nn.Module):
    """A window to a vector: halving convolutions, then a dense layer.

    Attributes:
      steps, channels: T and C.
      hidden: widths of the layers, the finest first; T is a multiple of 2^len(hidden).
      out: output size.
      dense: form of the last layer's product (see `models.dense`).
    """

    steps: int
    channels: int
    hidden: tuple[int, ...]
    out: int
    dense: str = "auto"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """f32[n, T * C + rest] -> f32[n, out]; the rest (the label) goes to every step and to the last layer."""
        n, size = x.shape[0], self.steps * self.channels
        window, rest = x[:, :size].reshape(n, self.steps, self.channels), x[:, size:]
        everywhere = jnp.broadcast_to(rest[:, None, :], (n, self.steps, rest.shape[1]))
        window = jnp.concatenate([window, everywhere], axis=2)
        for width in self.hidden:
            pairs = window.reshape(n, window.shape[1] // 2, 2 * window.shape[2])
            window = nn.leaky_relu(nn.Dense(width)(with_neighbours(pairs)), 0.2)
        flat = jnp.concatenate([window.reshape(n, -1), rest], axis=1)
        return nn.Dense(self.out, dot_general=make_dot_general(self.dense))(flat)


def moments(window: Array) -> Array:
    """What a window is like as a whole: f32[n, T, C] -> f32[n, 8 C + C (C - 1) / 2].

    Of each channel log SD, log mean absolute step, about its highest and lowest reading and its largest step, log sum exp(4 x)
    / 4 (of a true extreme the slope is lost where a compiled program rounds twice), its memory from step to step, and the mean
    of either half; of each pair of channels their correlation.

    Args:
      window: in model space; T >= 2.
    """
    steps, channels = window.shape[1:]
    centred = window - jnp.mean(window, 1, keepdims=True)
    power = jnp.mean(jnp.square(centred), 1)
    moves = jnp.abs(window[:, 1:] - window[:, :-1])
    spread, step = 0.5 * jnp.log(power + 1e-4), jnp.log(jnp.mean(moves, 1) + 1e-2)
    high, low = (sign * nn.logsumexp(sign * 4.0 * window, 1) / 4.0 for sign in (1.0, -1.0))
    largest = nn.logsumexp(4.0 * moves, 1) / 4.0
    power += 1e-2  # of a quiet channel noise, and neither memory nor correlation
    memory = jnp.mean(centred[:, 1:] * centred[:, :-1], 1) / power
    halves = jnp.mean(window[:, : steps // 2], 1), jnp.mean(window[:, steps // 2 :], 1)
    product = jnp.einsum("nta,ntb->nab", centred, centred) / steps
    related = product / jnp.sqrt(power[:, :, None] * power[:, None, :])
    pairs = related[:, *np.triu_indices(channels, 1)]
    return jnp.concatenate([spread, step, high, low, memory, largest, *halves, pairs], 1)


class WindowCritic(nn.Module):
    """A window to a number: the halving convolutions of `WindowEncoder`, and a layer on the window's `moments`.

    A convolution sees a few steps at a time and its sums are nearly linear: how quiet a sensor is as a whole, which differs
    from one patient to the next, it hardly sees.

    Attributes:
      steps, channels, hidden, dense: as in `WindowEncoder`.
    """

    steps: int
    channels: int
    hidden: tuple[int, ...]
    dense: str = "auto"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """f32[n, T * C + rest] -> f32[n, 1]."""
        size = self.steps * self.channels
        window, rest = x[:, :size].reshape(-1, self.steps, self.channels), x[:, size:]
        near = WindowEncoder(self.steps, self.channels, self.hidden, self.hidden[-1], self.dense)(x)
        whole = nn.Dense(self.hidden[-1], name="whole")(jnp.concatenate([moments(window), rest], 1))
        both = nn.leaky_relu(jnp.concatenate([near, whole], 1), 0.2)
        both = nn.leaky_relu(nn.Dense(self.hidden[-1], name="both")(both), 0.2)
        # named as the last layer of other critics, whose offset `make_adversarial` moves
        return nn.Dense(1, name=f"Dense_{len(self.hidden)}")(both)


class WindowDecoder(nn.Module):
    """A vector to a window: a dense layer to the coarsest steps, then doubling convolutions.

    Attributes:
      steps, channels, hidden: as in `WindowEncoder`.
      dense: form of the first layer's product.
    """

    steps: int
    channels: int
    hidden: tuple[int, ...]
    dense: str = "auto"

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """f32[n, Z] -> f32[n, T * C]."""
        n, coarse = z.shape[0], coarse_steps(self.steps, self.hidden)
        widths = (self.channels, *self.hidden)
        first = nn.Dense(coarse * widths[-1], dot_general=make_dot_general(self.dense))(z)
        window = first.reshape(n, coarse, widths[-1])
        for width in widths[-2::-1]:
            pairs = nn.Dense(2 * width)(with_neighbours(nn.leaky_relu(window, 0.2)))
            window = pairs.reshape(n, 2 * pairs.shape[1], width)
        return window.reshape(n, -1)
