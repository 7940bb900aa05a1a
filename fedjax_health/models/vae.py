"""Variational autoencoder for mixed tabular types (Kingma & Welling 2013, arXiv 1312.6114), conditional on the label."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fedjax_health.config import VaeConfig
from fedjax_health.data.encode import Layout
from fedjax_health.models.base import GenerativeModel, Mlp, ModelParams, apply, conditioned, masked_mean, no_refine
from fedjax_health.models.mixed import drawn, surprise
from fedjax_health.models.record import PLAIN, Ops
from fedjax_health.types import Array, Batch, Hyper, Metrics, Params, Update

MIN_SCALE = 0.05  # floor of the learned noise: a likelihood that can grow without bound makes steep, clipped gradients


def make_vae(layout: Layout, num_classes: int, config: VaeConfig) -> GenerativeModel:
    """VAE with Gaussian, Bernoulli and categorical likelihoods.

        loss(x, y) = E_q[-log p(x | z, y)] + kl_weight * KL(q(z | x, y) || N(0, I))
        numeric:  N(mean(z, y), s^2), s = softplus(raw) + 0.05 learned per column; missing cells carry no likelihood

    Args:
      layout: meaning of the D axis.
      num_classes: L.
      config: sizes and KL weight.

    Returns:
      GenerativeModel; the decoder and s are released, the encoder is not.
    """
    encoder = Mlp(config.hidden, 2 * config.latent, config.dense)
    decoder = Mlp(config.hidden, layout.dim, config.dense)

    def init(key: Array) -> ModelParams:
        key_e, key_d = jax.random.split(key)
        x = jnp.zeros((1, layout.dim + num_classes), jnp.float32)
        z = jnp.zeros((1, config.latent + num_classes), jnp.float32)
        scale = jnp.full((layout.numeric,), 0.5, jnp.float32)
        params = {"encoder": encoder.init(key_e, x), "decoder": decoder.init(key_d, z), "scale": scale}
        return ModelParams(params, ())

    def spread(raw: Array) -> Array:
        return jax.nn.softplus(raw) + MIN_SCALE

    def negative_elbo(params: Params, x: Array, label: Array, key: Array, ops: Ops = PLAIN) -> tuple[Array, Array]:
        """Per-record reconstruction and KL terms in nats, both f32[n]."""
        encode, decode = (net.clone(affine=ops.affine) for net in (encoder, decoder))
        mean, log_var = jnp.split(apply(encode, params["encoder"], conditioned(x, label, num_classes)), 2, -1)
        log_var = jnp.clip(log_var, -8.0, 8.0)
        z = mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape)
        out = apply(decode, params["decoder"], conditioned(z, label, num_classes))
        scale = spread(ops.rows(params["scale"], x.shape[0]))
        loss = surprise(layout, x, out, scale)
        kl = 0.5 * jnp.sum(jnp.exp(log_var) + jnp.square(mean) - 1.0 - log_var, -1)
        return loss, kl

    def field(params: ModelParams, batch: Batch, hyper: Hyper, key: Array) -> tuple[Update, Metrics]:
        def loss_fn(client: Params) -> tuple[Array, Metrics]:
            reconstruction, kl = negative_elbo(client, batch.x, batch.y, key)
            terms = masked_mean(reconstruction, batch.mask), masked_mean(kl, batch.mask)
            loss = terms[0] + hyper["kl_weight"] * terms[1]
            return loss, {"sim/loss": loss, "sim/reconstruction": terms[0], "sim/kl": terms[1]}

        return jax.grad(loss_fn, has_aux=True)(params.client)

    def record_loss(client: Params, batch: Batch, hyper: Hyper, key: Array, ops: Ops) -> Array:
        reconstruction, kl = negative_elbo(client, batch.x, batch.y, key, ops)
        return reconstruction + hyper["kl_weight"] * kl

    def release(params: ModelParams) -> Params:
        return {"decoder": params.client["decoder"], "scale": params.client["scale"]}

    def sample(released: Params, label: Array, key: Array) -> Array:
        key_z, key_x, key_b, key_c = jax.random.split(key, 4)
        z = jax.random.normal(key_z, (label.shape[0], config.latent))
        out = apply(decoder, released["decoder"], conditioned(z, label, num_classes))
        return drawn(layout, out, spread(released["scale"]), (key_x, key_b, key_c))

    def score(params: ModelParams, x: Array, label: Array, key: Array) -> Array:
        reconstruction, kl = negative_elbo(params.client, x, label, key)
        return -(reconstruction + kl)

    return GenerativeModel(init, field, no_refine, release, sample, score, record_loss)
