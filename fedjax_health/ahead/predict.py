"""Every training of a config compiled from shapes, and what each will need: work, traffic, memory, time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from fedjax_health import build
from fedjax_health.ahead.flops import count_flops
from fedjax_health.ahead.peaks import Peak
from fedjax_health.ahead.shapes import Assumed, Shaped, shape_domain
from fedjax_health.ahead.traffic import count_traffic
from fedjax_health.ahead.trips import Trips, expected_trips
from fedjax_health.chacha import CHACHA20
from fedjax_health.config import Config
from fedjax_health.data.split import inclusion_masks
from fedjax_health.federated import sharding
from fedjax_health.federated.federation import Data, Parts
from fedjax_health.prepare import with_federations
from fedjax_health.threefry import root_key
from fedjax_health.train.loop import make_hyper, make_train
from fedjax_health.types import UserError

NOTHING = Assumed()


class Memory(NamedTuple):
    """Bytes on one device.

    Attributes:
      data: records and inclusion masks, of this stage.
      state: of all federations: models, optimisers, what clients remember.
      rest: results that take no argument's place, and intermediate values.
      beside: records of the run's other domains, and those of its own as they were before each seed's representation, all of
        which stay on the device.
    """

    data: int
    state: int
    rest: int
    beside: int

    @property
    def total(self) -> int:
        """Of a device of its own."""
        return sum(self)

    def machine(self, devices: int) -> int:
        """Of host devices, which share the records' memory."""
        return self.data + self.beside + devices * (self.state + self.rest)


class Prediction(NamedTuple):
    """One training.

    Attributes:
      stage: "<domain>/<model>".
      rounds: T, all of them.
      devices: D.
      clients_per_chunk: side by side on a device.
      trips: mean lengths of its loops.
      flops: of all rounds and federations, on all devices together.
      device_flops, device_bytes, device_kernels: of all rounds, on one device.
      once: loops of unknown length that were counted once.
      memory: bytes.
      programs: compiled.
      compile_seconds: to trace, lower and compile them here.
    """

    stage: str
    rounds: int
    devices: int
    clients_per_chunk: int
    trips: Trips
    flops: float
    device_flops: float
    device_bytes: float
    device_kernels: float
    once: int
    memory: Memory
    programs: int
    compile_seconds: float

    def seconds(self, peak: Peak) -> tuple[float, float]:
        """Time by the roofline of a kind of device, and by what it takes to start every kernel where that is more, s.

            roofline = max(FLOPs / peak, bytes / bandwidth)

        Neither is a bound: what stays in a cache moves faster than that, and small products are slower than the peak.

        Args:
          peak: of one device.
        """
        least = max(self.device_flops / peak.flops_per_second, self.device_bytes / peak.bytes_per_second)
        return least, max(least, self.device_kernels * peak.kernel_seconds)


def predict(config: Config, assumed: Assumed = NOTHING) -> Iterator[tuple[Shaped, list[Prediction]]]:
    """Every domain's trainings, compiled from shapes; a run then finds the programs in the compilation cache.

    Args:
      config: the run.
      assumed: sizes of data that are not there.

    Raises:
      UserError: see `shape_domain` and `build_parts`.
    """
    mesh = sharding.make_mesh()
    shaped = [shape_domain(name, config, assumed) for name in config.data.domains]
    held = [tree_bytes(_population(s, config)) for s in shaped]
    public = config.representation == "public"
    whole = sum(held) + sum(0 if public else tree_bytes(s.domain.data) for s in shaped)
    for one, own in zip(shaped, held, strict=True):
        size = one.domain.population.size
        include = inclusion_masks(size, config.data.audit_fraction, config.seeds, config.seed, one.domain.name)
        prepared = with_federations(one.domain, include, config, mesh)
        yield (
            one,
            [
                predict_stage(f"{one.domain.name}/{model}", parts, config, one, whole - own)
                for model, parts in prepared.parts.items()
            ],
        )


def predict_stage(stage: str, parts: Parts, config: Config, shaped: Shaped, beside: int) -> Prediction:
    """One training compiled, counted and weighed.

    Args:
      stage: "<domain>/<model>".
      parts: its federation.
      config: the run.
      shaped: its domain.
      beside: bytes of other records that stay.
    """
    train = build.model_config(stage.split("/")[1], config).train
    began = time.perf_counter()
    traced, init = trace(stage, parts, config, shaped)
    state, _, data = traced.args_info[0]
    compiled = traced.lower().compile()
    init.compile()
    compile_seconds = time.perf_counter() - began
    joining = build.who_can_join(parts, config)
    trips = expected_trips(parts, shaped.counts, config.seeds, joining[0] / parts.population.size * joining[1])
    flops, traffic = count_flops(traced.jaxpr, trips), count_traffic(compiled.as_text(), trips)
    plan = compiled.memory_analysis()
    needed = (
        plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes - plan.alias_size_in_bytes
    )
    data_bytes, state_bytes = tree_bytes(data), tree_bytes(state)
    memory = Memory(data_bytes, state_bytes, needed - data_bytes - state_bytes, beside)
    calls = train.rounds // train.rounds_per_chunk
    devices = parts.mesh.size
    return Prediction(
        stage=stage,
        rounds=calls * train.rounds_per_chunk,
        devices=devices,
        clients_per_chunk=parts.clients_per_chunk,
        trips=trips,
        flops=calls * (flops.everywhere + devices * flops.split),
        device_flops=calls * (flops.everywhere + flops.split),
        device_bytes=calls * traffic.bytes,
        device_kernels=calls * traffic.kernels,
        once=flops.once,
        memory=memory,
        programs=2,
        compile_seconds=compile_seconds,
    )


def trace(stage: str, parts: Parts, config: Config, shaped: Shaped) -> tuple[Any, Any]:
    """The program of a chunk of rounds, traced, and that of the start, lowered; with the arguments that a run gives them.

    Args:
      stage, parts, config, shaped: as for `predict_stage`.
    """
    section = build.model_config(stage.split("/")[1], config)
    train = make_train(parts, section.train, config.representation == "public")
    everywhere = NamedSharding(parts.mesh, PartitionSpec())
    n, size = config.seeds, parts.population.size
    key = root_key(0) if config.privacy.randomness == "seed" else jax.random.key(0, impl=CHACHA20)
    keys = jax.eval_shape(lambda: jnp.broadcast_to(key, (n,)))
    hyper: Any = jax.eval_shape(lambda: make_hyper(build.training_numbers(section), n))
    hyper["class_prior"] = jax.ShapeDtypeStruct((n, shaped.domain.schema.num_classes), jnp.float32)
    data = Data(_population(shaped, config), jax.ShapeDtypeStruct((n, size), jnp.bool_))  # pyright: ignore[reportArgumentType]

    def placed(shapes: Any) -> Any:
        return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=everywhere), shapes)

    state = jax.eval_shape(train.init, keys)
    init = train.init.lower(placed(keys))  # pyright: ignore[reportFunctionMemberAccess]
    return train.run_chunk.trace(*placed((state, hyper, data))), init  # pyright: ignore[reportFunctionMemberAccess]


def _population(shaped: Shaped, config: Config) -> Any:
    """Shapes of what the population reads: with a representation of each seed's own, once a seed."""
    data = shaped.domain.data
    if config.representation == "public":
        return data
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct((config.seeds, *s.shape), s.dtype), data)


def tree_bytes(shapes: Any) -> int:
    """Bytes of a tree of arrays or shapes, typed keys included."""
    return sum(int(np.prod(s.shape)) * s.dtype.itemsize for s in jax.tree.leaves(shapes))


def check_memory(predictions: list[Prediction], limit: float, host: bool) -> None:
    """Refuses a run that cannot fit.

    Args:
      predictions: of all trainings.
      limit: bytes.
      host: whether the limit is that of a machine whose host devices share it, and not of each device.

    Raises:
      UserError: names the largest training, its bytes and what takes most of them, and what would make them fewer.
    """

    def of(p: Prediction) -> int:
        return p.memory.machine(p.devices) if host else p.memory.total

    worst = max(predictions, key=of)
    if of(worst) <= limit:
        return
    memory, copies = worst.memory, worst.devices if host else 1
    parts = {
        "records": (
            memory.data,
            "use fewer clients or seeds, data.representation='public', or for simulated clients data.population='procedural'",
        ),
        "other records": (memory.beside, "give each domain a run of its own, or use data.representation='public'"),
        "state": (copies * memory.state, "lower seeds, or choose an algorithm and a compression without client memory"),
        "intermediate values": (
            copies * memory.rest,
            f"lower train.clients_per_chunk (here {worst.clients_per_chunk}), train.batch_size or seeds",
        ),
    }
    what = max(parts, key=lambda name: parts[name][0])
    raise UserError(
        f"stage {worst.stage!r} needs {of(worst) / 1e9:.3g} GB{f' on {copies} host devices' if host else ''} and "
        f"--memory is {limit / 1e9:.3g} GB; {parts[what][0] / 1e9:.3g} GB of it are {what}: {parts[what][1]}"
    )
