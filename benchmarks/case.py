"""One process of `benchmarks.scaling`: federations timed in turn, and the peak memory of the process.

`python -m benchmarks.case '[[["procedural", 1000, 100, "fixed"]], 2, 5]'` (cases, devices, repeats) prints a `Found` as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks import work

if __name__ == "__main__":
    work.use_host_devices(json.loads(sys.argv[1])[1] or os.cpu_count() or 1)

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import engine
from fedjax_health.data.encode import make_encoder
from fedjax_health.data.population import make_store, procedural_population, stored_population
from fedjax_health.data.schema import Column, Schema
from fedjax_health.data.simulator import Simulator, population_key
from fedjax_health.federated import sharding
from fedjax_health.types import Array, Table

ROWS, FEATURES = 16, 10
LAYERS = (FEATURES, 64, 64, 1)
LINE = 64  # bytes: an array that starts at a multiple of this is used by XLA's CPU backend where it lies
UPDATES = 5000  # of one timed run, about


class Case(NamedTuple):
    """One federation to be measured.

    Attributes:
      population: "procedural", "stored" (encoded records), "table" (a table that `make_store` encodes first) or "work" (A).
      clients: K.
      cohort: clients a round, expected ones for "poisson".
      sampler: of the cohort.
    """

    population: str
    clients: int
    cohort: int
    sampler: str = "fixed"


class Found(NamedTuple):
    """What a process found.

    Attributes:
      seconds: a round at exactly the expected cohort, each repeat of each case.
      memory_mb: peak resident memory, 1e6 bytes.
      kind: of the devices, in words.
      devices: how many there are.
    """

    seconds: list[list[float]]
    memory_mb: float
    kind: str
    devices: int


def cheap_simulator() -> Simulator:
    """A client whose 16 records of 10 features cost next to nothing: N(0, 1), labelled by the sign of their sum."""
    columns = [Column(name=f"x{i}", low=-8.0, high=8.0, center=0.0, scale=1.0) for i in range(FEATURES)]
    label = Column(name="y", kind="binary", role="label", categories=("no", "yes"))

    def simulate(key: Array) -> tuple[Array, Array, Array]:
        values = jax.random.normal(key, (ROWS, FEATURES))
        return values, (jnp.sum(values, 1) > 0).astype(jnp.int32), jnp.int32(ROWS)

    return Simulator(Schema("cheap", (*columns, label)), "diagnosis", ROWS, simulate)


def aligned_normal(shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers, f32[shape], written where XLA can use them without a copy.

    Args:
      shape: of the array.
    """
    size = int(np.prod(shape))
    spare = LINE // 4
    flat = np.empty(size + spare, np.float32)
    first = (-flat.ctypes.data % LINE) // 4
    values = flat[first : first + size]
    np.random.default_rng(0).standard_normal(dtype=np.float32, out=values)
    return values.reshape(shape)


def _records(case: Case) -> tuple[Any, Any]:
    """(population, what it reads) of a case."""
    if case.population == "procedural":
        simulator = cheap_simulator()
        population = procedural_population(simulator, make_encoder(simulator.schema), case.clients)
        return population, population_key(0)
    if case.population == "work":
        data = work.make_data()
        return stored_population(work.CLIENTS, work.ROWS, work.ROWS), engine.make_equal_store(data.x, data.y)
    x = aligned_normal((case.clients, ROWS, FEATURES))
    store = engine.make_equal_store(x, x[:, :, 0] > 0)
    if case.population == "table":
        client = np.repeat(np.arange(case.clients, dtype=np.int32), ROWS)
        table = Table(x.reshape(-1, FEATURES), np.asarray(store.y), client)
        del x, store
        store = make_store(table, make_encoder(cheap_simulator().schema), case.clients)
        del table
    return stored_population(case.clients, ROWS, ROWS), store


def make_program(case: Case, devices: int) -> tuple[engine.Program, Any]:
    """The federation of a case, compiled, and its inputs.

    Args:
      case: what to build.
      devices: of the mesh.
    """
    rounds = min(500, max(5, UPDATES // case.cohort))
    of_work = case.population == "work"
    local = {} if of_work else {"local": "steps", "local_steps": 4, "batch_size": ROWS}
    config = engine.make_config(case.cohort, rounds, sampler=case.sampler, **local)
    population, records = _records(case)
    layers = work.LAYERS if of_work else LAYERS
    mesh = sharding.make_mesh(devices)
    parts = engine.make_parts(engine.make_model(layers=layers), population, layers[0], config, mesh=mesh)
    program = engine.make_program(parts, config, records)
    return program, program.place(engine.make_numbers(config), records)


def measure(cases: Sequence[Case], devices: int, repeats: int) -> Found:
    """Times cases in turn.

    Args:
      cases: of which none only tells the devices.
      devices: of the mesh, 0 for all.
      repeats: timed runs of each, after one that is not counted.
    """
    with work.peak_memory() as peak:
        programs = [make_program(case, devices) for case in cases]

        def once(index: int) -> float:
            program, inputs = programs[index]
            start = jax.block_until_ready(program.start([0]))
            seconds, (_, metrics) = work.timed(lambda: program.run(start, inputs))
            return seconds * cases[index].cohort / float(metrics["sim/cohort"].sum())

        passes = [[once(index) for index in range(len(cases))] for _ in range(repeats + 1)][1:]
        seconds = [[row[index] for row in passes] for index in range(len(cases))]
        return Found(seconds, peak(), jax.devices()[0].device_kind, jax.device_count())


if __name__ == "__main__":
    wanted, count, times = json.loads(sys.argv[1])
    print(json.dumps(measure([Case(*case) for case in wanted], count, times)), flush=True)
