"""Work A through the project's own interface, beside the same work written by hand in JAX.

`python -m benchmarks.throughput [--quick] [--out FILE] [--work A1,A2] [--variants plain,dp] [--repeats 7] [--rounds 50]
[--chunk 0,10,50] [--dense auto,dot]` runs the references and every variant in turn, pass by pass, so that a slow minute of
the machine hits all alike. A rate counts the clients that took part. The plain variant must reach the plain reference's
accuracy to within a point, else nothing is reported. `--peer-line --work A1` gives one line for `benchmarks.compare`.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import statistics
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from benchmarks import report, work
from benchmarks.peers.line import Line, print_line

if __name__ == "__main__":
    work.use_host_devices(os.cpu_count() or 1)

import jax

from benchmarks import engine, reference
from fedjax_health.data.population import stored_population

PACKAGES = ("jax", "jaxlib", "numpy", "flax", "optax")
NAME, PLAIN = "fedjax_health", "plain"
TOLERANCE = 0.01  # of accuracy: one point
FORMS = ("auto", "outer", "dot")


class Variant(NamedTuple):
    """What a variant adds to the plain federation.

    Attributes:
      changes: of `engine.make_config`.
      private: noise on the sum.
      fleet: the default simulated devices.
      system: keys as with privacy.randomness="system", ChaCha20 in place of threefry.
    """

    changes: dict[str, Any]
    private: bool = False
    fleet: bool = False
    system: bool = False


DP = Variant({"sampler": "poisson", "l2_clip_norm": engine.CLIP}, private=True)
VARIANTS = {
    PLAIN: Variant({}),
    "dp": DP,
    "dp_system": DP._replace(system=True),
    "devices": Variant({}, fleet=True),
    "8bit": Variant({"compression": {"bits": 8}}),
    "scaffold": Variant({"algorithm": "scaffold"}),
}


class Entry(NamedTuple):
    """One of the programs that take turns.

    Attributes:
      once: () -> (seconds, client updates done, final parameters); each call does the same work from the same start.
      compile_s: as in `engine.Program`.
      memory_mb: as in `engine.Program`; None where it is not known.
    """

    once: Callable[[], tuple[float, float, work.Layers]]
    compile_s: float
    memory_mb: float | None


def make_ours(cohort: int, rounds: int, variant: Variant, *, chunk: int = 0, dense: str = "auto") -> Entry:
    """A variant of the project's federation.

    Args:
      cohort, rounds: the work's size.
      variant: what it adds.
      chunk: clients side by side on a device; 0 = as the project chooses.
      dense: form of the layers' products.
    """
    data = work.make_data()
    model = engine.make_model(dense, init=work.init_params())
    config = engine.make_config(cohort, rounds, chunk, **variant.changes)
    population = stored_population(work.CLIENTS, work.ROWS, work.ROWS)
    parts = engine.make_parts(model, population, work.FEATURES, config, private=variant.private, fleet=variant.fleet)
    store = engine.make_equal_store(data.x, data.y)
    program = engine.make_program(parts, config, store, system=variant.system)
    inputs = program.place(engine.make_numbers(config), store)

    def once() -> tuple[float, float, work.Layers]:
        start = jax.block_until_ready(program.start([0]))
        seconds, (state, metrics) = work.timed(lambda: program.run(start, inputs))
        layers = jax.tree.map(lambda leaf: leaf[0], jax.device_get(state.params.client))
        return seconds, float(metrics["sim/cohort"].sum()), layers

    return Entry(once, program.compile_s, program.memory_mb)


def make_reference(program: reference.Program) -> Entry:
    """A program written by hand.

    Args:
      program: of `reference.plain` or `reference.tuned`.
    """

    def once() -> tuple[float, float, work.Layers]:
        seconds, params = work.timed(lambda: jax.block_until_ready(program.run(*program.inputs)))
        return seconds, float(program.updates), jax.device_get(params)

    return Entry(once, program.compile_s, None)


class Measured(NamedTuple):
    """Rates of the timed passes, in client updates a second; seconds and accuracy of the first, which is not counted."""

    rates: list[float]
    first_s: float
    accuracy: float


def measure(entries: dict[str, Entry], repeats: int) -> dict[str, Measured]:
    """Runs all once, then all in turn `repeats` times.

    Args:
      entries: by name.
      repeats: timed passes.
    """
    data = work.make_data()
    first = {name: entry.once() for name, entry in entries.items()}
    passes = [{name: entry.once()[:2] for name, entry in entries.items()} for _ in range(repeats)]
    return {
        name: Measured(
            [updates / seconds for seconds, updates in (each[name] for each in passes)],
            first[name][0],
            work.accuracy(first[name][2], data),
        )
        for name in entries
    }


def check_accuracy(measured: dict[str, Measured], reference_name: str, plain_names: Collection[str]) -> None:
    """The same work must give as good a model.

    Args:
      measured: of `measure`.
      reference_name: of the plain reference.
      plain_names: what must be as good.

    Raises:
      RuntimeError: one is off by more than a point.
    """
    expected = measured[reference_name].accuracy
    for name in plain_names:
        if abs(measured[name].accuracy - expected) > TOLERANCE:
            raise RuntimeError(
                f"{name} reaches an accuracy of {measured[name].accuracy:.4f}, the plain reference {expected:.4f}: it did "
                "other work, so that its rate compares with nothing"
            )


def results(
    prefix: str, entries: dict[str, Entry], measured: dict[str, Measured], limit: list[float]
) -> list[dict[str, Any]]:
    """Results of all programs; the second is the one to beat, the third the plain variant.

    Args:
      prefix: of the names.
      entries, measured: by name, the plain reference first, then the tuned one.
      limit: repeats of the machine's matmul rate, GFLOP/s.
    """
    names = list(entries)
    matmul = f"{prefix} matmul 4096"
    found = [report.make_result(matmul, limit, "GFLOP/s")]
    for name in names:
        rates = measured[name].rates
        against = names[1] if name != names[1] else names[0]
        label = f"{prefix} {name}"
        found.append(
            report.make_result(label, rates, "updates/s", f"{prefix} {against}", measured[against].rates),
        )
        for other in (names[0], names[2]):
            if other not in (name, against) and name != names[1]:
                ratios = [a / b for a, b in zip(rates, measured[other].rates, strict=True)]
                found.append(report.make_result(f"{label} over {other}", ratios, "ratio"))
        arithmetic = [1e-9 * work.update_flops() * rate for rate in rates]
        found += [
            report.make_result(f"{label} arithmetic", arithmetic, "GFLOP/s", matmul, limit),
            report.make_result(f"{label} compile", [entries[name].compile_s], "s"),
            report.make_result(f"{label} first run", [measured[name].first_s], "s"),
            report.make_result(f"{label} accuracy", [measured[name].accuracy], "share"),
        ]
        memory = entries[name].memory_mb
        if memory is not None:
            found.append(report.make_result(f"{label} memory of a device", [memory], "MB"))
        print(
            f"{label}: {statistics.median(rates):,.0f} updates/s, "
            f"compiled in {entries[name].compile_s:.2f} s, accuracy {measured[name].accuracy:.4f}",
            flush=True,
        )
    return found


def run_work(
    prefix: str, variants: list[str], chunks: list[int], forms: list[str], rounds: int, repeats: int
) -> list[dict[str, Any]]:
    """All programs of one work.

    Args:
      prefix: "A1" or "A2".
      variants: names in VARIANTS; the plain one is always there.
      chunks, forms: settings to be tried; every variant runs at each pair.
      rounds, repeats: rounds of a run, and timed passes.
    """
    cohort = work.COHORT[prefix]
    entries = {
        "reference-plain": make_reference(reference.plain(cohort, rounds)),
        "reference-tuned": make_reference(reference.tuned(cohort, rounds)),
    }
    plain = []
    for name in dict.fromkeys([PLAIN, *variants]):
        for chunk, dense in itertools.product(chunks, forms):
            settings = (chunk != 0) * f" chunk={chunk}" + (dense != "auto") * f" dense={dense}"
            entries[name + settings] = make_ours(cohort, rounds, VARIANTS[name], chunk=chunk, dense=dense)
            plain += [name + settings] if name == PLAIN else []
    measured = measure(entries, repeats)
    check_accuracy(measured, "reference-plain", plain)
    return results(prefix, entries, measured, reference.matmul_rate(repeats=repeats))


def peer_line(prefix: str, rounds: int, repeats: int) -> Line:
    """This process as one system among peers: the plain variant.

    Args:
      prefix: "A1" or "A2".
      rounds, repeats: as in `run_work`.
    """
    with work.peak_memory() as peak:
        entry = make_ours(work.COHORT[prefix], rounds, VARIANTS[PLAIN])
        found = measure({NAME: entry}, repeats)[NAME]
        start_s = entry.compile_s + found.first_s
        return Line(NAME, prefix, rounds, found.rates, start_s, found.accuracy, peak(), work.versions(*PACKAGES))


def main() -> None:
    """Measures, or gives one line as a peer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="A1 alone, 10 rounds, 3 repeats")
    parser.add_argument("--out", help="file for the JSON object")
    parser.add_argument("--work", type=functools.partial(work.names, work.COHORT), help="A1, A2 or A1,A2")
    parser.add_argument("--variants", type=functools.partial(work.names, VARIANTS), default=list(VARIANTS))
    parser.add_argument("--rounds", type=int, help="training rounds of a run")
    parser.add_argument("--repeats", type=int, help="timed runs of each program, taken in turn")
    parser.add_argument(
        "--chunk", type=work.numbers, default=[0], help="clients side by side on a device (0: automatic)"
    )
    parser.add_argument("--dense", type=functools.partial(work.names, FORMS), default=["auto"], help="auto,outer,dot")
    parser.add_argument("--peer-line", action="store_true", help="the plain variant alone, one JSON line")
    args = parser.parse_args()
    prefixes = args.work or (["A1"] if args.quick or args.peer_line else ["A1", "A2"])
    rounds, repeats = args.rounds or (10 if args.quick else work.ROUNDS), args.repeats or (3 if args.quick else 7)
    if args.peer_line:
        return print_line(peer_line(prefixes[0], rounds, repeats))
    with work.peak_memory() as peak:
        found = [
            result
            for prefix in prefixes
            for result in run_work(prefix, args.variants, args.chunk, args.dense, rounds, repeats)
        ]
        found.append(report.make_result("peak memory of the process", [peak()], "MB"))
    device = f"{report.host()}; JAX on {jax.device_count()} x {jax.devices()[0].device_kind}"
    report.finish(report.make_report("throughput", device, work.versions(*PACKAGES), found), args.out)


if __name__ == "__main__":
    main()
