"""Variational autoencoder for mixed tabular types (Kingma & Welling 2013, arXiv 1312.6114), conditional on the label."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp

from fedjax_health.config import VaeConfig
from fedjax_health.data.encode import Layout
from fedjax_health.models.base import GenerativeModel, Mlp, ModelParams, apply, conditioned, masked_mean, no_refine
from fedjax_health.models.columns import Columns
from fedjax_health.models.mixed import drawn, surprise
from fedjax_health.models.record import PLAIN, Ops
from fedjax_health.types import Array, Batch, Hyper, Metrics, Params, Update

MIN_SCALE = 0.05  # floor of the learned noise: a likelihood that can grow without bound makes steep, clipped gradients


class Decoder(NamedTuple):
    """p(x | c) of a row given a code c = (z, one-hot label).

    Attributes:
      init: (key, c f32[1, E]) -> its parameters, by name.
      surprise: (parameters, x f32[n, D], c f32[n, E], Ops) -> -log p in nats up to a constant, f32[n].
      draw: (parameters, c f32[n, E], keys of numeric cells, bits and blocks) -> f32[n, D].
    """

    init: Callable[[Array, Array], Params]
    surprise: Callable[[Params, Array, Array, Ops], Array]
    draw: Callable[[Params, Array, Array, Array, Array], Array]


def make_independent(layout: Layout, config: VaeConfig) -> Decoder:
    """Cells independent given c: N(mean(c), s^2), s learned per column, Bernoulli and categorical.

    Args:
      layout: meaning of the D axis.
      config: sizes.
    """
    network = Mlp(config.hidden, layout.dim, config.dense)

    def init(key: Array, c: Array) -> Params:
        return {"decoder": network.init(key, c), "scale": jnp.full((layout.numeric,), 0.5, jnp.float32)}

    def spread(raw: Array) -> Array:
        return jax.nn.softplus(raw) + MIN_SCALE

    def log_loss(params: Params, x: Array, c: Array, ops: Ops) -> Array:
        out = apply(network.clone(affine=ops.affine), params["decoder"], c)
        return surprise(layout, x, out, spread(ops.rows(params["scale"], x.shape[0])))

    def draw(params: Params, c: Array, key_x: Array, key_b: Array, key_c: Array) -> Array:
        return drawn(layout, apply(network, params["decoder"], c), spread(params["scale"]), (key_x, key_b, key_c))

    return Decoder(init, log_loss, draw)


def make_causal(layout: Layout, config: VaeConfig) -> Decoder:
    """Cells given those before them: see `Columns`.

    Args:
      layout: meaning of the D axis.
      config: sizes; `hidden` are the trunk's.
    """
    network = Columns(layout, config.hidden, config.dense)

    def init(key: Array, c: Array) -> Params:
        x = jnp.zeros((1, layout.dim), jnp.float32)
        return {"decoder": network.init(key, x, c, method=Columns.surprise)}

    def log_loss(params: Params, x: Array, c: Array, ops: Ops) -> Array:
        return cast(Array, network.clone(affine=ops.affine).apply(params["decoder"], x, c, method=Columns.surprise))

    def draw(params: Params, c: Array, key_x: Array, key_b: Array, key_c: Array) -> Array:
        return cast(Array, network.apply(params["decoder"], c, key_x, key_b, key_c, method=Columns.draw))

    return Decoder(init, log_loss, draw)


def make_vae(layout: Layout, num_classes: int, config: VaeConfig) -> GenerativeModel:
    """VAE with Gaussian, Bernoulli and categorical likelihoods.

        loss(x, y) = E_q[-log p(x | z, y)] + kl_weight * KL(q(z | x, y) || N(0, I))
        numeric:  N(mean(z, y), s^2), s = softplus(raw) + 0.05 learned per column; missing cells carry no likelihood

    With `decoder="causal"` the cells of a row are not independent given z: see `Columns`.

    Args:
      layout: meaning of the D axis.
      num_classes: L.
      config: sizes, decoder and KL weight.

    Returns:
      GenerativeModel; the decoder (and s) is released, the encoder is not.
    """
    encoder = Mlp(config.hidden, 2 * config.latent, config.dense)
    decoder = (make_causal if config.decoder == "causal" else make_independent)(layout, config)

    def init(key: Array) -> ModelParams:
        key_e, key_d = jax.random.split(key)
        x = jnp.zeros((1, layout.dim + num_classes), jnp.float32)
        z = jnp.zeros((1, config.latent + num_classes), jnp.float32)
        return ModelParams({"encoder": encoder.init(key_e, x), **decoder.init(key_d, z)}, ())

    def negative_elbo(params: Params, x: Array, label: Array, key: Array, ops: Ops = PLAIN) -> tuple[Array, Array]:
        """Per-record reconstruction and KL terms in nats, both f32[n]."""
        encode = encoder.clone(affine=ops.affine)
        mean, log_var = jnp.split(apply(encode, params["encoder"], conditioned(x, label, num_classes)), 2, -1)
        log_var = jnp.clip(log_var, -8.0, 8.0)
        z = mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape)
        loss = decoder.surprise(params, x, conditioned(z, label, num_classes), ops)
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
        return {name: leaf for name, leaf in params.client.items() if name != "encoder"}

    def sample(released: Params, label: Array, key: Array) -> Array:
        key_z, *keys = jax.random.split(key, 4)
        z = jax.random.normal(key_z, (label.shape[0], config.latent))
        return decoder.draw(released, conditioned(z, label, num_classes), *keys)

    def score(params: ModelParams, x: Array, label: Array, key: Array) -> Array:
        reconstruction, kl = negative_elbo(params.client, x, label, key)
        return -(reconstruction + kl)

    return GenerativeModel(init, field, no_refine, release, sample, score, record_loss)
