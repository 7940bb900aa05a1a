"""A sweep of 32 runs (8 noise multipliers x 4 seeds) in one program, against the same runs one by one.

`python -m benchmarks.sweep [--quick] [--out FILE] [--passes 3]`. A run is a VAE on 300 simulated devices, 100 rounds of 40.
Found are: compilations of the program; the greatest difference of any parameter to the run alone, which
`train.loop.make_train` trains on one device (where numbers are summed in the same order) and over all (as `launch.main`
would), median and range over the runs; seconds of all runs once compiled, both ways in turn, on the clock and of CPU, which
a busy machine moves less; and the time of whole processes, data and accounting included: one that makes all runs, and 32
that make one each, of which the first compiles and the others load what it left in the persistent cache. Of the 32 three are
run in a pass: the first, and two whose median is counted 31 times.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from typing import Any

from benchmarks import report, work
from benchmarks.shadow_attacks import child

PACKAGES = ("jax", "jaxlib", "numpy", "flax", "optax", "dp-accounting")
WORLD = "benchmarks.sweep_world"
RUNS = 32
SAMPLED = 2  # processes of one run a pass, besides the first, whose cache is empty
CLOSE = 1e-6
APART = {
    "one_device": "to the run alone on one device",
    "all_devices": "to the run alone over all devices",
    "devices": "run alone on one device and over all",
}


def whole(cache: str, part: str, *flags: str) -> dict[str, float]:
    """A process from its start to its end: seconds on the clock, and of CPU.

    Args:
      cache: folder of compiled programs.
      part: of `sweep_world`.
      *flags: of it.
    """
    began = time.perf_counter()
    found = child(WORLD, part, *flags, cache=cache)
    return {"s": time.perf_counter() - began, "s of CPU": found["cpu"]}


def one_pass(flags: tuple[str, ...], backwards: bool) -> dict[str, dict[str, float]]:
    """One process of all runs, and what processes of one run each would take; each kind has an empty cache to begin with.

    Args:
      flags: of `sweep_world`.
      backwards: whether the single ones come first.
    """

    def together() -> dict[str, float]:
        with tempfile.TemporaryDirectory() as cache:
            return whole(cache, "together", *flags)

    def alone() -> dict[str, float]:
        with tempfile.TemporaryDirectory() as cache:
            first, *others = (whole(cache, "alone", *flags) for _ in range(1 + SAMPLED))
        return {unit: first[unit] + (RUNS - 1) * statistics.mean(o[unit] for o in others) for unit in first}

    ways = {"together": together, "alone": alone}
    return {way: ways[way]() for way in (reversed(ways) if backwards else ways)}


def processes(quick: bool, passes: int) -> list[dict[str, Any]]:
    """Whole processes of both kinds in turn, and their ratio pass by pass.

    Args:
      quick: shorter trainings.
      passes: n.
    """
    flags = ("--quick",) if quick else ()
    found = [one_pass(flags, backwards=bool(number % 2)) for number in range(passes)]
    rows = []
    for unit in ("s", "s of CPU"):
        all_in_one, in_all = ([each[way][unit] for each in found] for way in ("together", "alone"))
        many = f"{RUNS} processes, of which {1 + SAMPLED} a pass were run and counted up, {unit}"
        rows.append(report.make_result(many, in_all, unit))
        rows.append(report.make_result(f"one process of all runs, {unit}", all_in_one, unit, many, in_all))
        ratios = [a / b for a, b in zip(all_in_one, in_all, strict=True)]
        rows.append(report.make_result(f"one process of all runs over {RUNS} processes, {unit}", ratios, "ratio"))
    return rows


def results(quick: bool, passes: int) -> tuple[list[dict[str, Any]], str]:
    """All figures, and the device in words.

    Args:
      quick: shorter trainings, three repeats, one pass.
      passes: of the whole processes.
    """
    found = child(WORLD, "steady", *(("--quick",) if quick else ()))
    one_by_one = f"{found['runs']} runs one by one, compiled"
    cpu = f"{one_by_one}: CPU"
    rows = [
        report.make_result("compilations of the program of all runs", [float(found["traces"])], "compilations"),
        *(
            report.make_result(f"greatest difference of a parameter, {what}", found["apart"][name], "absolute")
            for name, what in APART.items()
        ),
        *(
            report.make_result(
                f"runs within {CLOSE:g}, {what}", [sum(v <= CLOSE for v in found["apart"][name])], "runs"
            )
            for name, what in APART.items()
        ),
        report.make_result("greatest parameter", [found["largest"]], "absolute"),
        report.make_result(one_by_one, found["alone"], "s"),
        report.make_result("all runs in one program, compiled", found["together"], "s", one_by_one, found["alone"]),
        report.make_result(cpu, found["alone_cpu"], "s of CPU"),
        report.make_result("all runs in one program: CPU", found["together_cpu"], "s of CPU", cpu, found["alone_cpu"]),
    ]
    return rows + processes(quick, passes), f"{found['devices']} x {found['kind']}"


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter trainings, fewer repeats")
    parser.add_argument("--out", help="file for the JSON object")
    parser.add_argument("--passes", type=int, default=0, help="of the whole processes (default 3; 1 if quick)")
    args = parser.parse_args()
    rows, devices = results(args.quick, args.passes or (1 if args.quick else 3))
    device = f"{report.host()}; JAX on {devices}"
    report.finish(report.make_report("sweep", device, work.versions(*PACKAGES), rows), args.out)


if __name__ == "__main__":
    main()
