"""What a federated algorithm is, and the ones that need no memory: FedAvg and FedProx, with any server optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_health import tree
from fedjax_health.models.base import ModelParams, Trainable
from fedjax_health.types import Array, Batch, Hyper, Metrics, Params, Update

CLIENT_OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "sgd": optax.identity,
    "adam": optax.scale_by_adam,
}
# the server's rule on the mean direction, times hyper["server_learning_rate"]; Reddi et al. 2021, arXiv 2003.00295
SERVER_OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "sgd": optax.identity,
    "adam": lambda: optax.scale_by_adam(b1=0.9, b2=0.99, eps=1e-5),
    # no momentum: what a critic learnt against an earlier generator is not carried on (Gulrajani et al. 2017, arXiv 1704.00028)
    "rmsprop": lambda: optax.scale_by_adam(b1=0.0, b2=0.9, eps=1e-5),
    "yogi": lambda: optax.scale_by_yogi(b1=0.9, b2=0.99, eps=1e-5, initial_accumulator_value=1e-6),
    "adagrad": lambda: optax.scale_by_rss(initial_accumulator_value=1e-6, eps=1e-5),
}

DECAYED = ("server_learning_rate", "generator_learning_rate")  # what the server itself steps by


def cosine(round: Array, hyper: Hyper) -> Hyper:
    """The numbers of a round with the server's learning rates times (1 + cos(pi t / T)) / 2, t rounds done of T, 0 after them.

    Args:
      round: t i32[].
      hyper: traced numbers; "rounds" is T.

    Source: Loshchilov & Hutter 2016, arXiv 1608.03983.
    """
    done = jnp.minimum(round.astype(jnp.float32) / hyper["rounds"], 1.0)
    factor = 0.5 * (1.0 + jnp.cos(jnp.float32(jnp.pi) * done))
    return {name: factor * value if name in DECAYED else value for name, value in hyper.items()}


SCHEDULES: dict[str, Callable[[Array, Hyper], Hyper]] = {"constant": lambda round, hyper: hyper, "cosine": cosine}


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


class Start(NamedTuple):
    """What a client has when it begins: what the server broadcast, and what it remembers itself.

    Attributes:
      params: the global model.
      control: the algorithm's state on the server, broadcast beside the model (() = none).
      slot: the algorithm's memory of this client (() = none).
    """

    params: ModelParams
    control: Any
    slot: Any


class Local(NamedTuple):
    """A client's state while it trains.

    Attributes:
      client: its own copy of params.client.
      optimizer: state of the local optimiser.
      extra: what the algorithm adds up over the steps (() = nothing).
    """

    client: Params
    optimizer: Any
    extra: Any


def nothing_public(control: Any, hyper: Hyper) -> Metrics:
    """For an algorithm whose control state tells nothing beside the model."""
    del control, hyper
    return {}


class Algorithm(NamedTuple):
    """One federated algorithm, both sides.

    Attributes:
      control: params.client -> the server's control state at the start.
      slot: params.client -> a client's memory at the start.
      init: start -> Local.
      step: (start, local, batch, hyper, key) -> (local, metrics).
      final: (start, local, steps done f32[] >= 1, hyper) -> (message, slot). The message is a tree that the server averages;
        its leaves are what is clipped, compressed and counted.
      server: (mean message, control, hyper) -> (descent direction over params.client, control).
      additive: whether the direction is the mean message itself, so that noise on the sum is noise on the direction.
      public: (control that a round starts from, hyper) -> the round's metrics "public/...", of what the server publishes.
    """

    control: Callable[[Params], Any]
    slot: Callable[[Params], Any]
    init: Callable[[Start], Local]
    step: Callable[[Start, Local, Batch, Hyper, Array], tuple[Local, Metrics]]
    final: Callable[[Start, Local, Array, Hyper], tuple[Any, Any]]
    server: Callable[[Any, Any, Hyper], tuple[Update, Any]]
    additive: bool
    public: Callable[[Any, Hyper], Metrics] = nothing_public


def nothing(params: Params) -> tuple[()]:
    """For an algorithm without a control state, or without memory."""
    del params
    return ()


def message_is_direction(message: Update, control: Any, hyper: Hyper) -> tuple[Update, Any]:
    """The server side of an algorithm whose message is the update itself."""
    del hyper
    return message, control


def make_local_rule(optimizer: str, step_clip_norm: float) -> optax.GradientTransformation:
    """The local optimiser.

    Args:
      optimizer: "sgd" or "adam"; its state starts fresh in every round.
      step_clip_norm: bound on the norm of one step's direction (0 = none): keeps an odd batch from throwing a client
        far off. It stabilises; the privacy bound is that of the whole update, set elsewhere.
    """
    rule = CLIENT_OPTIMIZERS[optimizer]()
    return optax.chain(optax.clip_by_global_norm(step_clip_norm), rule) if step_clip_norm else rule


def descend(
    rule: optax.GradientTransformation, local: Local, direction: Update, hyper: Hyper, extra: Any = ()
) -> Local:
    """w <- w - client_learning_rate * rule(direction).

    Args:
      rule: local optimiser.
      local: state before.
      direction: over local.client.
      hyper: "client_learning_rate".
      extra: the algorithm's own state after the step.
    """
    direction, state = apply_rule(rule, direction, local.optimizer, local.client)
    rate = hyper["client_learning_rate"]
    return Local(jax.tree.map(lambda w, d: w - rate * d, local.client, direction), state, extra)


def make_fedavg(model: Trainable, rule: optax.GradientTransformation, proximal: bool = False) -> Algorithm:
    """FedAvg (McMahan et al. 2017, arXiv 1602.05629) and FedProx (Li et al. 2020, arXiv 1812.06127).

        w <- w - client_learning_rate * rule(field(w, batch) + proximal_weight * (w - w_global)),   message = w_global - w

    Args:
      model: gives the descent direction.
      rule: local optimiser.
      proximal: whether to add the pull towards the global model (hyper "proximal_weight").
    """

    def init(start: Start) -> Local:
        return Local(start.params.client, rule.init(start.params.client), ())

    def step(start: Start, local: Local, batch: Batch, hyper: Hyper, key: Array) -> tuple[Local, Metrics]:
        params = ModelParams(local.client, start.params.server)
        direction, metrics = model.field(params, batch, hyper, key)
        if proximal:
            pull = hyper["proximal_weight"]
            direction = jax.tree.map(lambda d, w, g: d + pull * (w - g), direction, local.client, start.params.client)
        return descend(rule, local, direction, hyper), metrics

    def final(start: Start, local: Local, steps: Array, hyper: Hyper) -> tuple[Update, Any]:
        del steps, hyper
        return tree.subtract(start.params.client, local.client), ()

    return Algorithm(nothing, nothing, init, step, final, message_is_direction, True)
