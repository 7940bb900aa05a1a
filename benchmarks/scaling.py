"""How time and memory grow with the population, the stored records, the cohort and the devices.

`python -m benchmarks.scaling [--quick] [--out FILE] [--parts clients,memory,cohort,devices] [--passes 3]`. Every figure of
memory is the peak of a process of its own. The parts:

clients  10^3 to 10^6 procedural clients at the same expected cohort: seconds a round and memory, and their ratio to 10^3;
memory   10^6 stored clients of 16 records of 10 features: memory of the whole process, records placed without a copy
         (aligned NumPy arrays), and as `make_store` and the trainer place them (`copied`);
cohort   10 to 10^4 clients a round at one population, all sizes in turn in one process: seconds a round, the fit
         seconds = base + slope cohort, and the worst deviation from proportionality from 100 clients on;
devices  work A2 on 1, 2 and 4 devices: host devices on a CPU, of which more than cores bring nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks import report, work

if __name__ == "__main__":
    work.use_host_devices(int(os.environ.get("SCALING_DEVICES", os.cpu_count() or 1)))

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import engine
from fedjax_health.data.encode import make_encoder
from fedjax_health.data.population import Store, procedural_population, stored_population
from fedjax_health.data.schema import Column, Schema
from fedjax_health.data.simulator import Simulator, population_key
from fedjax_health.federated import sharding
from fedjax_health.types import Array

PACKAGES = ("jax", "jaxlib", "numpy", "flax", "optax")
PARTS = ("clients", "memory", "cohort", "devices")
ROWS, FEATURES = 16, 10
LAYERS = (FEATURES, 64, 64, 1)
LINE = 64  # bytes: an array that starts at a multiple of this is used by XLA's CPU backend where it lies
UPDATES = 5000  # of one timed run, about
TIME_LIMIT = 600  # seconds of one process


class Case(NamedTuple):
    """One federation to be measured.

    Attributes:
      population: "procedural", "stored" (placed without a copy), "copied" (as `make_store` places it) or "work" (A).
      clients: K.
      cohort: clients a round, expected ones for "poisson".
      sampler: of the cohort.
    """

    population: str
    clients: int
    cohort: int
    sampler: str = "fixed"


class Timing(NamedTuple):
    """Of one case: seconds a round of each repeat at exactly the expected cohort, and seconds to compile."""

    seconds: list[float]
    compile_s: float


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
    if case.population == "copied":
        store = Store(*(jnp.asarray(leaf) for leaf in store))
    return stored_population(case.clients, ROWS, ROWS), store


def make_program(case: Case, devices: int) -> engine.Program:
    """The federation of a case, compiled.

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
    return engine.make_program(parts, config, records, case.clients)


def measure(cases: Sequence[Case], devices: int, repeats: int) -> tuple[list[Timing], float]:
    """Times cases in turn.

    Args:
      cases: at least one.
      devices: of the mesh.
      repeats: timed runs of each, after one that is not counted.

    Returns:
      (Timing of each case, peak memory of this process in MB).
    """
    with work.peak_memory() as peak:
        programs = [make_program(case, devices) for case in cases]

        def once(index: int) -> float:
            start = jax.block_until_ready(programs[index].start())
            seconds, (_, metrics) = work.timed(lambda: programs[index].run(start))
            return seconds * cases[index].cohort / float(metrics["sim/cohort"].sum())

        passes = [[once(index) for index in range(len(cases))] for _ in range(repeats + 1)][1:]
        columns = [list(column) for column in zip(*passes, strict=True)]
        return [Timing(c, p.compile_s) for c, p in zip(columns, programs, strict=True)], peak()


def child(cases: Sequence[Case], devices: int, repeats: int) -> tuple[list[Timing], float]:
    """`measure` in a process of its own.

    Args:
      cases, devices, repeats: as in `measure`.

    Raises:
      RuntimeError: the process fails.
    """
    request = json.dumps([cases, devices, repeats])
    command = [sys.executable, "-m", "benchmarks.scaling", "--child", request]
    environment = {**os.environ, "SCALING_DEVICES": str(devices)}
    environment.pop("XLA_FLAGS", None)  # it holds this process's number of devices
    root = pathlib.Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT)
    if done.returncode:
        raise RuntimeError(f"the measurement of {request} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    timings, memory = json.loads(done.stdout.strip().rsplit("\n", 1)[-1])
    return [Timing(*timing) for timing in timings], memory


class Sample(NamedTuple):
    """Of one process: seconds a round (median of its repeats), and peak memory in MB."""

    seconds: float
    memory_mb: float


def samples(cases: Sequence[tuple[Case, int]], passes: int, repeats: int) -> list[list[Sample]]:
    """Each case in processes of its own, in turn.

    Args:
      cases: (case, devices).
      passes: processes of each.
      repeats: timed runs in one.

    Returns:
      The passes of each case.
    """
    found: list[list[Sample]] = [[] for _ in cases]
    for _ in range(passes):
        for (case, devices), row in zip(cases, found, strict=True):
            (timing,), memory = child([case], devices, repeats)
            row.append(Sample(statistics.median(timing.seconds), memory))
            print(f"{case} on {devices}: {1e3 * row[-1].seconds:.2f} ms a round, {memory:.0f} MB", flush=True)
    return found


def proportionality(cohorts: np.ndarray, seconds: np.ndarray) -> tuple[float, float, float]:
    """How far times are from a line, and from a line through 0.

    Args:
      cohorts: clients a round, at least two different ones.
      seconds: f64 like cohorts, > 0.

    Returns:
      (base s, slope s a client) of the line that is best in relative terms, and the worst |t / (c C) - 1|, where c is the
      middle of the range of t / C, the constant that makes the worst least.
    """
    slope, base = np.polyfit(cohorts, seconds, 1, w=1.0 / seconds)
    each = seconds / cohorts
    middle = 0.5 * (each.max() + each.min())
    return float(base), float(slope), float(np.max(np.abs(each / middle - 1.0)))


def clients_part(quick: bool, devices: int, passes: int, repeats: int) -> list[dict[str, Any]]:
    """Part `clients` of the module's docstring; quick: the two ends at cohort 100."""
    sizes, cohorts = ((1_000, 1_000_000), (100,)) if quick else ((1_000, 10_000, 100_000, 1_000_000), (100, 1_000))
    cases = [Case("procedural", size, cohort, "poisson") for cohort in cohorts for size in sizes]
    rows = dict(zip(cases, samples([(case, devices) for case in cases], passes, repeats), strict=True))
    found = []
    for case, row in rows.items():
        name = f"{case.clients} clients, cohort {case.cohort}"
        first = f"{sizes[0]} clients, cohort {case.cohort}"
        small = rows[case._replace(clients=sizes[0])]
        for what, unit, index, factor in (("round", "ms", 0, 1e3), ("memory", "MB", 1, 1.0)):
            values, base = ([factor * sample[index] for sample in of] for of in (row, small))
            other = () if name == first else (f"{first}: {what}", base)
            found.append(report.make_result(f"{name}: {what}", values, unit, *other))
    return found


def memory_part(quick: bool, devices: int, passes: int, repeats: int) -> list[dict[str, Any]]:
    """Part `memory` of the module's docstring; quick: without the copied form."""
    size = 1_000_000
    kinds = [
        (kind, count) for kind in (("stored",) if quick else ("stored", "copied")) for count in sorted({1, devices})
    ]
    rows = samples([(Case(kind, size, 100), count) for kind, count in kinds], passes, repeats)
    records = 1e-6 * size * ROWS * (FEATURES + 1) * 4
    found = [report.make_result("records of 1000000 stored clients", [records], "MB")]
    for (kind, count), row in zip(kinds, rows, strict=True):
        found.append(
            report.make_result(
                f"1000000 {kind} clients on {count} devices: memory",
                [sample.memory_mb for sample in row],
                "MB",
                found[0]["name"],
                [records] * len(row),
            )
        )
        milliseconds = [1e3 * sample.seconds for sample in row]
        found.append(report.make_result(f"1000000 {kind} clients on {count} devices: round", milliseconds, "ms"))
    return found


def cohort_part(quick: bool, devices: int, passes: int, repeats: int) -> list[dict[str, Any]]:
    """Part `cohort` of the module's docstring; quick: up to 1,000."""
    cohorts = (10, 100, 300, 1_000) if quick else (10, 30, 100, 300, 1_000, 3_000, 10_000)
    cases = [Case("procedural", 100_000, cohort) for cohort in cohorts]
    processes = [child(cases, devices, repeats)[0] for _ in range(passes)]
    seconds = [[s for timings in processes for s in timings[i].seconds] for i in range(len(cases))]
    found = [
        report.make_result(f"cohort {cohort}: round", [1e3 * s for s in values], "ms")
        for cohort, values in zip(cohorts, seconds, strict=True)
    ]
    large = np.asarray([cohort for cohort in cohorts if cohort >= 100], np.float64)
    # a fit for each process: its spread is that of the answer
    fits = [
        proportionality(large, np.asarray([statistics.median(t.seconds) for t in timings[-len(large) :]]))
        for timings in processes
    ]
    base, slope, worst = zip(*fits, strict=True)
    found += [
        report.make_result("line from cohort 100: base", [1e3 * value for value in base], "ms"),
        report.make_result("line from cohort 100: slope", [1e6 * value for value in slope], "us a client"),
        report.make_result("worst deviation from proportionality, cohort 100 on", worst, "share"),
    ]
    return found


def devices_part(quick: bool, devices: int, passes: int, repeats: int) -> list[dict[str, Any]]:
    """Part `devices` of the module's docstring; quick: 1 and 2. On an accelerator, as many as there are."""
    counts = [count for count in ((1, 2) if quick else (1, 2, 4)) if jax.default_backend() == "cpu" or count <= devices]
    case = Case("work", work.CLIENTS, work.COHORT["A2"])
    rows = samples([(case, count) for count in counts], passes, repeats)
    rates = [[case.cohort / sample.seconds for sample in row] for row in rows]
    names = [f"A2 on {count} devices" for count in counts]
    others = [()] + [(names[0], rates[0])] * (len(counts) - 1)
    return [
        report.make_result(name, values, "updates/s", *other)
        for name, values, other in zip(names, rates, others, strict=True)
    ]


def _names(text: str) -> list[str]:
    if set(text.split(",")) <= set(PARTS):
        return text.split(",")
    raise argparse.ArgumentTypeError(f"{text}: known are {', '.join(PARTS)}")


def main() -> None:
    """Measures, or is one process of a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer sizes, one pass")
    parser.add_argument("--out", help="file for the JSON object")
    parser.add_argument("--parts", type=_names, default=list(PARTS), help=f"which of {','.join(PARTS)}")
    parser.add_argument("--passes", type=int, help="processes of each case, in turn (default 5; 1 if quick)")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs in a process")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        cases, devices, repeats = json.loads(args.child)
        print(json.dumps(measure([Case(*case) for case in cases], devices, repeats)), flush=True)
        return
    devices, passes = jax.device_count(), args.passes or (1 if args.quick else 5)
    parts = {"clients": clients_part, "memory": memory_part, "cohort": cohort_part, "devices": devices_part}
    found = []
    for name in args.parts:
        found += parts[name](args.quick, devices, passes, args.repeats)
    device = f"{report.host()}; JAX on {devices} x {jax.devices()[0].device_kind}"
    report.finish(report.make_report("scaling", device, work.versions(*PACKAGES), found), args.out)


if __name__ == "__main__":
    main()
