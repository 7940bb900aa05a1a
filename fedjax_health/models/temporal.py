"""Small convolutions over the steps of a window, between a flat window and a flat vector.

A layer halves (or doubles) the number of steps and sees each pair with its two neighbours: a convolution of width 6 and stride
2, written as a dense layer on shifted copies, since XLA runs a convolution that is mapped over clients far slower.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from fedjax_health.models.dense import make_dot_general
from fedjax_health.types import Array, UserError

MOVE = 1 / 3  # of a public spread: what a sensor moves in a step, in order of magnitude


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


class WindowDecoder(nn.Module):
    """A vector to a window: a dense layer to the coarsest steps, then doubling convolutions.

    Attributes:
      steps, channels, hidden: as in `WindowEncoder`.
      dense: form of the first layer's product.
      summed: whether the layers give the first step and then moves in units of MOVE, which are summed up: a window of an
        untrained network then wanders, as sensors do, instead of jumping from step to step.
    """

    steps: int
    channels: int
    hidden: tuple[int, ...]
    dense: str = "auto"
    summed: bool = False

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
        if self.summed:
            window = jnp.cumsum(jnp.concatenate([window[:, :1], MOVE * window[:, 1:]], axis=1), axis=1)
        return window.reshape(n, -1)
