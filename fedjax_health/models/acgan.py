"""GAN with an auxiliary classifier (Odena et al. 2017, arXiv 1610.09585): the discriminator names the class as well."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from fedjax_health.config import GanConfig
from fedjax_health.data.encode import Layout
from fedjax_health.models.adversarial import Game, make_adversarial
from fedjax_health.models.base import GenerativeModel
from fedjax_health.types import Array


def make_acgan(layout: Layout, num_classes: int, config: GanConfig) -> GenerativeModel:
    """Discriminator with 1 + L outputs, a source v and class logits c, that does not see the label; s the logistic function.

        discriminator: -log s(v_real) - log(1 - s(v_fake)) - log p(y | c_real) - log p(y | c_fake)
        generator:     -log s(v_fake) - log p(y | c_fake)

    A member's evidence is log s(v) + log p(y | c).

    Args:
      layout: meaning of the D axis.
      num_classes: L.
      config: sizes and placement.
    """

    def mistake(out: Array, label: Array) -> Array:
        """-log p(label | class logits); f32[n]."""
        return optax.softmax_cross_entropy_with_integer_labels(out[:, 1:], label)

    def critic(real: Array, fake: Array, label: Array) -> Array:
        source = jax.nn.softplus(-real[:, 0]) + jax.nn.softplus(fake[:, 0])
        return source + mistake(real, label) + mistake(fake, label)

    def generator(fake: Array, label: Array) -> Array:
        return jax.nn.softplus(-fake[:, 0]) + mistake(fake, label)

    def evidence(out: Array, label: Array) -> Array:
        return jnp.negative(generator(out, label))

    game = Game(1 + num_classes, False, critic, generator, evidence, penalised=False, centred=True)
    return make_adversarial(layout, num_classes, config, game)
