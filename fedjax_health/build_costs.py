"""What a round of a federation costs its devices, from the shapes of its parts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fedjax_health import tree
from fedjax_health.build_secure import CALLS, Secure, protocol_operations
from fedjax_health.federated.algorithms import Algorithm
from fedjax_health.federated.client import Plan
from fedjax_health.federated.federation import Costs
from fedjax_health.federated.record_sgd import NUMBERS, Direction
from fedjax_health.federation_config import TrainConfig
from fedjax_health.transforms.base import UpdateTransform, full_wire
from fedjax_health.transforms.compress import download_wire
from fedjax_health.types import Batch


def make_costs(
    direction: Direction,
    algorithm: Algorithm,
    params: Any,
    message: Any,
    transform: UpdateTransform,
    train: TrainConfig,
    plan: Plan,
    dim: int,
    secure: Secure | None,
) -> Costs:
    """What a round asks of a device: exact FLOPs by XLA's own count of a step, exact bits of both directions.

    Args:
      direction: of a batch, what a step computes.
      algorithm: gives what is broadcast and remembered beside the model.
      params, message: shapes of the model's parameters and of what a client sends, before any transform.
      transform: gives the size of what is sent.
      train: how.
      plan: steps of a client.
      dim: D.
      secure: secure aggregation, None without.
    """
    generator = params.server["generator"] if params.server else ()  # a split GAN's optimiser stays on the server
    control = jax.eval_shape(algorithm.control, params.client)
    beside = 4 * tree.size((generator, control)) + (secure.bytes_down if secure else 0)
    slot = jax.eval_shape(algorithm.slot, params.client)
    # global, local and gradient (then update), what the algorithm adds, and a batch; records wait in flash
    own = 4 * (3 * tree.size(params.client) + tree.size((slot, control)) + train.batch_size * (dim + 1))
    return Costs(
        flops_per_step=step_flops(direction, params, dim, train.batch_size),
        steps=plan.own,
        bytes_up=transform.wire(full_wire(message)).bits / 8,
        bytes_down=download_wire(train.compression, params.client).bits / 8 + beside,
        model_bytes=4 * tree.size(params.client),
        memory_bytes=own + 4 * tree.size(generator),
        operations=protocol_operations(transform.wire(full_wire(message)).size, secure.graph) if secure else 0.0,
        calls=CALLS if secure else 1,
    )


def step_flops(direction: Direction, params: Any, dim: int, batch_size: int) -> float:
    """Floating-point operations of one local step, by XLA's own count.

    Args:
      direction: of a batch, such as a model's `field`.
      params: shapes of the model's parameters.
      dim: D.
      batch_size: B.
    """
    batch = Batch(
        jax.ShapeDtypeStruct((batch_size, dim), jnp.float32),  # pyright: ignore[reportArgumentType]
        jax.ShapeDtypeStruct((batch_size,), jnp.int32),  # pyright: ignore[reportArgumentType]
        jax.ShapeDtypeStruct((batch_size,), jnp.bool_),  # pyright: ignore[reportArgumentType]
    )
    scalars = (
        "kl_weight",
        "penalty",
        "generator_learning_rate",
        "reconstruction_weight",
        "client_learning_rate",
        *NUMBERS,
    )
    hyper = {name: jax.ShapeDtypeStruct((), jnp.float32) for name in scalars}
    key = jax.eval_shape(jax.random.key, 0)
    lowered = jax.jit(direction).lower(params, batch, hyper, key)
    analysis = (
        lowered.cost_analysis() or lowered.compile().cost_analysis()
    )  # some backends count compiled programs only
    return float(analysis["flops"])  # pyright: ignore[reportOptionalSubscript,reportArgumentType,reportCallIssue]
