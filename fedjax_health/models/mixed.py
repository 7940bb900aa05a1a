"""Mixed types in model space: relaxed, hardened and drawn codes, and what it costs to mistake a record for another."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health.data.encode import Layout
from fedjax_health.types import Array

TEMPERATURE = 0.3  # of the relaxed one-hot blocks and bits: low enough to look discrete, high enough for a gradient


def bit_slice(layout: Layout) -> slice:
    """Where the bits are on the D axis.

    Args:
      layout: meaning of the D axis.
    """
    return slice(layout.numeric, layout.numeric + layout.bits)


def block_slices(layout: Layout) -> Iterator[slice]:
    """Where each one-hot block is on the D axis, in order.

    Args:
      layout: meaning of the D axis.
    """
    start = layout.numeric + layout.bits
    for width in layout.blocks:
        yield slice(start, start + width)
        start += width


def code_slices(layout: Layout) -> list[slice]:
    """Each bit and each block in order, counted from the first of them.

    Args:
      layout: meaning of the D axis.
    """
    bits = [slice(i, i + 1) for i in range(layout.bits)]
    return bits + [slice(b.start - layout.numeric, b.stop - layout.numeric) for b in block_slices(layout)]


def present(layout: Layout, x: Array) -> Array:
    """1 for a numeric cell that is there, 0 for one that is missing: f32[n, D] -> f32[n, numeric] (or f32[1, numeric]).

    Args:
      layout: meaning of the D axis.
      x: rows; a bit between 0 and 1 gives a share.
    """
    missing = np.array(layout.missing, np.int32)[None, :]  # [1, 0] for a table without numeric columns
    return jnp.where(missing >= 0, 1.0 - x[:, missing[0]], 1.0)


def blank_missing(layout: Layout, x: Array) -> Array:
    """Rows whose missing numeric cells are coded 0, as real ones are; f32[n, D] -> f32[n, D], differentiable.

    Args:
      layout: meaning of the D axis.
      x: rows.
    """
    for k, bit in enumerate(layout.missing):
        if bit >= 0:
            x = x.at[:, k].multiply(1.0 - x[:, bit])
    return x


def relaxed(layout: Layout, out: Array, key: Array) -> Array:
    """Differentiable rows of a network's outputs: numeric as is, bits and blocks by the concrete relaxation.

        bit: s((logit + logistic noise) / T);   block: softmax((logits + Gumbel noise) / T)

    Hardened, the rows have exactly the probabilities of the logits (Maddison et al. 2016, arXiv 1611.00712).

    Args:
      layout: meaning of the D axis.
      out: f32[n, D], numeric values, then logits.
      key: of the noise.

    Returns:
      f32[n, D].
    """
    gumbel = jax.random.gumbel(key, (out.shape[0], 2, layout.dim - layout.numeric))
    logistic = gumbel[:, 0] - gumbel[:, 1]
    parts = [
        out[:, : layout.numeric],
        jax.nn.sigmoid((out[:, bit_slice(layout)] + logistic[:, : layout.bits]) / TEMPERATURE),
    ]
    for block in block_slices(layout):
        noise = gumbel[:, 0, block.start - layout.numeric : block.stop - layout.numeric]
        parts.append(jax.nn.softmax((out[:, block] + noise) / TEMPERATURE))
    return jnp.concatenate(parts, -1)


def expected(layout: Layout, out: Array) -> Array:
    """Rows of probabilities: numeric as is, s(logit) of bits, softmax of blocks; f32[n, D] -> f32[n, D].

    Args:
      layout: meaning of the D axis.
      out: numeric values, then logits.
    """
    parts = [out[:, : layout.numeric], jax.nn.sigmoid(out[:, bit_slice(layout)])]
    return jnp.concatenate([*parts, *(jax.nn.softmax(out[:, block]) for block in block_slices(layout))], -1)


def hardened(layout: Layout, soft: Array) -> Array:
    """The nearest codes: a bit is 1 above a half, a block is its largest entry; numeric as is; f32[n, D] -> f32[n, D].

    Args:
      layout: meaning of the D axis.
      soft: rows with bits and entries of blocks around 0 to 1.
    """
    parts = [soft[:, : layout.numeric], (soft[:, bit_slice(layout)] > 0.5).astype(jnp.float32)]
    for block in block_slices(layout):
        choice = jnp.argmax(soft[:, block], -1)
        parts.append(jax.nn.one_hot(choice, block.stop - block.start, dtype=jnp.float32))
    return jnp.concatenate(parts, -1)


def drawn(layout: Layout, out: Array, scale: Array, keys: tuple[Array, Array, Array]) -> Array:
    """Independent draws given a network's outputs: N(out, scale^2), Bernoulli and categorical.

    Args:
      layout: meaning of the D axis.
      out: f32[n, D], means, then logits.
      scale: f32[numeric], standard deviations.
      keys: of numeric columns, bits, and blocks.

    Returns:
      f32[n, D].
    """
    noise = jax.random.normal(keys[0], (out.shape[0], layout.numeric))
    codes = drawn_codes(layout, out[:, layout.numeric :], keys[1], keys[2])
    return jnp.concatenate([out[:, : layout.numeric] + scale[None, :] * noise, codes], -1)


def drawn_codes(layout: Layout, logits: Array, key_bits: Array, key_blocks: Array) -> Array:
    """Independent Bernoulli and categorical draws, f32[n, bits + blocks].

    Args:
      layout: meaning of the D axis.
      logits: f32[n, bits + blocks].
      key_bits, key_blocks: of the draws.
    """
    parts = [jax.random.bernoulli(key_bits, jax.nn.sigmoid(logits[:, : layout.bits])).astype(jnp.float32)]
    for i, block in enumerate(block_slices(layout)):
        own = logits[:, block.start - layout.numeric : block.stop - layout.numeric]
        choice = jax.random.categorical(jax.random.fold_in(key_blocks, i), own)
        parts.append(jax.nn.one_hot(choice, block.stop - block.start, dtype=jnp.float32))
    return jnp.concatenate(parts, -1)


def surprise(layout: Layout, x: Array, out: Array, scale: Array) -> Array:
    """-log p(x | out) in nats up to a constant: Gaussian, Bernoulli and categorical; f32[n].

    Args:
      layout: meaning of the D axis.
      x: f32[n, D], records; a missing cell carries no likelihood.
      out: f32[n, D], means, then logits.
      scale: f32[n, numeric] or f32[1, numeric], standard deviations.
    """
    numeric = 0.5 * jnp.square((x[:, : layout.numeric] - out[:, : layout.numeric]) / scale) + jnp.log(scale)
    codes = surprise_of_codes(layout, x[:, layout.numeric :], out[:, layout.numeric :])
    return jnp.sum(numeric * present(layout, x), -1) + codes


def surprise_of_codes(layout: Layout, codes: Array, logits: Array) -> Array:
    """-log p(codes | logits) in nats: Bernoulli and categorical; f32[n].

    Args:
      layout: meaning of the D axis.
      codes, logits: f32[n, bits + blocks].
    """
    bits, of_bits = codes[:, : layout.bits], logits[:, : layout.bits]
    loss = jnp.sum(jax.nn.softplus(of_bits) - bits * of_bits, -1)
    for block in block_slices(layout):
        own = slice(block.start - layout.numeric, block.stop - layout.numeric)
        loss -= jnp.sum(codes[:, own] * jax.nn.log_softmax(logits[:, own]), -1)
    return loss
