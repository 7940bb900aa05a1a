"""Federated algorithms: what a client does in a step, and what the server does with the aggregated update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from fedjax_health import tree
from fedjax_health.models.base import ModelParams, Trainable
from fedjax_health.types import Array, Batch, Hyper, Metrics, Update

CLIENT_OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "sgd": optax.identity,
    "adam": optax.scale_by_adam,
}
# the server's rule on the mean update (a descent direction), times hyper["server_learning_rate"]
SERVER_OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "fedavg": optax.identity,  # McMahan et al. 2017, arXiv 1602.05629
    "fedadam": lambda: optax.scale_by_adam(b1=0.9, b2=0.99, eps=1e-5),  # Reddi et al. 2021, arXiv 2003.00295
}


def apply_rule(rule: optax.GradientTransformation, direction: Update, state: Any, params: Any) -> tuple[Update, Any]:
    """`rule.update` under standard dtype promotion, which optax's bias correction (float ** int) relies on.

    Args:
      rule: optax transformation.
      direction, state, params: as for `rule.update`.

    Returns:
      (direction, state).
    """
    with jax.numpy_dtype_promotion("standard"):
        return rule.update(direction, state, params)


class Local(NamedTuple):
    """A client's state while it trains: its own model parameters (over params.client) and optimiser state."""

    client: Any
    server: Any
    optimizer: Any


class ClientAlgorithm(NamedTuple):
    """What one client does.

    Attributes:
      init: (global params, hyper, key) -> Local.
      step: (local, batch, hyper, key) -> (local, metrics).
      final: (global params, local) -> update = global - local.
    """

    init: Callable[[ModelParams, Hyper, Array], Local]
    step: Callable[[Local, Batch, Hyper, Array], tuple[Local, Metrics]]
    final: Callable[[ModelParams, Local], Update]


def make_local_descent(model: Trainable, optimizer: str, step_clip_norm: float) -> ClientAlgorithm:
    """FedAvg's client: w <- w - client_learning_rate * rule(field(w, batch)), from the global w (McMahan et al. 2017).

    Args:
      model: gives the descent direction.
      optimizer: "sgd" or "adam"; its state starts fresh in every round, so that a client keeps nothing.
      step_clip_norm: bound on the norm of one step's direction (0 = none): keeps an odd batch from throwing a client
        far off. It stabilises; the privacy bound is that of the whole update, set elsewhere.
    """
    rule = CLIENT_OPTIMIZERS[optimizer]()
    if step_clip_norm:
        rule = optax.chain(optax.clip_by_global_norm(step_clip_norm), rule)

    def init(params: ModelParams, hyper: Hyper, key: Array) -> Local:
        del hyper, key
        return Local(params.client, params.server, rule.init(params.client))

    def step(local: Local, batch: Batch, hyper: Hyper, key: Array) -> tuple[Local, Metrics]:
        direction, metrics = model.field(ModelParams(local.client, local.server), batch, hyper, key)
        direction, state = apply_rule(rule, direction, local.optimizer, local.client)
        rate = hyper["client_learning_rate"]
        client = jax.tree.map(lambda w, d: w - rate * d, local.client, direction)
        return Local(client, local.server, state), metrics

    def final(params: ModelParams, local: Local) -> Update:
        return tree.subtract(params.client, local.client)

    return ClientAlgorithm(init, step, final)
