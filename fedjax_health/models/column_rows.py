"""A GAN's generator column by column: codes one after the other, then each numeric cell from noise of its own."""

from __future__ import annotations

from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from fedjax_health.config import GanConfig
from fedjax_health.data.encode import Layout
from fedjax_health.models.base import Mlp, conditioned
from fedjax_health.models.maker import Maker
from fedjax_health.models.mixed import code_slices
from fedjax_health.types import Array, Params

WIDTH = 32  # of a column's own hidden layer
# of the relaxation that codes have their gradient from: at a lower one a code that has become rare has none, and stays so
TEMPERATURE = 1.0


class ColumnRows(nn.Module):
    """Rows of noise: h = trunk(z, label), then unit after unit a draw that knows h and all before it.

        code[u] = hard(logits(h, code[0..u-1]) + noise)
        x[j]    = 2 s(a) e[j] + b,   (a, b) = layers(h, codes, x[0..j-1], e[j], e'[j]),   e, e' ~ N(0, 1), s logistic

    (a, b) start near 0, so that cells are their own noise before any training: in the space of
    `data.representation="copula"` that is a Gaussian copula by class. Codes are 0 or 1 as those of records are, with the
    gradient of the concrete relaxation: a discriminator cannot tell them by their softness, and sensors that fall out together
    do so in the rows.

    Attributes:
      layout: meaning of the D axis.
      hidden: sizes of the trunk's layers.
      dense: form of the trunk's products (see `models.dense`).

    Source: straight-through draws (Jang et al. 2016, arXiv 1611.01144).
    """

    layout: Layout
    hidden: tuple[int, ...]
    dense: str = "auto"

    def setup(self) -> None:
        """The trunk, and two layers for every code and every numeric column."""
        units = code_slices(self.layout)
        self.trunk = Mlp(self.hidden[:-1], self.hidden[-1], self.dense)
        self.own_code = [nn.Dense(WIDTH) for _ in units]
        self.last_code = [nn.Dense(unit.stop - unit.start) for unit in units]
        self.own = [nn.Dense(WIDTH) for _ in range(self.layout.numeric)]
        self.last = [nn.Dense(2, kernel_init=nn.initializers.normal(0.01)) for _ in range(self.layout.numeric)]

    def __call__(self, c: Array, gumbel: Array, normal: Array) -> Array:
        """c f32[n, latent + L], gumbel f32[n, 2, D - numeric], normal f32[n, 2, numeric] -> rows f32[n, D], codes 0 or 1."""
        h = nn.leaky_relu(self.trunk(c), 0.2)
        codes = jnp.zeros((c.shape[0], 0), jnp.float32)
        for u, unit in enumerate(code_slices(self.layout)):
            before = jnp.concatenate([h, codes], -1)
            own = nn.leaky_relu(self.own_code[u](before), 0.2)
            logits = self.last_code[u](jnp.concatenate([own, before], -1))
            if u < self.layout.bits:
                soft = jax.nn.sigmoid((logits + gumbel[:, 0, unit] - gumbel[:, 1, unit]) / TEMPERATURE)
                hard = (soft > 0.5).astype(jnp.float32)
            else:
                soft = jax.nn.softmax((logits + gumbel[:, 0, unit]) / TEMPERATURE)
                hard = jax.nn.one_hot(jnp.argmax(soft, -1), unit.stop - unit.start, dtype=jnp.float32)
            codes = jnp.concatenate([codes, soft + jax.lax.stop_gradient(hard - soft)], -1)
        x = jnp.zeros((c.shape[0], 0), jnp.float32)
        for j in range(self.layout.numeric):
            before = jnp.concatenate([h, codes, x, normal[:, :, j]], -1)
            own = nn.leaky_relu(self.own[j](before), 0.2)
            stretch, shift = jnp.split(self.last[j](jnp.concatenate([own, before], -1)), 2, -1)
            x = jnp.concatenate([x, normal[:, :1, j] * 2.0 * jax.nn.sigmoid(stretch) + shift], -1)
        return jnp.concatenate([x, codes], -1)


def make_by_columns(layout: Layout, num_classes: int, config: GanConfig) -> Maker:
    """A generator that makes a row column by column: see `ColumnRows`.

    Args:
      layout: meaning of the D axis.
      num_classes: L.
      config: sizes; `hidden` are the trunk's, and those of the discriminator.
    """
    network = ColumnRows(layout, config.hidden, config.dense)
    codes, numeric = layout.dim - layout.numeric, layout.numeric

    def init(key: Array) -> tuple[Params, dict[str, Params]]:
        sizes = ((1, config.latent + num_classes), (1, 2, codes), (1, 2, numeric))
        return network.init(key, *(jnp.zeros(size, jnp.float32) for size in sizes)), {}

    def out(released: Params, label: Array, key: Array) -> Array:
        key_z, key_g, key_n = jax.random.split(key, 3)
        n = label.shape[0]
        c = conditioned(jax.random.normal(key_z, (n, config.latent)), label, num_classes)
        gumbel, normal = jax.random.gumbel(key_g, (n, 2, codes)), jax.random.normal(key_n, (n, 2, numeric))
        return cast(Array, network.apply(released, c, gumbel, normal))

    return Maker(init, lambda generator, helpers: generator, out, "drawn", None)
