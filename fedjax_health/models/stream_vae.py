"""Variational autoencoder for windows of a sensor stream: a temporal encoder, and a decoder that goes through time."""

from __future__ import annotations

from typing import cast

import jax
import jax.numpy as jnp

from fedjax_health.config import VaeConfig
from fedjax_health.data.stream_schema import StreamSchema
from fedjax_health.models.base import GenerativeModel, ModelParams, apply, conditioned, masked_mean, no_refine
from fedjax_health.models.causal import CausalMixture
from fedjax_health.models.temporal import WindowDecoder, WindowEncoder, coarse_steps
from fedjax_health.types import Array, Batch, Hyper, Metrics, Params, Update

PAST = 4  # steps back that a cell sees; what lasts longer is for the latent
COMPONENTS = 3  # of a cell's mixture: a quiet sensor, a noisy one, and an event


def make_stream_vae(schema: StreamSchema, num_classes: int, config: VaeConfig) -> GenerativeModel:
    """VAE with a temporal encoder, whose decoder turns the latent into a context a step and draws the steps one by one.

        loss(x, y) = E_q[-log p(x | z, y)] + kl_weight * KL(q(z | x, y) || N(0, I))
        p(x | z, y) = prod of mixtures, each cell given the steps just before it and context[t](z, y): see `CausalMixture`

    The latent holds what lasts over the window (the patient, the course); the mixtures hold the memory and the noise of the
    sensors, which independent noise around a decoded mean cannot.

    Args:
      schema: of the windows; numeric channels only.
      num_classes: L.
      config: `hidden` are the convolutions' widths, the finest first; the last is also that of the decoder's layers.

    Returns:
      GenerativeModel; the decoder is released, the encoder is not.

    Raises:
      UserError: the window cannot be halved once a layer.

    Source: Kingma and Welling 2013, arXiv 1312.6114; Chen et al. 2017, arXiv 1611.02731.
    """
    steps, channels, width = schema.steps, len(schema.channels), config.hidden[-1]
    coarse_steps(steps, config.hidden)
    encoder = WindowEncoder(steps, channels, config.hidden, 2 * config.latent, config.dense)
    course = WindowDecoder(steps, config.hidden[0], config.hidden, config.dense)
    cells = CausalMixture(channels, PAST, width, COMPONENTS)

    def init(key: Array) -> ModelParams:
        key_e, key_d, key_c = jax.random.split(key, 3)
        x = jnp.zeros((1, steps * channels + num_classes), jnp.float32)
        z = jnp.zeros((1, config.latent + num_classes), jnp.float32)
        window, context = jnp.zeros((1, steps, channels)), jnp.zeros((1, steps, config.hidden[0]))
        decoder = {
            "course": course.init(key_d, z),
            "cells": cells.init(key_c, window, context, method=CausalMixture.log_prob),
        }
        return ModelParams({"encoder": encoder.init(key_e, x), "decoder": decoder}, ())

    def context(decoder: Params, z: Array, label: Array) -> Array:
        return apply(course, decoder["course"], conditioned(z, label, num_classes)).reshape(-1, steps, config.hidden[0])

    def negative_elbo(params: Params, x: Array, label: Array, key: Array) -> tuple[Array, Array]:
        """Reconstruction and KL terms of each window in nats, both f32[n]."""
        code = apply(encoder, params["encoder"], conditioned(x, label, num_classes))
        mean, log_var = jnp.split(code, 2, -1)
        log_var = jnp.clip(log_var, -8.0, 8.0)
        z = mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape)
        window, given = x.reshape(-1, steps, channels), context(params["decoder"], z, label)
        log_p = cells.apply(params["decoder"]["cells"], window, given, method=CausalMixture.log_prob)
        kl = 0.5 * jnp.sum(jnp.exp(log_var) + jnp.square(mean) - 1.0 - log_var, -1)
        return -cast(Array, log_p), kl

    def field(params: ModelParams, batch: Batch, hyper: Hyper, key: Array) -> tuple[Update, Metrics]:
        def loss_fn(client: Params) -> tuple[Array, Metrics]:
            reconstruction, kl = negative_elbo(client, batch.x, batch.y, key)
            terms = masked_mean(reconstruction, batch.mask), masked_mean(kl, batch.mask)
            loss = terms[0] + hyper["kl_weight"] * terms[1]
            return loss, {"sim/loss": loss, "sim/reconstruction": terms[0], "sim/kl": terms[1]}

        return jax.grad(loss_fn, has_aux=True)(params.client)

    def release(params: ModelParams) -> Params:
        return params.client["decoder"]

    def sample(released: Params, label: Array, key: Array) -> Array:
        key_z, key_x = jax.random.split(key)
        z = jax.random.normal(key_z, (label.shape[0], config.latent))
        drawn = cells.apply(released["cells"], context(released, z, label), key_x, method=CausalMixture.draw)
        return cast(Array, drawn).reshape(label.shape[0], -1)

    def score(params: ModelParams, x: Array, label: Array, key: Array) -> Array:
        reconstruction, kl = negative_elbo(params.client, x, label, key)
        return -(reconstruction + kl)

    return GenerativeModel(init, field, no_refine, release, sample, score)
