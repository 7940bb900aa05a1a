"""MIME-lite: clients step with the server's momentum, held still (Karimireddy et al. 2021, arXiv 2008.03606)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_health import tree
from fedjax_health.federated.algorithms import Algorithm, Local, Start, descend, nothing
from fedjax_health.models.base import ModelParams, Trainable
from fedjax_health.types import Array, Batch, Hyper, Metrics, Update

MOMENTUM = 0.9


class Message(NamedTuple):
    """What a client sends: its update, and its direction at the global model; both over params.client."""

    update: Update
    direction: Update


def make_mime_lite(model: Trainable, rule: optax.GradientTransformation) -> Algorithm:
    """SGD with momentum m that only the server changes.

        step:   w <- w - eta * ((1 - beta) field(w, batch) + beta m),   beta = 0.9
        end:    message = (w_global - w, mean over its steps of field(w_global, batch))
        server: direction = mean update,   m <- (1 - beta) mean direction + beta m

    The paper's client takes its direction at the global model over all its records; ours over the batches it trains on, which
    for one epoch are all its records. This doubles the local work.

    Args:
      model: gives the descent direction.
      rule: local optimiser, plain SGD.
    """

    def init(start: Start) -> Local:
        # the running sum starts from the parameters' own zeros, so that it is mapped over clients wherever they are
        return Local(start.params.client, rule.init(start.params.client), tree.zeros_like(start.params.client))

    def step(start: Start, local: Local, batch: Batch, hyper: Hyper, key: Array) -> tuple[Local, Metrics]:
        here, metrics = model.field(ModelParams(local.client, start.params.server), batch, hyper, key)
        there, _ = model.field(start.params, batch, hyper, key)
        beta = jnp.float32(MOMENTUM)
        mixed = jax.tree.map(lambda d, m: (1.0 - beta) * d + beta * m, here, start.control)
        return descend(rule, local, mixed, hyper, tree.add(local.extra, there)), metrics

    def final(start: Start, local: Local, steps: Array, hyper: Hyper) -> tuple[Message, tuple[()]]:
        del hyper
        update = tree.subtract(start.params.client, local.client)
        return Message(update, jax.tree.map(lambda s: s / steps, local.extra)), ()

    def server(message: Message, control: Update, hyper: Hyper) -> tuple[Update, Update]:
        del hyper
        beta = jnp.float32(MOMENTUM)
        momentum = jax.tree.map(lambda d, m: (1.0 - beta) * d + beta * m, message.direction, control)
        return message.update, momentum

    return Algorithm(tree.zeros_like, nothing, init, step, final, server, False)
