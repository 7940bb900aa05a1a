"""The server's side of a split GAN: Adam steps of the generator against the clients' discriminator, every round or when due."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_health.config import GanConfig
from fedjax_health.models import ladder
from fedjax_health.models.base import ModelParams
from fedjax_health.types import Array, Hyper, Metrics, Params


class Judgement(NamedTuple):
    """What a generator is told about its rows.

    Attributes:
      loss: f32[], of the generator.
      accuracy: f32[], share of the rows that the discriminator calls fake.
    """

    loss: Array
    accuracy: Array


class Server(NamedTuple):
    """The server's side.

    Attributes:
      init: generator -> params.server.
      refine: as in `GenerativeModel`.
    """

    init: Callable[[Params], Params]
    refine: Callable[[ModelParams, Hyper, Array], tuple[ModelParams, Metrics]]


def make_server(judge: Callable[[Params, Params, Array, Array], Judgement], config: GanConfig) -> Server:
    """Generator steps that read no data: w <- w - generator_learning_rate * Adam(d loss / d w), b1 = 0, b2 = 0.9.

    Labels come from the noisy class shares. With discriminator_steps="adaptive" the steps of a round are left out until the
    discriminator has had the rounds that `ladder` asks for; without, they are made every round.

    Args:
      judge: (generator, params.client, label i32[n], key) -> Judgement of n fresh rows.
      config: steps, rows a step, and when.

    Returns:
      Server; params.server has "generator", "optimizer" and, if adaptive, "ladder".
    """
    optimizer = optax.scale_by_adam(b1=0.0, b2=0.9)
    adaptive = config.discriminator_steps == "adaptive"

    def init(generator: Params) -> Params:
        counters = {"ladder": ladder.start()} if adaptive else {}
        return {"generator": generator, "optimizer": optimizer.init(generator), **counters}

    def labels(hyper: Hyper, key: Array) -> Array:
        label = jax.random.categorical(key, jnp.log(hyper["class_prior"]), shape=(config.generator_batch,))
        return label.astype(jnp.int32)

    def steps(params: ModelParams, hyper: Hyper, key: Array) -> tuple[Params, optax.OptState, Array]:
        def step(carry, step_key):
            gen, opt = carry
            key_y, key_x = jax.random.split(step_key)

            def loss_fn(w: Params) -> Array:
                return judge(w, params.client, labels(hyper, key_y), key_x).loss

            loss, direction = jax.value_and_grad(loss_fn)(gen)
            with jax.numpy_dtype_promotion("standard"):  # optax's bias correction is float ** int
                direction, opt = optimizer.update(direction, opt)
            gen = jax.tree.map(lambda p, d: p - hyper["generator_learning_rate"] * d, gen, direction)
            return (gen, opt), loss

        carry = params.server["generator"], params.server["optimizer"]
        (gen, opt), losses = jax.lax.scan(step, carry, jax.random.split(key, config.generator_steps))
        return gen, opt, losses.mean()

    def refine(params: ModelParams, hyper: Hyper, key: Array) -> tuple[ModelParams, Metrics]:
        gen, opt, loss = steps(params, hyper, key)
        return ModelParams(params.client, {"generator": gen, "optimizer": opt}), {"public/generator_loss": loss}

    def refine_when_due(params: ModelParams, hyper: Hyper, key: Array) -> tuple[ModelParams, Metrics]:
        key_y, key_x, key_s = jax.random.split(key, 3)
        before = params.server
        seen = judge(before["generator"], params.client, labels(hyper, key_y), key_x)
        counters, due = ladder.climb(before["ladder"], seen.accuracy)
        gen, opt = jax.lax.cond(
            due,
            lambda: steps(params, hyper, key_s)[:2],
            lambda: (before["generator"], before["optimizer"]),
        )
        return ModelParams(params.client, {"generator": gen, "optimizer": opt, "ladder": counters}), {
            "public/generator_loss": seen.loss,
            "public/fake_accuracy": seen.accuracy,
            "public/discriminator_steps": ladder.rounds_an_update(counters).astype(jnp.float32),
        }

    return Server(init, refine_when_due if adaptive else refine)
