"""Diagnostic or detection classifier: an MLP trained through the same federated stack as the generators."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from fedjax_health.models.base import Classifier, Mlp, ModelParams, apply, masked_mean, no_refine
from fedjax_health.models.record import Ops
from fedjax_health.types import Array, Batch, Hyper, Metrics, Params, Update


def make_classifier(dim: int, num_classes: int, hidden: tuple[int, ...], dense: str = "auto") -> Classifier:
    """MLP with cross-entropy -log p(y | x).

    Args:
      dim: D.
      num_classes: L.
      hidden: hidden layer sizes.
      dense: form of the layers' products (see `models.dense`).
    """
    network = Mlp(hidden, num_classes, dense)

    def init(key: Array) -> ModelParams:
        return ModelParams(network.init(key, jnp.zeros((1, dim), jnp.float32)), ())

    def field(params: ModelParams, batch: Batch, hyper: Hyper, key: Array) -> tuple[Update, Metrics]:
        del hyper, key

        def loss_fn(client: Params) -> tuple[Array, Metrics]:
            logits = apply(network, client, batch.x)
            loss = masked_mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch.y), batch.mask)
            return loss, {"sim/loss": loss}

        return jax.grad(loss_fn, has_aux=True)(params.client)

    def record_loss(client: Params, batch: Batch, hyper: Hyper, key: Array, ops: Ops) -> Array:
        del hyper, key
        logits = apply(network.clone(affine=ops.affine), client, batch.x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.y)

    def predict(released: Params, x: Array) -> Array:
        return jax.nn.log_softmax(apply(network, released, x))

    return Classifier(init, field, no_refine, lambda params: params.client, predict, record_loss)
