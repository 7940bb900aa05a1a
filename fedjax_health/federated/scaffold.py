"""SCAFFOLD: control variates against client drift (Karimireddy et al. 2020, arXiv 1910.06378, option II)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_health import tree
from fedjax_health.federated.algorithms import Algorithm, Local, Start, descend
from fedjax_health.models.base import ModelParams, Trainable
from fedjax_health.types import Array, Batch, Hyper, Metrics, Update


class Message(NamedTuple):
    """What a client sends: its update, and the change of its control variate; both over params.client."""

    update: Update
    control: Update


def make_scaffold(model: Trainable, rule: optax.GradientTransformation, fraction: float) -> Algorithm:
    """Every client k remembers a control variate c_k; the server keeps their mean c.

        step:   w <- w - eta * rule(field(w, batch) - c_k + c)
        end:    c_k' = c_k - c + (w_global - w) / (S eta),   message = (w_global - w, c_k' - c_k)
        server: direction = mean update,   c <- c + (cohort / K) * mean change

    Args:
      model: gives the descent direction.
      rule: local optimiser; the end formula is exact for plain SGD, so only that is offered.
      fraction: public expected cohort / K, in (0, 1].
    """

    def init(start: Start) -> Local:
        # formed once, not in every step
        shift = jax.tree.map(jnp.subtract, start.control, start.slot)
        return Local(start.params.client, rule.init(start.params.client), shift)

    def step(start: Start, local: Local, batch: Batch, hyper: Hyper, key: Array) -> tuple[Local, Metrics]:
        direction, metrics = model.field(ModelParams(local.client, start.params.server), batch, hyper, key)
        return descend(rule, local, tree.add(direction, local.extra), hyper, local.extra), metrics

    def final(start: Start, local: Local, steps: Array, hyper: Hyper) -> tuple[Message, Update]:
        update = tree.subtract(start.params.client, local.client)
        slope = 1.0 / (steps * hyper["client_learning_rate"])
        change = jax.tree.map(lambda u, c: slope * u - c, update, start.control)
        return Message(update, change), tree.add(start.slot, change)

    def server(message: Message, control: Update, hyper: Hyper) -> tuple[Update, Update]:
        del hyper
        return message.update, jax.tree.map(lambda c, m: c + jnp.float32(fraction) * m, control, message.control)

    return Algorithm(tree.zeros_like, tree.zeros_like, init, step, final, server, False)
