"""The one-shot Gaussian copula by class: the statistics of data.representation="copula", drawn from as they are.

In that model space a Gaussian copula with the data's margins is the standard normal, so nothing is left to be trained. Bits
and blocks are drawn from their shares by class, independently of each other and of the numeric columns.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health.data.encode import Layout
from fedjax_health.models.base import OneShot
from fedjax_health.models.mixed import bit_slice, block_slices
from fedjax_health.types import Array, Params

LEAST_SHARE = 1e-6  # that a score takes a category to have


def make_copula(layout: Layout, num_classes: int) -> OneShot:
    """Gaussian copula of the numeric columns within a class, independent of the other columns.

        x_j ~ N(0, 1);  bit ~ Bernoulli(share_y);  block ~ Categorical(shares_y)
        score(x, y) = -|x|^2 / 2 + sum_v log share_y(v): the log density in model space, up to a constant

    Args:
      layout: meaning of the D axis.
      num_classes: L.

    Returns:
      OneShot; released is {"shares": f32[L, D - numeric]}, of `privacy.category_shares`.
    """
    shapes = {"shares": jax.ShapeDtypeStruct((num_classes, layout.dim - layout.numeric), np.dtype("float32"))}

    def rows(released: Params, label: Array) -> Array:
        """Shares of each row's class, padded so that they stand where the layout says; f32[n, D]."""
        return jnp.pad(released["shares"], ((0, 0), (layout.numeric, 0)))[label]

    def sample(released: Params, label: Array, key: Array) -> Array:
        key_x, key_b, key_c = jax.random.split(key, 3)
        share = rows(released, label)
        parts = [jax.random.normal(key_x, (label.shape[0], layout.numeric))]
        parts.append(jax.random.bernoulli(key_b, share[:, bit_slice(layout)]).astype(jnp.float32))
        for i, block in enumerate(block_slices(layout)):
            logits = jnp.log(share[:, block])  # -inf where a category is not there
            choice = jax.random.categorical(jax.random.fold_in(key_c, i), logits)
            parts.append(jax.nn.one_hot(choice, block.stop - block.start, dtype=jnp.float32))
        return jnp.concatenate(parts, -1)

    def score(released: Params, x: Array, label: Array, key: Array) -> Array:
        del key
        share, bits = rows(released, label), bit_slice(layout)
        log = jnp.log(jnp.maximum(share, LEAST_SHARE))
        log_not = jnp.log(jnp.maximum(1.0 - share, LEAST_SHARE))
        found = -0.5 * jnp.sum(jnp.square(x[:, : layout.numeric]), -1)
        found += jnp.sum(x[:, bits] * log[:, bits] + (1.0 - x[:, bits]) * log_not[:, bits], -1)
        return found + jnp.sum(x[:, bits.stop :] * log[:, bits.stop :], -1)

    return OneShot(shapes, sample, score)
