"""medGAN (Choi et al. 2017, arXiv 1703.06490), conditional on the label: a GAN that makes codes of an autoencoder.

Without the paper's minibatch averaging and batch normalisation: both put one record's values into another's gradient, so that
no bound on a record's or a client's part would hold.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fedjax_health.config import MedganConfig
from fedjax_health.data.encode import Layout
from fedjax_health.models.adversarial import NON_SATURATING, make_adversarial
from fedjax_health.models.base import GenerativeModel, Mlp, apply, conditioned
from fedjax_health.models.maker import Maker
from fedjax_health.models.mixed import surprise
from fedjax_health.types import Array, Params


def make_medgan(layout: Layout, num_classes: int, config: MedganConfig) -> GenerativeModel:
    """Clients train autoencoder and discriminator, in one direction; the generator's codes become rows through the decoder.

        autoencoder:   -log p(x | dec(tanh(enc(x, y)), y)), unit variances;   the decoder learns from this alone
        fake row:      dec(tanh(z + gen(z, y)), y), bits and blocks as probabilities;   z ~ N(0, I)
        discriminator and generator: as `gan`; the shortcut of z is the paper's

    A trained decoder is sure of its bits, and the gradient of a relaxed draw would be nearly 0; hence probabilities, as in the
    paper. Samples are drawn from them.

    split: the server trains the generator through the decoder, which it has anyway. joint: clients train it, too.

    Args:
      layout: meaning of the D axis.
      num_classes: L.
      config: sizes, placement, weight of the autoencoder.

    Returns:
      GenerativeModel; generator and decoder are released, encoder and discriminator are not.
    """
    generator = Mlp(config.hidden, config.latent, config.dense)
    encoder = Mlp(config.hidden, config.latent, config.dense)
    decoder = Mlp(config.hidden, layout.dim, config.dense)

    def init(key: Array) -> tuple[Params, dict[str, Params]]:
        key_g, key_e, key_d = jax.random.split(key, 3)
        code = jnp.zeros((1, config.latent + num_classes), jnp.float32)
        row = jnp.zeros((1, layout.dim + num_classes), jnp.float32)
        return generator.init(key_g, code), {"encoder": encoder.init(key_e, row), "decoder": decoder.init(key_d, code)}

    def release(gen: Params, helpers: dict[str, Params]) -> Params:
        return {"generator": gen, "decoder": helpers["decoder"]}

    def decode(params: Params, code: Array, label: Array) -> Array:
        return apply(decoder, params, conditioned(code, label, num_classes))

    def out(released: Params, label: Array, key: Array) -> Array:
        z = jax.random.normal(key, (label.shape[0], config.latent))
        code = jnp.tanh(z + apply(generator, released["generator"], conditioned(z, label, num_classes)))
        return decode(released["decoder"], code, label)

    def loss(helpers: dict[str, Params], x: Array, label: Array) -> Array:
        code = jnp.tanh(apply(encoder, helpers["encoder"], conditioned(x, label, num_classes)))
        return surprise(layout, x, decode(helpers["decoder"], code, label), jnp.ones((1, layout.numeric), jnp.float32))

    return make_adversarial(layout, num_classes, config, NON_SATURATING, Maker(init, release, out, "expected", loss))
