"""How time and memory grow with the population, the stored records, the cohort and the devices.

`python -m benchmarks.scaling [--quick] [--out FILE] [--parts clients,memory,cohort,devices] [--passes 3]`. Every figure of
memory is the peak of a process of its own. The parts:

clients  10^3 to 10^6 procedural clients at the same expected cohort: seconds a round and memory, and their ratio to 10^3;
memory   10^6 stored clients of 16 records of 10 features: memory of the whole process, with encoded records, and with a
         table of raw ones that is encoded first (at the peak both are there);
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

import numpy as np

from benchmarks import report, work
from benchmarks.case import FEATURES, ROWS, Case, Found

PACKAGES = ("jax", "jaxlib", "numpy", "flax", "optax")
PARTS = ("clients", "memory", "cohort", "devices")
TIME_LIMIT = 600  # seconds of one process


def child(cases: Sequence[Case], devices: int, repeats: int) -> Found:
    """`case.measure` in a process of its own; this one must leave the devices alone.

    Args:
      cases, devices, repeats: as in `case.measure`.

    Raises:
      RuntimeError: the process fails.
    """
    request = json.dumps([cases, devices, repeats])
    command = [sys.executable, "-m", "benchmarks.case", request]
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    root = pathlib.Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT)
    if done.returncode:
        raise RuntimeError(f"the measurement of {request} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    return Found(*json.loads(done.stdout.strip().rsplit("\n", 1)[-1]))


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
            found_now = child([case], devices, repeats)
            row.append(Sample(statistics.median(found_now.seconds[0]), found_now.memory_mb))
            print(
                f"{case} on {devices}: {1e3 * row[-1].seconds:.2f} ms a round, {row[-1].memory_mb:.0f} MB", flush=True
            )
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
            other = None if name == first else f"{first}: {what}"
            found.append(report.make_result(f"{name}: {what}", values, unit, other, base))
    return found


def memory_part(quick: bool, devices: int, passes: int, repeats: int) -> list[dict[str, Any]]:
    """Part `memory` of the module's docstring; quick: encoded records alone."""
    size = 1_000_000
    kinds = [
        (kind, count) for kind in (("stored",) if quick else ("stored", "table")) for count in sorted({1, devices})
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
    processes = [child(cases, devices, repeats).seconds for _ in range(passes)]
    seconds = [[s for process in processes for s in process[i]] for i in range(len(cases))]
    found = [
        report.make_result(f"cohort {cohort}: round", [1e3 * s for s in values], "ms")
        for cohort, values in zip(cohorts, seconds, strict=True)
    ]
    large = np.asarray([cohort for cohort in cohorts if cohort >= 100], np.float64)
    # a fit for each process: its spread is that of the answer
    fits = [
        proportionality(large, np.asarray([statistics.median(values) for values in process[-len(large) :]]))
        for process in processes
    ]
    base, slope, worst = zip(*fits, strict=True)
    found += [
        report.make_result("line from cohort 100: base", [1e3 * value for value in base], "ms"),
        report.make_result("line from cohort 100: slope", [1e6 * value for value in slope], "us a client"),
        report.make_result("worst deviation from proportionality, cohort 100 on", worst, "share"),
    ]
    return found


def devices_part(quick: bool, devices: int, passes: int, repeats: int) -> list[dict[str, Any]]:
    """Part `devices` of the module's docstring; quick: 1 and 2. An accelerator has no more than there are."""
    hosted = child([], 4, 1).devices
    counts = [count for count in ((1, 2) if quick else (1, 2, 4)) if count <= hosted]
    case = Case("work", work.CLIENTS, work.COHORT["A2"])
    rows = samples([(case, count) for count in counts], passes, repeats)
    rates = [[case.cohort / sample.seconds for sample in row] for row in rows]
    names = [f"A2 on {count} devices" for count in counts]
    return [
        report.make_result(name, values, "updates/s", names[0] if name != names[0] else None, rates[0])
        for name, values in zip(names, rates, strict=True)
    ]


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer sizes, one pass")
    parser.add_argument("--out", help="file for the JSON object")
    parser.add_argument("--parts", default=",".join(PARTS), help="which of clients,memory,cohort,devices")
    parser.add_argument("--passes", type=int, help="processes of each case, in turn (default 5; 1 if quick)")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs in a process")
    args = parser.parse_args()
    if unknown := set(args.parts.split(",")) - set(PARTS):
        parser.error(f"--parts names {sorted(unknown)}; known are {', '.join(PARTS)}")
    machine, passes = child([], 0, 1), args.passes or (1 if args.quick else 5)
    parts = {"clients": clients_part, "memory": memory_part, "cohort": cohort_part, "devices": devices_part}
    found = []
    for name in args.parts.split(","):
        found += parts[name](args.quick, machine.devices, passes, args.repeats)
    device = f"{report.host()}; JAX on {machine.devices} x {machine.kind}"
    report.finish(report.make_report("scaling", device, work.versions(*PACKAGES), found), args.out)


if __name__ == "__main__":
    main()
