"""Diagnostic or detection classifier: an MLP trained through the same federated stack as the generators."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedjax_health.models.base import Classifier, Mlp, ModelParams, apply, masked_mean, no_refine
from fedjax_health.models.record import Ops
from fedjax_health.types import Array, Batch, Hyper, Metrics, Params, Update, UserError

LOSSES = ("cross_entropy", "focal")
WEIGHTS = "class_weights"  # of the traced numbers, f32[L]


def focal(logits: Array, label: Array, gamma: float) -> Array:
    """Cross-entropy that counts less where the class is already likely: -(1 - p_y)^gamma log p_y.

    Args:
      logits: f32[n, L].
      label: i32[n].
      gamma: 0 gives cross-entropy; else >= 1, below which the slope at p_y = 1 is not finite.

    Returns:
      f32[n], nats.

    Source: Lin et al. (2017), arXiv 1708.02002, here for any number of classes.
    """
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    return loss if gamma == 0 else loss * jnp.power(-jnp.expm1(-loss), gamma)


def balanced_weights(shares: np.ndarray) -> np.ndarray:
    """Weights that give every class the same part in the loss: w_c = 1 / (L share_c), whose mean over records is 1.

    Args:
      shares: f32[..., L], class shares as the run may know them (noisy under a guarantee; no class below 0.1 %).

    Returns:
      f32[..., L].

    Raises:
      UserError: a share that is not positive: weights are then not known, and counts are not looked at instead.
    """
    if not (np.isfinite(shares).all() and (shares > 0).all()):
        raise UserError(
            f"class weights need positive class shares, and these are {np.round(shares, 4).tolist()}; set "
            "classifier.class_weights to 'none'"
        )
    return (1.0 / (shares.shape[-1] * shares)).astype(np.float32)


def make_classifier(
    dim: int,
    num_classes: int,
    hidden: tuple[int, ...],
    dense: str = "auto",
    loss: str = "cross_entropy",
    gamma: float = 2.0,
    input_bound: float = 0.0,
    input_dropout: float = 0.0,
) -> Classifier:
    """MLP with loss w_y l(m * clip(x, -b, b), y), l the cross-entropy -log p(y | x) or the focal loss, m = 0 or 1 by chance.

    Args:
      dim: D.
      num_classes: L.
      hidden: hidden layer sizes.
      dense: form of the layers' products (see `models.dense`).
      loss: of `LOSSES`.
      gamma: of the focal loss.
      input_bound: b; 0 = not clipped. Codes and bits are 0 or 1, so b >= 1.
      input_dropout: chance of m = 0, of each dimension of each record in each training step; predictions see all.

    Returns:
      Classifier; w is hyper["class_weights"] f32[L] where a training has such numbers, else 1.

    Source: of the dropout, Srivastava et al. (2014), here without rescaling: 0 is a column's public centre.
    """
    network = Mlp(hidden, num_classes, dense)

    def bounded(x: Array) -> Array:
        return jnp.clip(x, -input_bound, input_bound) if input_bound else x

    def thinned(x: Array, key: Array) -> Array:
        x = bounded(x)
        return jnp.where(jax.random.bernoulli(key, 1.0 - input_dropout, x.shape), x, 0.0) if input_dropout else x

    def losses(logits: Array, label: Array, hyper: Hyper) -> Array:
        each = focal(logits, label, gamma if loss == "focal" else 0.0)
        return each * hyper[WEIGHTS][label] if WEIGHTS in hyper else each

    def init(key: Array) -> ModelParams:
        return ModelParams(network.init(key, jnp.zeros((1, dim), jnp.float32)), ())

    def field(params: ModelParams, batch: Batch, hyper: Hyper, key: Array) -> tuple[Update, Metrics]:
        x = thinned(batch.x, key)

        def loss_fn(client: Params) -> tuple[Array, Metrics]:
            mean = masked_mean(losses(apply(network, client, x), batch.y, hyper), batch.mask)
            return mean, {"sim/loss": mean}

        return jax.grad(loss_fn, has_aux=True)(params.client)

    def record_loss(client: Params, batch: Batch, hyper: Hyper, key: Array, ops: Ops) -> Array:
        return losses(apply(network.clone(affine=ops.affine), client, thinned(batch.x, key)), batch.y, hyper)

    def predict(released: Params, x: Array) -> Array:
        return jax.nn.log_softmax(apply(network, released, bounded(x)))

    return Classifier(init, field, no_refine, lambda params: params.client, predict, record_loss)
