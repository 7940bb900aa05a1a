"""A density of rows column by column: codes one after the other, then each numeric cell as a mixture of Gaussians."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health.data.encode import Layout
from fedjax_health.models.base import Affine, Mlp
from fedjax_health.models.mixed import code_slices, present
from fedjax_health.types import Array

WIDTH = 32  # of a column's own hidden layer
COMPONENTS = 3  # of a cell's mixture: a quiet sensor, a noisy one, and an event
MIN_SCALE = (
    0.02  # floor of a component's spread: a likelihood that can grow without bound makes steep, clipped gradients
)


class Columns(nn.Module):
    """p(x | c) = prod_u p(code[u] | code[0..u-1], c) prod_j p(x[j] | codes, x[0..j-1], c), cells as mixtures of K Gaussians.

    Codes (bits, then one-hot blocks) come first, so that sensors which fall out together do so in the rows too; a small network
    of its own gives each its logits, and each cell its mixture. What a decoder with independent noise leaves out, how codes
    and cells depend on one another beyond c, is in them.

    Attributes:
      layout: meaning of the D axis.
      hidden: sizes of the trunk's layers.
      dense: form of the trunk's products (see `models.dense`); the small layers after it have XLA's own.
      affine: what a layer does instead (see `models.record`), or None.

    Source: mixture density networks (Bishop 1994); an autoregressive decoder of a VAE (Chen et al. 2017, arXiv 1611.02731);
    neural autoregression of bits (Bengio & Bengio 2000).
    """

    layout: Layout
    hidden: tuple[int, ...]
    dense: str = "auto"
    affine: Callable[[Array, Array, Array], Array] | None = None

    def setup(self) -> None:
        """The trunk, and two layers for every code and every numeric column."""

        def layer(width: int) -> Callable[[Array], Array]:
            return Affine(width, self.affine) if self.affine else nn.Dense(width)

        self.trunk = Mlp(self.hidden[:-1], self.hidden[-1], self.dense, self.affine)
        units = code_slices(self.layout)
        self.own_code = [layer(WIDTH) for _ in units]
        self.last_code = [layer(unit.stop - unit.start) for unit in units]
        self.own = [layer(WIDTH) for _ in range(self.layout.numeric)]
        self.last = [layer(3 * COMPONENTS) for _ in range(self.layout.numeric)]

    def _code(self, before: Array, u: int) -> Array:
        """Logits f32[n, width] of code u after what comes before it."""
        own = nn.leaky_relu(self.own_code[u](before), 0.2)
        return self.last_code[u](jnp.concatenate([own, before], -1))

    def _cell(self, before: Array, j: int) -> tuple[Array, Array, Array]:
        """(log weights, means, spreads), f32[n, K] each, of column j after what comes before it."""
        own = nn.leaky_relu(self.own[j](before), 0.2)
        logits, mean, raw = jnp.split(self.last[j](jnp.concatenate([own, before], -1)), 3, -1)
        apart = np.linspace(-1.0, 1.0, COMPONENTS, dtype=np.float32)[None, :]  # components that start equal stay equal
        return jax.nn.log_softmax(logits), mean + apart, jax.nn.softplus(raw + 0.5) + MIN_SCALE

    def surprise(self, x: Array, c: Array) -> Array:
        """-log p(x | c) in nats up to a constant: x f32[n, D], c f32[n, E] -> f32[n]; a missing cell carries no likelihood."""
        count = self.layout.numeric
        h = nn.leaky_relu(self.trunk(c), 0.2)
        loss, codes, there = jnp.zeros(x.shape[0], jnp.float32), x[:, count:], present(self.layout, x)
        for u, unit in enumerate(code_slices(self.layout)):
            own = self._code(jnp.concatenate([h, codes[:, : unit.start]], -1), u)
            if u < self.layout.bits:
                loss += (jax.nn.softplus(own) - codes[:, unit] * own)[:, 0]
            else:
                loss -= jnp.sum(codes[:, unit] * jax.nn.log_softmax(own), -1)
        for j in range(count):
            weight, mean, scale = self._cell(jnp.concatenate([h, x[:, count:], x[:, :j]], -1), j)
            terms = weight - 0.5 * jnp.square((x[:, j, None] - mean) / scale) - jnp.log(scale)
            loss -= jax.nn.logsumexp(terms, -1) * there[:, min(j, there.shape[1] - 1)]
        return loss

    def draw(self, c: Array, key_x: Array, key_b: Array, key_c: Array) -> Array:
        """Rows cell by cell: c f32[n, E], keys of cells, bits and blocks -> f32[n, D]; a missing cell is 0."""
        count, n = self.layout.numeric, c.shape[0]
        key_k, key_x = jax.random.split(key_x)
        h = nn.leaky_relu(self.trunk(c), 0.2)
        codes = jnp.zeros((n, 0), jnp.float32)
        for u, unit in enumerate(code_slices(self.layout)):
            own, width = self._code(jnp.concatenate([h, codes], -1), u), unit.stop - unit.start
            if u < self.layout.bits:
                made = jax.random.bernoulli(jax.random.fold_in(key_b, u), jax.nn.sigmoid(own)).astype(jnp.float32)
            else:
                choice = jax.random.categorical(jax.random.fold_in(key_c, u), own)
                made = jax.nn.one_hot(choice, width, dtype=jnp.float32)
            codes = jnp.concatenate([codes, made], -1)
        there = present(self.layout, jnp.concatenate([jnp.zeros((n, count), jnp.float32), codes], -1))
        gumbel, normal = jax.random.gumbel(key_k, (count, n, COMPONENTS)), jax.random.normal(key_x, (count, n))
        x = jnp.zeros((n, 0), jnp.float32)
        for j in range(count):
            weight, mean, scale = self._cell(jnp.concatenate([h, codes, x], -1), j)
            picked = jax.nn.one_hot(jnp.argmax(weight + gumbel[j], -1), COMPONENTS, dtype=jnp.float32)
            cell = jnp.sum(picked * mean, -1) + jnp.sum(picked * scale, -1) * normal[j]
            x = jnp.concatenate([x, (cell * there[:, min(j, there.shape[1] - 1)])[:, None]], -1)
        return jnp.concatenate([x, codes], -1)
