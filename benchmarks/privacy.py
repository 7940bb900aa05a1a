"""Whether privacy holds as claimed: noise as measured, bugs put in on purpose, accounting and secure aggregation.

`python -m benchmarks.privacy [--quick] [--out FILE] [--parts noise,bugs]`. The parts:

noise       the contracts of the private round on the toy domain, a repeat a seed: measured over stated scale of the noise, the
            lowest p-values of its scale and independence, how far one client moves the sum in units of its bound; then the
            same of every other mechanism (`tests/privacy/mechanisms.py`), for cohorts of 1 and 100 on 1 and 4 devices, five
            seeds each;
bugs        every bug of `tests/privacy/test_seeded_bugs.py`: how many contracts or checks turn red (the one that must is in
            the name; 0 = not caught), the share caught, and how many contracts turn red on the code as it is, over the seeds;
accounting, secagg, audit, observers, canary_records, dp_sgd
            of `benchmarks.accounting`, `.secagg`, `.audit`, `.observers`, `.canary_records` and `.dp_sgd`, each in a process of
            its own.

The contracts are those of the tests, and so is their strict mode: 4 host devices, and the `dev` packages must be there.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from benchmarks import report, work

PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "dp-accounting")
ELSEWHERE = ("accounting", "secagg", "audit", "observers", "canary_records", "dp_sgd")
CLEAN_SEEDS, FEW_SEEDS = 20, 5
SUMMED = ("secure", "distributed")


def tests() -> Any:
    """Module `test_seeded_bugs`, with the tests' strict settings; call it before anything touches a device."""
    folder = str(pathlib.Path(__file__).parents[1] / "tests")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    importlib.import_module("conftest")
    return importlib.import_module("privacy.test_seeded_bugs")


def noise_part(quick: bool) -> list[dict[str, Any]]:
    """Part `noise` of the module's docstring; quick: 3 seeds."""
    bugs = tests()
    toy, contracts = importlib.import_module("toy"), bugs.CONTRACTS
    parts = toy.make_parts(toy.linear(), toy.train_config())
    names = ("noise", "sensitivity", "sampler", "denominator", "independence", "post_processing")
    found = {name: [contracts[name](parts, seed) for seed in range(3 if quick else CLEAN_SEEDS)] for name in names}
    figures = (
        ("noise", "ratio", "measured over stated scale", "ratio"),
        ("noise", "p of scale", "p of the scale", "p"),
        ("noise", "p of a wrong scale", "greatest p of a scale off by half", "p"),
        ("noise", "p of rounds", "p of independence between rounds", "p"),
        ("noise", "p of coordinates", "p of independence between coordinates", "p"),
        ("noise", "p of sampler", "p of independence of the sampler", "p"),
        ("sensitivity", "ratio", "most that one client moves the sum", "bounds"),
        ("sensitivity", "neighbours", "pairs of neighbours a seed", "pairs"),
        ("sampler", "p of sizes", "p of the sizes of cohorts", "p"),
        ("sampler", "p of clients", "p of the clients' shares", "p"),
        ("denominator", "error", "mean against sum over expected cohort", "update"),
        ("independence", "error", "sums of disjoint groups against their union", "update"),
        ("post_processing", "error", "published against made again of the noisy sums", "weight"),
    )
    central = [
        report.make_result(f"noise/{name}: {what}", [figure[key] for figure in found[name]], unit)
        for name, key, what, unit in figures
    ]
    return [*central, *mechanisms_part(quick)]


def mechanisms_part(quick: bool) -> list[dict[str, Any]]:
    """Noise and bound of the mechanisms beside the central one; quick: one seed. Call `tests` first."""
    known = importlib.import_module("privacy.mechanisms")
    seeds, found = range(1 if quick else FEW_SEEDS), []
    figures = (
        ("ratio", "measured over stated scale", "ratio"),
        ("p of scale", "p of the scale", "p"),
        ("p of a wrong scale", "greatest p of a scale off by half", "p"),
        ("p of rounds", "p of independence between rounds", "p"),
    )
    for name, mechanism in known.MECHANISMS.items():
        # a secure sum needs more clients than neighbours, always: one of a single client is refused
        for cohort, clients, runs in ((1, 6, known.N), (100, 240, 40)):
            for devices in (1, 4) if name not in SUMMED or cohort > 1 else ():
                parts = known.build(mechanism, cohort, clients, devices)
                at = f"noise/{name}, cohort {cohort}, {devices} devices"
                drawn = [known.noise(mechanism, parts, seed, runs) for seed in seeds]
                found += [
                    report.make_result(f"{at}: {what}", [d[key] for d in drawn], unit) for key, what, unit in figures
                ]
                if devices == 1 and cohort == (100 if name in SUMMED else 1):
                    moved = [known.sensitivity(mechanism, parts, seed, known.N) for seed in seeds]
                    found += [
                        report.make_result(
                            f"{at}: most that a neighbour moves it", [m["ratio"] for m in moved], "bounds"
                        ),
                        report.make_result(f"{at}: pairs a seed", [float(m["neighbours"]) for m in moved], "pairs"),
                        report.make_result(f"{at}: share of pairs that differ", [m["moved"] for m in moved], "share"),
                    ]
                print(f"{at}: done", flush=True)
    return found


def bugs_part(quick: bool) -> list[dict[str, Any]]:
    """Part `bugs` of the module's docstring; quick: each bug against its own contract, and one seed without bugs."""
    bugs = tests()
    names = () if quick else tuple(bugs.CONTRACTS)
    found, hits = [], []
    for bug in bugs.BUGS:
        red = bugs.caught(bug, names)
        hits.append(float(bug.catch in red))
        print(f"{bug.name}: {', '.join(red) or 'NOT CAUGHT'}; due {bug.catch}", flush=True)
        found.append(report.make_result(f"bugs/{bug.name}, due {bug.catch}", [float(len(red))], "red"))
    toy = importlib.import_module("toy")
    parts, alarms = toy.make_parts(toy.linear(), toy.train_config()), []
    for seed in range(1 if quick else CLEAN_SEEDS):
        alarms.append(float(len(bugs.reds(parts, tuple(bugs.CONTRACTS), seed))))
    return [
        *found,
        report.make_result("bugs/share caught by what is due", [sum(hits) / len(hits)], "share"),
        report.make_result("bugs/bugs put in", [float(len(hits))], "bugs"),
        report.make_result("bugs/contracts red without a bug", alarms, "red"),
    ]


def apart(name: str, quick: bool) -> list[dict[str, Any]]:
    """Results of another benchmark, from a process of its own: the tests' strict mode and devices are not for its timings.

    Args:
      name: module in `benchmarks` with results(quick).
      quick: as there.

    Raises:
      RuntimeError: the process fails.
    """
    code = f"import json; from benchmarks.{name} import results; print(json.dumps(results({quick})))"
    root = pathlib.Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"part {name} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().rsplit("\n", 1)[-1])


def known_parts() -> dict[str, Callable[[bool], list[dict[str, Any]]]]:
    """Name to quick -> results."""

    def elsewhere(name: str) -> Callable[[bool], list[dict[str, Any]]]:
        return lambda quick: apart(name, quick)

    return {"noise": noise_part, "bugs": bugs_part, **{name: elsewhere(name) for name in ELSEWHERE}}


def main() -> None:
    """Measures."""
    known = known_parts()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer seeds; each bug against its own contract alone")
    parser.add_argument("--out", help="file for the JSON object")
    parser.add_argument("--parts", default=",".join(known), help=f"which of {','.join(known)}")
    args = parser.parse_args()
    if unknown := set(args.parts.split(",")) - set(known):
        parser.error(f"--parts names {sorted(unknown)}; known are {', '.join(known)}")
    found = []
    for name in args.parts.split(","):
        found += known[name](args.quick)
    report.finish(report.make_report("privacy", report.host(), work.versions(*PACKAGES), found), args.out)


if __name__ == "__main__":
    main()
