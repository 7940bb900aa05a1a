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
    """What a window is like as a whole: f32[n, T, C] -> f32[n, 4 C].

    Of each channel log SD, log mean absolute step, and about its highest and lowest reading, log sum exp(+-4 x) / 4: of a true
    extreme the slope is lost where a compiled program rounds twice.

    Args:
      window: in model space; T >= 2.
    """
    centred = window - jnp.mean(window, 1, keepdims=True)
    spread = 0.5 * jnp.log(jnp.mean(jnp.square(centred), 1) + 1e-4)
    step = jnp.log(jnp.mean(jnp.abs(window[:, 1:] - window[:, :-1]), 1) + 1e-2)
    high, low = (sign * nn.logsumexp(sign * 4.0 * window, 1) / 4.0 for sign in (1.0, -1.0))
    return jnp.concatenate([spread, step, high, low], 1)


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


class NoisyWindow(nn.Module):
    """Noise to a window: a course from the latent, a memory of each channel, and what each reading has of its own.

        x[t, c] = l_c + g_c course[t, c] + m[t, c] + s_c s[t, c] e[t, c],   e, d ~ N(0, 1)
        m[t, c] = a_c m[t - 1, c] + r_c r[t, c] d[t, c]

    course, log r and log s come from the latent by doubling convolutions, and a window's own l, log g, log r_c and log s_c by a
    layer; a_c in (0, 1) is a parameter. A latent alone, of fewer numbers than a window has cells, cannot make the noise of
    sensors: its windows are smooth, and a critic sees that at once. Without factors of a whole window all windows are about as
    lively, where real ones are quiet or not. Readings beyond a channel's range are its ends, where real sensors stop as well.

    Attributes:
      steps, hidden, dense: as in `WindowDecoder`.
      low, high: ends of each channel's range, in model space.
    """

    steps: int
    hidden: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    dense: str = "auto"

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """f32[n, 2 * T * C + Z] -> f32[n, T * C]; the first numbers are d and e."""
        n, steps, channels = z.shape[0], self.steps, len(self.low)
        size = steps * channels
        moves, own = (z[:, i : i + size].reshape(n, steps, channels) for i in (0, size))
        latent = z[:, 2 * size :]
        out = WindowDecoder(steps, 3 * channels, self.hidden, self.dense)(latent).reshape(n, steps, -1)
        whole = nn.Dense(self.hidden[-1], name="whole")(latent)
        whole = nn.Dense(4 * channels, name="own")(nn.leaky_relu(whole, 0.2))[:, None]
        course, r, s = jnp.split(out, 3, axis=2)
        level, gain, gain_r, gain_s = jnp.split(whole, 4, axis=2)
        course, r, s = level + jnp.exp(jnp.clip(gain, -4.0, 2.0)) * course, r + gain_r, s + gain_s
        memory = nn.sigmoid(self.param("memory", nn.initializers.ones, (channels,), jnp.float32))
        lag = np.subtract.outer(np.arange(steps, dtype=np.float32), np.arange(steps, dtype=np.float32))[..., None]
        past = jnp.where(lag >= 0, memory[None, None] ** np.maximum(lag, 0.0), 0.0)
        moved = jnp.einsum("tuc,nuc->ntc", past, jnp.exp(jnp.clip(r, -4.0, 3.0) - 1.0) * moves)
        window = course + moved + jnp.exp(jnp.clip(s, -4.0, 3.0) - 1.0) * own
        low, high = (jnp.asarray(end, jnp.float32)[None, None] for end in (self.low, self.high))
        return jnp.clip(window, low, high).reshape(n, -1)
