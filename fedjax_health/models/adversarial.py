"""What all GANs share: a conditional generator, a discriminator, and the split or joint placement of both.

split: clients train only the discriminator; the server trains the generator in `refine`, which reads no data
(post-processing, half the traffic). joint: clients train both networks and upload both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fedjax_health.config import GanConfig
from fedjax_health.data.encode import Layout
from fedjax_health.models.base import GenerativeModel, Mlp, ModelParams, apply, conditioned, masked_mean, no_refine
from fedjax_health.models.generator_steps import Judgement, make_server
from fedjax_health.models.mixed import blank_missing, expected, hardened, relaxed
from fedjax_health.types import Array, Batch, Hyper, Metrics, Params, Update


class Game(NamedTuple):
    """The two players' losses on the discriminator's K outputs for n rows; the first output is higher for real ones.

    Attributes:
      outputs: K.
      sees_label: whether the label is among the discriminator's inputs.
      critic: (of real f32[n, K], of fake f32[n, K], label i32[n]) -> f32[n].
      generator: (of fake f32[n, K], label i32[n]) -> f32[n].
      evidence: (outputs f32[n, K], label i32[n]) -> f32[n], higher = more likely a member.
      penalised: whether the critic's gradient norm is pulled to one.
      centred: whether the loss itself sets the first output's zero between real and fake.
    """

    outputs: int
    sees_label: bool
    critic: Callable[[Array, Array, Array], Array]
    generator: Callable[[Array, Array], Array]
    evidence: Callable[[Array, Array], Array]
    penalised: bool
    centred: bool


# Goodfellow et al. 2014, arXiv 1406.2661
NON_SATURATING = Game(
    outputs=1,
    sees_label=True,
    critic=lambda real, fake, label: jax.nn.softplus(-real[:, 0]) + jax.nn.softplus(fake[:, 0]),
    generator=lambda fake, label: jax.nn.softplus(-fake[:, 0]),
    evidence=lambda out, label: out[:, 0],
    penalised=False,
    centred=True,
)


class Maker(NamedTuple):
    """How rows come out of noise.

    Attributes:
      init: key -> (generator, helpers): what the game trains, and what clients train beside it ({} = nothing).
      release: (generator, helpers) -> what rows are made of.
      out: (released, label i32[n], key) -> f32[n, D], numeric values, then logits.
      relax: whether the discriminator sees relaxed draws of bits and blocks, else their probabilities.
      loss: (helpers, records f32[n, D], label i32[n]) -> f32[n], which trains the helpers; None without any.
    """

    init: Callable[[Array], tuple[Params, dict[str, Params]]]
    release: Callable[[Params, dict[str, Params]], Params]
    out: Callable[[Params, Array, Array], Array]
    relax: bool
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

    return Maker(init, lambda generator, helpers: generator, out, True, None)


def make_adversarial(
    layout: Layout,
    num_classes: int,
    config: GanConfig,
    game: Game,
    maker: Maker | None = None,
    critic: nn.Module | None = None,
) -> GenerativeModel:
    """A conditional GAN of the given game.

    Gradient penalty: E[(||d critic(x~) / d x~||_2 - 1)^2] at x~ = u x + (1 - u) fake, u ~ U(0, 1), inside the client's
    loss, since it reads real data (Gulrajani et al. 2017, arXiv 1704.00028).

    Where the loss leaves the discriminator's zero open (an offset changes no Wasserstein loss) and the ladder needs one, the
    clients move the offset alone, towards the middle of real and fake.

    Args:
      layout: meaning of the D axis.
      num_classes: L.
      config: sizes, placement, server-side generator training.
      game: losses.
      maker: how rows are made; None = `make_direct`.
      critic: f32[n, D + L] -> f32[n, K]; None = dense layers of the sizes in `config`.

    Returns:
      GenerativeModel; only what makes rows is released.
    """
    maker = maker or make_direct(layout, num_classes, config)
    critic = critic or Mlp(config.hidden, game.outputs, config.dense)
    split = config.placement == "split"
    centring = split and config.discriminator_steps == "adaptive" and not game.centred

    def rows(released: Params, label: Array, key: Array, relax: bool = maker.relax) -> Array:
        key_z, key_u = jax.random.split(key)
        out = maker.out(released, label, key_z)
        return relaxed(layout, out, key_u) if relax else expected(layout, out)

    def output(disc: Params, x: Array, label: Array) -> Array:
        x = blank_missing(layout, x)  # fakes must show a missing cell's code to be comparable
        return apply(critic, disc, conditioned(x, label, num_classes) if game.sees_label else x)

    def judge(gen: Params, client: Params, label: Array, key: Array) -> Judgement:
        fake = output(client["critic"], rows(maker.release(gen, client), label, key), label)
        return Judgement(game.generator(fake, label).mean(), (fake[:, 0] < 0).astype(jnp.float32).mean())

    server = make_server(judge, config)

    def init(key: Array) -> ModelParams:
        key_g, key_d = jax.random.split(key)
        gen, helpers = maker.init(key_g)
        width = layout.dim + (num_classes if game.sees_label else 0)
        client = {"critic": critic.init(key_d, jnp.zeros((1, width), jnp.float32)), **helpers}
        return ModelParams(client, server.init(gen)) if split else ModelParams({**client, "generator": gen}, ())

    def generator_of(params: ModelParams) -> Params:
        return params.server["generator"] if split else params.client["generator"]

    def release(params: ModelParams) -> Params:
        return maker.release(generator_of(params), params.client)

    def penalty(disc: Params, real: Array, fake: Array, label: Array, key: Array) -> Array:
        u = jax.random.uniform(key, (real.shape[0], 1))
        slope = jax.grad(lambda x: jnp.sum(output(disc, x, label)[:, 0]))(u * real + (1.0 - u) * fake)
        return jnp.square(jnp.sqrt(jnp.sum(jnp.square(slope), -1) + 1e-12) - 1.0)

    def critic_loss(disc: Params, fixed: Params, batch: Batch, hyper: Hyper, key: Array) -> tuple[Array, Metrics]:
        key_f, key_p = jax.random.split(key)
        fake = jax.lax.stop_gradient(rows(fixed, batch.y, key_f))
        of_real, of_fake = output(disc, batch.x, batch.y), output(disc, fake, batch.y)
        loss = masked_mean(game.critic(of_real, of_fake, batch.y), batch.mask)
        if game.penalised:
            loss += hyper["penalty"] * masked_mean(penalty(disc, batch.x, fake, batch.y, key_p), batch.mask)
        gap = masked_mean(of_real[:, 0] - of_fake[:, 0], batch.mask)
        if centring:
            middle = jax.lax.stop_gradient(masked_mean(0.5 * (of_real[:, 0] + of_fake[:, 0]), batch.mask))
            offset = disc["params"][f"Dense_{len(config.hidden)}"]["bias"][0]
            loss += middle * (offset - jax.lax.stop_gradient(offset))
        return loss, {"sim/loss": loss, "sim/critic_gap": gap}

    def generator_loss(gen: Params, client: Params, batch: Batch, key: Array) -> Array:
        fake = output(client["critic"], rows(maker.release(gen, client), batch.y, key), batch.y)
        return masked_mean(game.generator(fake, batch.y), batch.mask)

    def helped(client: Params, batch: Batch, hyper: Hyper) -> tuple[Update, Metrics]:
        """Direction of what clients train beside the game."""
        if maker.loss is None:
            return {}, {}
        loss_of = maker.loss
        helpers = {name: leaf for name, leaf in client.items() if name not in ("critic", "generator")}
        loss, direction = jax.value_and_grad(lambda h: masked_mean(loss_of(h, batch.x, batch.y), batch.mask))(helpers)
        weighted = jax.tree.map(lambda d: hyper["reconstruction_weight"] * d, direction)
        return weighted, {"sim/reconstruction": loss}

    def field(params: ModelParams, batch: Batch, hyper: Hyper, key: Array) -> tuple[Update, Metrics]:
        key_d, key_g = jax.random.split(key)
        client = params.client
        step, metrics = jax.grad(critic_loss, has_aux=True)(client["critic"], release(params), batch, hyper, key_d)
        beside, more = helped(client, batch, hyper)
        update, metrics = {"critic": step, **beside}, {**metrics, **more}
        if split:
            return update, metrics
        # simultaneous directions: the generator's is rescaled so that one client learning rate serves both players
        loss, direction = jax.value_and_grad(generator_loss)(generator_of(params), client, batch, key_g)
        ratio = hyper["generator_learning_rate"] / hyper["client_learning_rate"]
        direction = jax.tree.map(lambda g: ratio * g, direction)
        return {**update, "generator": direction}, {**metrics, "sim/generator_loss": loss}

    def sample(released: Params, label: Array, key: Array) -> Array:
        return hardened(layout, rows(released, label, key, relax=True))

    def score(params: ModelParams, x: Array, label: Array, key: Array) -> Array:
        del key  # the critic is deterministic (LOGAN, Hayes et al. 2019, arXiv 1705.07663)
        told = game.evidence(output(params.client["critic"], x, label), label)
        return told if maker.loss is None else told - maker.loss(params.client, x, label)

    return GenerativeModel(init, field, server.refine if split else no_refine, release, sample, score)
