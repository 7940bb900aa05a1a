"""Attacks by shadow federations: what they find, and what it takes to train 64 of them.

`python -m benchmarks.shadow_attacks [--quick] [--out FILE] [--parts lira,shadows]`. Names start with `lira/` or `shadows/`:

lira/overfitted    100 simulated devices, all of them targets, 64 shadows, no noise, trained long: every attack, and by how much
                   LiRA with pooled variance beats one threshold for all targets (same resamples of shadows and clients);
lira/private       1,000 devices, 400 targets, 64 shadows at epsilon 1: every attack beside the ceiling of (epsilon, delta), and
                   how many have an interval that lies above it;
shadows/           64 shadows of a small private run in one program: traces, seconds, memory; the seconds of one shadow as a
                   process of its own, times 64 (four are measured, one after the other; each finds its compiled program in
                   JAX's cache, from an uncounted one before); work D beside a loop in PyTorch, in turn.

Every measurement is a process of its own (`benchmarks.shadow_world`). --quick has 24 shadows, and takes PyTorch only where
its environment exists.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import compare, report, work, work_d
from benchmarks.shadow_world import FEW, LESS

PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "scikit-learn", "dp-accounting")
TORCH_MODELS = 8  # of 64 that the slow loop trains a pass
UNITS = {"success (%)": "%", "epsilon": "epsilon"}


def child(module: str, *arguments: str, environment: str = "", cache: str | None = None) -> dict[str, Any]:
    """The JSON object that a process prints last.

    Args:
      module: to be run with -m.
      *arguments: its command line.
      environment: of the peers' environments; "" = this interpreter.
      cache: folder of compiled programs; None = none, so that compilations count.

    Raises:
      RuntimeError: the process fails.
    """
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))} | {"JAX_PLATFORMS": "cpu"}
    if cache is not None:
        variables |= {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [compare.python(environment), "-m", module, *arguments]
    done = subprocess.run(command, cwd=compare.ROOT, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().rsplit("\n", 1)[-1])


def figures(prefix: str, rows: list[list[Any]]) -> list[dict[str, Any]]:
    """Rows of a table as results, intervals and all; undefined ones are left out.

    Args:
      prefix: of the names.
      rows: [row, metric, value, low, high, n].
    """
    found = []
    for row, metric, value, low, high, n in rows:
        if not all(map(math.isfinite, (value, low, high))):
            continue
        unit = UNITS.get(metric, "share")
        found.append(
            {"name": f"{prefix}/{row}, {metric}", "value": value, "low": low, "high": high, "n": n, "unit": unit}
        )
    return found


def lira_part(quick: bool) -> list[dict[str, Any]]:
    """Results `lira/`.

    Args:
      quick: 24 shadows.
    """
    flag = ("--quick",) if quick else ()
    found = figures("lira/overfitted", child("benchmarks.shadow_world", "overfitted", *flag)["rows"])
    bounded = child("benchmarks.shadow_world", "private", *flag)
    found += figures("lira/private", bounded["rows"])
    ceiling = bounded["ceiling"]
    found += [report.make_result(f"lira/private/ceiling, {m}", [v], UNITS.get(m, "share")) for m, v in ceiling.items()]
    judged = [(low, ceiling[metric]) for row, metric, _, low, _, _ in bounded["rows"] if LESS not in row]
    judged = [(low, most) for low, most in judged if math.isfinite(low)]
    over = sum(low > most for low, most in judged)
    found.append(report.make_result("lira/private/intervals above the ceiling", [float(over)], "intervals"))
    found.append(report.make_result("lira/private/intervals", [float(len(judged))], "intervals"))
    return found


def shadows_part(quick: bool) -> list[dict[str, Any]]:
    """Results `shadows/`.

    Args:
      quick: 24 shadows, two processes of one, one pass of work D.
    """
    flag, processes = (("--quick",), 2) if quick else ((), 4)
    with tempfile.TemporaryDirectory() as cache:
        whole = child("benchmarks.shadow_world", "many", *flag)
        child("benchmarks.shadow_world", "one", cache=cache)
        alone = [child("benchmarks.shadow_world", "one", cache=cache)["total_s"] for _ in range(processes)]
    count = FEW if quick else work_d.MODELS
    compiling, running = whole["seconds"]
    together, apart = whole["total_s"], count * statistics.median(alone)
    found = [
        report.make_result(f"shadows/{count} in one program: traces", [float(whole["traces"])], "traces"),
        report.make_result(f"shadows/{count} in one program: compiling", [compiling], "s"),
        report.make_result(f"shadows/{count} in one program: running", [running], "s"),
        report.make_result(f"shadows/{count} in one program: memory", [whole["memory_mb"]], "MB"),
        report.make_result("shadows/one as a process", alone, "s"),
        report.make_result(
            f"shadows/{count} as processes, estimated from {processes}", [count * s for s in alone], "s",
            f"all {count} in one process, start and attacks included", [together],
        ),
        report.make_result(f"shadows/{count} in one process, start and attacks included", [together], "s"),
    ]  # fmt: skip
    print(f"{count} shadows: {together:.1f} s together, {apart:.0f} s apart", file=sys.stderr, flush=True)
    return found + work_d_part(quick)


def work_d_part(quick: bool) -> list[dict[str, Any]]:
    """Work D: models a second, in turn with a loop in PyTorch.

    Args:
      quick: one pass, and no PyTorch where its environment is not there.
    """
    torch = compare.installed("torch")
    if not torch and not quick:
        compare.build("torch")
        torch = True
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    for _ in range(1 if quick else 5):
        ours.append(child("benchmarks.shadow_world", "work_d", "--quick"))
        if torch:
            few = ("--models", str(2 if quick else TORCH_MODELS))
            theirs.append(child("benchmarks.peers.torch_shadows", *few, environment="torch"))
    rates = [statistics.median(line["rates"]) for line in ours]
    cpu = [statistics.median(line["cpu"]) for line in ours]
    if not torch:
        return [
            report.make_result("shadows/work D", rates, "models/s"),
            report.make_result("shadows/work D: CPU", cpu, "s/model"),
        ]
    base = [statistics.median(line["rates"]) for line in theirs]
    base_cpu = [statistics.median(line["cpu"]) for line in theirs]
    return [
        report.make_result("shadows/work D", rates, "models/s", "shadows/work D, loop in PyTorch", base),
        report.make_result("shadows/work D, loop in PyTorch", base, "models/s"),
        report.make_result("shadows/work D: CPU", cpu, "s/model"),
        report.make_result("shadows/work D, loop in PyTorch: CPU", base_cpu, "s/model", "shadows/work D: CPU", cpu),
        report.make_result("shadows/work D: loss", [line["loss"] for line in ours], "nats"),
        report.make_result("shadows/work D, loop in PyTorch: loss", [line["loss"] for line in theirs], "nats"),
    ]


PARTS: dict[str, Callable[[bool], list[dict[str, Any]]]] = {"lira": lira_part, "shadows": shadows_part}


def results(quick: bool, parts: Sequence[str] = tuple(PARTS)) -> list[dict[str, Any]]:
    """Results of some parts, or of all.

    Args:
      quick: see the module.
      parts: names in PARTS.
    """
    return [result for name in parts for result in PARTS[name](quick)]


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="24 shadows, fewer passes")
    parser.add_argument("--out", help="file for the JSON object")
    parser.add_argument("--parts", type=functools.partial(work.names, PARTS), default=list(PARTS), help=",".join(PARTS))
    args = parser.parse_args()
    found = results(args.quick, args.parts)
    report.finish(report.make_report("shadow_attacks", report.host(), work.versions(*PACKAGES), found), args.out)


if __name__ == "__main__":
    main()
