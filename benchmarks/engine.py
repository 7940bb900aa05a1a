"""Work A, and whatever else is measured, as a federation through the project's own interface."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from benchmarks import work
from fedjax_health.build_federation import build_federation
from fedjax_health.chacha import CHACHA20
from fedjax_health.data.population import Population, Store
from fedjax_health.devices.round import DeviceLayer, make_devices, make_ideal
from fedjax_health.federated import distributed, sharding
from fedjax_health.federated.federation import Data, Parts, State
from fedjax_health.federation_config import (
    AggregationConfig,
    CompressionConfig,
    DevicesConfig,
    HierarchyConfig,
    TrainConfig,
)
from fedjax_health.models.base import Classifier, ModelParams, masked_mean, no_refine
from fedjax_health.models.dense import make_dot_general
from fedjax_health.threefry import root_key
from fedjax_health.train.loop import make_hyper, make_train
from fedjax_health.types import Array, Batch, Hyper, Metrics, Params, Update

NOISE, CLIP = 1.0, 1.0  # multiplier and bound of a private run
FLEET = DevicesConfig(
    shares=(0.6, 0.2, 0.1, 0.1),
    availability="always",
    on_fraction=0.7,
    mean_on_seconds=3600.0,
    failures_per_hour=0.0,
    deadline_seconds=0.0,
    over_commitment=1.0,
)  # as in configs/base.py
MATRIX = (((1,), (0,)), ((), ()))  # dimension numbers of x @ w


class Program(NamedTuple):
    """N federations side by side, compiled.

    Attributes:
      start: seeds [N] -> State before the first round. A run consumes it.
      place: (name -> f32[N] of every traced number, records) -> inputs, on the devices for good.
      run: (state, inputs) -> (state after R rounds, metrics on the host, f64[N, R] each); waits for the result.
      compile_s: seconds of tracing, lowering and compiling `run`.
      memory_mb: that `run` needs on one device: arguments, results and temporaries, 1e6 bytes, by the compiler's plan.
    """

    start: Callable[[Sequence[int]], State]
    place: Callable[[Hyper, Any], tuple[Hyper, Data]]
    run: Callable[[State, tuple[Hyper, Data]], tuple[State, dict[str, np.ndarray]]]
    compile_s: float
    memory_mb: float


def make_config(cohort: int, rounds: int, chunk: int = 0, **changes: Any) -> TrainConfig:
    """A training of work A: one epoch of SGD at fixed cohorts, the plain mean, nothing clipped or compressed.

    Args:
      cohort: clients a round.
      rounds: T, all of them in one compiled call.
      chunk: clients side by side on a device; 0 = as the project chooses.
      **changes: other fields; `compression` and `aggregation` may be dicts of the keys that differ.
    """
    parts = {
        "compression": CompressionConfig(False, "none", 0.1, False, 0, False, 0),
        "aggregation": AggregationConfig("mean", "equal", 0.2, "none", 0.0, 1.0),
    }
    for name, section in parts.items():
        parts[name] = dataclasses.replace(section, **changes.pop(name, {}))
    fields: dict[str, Any] = {
        "rounds": rounds,
        "rounds_per_chunk": rounds,
        "cohort": cohort,
        "sampler": "fixed",
        "clients_per_chunk": chunk,
        "local": "epochs",
        "local_epochs": 1,
        "local_steps": 1,
        "batch_size": work.BATCH,
        "algorithm": "fedavg",
        "server_optimizer": "sgd",
        "client_optimizer": "sgd",
        "client_learning_rate": work.RATE,
        "server_learning_rate": 1.0,
        "proximal_weight": 0.01,
        "concurrency": 100,
        "max_staleness": 8,
        "step_clip_norm": 0.0,
        "l2_clip_norm": math.inf,
        "ema_decay": 0.0,
        "convergence_window": 0,
        "convergence_tolerance": 0.01,
        "hierarchy": HierarchyConfig(0, 5),
    }
    return TrainConfig(**{**fields, **parts, **changes})


def make_model(
    dense: str = "auto", layers: tuple[int, ...] = work.LAYERS, init: work.Layers | None = None
) -> Classifier:
    """The work's perceptron: relu, logistic loss softplus(z) - z y of the one output z.

    Args:
      dense: form of the layers' products (see `models.dense`).
      layers: sizes, input first and 1 last.
      init: parameters to start from; None draws them from the key, U(-1/sqrt(in), 1/sqrt(in)), as `work.init_params` does.

    Returns:
      Classifier whose parameters are the work's list of (weight, bias), and whose `predict` gives z, f32[n].
    """
    product = make_dot_general(dense) or jax.lax.dot_general

    def draw(key: Array) -> ModelParams:
        if init is not None:
            return ModelParams(jax.tree.map(jnp.asarray, init), ())
        shapes = [((rows, columns), (columns,)) for rows, columns in itertools.pairwise(layers)]
        keys = jax.random.split(key, (len(shapes), 2))
        client = [
            tuple(
                jax.random.uniform(keys[i, j], shape, minval=-1.0, maxval=1.0) / math.sqrt(shapes[i][0][0])
                for j, shape in enumerate(pair)
            )
            for i, pair in enumerate(shapes)
        ]
        return ModelParams(client, ())

    def predict(client: Params, x: Array) -> Array:
        for w, b in client[:-1]:
            x = jax.nn.relu(product(x, w, MATRIX) + b[None, :])
        w, b = client[-1]
        return (product(x, w, MATRIX) + b[None, :])[:, 0]

    def field(params: ModelParams, batch: Batch, hyper: Hyper, key: Array) -> tuple[Update, Metrics]:
        del hyper, key

        def loss_fn(client: Params) -> tuple[Array, Metrics]:
            z = predict(client, batch.x)
            # softplus(z) - z y, written so that XLA's CPU backend makes one loop of it and its derivative
            losses = jnp.maximum(z, 0.0) - z * batch.y.astype(jnp.float32) + jnp.log1p(jnp.exp(-jnp.abs(z)))
            loss = masked_mean(losses, batch.mask)
            return loss, {"sim/loss": loss}

        return jax.grad(loss_fn, has_aux=True)(params.client)

    return Classifier(draw, field, no_refine, lambda params: params.client, predict)


def make_equal_store(x: np.ndarray, y: np.ndarray) -> Store:
    """Records of clients that all have as many, on the host.

    Args:
      x: f32[K, n, D].
      y: [K, n], labels 0 or 1.

    Returns:
      Store of NumPy arrays; x is not copied.
    """
    clients, rows, dim = x.shape
    offset = np.arange(clients, dtype=np.int32) * np.int32(rows)
    label = y.reshape(-1).astype(np.int32, copy=False)
    return Store(x.reshape(-1, dim), label, offset, np.full(clients, rows, np.int32))  # pyright: ignore[reportArgumentType]


def make_parts(
    model: Classifier,
    population: Population,
    dim: int,
    config: TrainConfig,
    *,
    private: bool = False,
    fleet: bool = False,
    mesh: Mesh | None = None,
) -> Parts:
    """A federation over two classes.

    Args:
      model: what is trained.
      population: by whom.
      dim: D.
      config: how.
      private: Gaussian noise on the sum of clipped updates.
      fleet: the default fleet of simulated devices, else ideal ones that cost nothing.
      mesh: the machine's devices; None takes all.
    """

    def devices(wanted: int) -> DeviceLayer:
        return make_devices(FLEET, wanted) if fleet else make_ideal()

    return build_federation(
        model,
        population,
        dim,
        2,
        config,
        mesh or sharding.make_mesh(),
        devices,
        1.0,
        "central_gaussian" if private else "none",
    )


def make_numbers(config: TrainConfig, federations: int = 1) -> Hyper:
    """The traced numbers of a config, f32[N] each; the noise multiplier of a private run is NOISE.

    Args:
      config: of the training.
      federations: N.
    """
    names = ("client_learning_rate", "server_learning_rate", "l2_clip_norm", "proximal_weight")
    values = {**{name: getattr(config, name) for name in names}, "noise_multiplier": NOISE}
    return make_hyper(values, federations)


def make_program(
    parts: Parts, config: TrainConfig, records: Any, federations: int = 1, *, system: bool = False
) -> Program:
    """Compiles `config.rounds_per_chunk` rounds of federations that read the same records.

    Args:
      parts: the federation.
      config: how it trains.
      records: what the population reads, a Store or a key; `place` takes others of the same shapes.
      federations: N.
      system: keys of ChaCha20, as a run has them whose noise nobody can make again; here from the seeds all the same.
    """
    train = make_train(parts, config)
    included = np.ones((federations, parts.population.size), bool)

    def start(seeds: Sequence[int]) -> State:
        key = functools.partial(jax.random.key, impl=CHACHA20) if system else root_key
        return train.init(jax.vmap(key)(jnp.asarray(seeds, jnp.uint32)))

    example = (start(range(federations)), make_numbers(config, federations), Data(records, included))  # pyright: ignore[reportArgumentType]
    compile_s, compiled = work.timed(lambda: train.run_chunk.lower(*example).compile())
    plan = compiled.memory_analysis()
    needed = (
        plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes - plan.alias_size_in_bytes
    )

    def place(hyper: Hyper, records: Any) -> tuple[Hyper, Data]:
        # once, as the trainer does, or each run would copy them to the devices first
        return distributed.replicate((hyper, Data(records, included)), parts.mesh)  # pyright: ignore[reportArgumentType]

    def run(state: State, inputs: tuple[Hyper, Data]) -> tuple[State, dict[str, np.ndarray]]:
        state, metrics = compiled(state, *inputs)
        jax.block_until_ready(state)
        return state, {name: np.asarray(value, np.float64) for name, value in jax.device_get(metrics).items()}

    return Program(start, place, run, compile_s, needed / 1e6)
