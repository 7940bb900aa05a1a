"""How a GAN's rows come out of noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fedjax_health.config import GanConfig
from fedjax_health.data.encode import Layout
from fedjax_health.models.base import Mlp, apply, conditioned
from fedjax_health.types import Array, Params


class Maker(NamedTuple):
    """How rows come out of noise.

    Attributes:
      init: key -> (generator, helpers): what the game trains, and what clients train beside it ({} = nothing).
      release: (generator, helpers) -> what rows are made of.
      out: (released, label i32[n], key) -> f32[n, D], numeric values, then what `codes` says.
      codes: of bits and blocks: logits, of which the discriminator sees "relaxed" draws or what is "expected", their
        probabilities; or "drawn" already.
      loss: (helpers, records f32[n, D], label i32[n]) -> f32[n], which trains the helpers; None without any.
    """

    init: Callable[[Array], tuple[Params, dict[str, Params]]]
    release: Callable[[Params, dict[str, Params]], Params]
    out: Callable[[Params, Array, Array], Array]
    codes: str
    loss: Callable[[dict[str, Params], Array, Array], Array] | None


def make_direct(
    layout: Layout, num_classes: int, config: GanConfig, network: nn.Module | None = None, fresh: int = 0
) -> Maker:
    """A generator whose outputs are the row: a network of noise z ~ N(0, I) and label.

    Args:
      layout: meaning of the D axis.
      num_classes: L.
      config: sizes.
      network: f32[n, fresh + latent + L] -> f32[n, D]; None = dense layers of the sizes in `config`.
      fresh: numbers of noise beside the latent, which come first.
    """
    network = network or Mlp(config.hidden, layout.dim, config.dense)
    noise = fresh + config.latent

    def init(key: Array) -> tuple[Params, dict[str, Params]]:
        return network.init(key, jnp.zeros((1, noise + num_classes), jnp.float32)), {}

    def out(released: Params, label: Array, key: Array) -> Array:
        z = jax.random.normal(key, (label.shape[0], noise))
        return apply(network, released, conditioned(z, label, num_classes))

    return Maker(init, lambda generator, helpers: generator, out, "relaxed", None)
