"""Record-level differential privacy: every local step clips each record's gradient and adds noise before it is used."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from fedjax_health import tree
from fedjax_health.federated.algorithms import (
    Algorithm,
    Local,
    Start,
    descend,
    message_is_direction,
    nothing,
)
from fedjax_health.models.base import ModelParams, Trainable, masked_mean
from fedjax_health.models.dense import batch_product
from fedjax_health.models.record import Ops, clipped_sum, clipped_sum_mapped
from fedjax_health.types import Array, Batch, Hyper, Metrics, Params, Update

NUMBERS = ("l2_clip_norm", "noise_multiplier")  # of the hyper-parameters, those a private direction reads
Direction = Callable[[ModelParams, Batch, Hyper, Array], tuple[Update, Metrics]]


def make_direction(model: Trainable, batch_size: int) -> Direction:
    """The private direction of a batch: (sum_i min(1, C / |g_i|) g_i + N(0, (z C)^2 I)) / B.

    C = hyper["l2_clip_norm"], z = hyper["noise_multiplier"]. The sum is divided by the public batch size, whatever a last batch
    holds. Dense losses (`record_loss`) are clipped by two backward passes, others record by record.

    Args:
      model: gives the records' losses, or the direction of a batch of one.
      batch_size: B.

    Returns:
      (params, batch, hyper, key) -> (direction over params.client, metrics).
    """

    product = batch_product(batch_size)

    def clipped(params: ModelParams, batch: Batch, hyper: Hyper, key: Array) -> tuple[Update, Metrics]:
        bound = hyper["l2_clip_norm"]
        if model.record_loss is not None:
            losses_of = model.record_loss

            def loss(client: Params, of: Batch, own: Array, ops: Ops) -> Array:
                return losses_of(client, of, hyper, own, ops)

            total, factor, losses = clipped_sum(loss, params.client, batch, key, bound, product)
            metrics = {"sim/loss": masked_mean(losses, batch.mask)}
        else:

            def field(client: Params, of: Batch, own: Array) -> Update:
                return model.field(ModelParams(client, params.server), of, hyper, own)[0]

            total, factor = clipped_sum_mapped(field, params.client, batch, key, bound)
            metrics = model.field(params, batch, hyper, key)[1]
        return total, {**metrics, "sim/clip_fraction": masked_mean((factor < 1.0).astype(jnp.float32), batch.mask)}

    def direction(params: ModelParams, batch: Batch, hyper: Hyper, key: Array) -> tuple[Update, Metrics]:
        key_loss, key_noise = jax.random.split(key)
        total, metrics = clipped(params, batch, hyper, key_loss)
        deviation = hyper["noise_multiplier"] * hyper["l2_clip_norm"]
        noise = tree.normal_like(key_noise, total)
        return jax.tree.map(lambda s, n: (s + deviation * n) / batch_size, total, noise), metrics

    return direction


def make_record_sgd(direction: Direction, rule: optax.GradientTransformation) -> Algorithm:
    """FedAvg whose local steps are DP-SGD (Abadi et al. 2016, arXiv 1607.00133).

        w <- w - client_learning_rate * rule(direction(w, batch)),   message = w_global - w

    What leaves the client has the noise in it, so that neither the server nor a secure sum has to be trusted for it. How many
    records a client has is taken as public: it sets the number of steps.

    Args:
      direction: of `make_direction`.
      rule: local optimiser, a post-processing.
    """

    def init(start: Start) -> Local:
        return Local(start.params.client, rule.init(start.params.client), ())

    def step(start: Start, local: Local, batch: Batch, hyper: Hyper, key: Array) -> tuple[Local, Metrics]:
        noisy, metrics = direction(ModelParams(local.client, start.params.server), batch, hyper, key)
        return descend(rule, local, noisy, hyper), metrics

    def final(start: Start, local: Local, steps: Array, hyper: Hyper) -> tuple[Update, tuple[()]]:
        del steps, hyper
        return tree.subtract(start.params.client, local.client), ()

    return Algorithm(nothing, nothing, init, step, final, message_is_direction, True)
