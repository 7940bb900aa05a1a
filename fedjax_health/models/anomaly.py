"""Anomaly detector: a VAE of benign records, which finds surprising what is unlike them; no attack is needed to train it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_health.config import VaeConfig
from fedjax_health.data.encode import Layout
from fedjax_health.models.base import GenerativeModel, ModelParams, Params
from fedjax_health.models.vae import make_vae
from fedjax_health.threefry import root_key
from fedjax_health.types import Array

DRAWS = 8  # of the code, over which the surprise is averaged


class Anomaly(NamedTuple):
    """A detector by surprise.

    Attributes:
      model: what is trained, on benign records whose label is 0; all of it is released, since the encoder scores, too.
      surprise: (released, x f32[n, D]) -> f32[n], -ELBO in nats up to a constant; higher = less like benign records.
    """

    model: GenerativeModel
    surprise: Callable[[Params, Array], Array]


def make_anomaly(layout: Layout, config: VaeConfig) -> Anomaly:
    """VAE of one class. surprise(x) = mean over z ~ q(z | x) of [-log p(x | z) + KL(q(z | x) || N(0, I))], 8 draws.

    Args:
      layout: meaning of the D axis.
      config: sizes, decoder and KL weight of its training; the score has weight 1.

    Source: An and Cho (2015), Variational autoencoder based anomaly detection using reconstruction probability.
    """
    vae = make_vae(layout, 1, config)
    model = vae._replace(release=lambda params: params.client)

    def surprise(released: Params, x: Array) -> Array:
        params, label = ModelParams(released, ()), jnp.zeros((x.shape[0],), jnp.int32)
        keys = jax.random.split(
            root_key(0), DRAWS
        )  # the same draws for all records: a score is a function of its record
        return -jnp.mean(jax.vmap(lambda key: vae.score(params, x, label, key))(keys), 0)

    return Anomaly(model, surprise)
