"""A sweep of 32 runs (8 noise multipliers x 4 seeds) by one program, against the same runs one by one.

`python -m benchmarks.sweep [--quick] [--out FILE] [--passes 5]`, about eight minutes on two quiet cores. A run is a VAE on 300
simulated devices, 100 rounds of 40. Found are: compilations of the program; the greatest difference of any parameter to the run
alone, which `train.loop.make_train` trains on one device, of runs on threads and side by side (`design.BATCHINGS`), and between
one device and all (as `launch.main` would); the same every 10 rounds, in float32 and in float64; seconds of all runs once
compiled, every way in turn, on the clock and of CPU, which a busy machine moves less; and the time of whole
processes: one that makes all runs, and 32 that make one each, of which the first compiles and the others load what it left in
the persistent cache. Of the 32 three are run in a pass: the first, and two whose mean is counted 31 times.
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
    "threads": "on threads and alone on one device",
    "vmap": "side by side and alone on one device",
    "all_devices": "alone over all devices and on one",
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


def differences(quick: bool) -> list[dict[str, Any]]:
    """How far the ways of computing a run drift apart, in float32 and in float64."""
    rows = []
    for flags in ((), ("--double",)):
        found = child(WORLD, "growth", *flags, *(("--quick",) if quick else ()))
        for way, looks in found["apart"].items():
            for rounds, apart in zip(found["rounds"], looks, strict=True):
                name = f"greatest difference of a parameter after {rounds} rounds in {found['dtype']}, {APART[way]}"
                rows.append(report.make_result(name, apart, "absolute"))
    return rows


def results(quick: bool, passes: int) -> tuple[list[dict[str, Any]], str]:
    """All figures, and the device in words.

    Args:
      quick: shorter trainings, three repeats.
      passes: of the whole processes.
    """
    found = child(WORLD, "steady", *(("--quick",) if quick else ()))
    rows = []
    for way, traces in found["traces"].items():
        rows.append(report.make_result(f"compilations of the program of all runs, {way}", [traces], "compilations"))
    for way, apart in found["apart"].items():
        rows.append(report.make_result(f"greatest difference of a parameter, {APART[way]}", apart, "absolute"))
        for name, close in (("equal", 0.0), (f"within {CLOSE:g}", CLOSE)):
            rows.append(report.make_result(f"runs {name}, {APART[way]}", [sum(v <= close for v in apart)], "runs"))
    rows.append(report.make_result("greatest parameter", [found["largest"]], "absolute"))
    for kind, unit in (("", "s"), ("_cpu", "s of CPU")):
        bases = {}
        for way, devices in (("one_device", "one device"), ("all_devices", "all devices")):
            bases[way] = f"{found['runs']} runs one by one on {devices}, compiled, {unit}"
            rows.append(report.make_result(bases[way], found[f"{way}{kind}"], unit))
        for way in found["traces"]:
            for base, name in bases.items():
                label = f"all runs by one program, {way}, compiled, {unit}, beside those on {base.replace('_', ' ')}"
                rows.append(report.make_result(label, found[f"{way}{kind}"], unit, name, found[f"{base}{kind}"]))
    return rows + differences(quick) + processes(quick, passes), f"{found['devices']} x {found['kind']}"


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter trainings, fewer repeats")
    parser.add_argument("--out", help="file for the JSON object")
    parser.add_argument("--passes", type=int, default=0, help="of the whole processes (default 5; 1 if quick)")
    args = parser.parse_args()
    rows, devices = results(args.quick, args.passes or (1 if args.quick else 5))
    device = f"{report.host()}; JAX on {devices}"
    report.finish(report.make_report("sweep", device, work.versions(*PACKAGES), rows), args.out)


if __name__ == "__main__":
    main()
