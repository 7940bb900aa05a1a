"""FedNova: normalised averaging for clients that do different numbers of steps (Wang et al. 2020, arXiv 2007.07481)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import optax

from fedjax_health import tree
from fedjax_health.federated.algorithms import Algorithm, Local, Start, make_fedavg
from fedjax_health.models.base import Trainable
from fedjax_health.types import Array, Hyper, Update


class Message(NamedTuple):
    """What a client sends: its update divided by its number of steps, and that number f32[]."""

    update: Update
    steps: Array


def make_fednova(model: Trainable, rule: optax.GradientTransformation) -> Algorithm:
    """FedAvg's client; the server undoes that a client with more steps moves further.

        message = ((w_global - w) / S_k, S_k),   direction = mean(S_k) * mean((w_global - w) / S_k)

    With S_k equal for all it is FedAvg. The normaliser S_k is that of plain SGD (the paper's ||a_k||_1).

    Args:
      model: gives the descent direction.
      rule: local optimiser, plain SGD.
    """
    base = make_fedavg(model, rule)

    def final(start: Start, local: Local, steps: Array, hyper: Hyper) -> tuple[Message, tuple[()]]:
        update, _ = base.final(start, local, steps, hyper)
        return Message(jax.tree.map(lambda u: u / steps, update), steps), ()

    def server(message: Message, control: tuple[()], hyper: Hyper) -> tuple[Update, tuple[()]]:
        del hyper
        return tree.scale(message.steps, message.update), control

    return base._replace(final=final, server=server, additive=False)
