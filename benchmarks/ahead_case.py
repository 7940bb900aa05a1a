"""One process of `benchmarks.ahead`: what a config's trainings are predicted to need, or what one of them needs when it runs.

`python -m benchmarks.ahead_case '["predict", "iot", {}]'` or `'["measure", "iot", {}, "vitals/vae", 2]'`
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

from launch.machine import use_all_cores

if __name__ == "__main__":
    use_all_cores()

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health import build
from fedjax_health import config as configuration
from fedjax_health.ahead import peaks, predict
from fedjax_health.config import Config
from fedjax_health.data.population import Store
from fedjax_health.federated import distributed, sharding
from fedjax_health.federated.algorithms import Start
from fedjax_health.federated.federation import Data, Parts, init_state, memory_row
from fedjax_health.federated.round import play, sample_cohort
from fedjax_health.models.base import abstract_params
from fedjax_health.prepare import bare_domain
from fedjax_health.randomness import BY_SEED, training_keys
from fedjax_health.threefry import root_key
from fedjax_health.train.loop import make_hyper, make_train
from fedjax_health.transforms.base import Keys

KEY = jax.eval_shape(lambda: root_key(0))
Changes = dict[str, Any]  # "data.num_clients" -> value


class Measured(NamedTuple):
    """A training that ran.

    Attributes:
      memory: bytes by which the process grew at most, from before its records were made to after its last round.
      flops: of all rounds that ran, counted by hand.
      rounds: that ran.
      seconds: of the calls after the first, a round.
    """

    memory: int
    flops: float
    rounds: int
    seconds: float


def read_config(name: str, changes: Changes) -> Config:
    """A config file with some keys changed.

    Args:
      name: of a module in configs, with its variant after a colon.
      changes: dotted key -> value.
    """
    module, _, variant = name.partition(":")
    raw = importlib.import_module(f"configs.{module}").get_config(*([variant] if variant else []))
    for path, value in changes.items():
        *sections, key = path.split(".")
        node = raw
        for section in sections:
            node = node[section]
        node[key] = tuple(value) if isinstance(value, list) else value
    return configuration.from_config_dict(raw)


def predicted(config: Config) -> dict[str, dict[str, Any]]:
    """Stage -> what is predicted: bytes of this machine's memory, FLOPs a round, and seconds a round."""
    local = peaks.calibrate()
    return {
        p.stage: {
            "memory": p.memory.machine(p.devices) - p.memory.beside,
            "flops": p.flops / p.rounds,
            "seconds": p.seconds(local)[0] / p.rounds,
        }
        for _, found in predict.predict(config)
        for p in found
    }


def resident(name: str) -> int:
    """Bytes of this process by the kernel's record: VmRSS now, VmHWM at most since `forget_peak`."""
    with open("/proc/self/status") as file:
        return next(1024 * int(text.split()[1]) for text in file if text.startswith(name))


def forget_peak() -> None:
    """From here on VmHWM is the peak of what follows (Linux)."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def measure(config: Config, stage: str, calls: int) -> Measured:
    """Trains a stage for some calls of its compiled chunk, its programs compiled before memory is looked at.

    Args:
      config: the run.
      stage: "<domain>/<model>".
      calls: of the chunk, at least 2.
    """
    domain, model = stage.split("/")
    mesh = sharding.make_mesh()
    p = bare_domain(domain, config, mesh)
    parts, section = p.parts[model], build.model_config(model, config)
    seeds = config.seeds
    own = config.representation != "public"  # records of each seed's own representation have the shapes of these
    train = make_train(parts, section.train, not own)
    values = build.training_numbers(section, 1.0)
    classes = p.domain.schema.num_classes
    hyper = {**make_hyper(values, seeds), "class_prior": jnp.full((seeds, classes), 1.0 / classes, jnp.float32)}
    keys = training_keys(BY_SEED, config.seed, stage, seeds)
    original = p.domain.data

    def start() -> tuple[Any, Any, Data]:
        # arrays of JAX, as the loaders leave them: others would be copied again for every device
        data = original
        if isinstance(original, Store):
            data = jax.tree.map(lambda leaf: jnp.stack([leaf] * seeds) if own else jnp.copy(leaf), original)
        placed, numbers, inputs = distributed.replicate((keys, hyper, Data(data, jnp.asarray(p.include))), mesh)
        return train.init(placed), numbers, inputs

    state, numbers, data = start()
    compiled = train.run_chunk.lower(state, numbers, data).compile()  # pyright: ignore[reportFunctionMemberAccess]
    state, metrics = compiled(state, numbers, data)  # threads and code pages of the first call are the runtime's
    jax.block_until_ready((state, metrics))
    del state, metrics, numbers, data
    gc.collect()
    base = resident("VmRSS")
    forget_peak()
    state, numbers, data = start()
    live, seconds = [], []
    for _ in range(calls):
        began = time.perf_counter()
        state, metrics = compiled(state, numbers, data)
        live.append(np.asarray(jax.device_get(metrics)["sim/cohort"], np.float64))
        seconds.append(time.perf_counter() - began)
    memory = resident("VmHWM") - base
    rounds = section.train.rounds_per_chunk * calls
    flops = by_hand(parts, config, model, jax.device_get(state.key), numbers, data, np.concatenate(live, 1))
    return Measured(memory, flops, rounds, statistics.median(seconds[1:]) / section.train.rounds_per_chunk)


def by_hand(parts: Parts, config: Config, model: str, keys: Any, hyper: Any, data: Data, live: np.ndarray) -> float:
    """FLOPs of rounds that ran: XLA's count of one client and of the server, times who took part, as they were dealt.

    The cohorts are drawn again, round by round, and must be as many as the run says took part.

    Args:
      parts, config, model: of the training.
      keys, hyper, data: of all federations.
      live: f64[N, rounds], clients that took part.

    Raises:
      RuntimeError: a cohort drawn again is another one.
    """
    seeds, chunk, devices = config.seeds, parts.clients_per_chunk, parts.mesh.size
    population = data.population
    if config.representation != "public":
        population = jax.tree.map(lambda leaf: leaf[0], population)

    @jax.jit
    def records(key: Any, include: Any, index: Any) -> Any:
        state = init_state(parts, key)._replace(round=index)
        cohort, _ = sample_cohort(parts, state)
        alive = play(parts, state, Data(population, include), cohort.client, cohort.mask).alive
        return jnp.where(alive, jax.vmap(parts.population.count, (None, 0))(population, cohort.client), -1)

    client, server = client_flops(parts, config, model, hyper, population), refine_flops(parts, config, model, hyper)
    total = 0.0
    for index in range(live.shape[1]):
        found = [np.asarray(records(keys[s], data.include[s], jnp.int32(index))) for s in range(seeds)]
        sizes = [np.sort(c[c >= 0])[::-1] for c in found]
        if [len(own) for own in sizes] != live[:, index].tolist():
            raise RuntimeError(f"round {index + 1} had {live[:, index]} clients, drawn again {[len(s) for s in sizes]}")
        for device in range(devices):
            largest = [own[device::devices][::chunk] for own in sizes]
            for i in range(max(len(own) for own in largest)):
                most = max(int(own[i]) for own in largest if i < len(own))
                total += seeds * chunk * client(int(parts.costs.steps(jnp.int32(most))))
        total += seeds * server
    return total


def client_flops(parts: Parts, config: Config, model: str, hyper: Any, population: Any) -> Callable[[int], float]:
    """Steps -> FLOPs of one client's round with its transform, by XLA's count, which sees a loop's body once.

    Args:
      parts, config, model: of the training.
      hyper: f32[N, ...].
      population: records.
    """
    train = build.model_config(model, config).train

    def begin(params: Any) -> tuple[Start, Any]:
        row, to_memory = memory_row(parts, params.client)
        remembered = to_memory(row)
        return Start(params, parts.algorithm.control(params.client), remembered.slot), remembered

    def step(params: Any, population: Any, numbers: Any, key: Any) -> Any:
        start, _ = begin(params)
        batch = parts.population.batch(population, jnp.int32(0), jnp.arange(train.batch_size, dtype=jnp.int32))
        return parts.algorithm.step(start, parts.algorithm.init(start), batch, numbers, key)

    def one(params: Any, population: Any, numbers: Any, key: Any) -> Any:
        start, remembered = begin(params)
        message, *rest = parts.run_client(start, population, jnp.int32(0), numbers, key)
        message, *more = parts.transform.client(message, remembered.transform, numbers, Keys(key, key))
        return jax.tree.map(lambda leaf: leaf + leaf, message), rest, more  # added to a sum

    inputs = abstract_params(parts.model.init), shapes(population), shapes(hyper, 1), KEY
    whole, each = count(one, *inputs), count(step, *inputs)
    size = parts.population
    ragged = train.local == "epochs" and size.max_count > train.batch_size * -(-size.min_count // train.batch_size)
    seen = 1 if ragged else 2  # steps in the whole: a loop's body, and the first step where it stands apart
    return lambda steps: whole + max(0, steps - seen) * each


def refine_flops(parts: Parts, config: Config, model: str, hyper: Any) -> float:
    """FLOPs of the server's own training in a round: XLA's count of one step, times the steps.

    Args:
      parts, config, model: of the training.
      hyper: f32[N, ...].
    """
    steps = getattr(build.model_config(model, config), "generator_steps", 1)
    return steps * count(parts.model.refine, abstract_params(parts.model.init), shapes(hyper, 1), KEY)


def shapes(tree: Any, drop: int = 0) -> Any:
    """Shapes of a tree of arrays, without some leading axes."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[drop:], leaf.dtype), tree)


def count(call: Callable[..., Any], *args: Any) -> float:
    """FLOPs of a call by XLA's count before compilation; a network's own loop over time is spelled out, to be seen whole."""
    with mock.patch.object(nn, "scan", functools.partial(nn.scan, unroll=10_000)):
        analysis: Any = jax.jit(call).lower(*args).cost_analysis()
    return float(analysis.get("flops", 0.0))  # nothing to do, nothing said


def main() -> None:
    """One request, one JSON line."""
    kind, name, changes, *rest = json.loads(sys.argv[1])
    config = read_config(name, changes)
    print(json.dumps(predicted(config) if kind == "predict" else measure(config, *rest)._asdict()))


if __name__ == "__main__":
    main()
