"""What a GAN and a WGAN-GP share: a conditional generator, a discriminator, and the split or joint placement of both.

split: clients train only the discriminator; the server trains the generator in `refine`, which reads no data
(post-processing, half the traffic). joint: clients train both networks and upload both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from fedjax_health.config import GanConfig
from fedjax_health.data.encode import Layout
from fedjax_health.models.base import GenerativeModel, Mlp, ModelParams, apply, conditioned, masked_mean, no_refine
from fedjax_health.types import Array, Batch, Hyper, Metrics, Params, Update

TEMPERATURE = 0.3  # of the relaxed one-hot blocks and bits: low enough to look discrete, high enough for a gradient


class Game(NamedTuple):
    """The two players' losses on critic values, each f32[n] -> f32[n].

    Attributes:
      critic: (value of real f32[n], value of fake f32[n]) -> f32[n].
      generator: value of fake f32[n] -> f32[n].
      penalised: whether the critic's gradient norm is pulled to one.
    """

    critic: Callable[[Array, Array], Array]
    generator: Callable[[Array], Array]
    penalised: bool


class Networks(NamedTuple):
    """The two players' networks, flat in and flat out.

    Attributes:
      generator: f32[n, latent + L] -> f32[n, D].
      critic: f32[n, D + L] -> f32[n, 1].
    """

    generator: nn.Module
    critic: nn.Module


def make_adversarial(
    layout: Layout, num_classes: int, config: GanConfig, game: Game, networks: Networks | None = None
) -> GenerativeModel:
    """A conditional GAN of the given game.

    Gradient penalty: E[(||d critic(x~) / d x~||_2 - 1)^2] at x~ = u x + (1 - u) fake, u ~ U(0, 1), inside the client's
    loss, since it reads real data (Gulrajani et al. 2017, arXiv 1704.00028).

    Args:
      layout: meaning of the D axis.
      num_classes: L.
      config: sizes, placement, server-side generator training.
      game: losses.
      networks: the players; None = dense layers of the sizes in `config`.

    Returns:
      GenerativeModel; only the generator is released.
    """
    generator, critic = networks or Networks(
        Mlp(config.hidden, layout.dim, config.dense), Mlp(config.hidden, 1, config.dense)
    )
    optimizer = optax.scale_by_adam(b1=0.0, b2=0.9)
    split = config.placement == "split"

    def init(key: Array) -> ModelParams:
        key_g, key_d = jax.random.split(key)
        gen = generator.init(key_g, jnp.zeros((1, config.latent + num_classes), jnp.float32))
        disc = critic.init(key_d, jnp.zeros((1, layout.dim + num_classes), jnp.float32))
        if split:
            return ModelParams({"critic": disc}, {"generator": gen, "optimizer": optimizer.init(gen)})
        return ModelParams({"critic": disc, "generator": gen}, ())

    def release(params: ModelParams) -> Params:
        return params.server["generator"] if split else params.client["generator"]

    def relaxed(gen: Params, label: Array, key: Array) -> Array:
        """Differentiable rows f32[n, D]: numeric as is, bits and blocks by the concrete relaxation."""
        key_z, key_u = jax.random.split(key)
        z = jax.random.normal(key_z, (label.shape[0], config.latent))
        out = apply(generator, gen, conditioned(z, label, num_classes))
        gumbel = jax.random.gumbel(key_u, (label.shape[0], 2, layout.dim - layout.numeric))
        end = layout.numeric + layout.bits
        logistic = gumbel[:, 0] - gumbel[:, 1]
        bits = jax.nn.sigmoid((out[:, layout.numeric : end] + logistic[:, : layout.bits]) / TEMPERATURE)
        parts, start = [out[:, : layout.numeric], bits], end
        for width in layout.blocks:
            noise = gumbel[:, 0, start - layout.numeric : start - layout.numeric + width]
            parts.append(jax.nn.softmax((out[:, start : start + width] + noise) / TEMPERATURE))
            start += width
        return jnp.concatenate(parts, -1)

    def value(disc: Params, x: Array, label: Array) -> Array:
        # a missing numeric cell is coded 0 with its bit set; fakes must show the same code to be comparable
        for k, bit in enumerate(layout.missing):
            if bit >= 0:
                x = x.at[:, k].multiply(1.0 - x[:, bit])
        return apply(critic, disc, conditioned(x, label, num_classes))[:, 0]

    def penalty(disc: Params, real: Array, fake: Array, label: Array, key: Array) -> Array:
        u = jax.random.uniform(key, (real.shape[0], 1))
        slope = jax.grad(lambda x: jnp.sum(value(disc, x, label)))(u * real + (1.0 - u) * fake)
        return jnp.square(jnp.sqrt(jnp.sum(jnp.square(slope), -1) + 1e-12) - 1.0)

    def critic_loss(disc: Params, gen: Params, batch: Batch, hyper: Hyper, key: Array) -> tuple[Array, Metrics]:
        key_f, key_p = jax.random.split(key)
        fake = jax.lax.stop_gradient(relaxed(gen, batch.y, key_f))
        v_real, v_fake = value(disc, batch.x, batch.y), value(disc, fake, batch.y)
        loss = masked_mean(game.critic(v_real, v_fake), batch.mask)
        if game.penalised:
            loss += hyper["penalty"] * masked_mean(penalty(disc, batch.x, fake, batch.y, key_p), batch.mask)
        return loss, {"sim/loss": loss, "sim/critic_gap": masked_mean(v_real - v_fake, batch.mask)}

    def generator_loss(gen: Params, disc: Params, label: Array, mask: Array, key: Array) -> Array:
        return masked_mean(game.generator(value(disc, relaxed(gen, label, key), label)), mask)

    def field(params: ModelParams, batch: Batch, hyper: Hyper, key: Array) -> tuple[Update, Metrics]:
        key_d, key_g = jax.random.split(key)
        disc, gen = params.client["critic"], release(params)
        step, metrics = jax.grad(critic_loss, has_aux=True)(disc, gen, batch, hyper, key_d)
        if split:
            return {"critic": step}, metrics
        # simultaneous directions: the generator's is rescaled so that one client learning rate serves both players
        loss, direction = jax.value_and_grad(generator_loss)(gen, disc, batch.y, batch.mask, key_g)
        ratio = hyper["generator_learning_rate"] / hyper["client_learning_rate"]
        direction = jax.tree.map(lambda g: ratio * g, direction)
        return {"critic": step, "generator": direction}, {**metrics, "sim/generator_loss": loss}

    def refine(params: ModelParams, hyper: Hyper, key: Array) -> tuple[ModelParams, Metrics]:
        disc = params.client["critic"]

        def step(carry, step_key):
            gen, opt = carry
            key_y, key_x = jax.random.split(step_key)
            label = jax.random.categorical(key_y, jnp.log(hyper["class_prior"]), shape=(config.generator_batch,))
            mask = jnp.ones((config.generator_batch,), bool)
            loss, direction = jax.value_and_grad(generator_loss)(gen, disc, label.astype(jnp.int32), mask, key_x)
            with jax.numpy_dtype_promotion("standard"):  # optax's bias correction is float ** int
                direction, opt = optimizer.update(direction, opt)
            gen = jax.tree.map(lambda p, d: p - hyper["generator_learning_rate"] * d, gen, direction)
            return (gen, opt), loss

        carry = params.server["generator"], params.server["optimizer"]
        (gen, opt), losses = jax.lax.scan(step, carry, jax.random.split(key, config.generator_steps))
        return ModelParams(params.client, {"generator": gen, "optimizer": opt}), {
            "public/generator_loss": losses.mean()
        }

    def sample(released: Params, label: Array, key: Array) -> Array:
        soft = relaxed(released, label, key)
        end = layout.numeric + layout.bits
        bits = (soft[:, layout.numeric : end] > 0.5).astype(jnp.float32)
        parts, start = [soft[:, : layout.numeric], bits], end
        for width in layout.blocks:
            choice = jnp.argmax(soft[:, start : start + width], -1)
            parts.append(jax.nn.one_hot(choice, width, dtype=jnp.float32))
            start += width
        return jnp.concatenate(parts, -1)

    def score(params: ModelParams, x: Array, label: Array, key: Array) -> Array:
        del key  # the critic is deterministic (LOGAN, Hayes et al. 2019, arXiv 1705.07663)
        return value(params.client["critic"], x, label)

    return GenerativeModel(init, field, refine if split else no_refine, release, sample, score)
