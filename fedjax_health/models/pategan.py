"""PATE-GAN (Jordon, Yoon and van der Schaar 2019, ICLR): a generator against a student that learns from noisy votes.

The networks and their losses are here; teachers, votes and noise are in `federated.votes`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fedjax_health.config import GanConfig, PateganConfig
from fedjax_health.data.encode import Layout
from fedjax_health.models.adversarial import NON_SATURATING, make_adversarial
from fedjax_health.models.base import Ballot, GenerativeModel, Mlp, ModelParams, apply, conditioned
from fedjax_health.models.maker import make_direct
from fedjax_health.models.mixed import blank_missing, relaxed
from fedjax_health.types import Array, Hyper, Metrics, Params, Update


def make_pategan(layout: Layout, num_classes: int, config: PateganConfig) -> GenerativeModel:
    """Teachers and student are discriminators of one shape, conditional on the label; s the logistic function.

        teacher:   -log s(v_real) - log(1 - s(v_fake)),   on its clients' records
        vote:      v > 0, as Jordon et al. have it, or v > mean of v over the round's records of the same label
        student:   -log s(v) where the noisy majority calls a generated record real, else -log(1 - s(v))
        generator: -log s(v_student)

    `params.client` is a teacher in `field`, and the student everywhere else. All see relaxed bits and blocks, as in any GAN.

    Args:
      layout: meaning of the D axis.
      num_classes: L.
      config: sizes, teachers, votes.
    """
    gan = GanConfig(
        config.hidden, config.dense, config.latent, "split", 0.0, config.generator_steps, config.generator_batch,
        config.generator_learning_rate, config.train,
    )  # fmt: skip
    maker, critic = make_direct(layout, num_classes, gan), Mlp(config.hidden, 1, config.dense)

    def output(client: Params, x: Array, label: Array) -> Array:
        seen = conditioned(blank_missing(layout, x), label, num_classes)
        return apply(critic, client["critic"], seen)[:, 0]

    def draw(params: ModelParams, hyper: Hyper, key: Array) -> tuple[Array, Array]:
        key_y, key_z, key_u = jax.random.split(key, 3)
        label = jax.random.categorical(key_y, jnp.log(hyper["class_prior"]), shape=(config.votes,)).astype(jnp.int32)
        return relaxed(layout, maker.out(params.server["generator"], label, key_z), key_u), label

    def vote(teacher: Params, x: Array, label: Array) -> Array:
        told = output(teacher, x, label)
        if config.threshold == "zero":
            return told > 0
        same = jax.nn.one_hot(label, num_classes, dtype=jnp.float32)
        mean = same.T @ told / jnp.maximum(jnp.sum(same, 0), 1.0)
        return told > mean[label]

    def study(params: ModelParams, x: Array, label: Array, verdict: Array) -> tuple[Update, Metrics]:
        def loss_of(student: Params) -> Array:
            told = output(student, x, label)
            return jnp.mean(jnp.where(verdict, jax.nn.softplus(-told), jax.nn.softplus(told)))

        loss, direction = jax.value_and_grad(loss_of)(params.client)
        return direction, {"public/student_loss": loss}

    ballot = Ballot(config.teachers, config.votes, draw, vote, study)
    return make_adversarial(layout, num_classes, gan, NON_SATURATING, maker, critic)._replace(ballot=ballot)
