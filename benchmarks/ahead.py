"""What `launch.compile` predicts beside what runs need: memory, FLOPs and time of a round.

`python -m benchmarks.ahead [--quick] [--out FILE] [--passes 3] [--cases custom,iot,streams]`. Every figure comes from a
process of its own (see `benchmarks.ahead_case`):

memory  measured: by how much the resident memory of the process grows at most (the kernel's record) from before the
        records are made to after the last round, its programs compiled and run once before, since what the compiler and the
        runtime hold for good is not the training's. Records are written as they would be read, but their values do not matter.
FLOPs   measured: the cohorts of the rounds that ran are drawn again and must be as many as the run says; each chunk of clients
        that was worked through counts XLA's count of one client, steps by hand, and each round that of the server. Predicted:
        the traced program is walked, and the lengths of its loops are expectations.
time    of a round after the first call, beside the prediction for this machine.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

from benchmarks import report, work

PACKAGES = ("jax", "jaxlib", "numpy", "flax", "optax")
TIME_LIMIT = 1_200  # seconds of one process, of which compiling is most
CALLS = 3  # of a chunk
# clients of unequal size make whole passes and remember their control variates: loops of lengths that only the data know
CUSTOM = {
    "data.domains": ["vitals"],
    "models": ["vae"],
    "seeds": 1,
    "data.num_clients": 2_000,
    "data.representation": "copula",
    "privacy.mechanism": "none",
    "attacks.shadows": 0,
    "vae.hidden": [32],
    "vae.train.local": "epochs",
    "vae.train.local_epochs": 2,
    "vae.train.batch_size": 4,
    "vae.train.algorithm": "scaffold",
    "vae.train.step_clip_norm": 0.0,
    "vae.train.rounds_per_chunk": 10,
}
CASES: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "custom": ("iot", CUSTOM, ("vitals/vae",)),
    "iot": ("iot", {}, ("vitals/vae", "vitals/wgan_gp", "threats/vae", "threats/wgan_gp")),
    "streams": ("streams", {}, ("vital_stream/vae", "vital_stream/wgan_gp")),
}


def child(*request: Any) -> dict[str, Any]:
    """A request of `ahead_case` in a process of its own, whose memory goes back to the system as soon as it is free.

    Args:
      *request: see `ahead_case`.

    Raises:
      RuntimeError: the process fails.
    """
    text = json.dumps(request)
    tuned = {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-m", "benchmarks.ahead_case", text]
    root = pathlib.Path(__file__).parents[1]
    done = subprocess.run(
        command, cwd=root, env={**os.environ, **tuned}, capture_output=True, text=True, timeout=TIME_LIMIT
    )
    if done.returncode:
        raise RuntimeError(f"the measurement of {text} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().rsplit("\n", 1)[-1])


def compare(name: str, passes: int) -> list[dict[str, Any]]:
    """A case's results: measured, then predicted against it, of each figure of each stage.

    Args:
      name: key of CASES.
      passes: processes that measure each stage.
    """
    config, changes, stages = CASES[name]
    predicted = child("predict", config, changes)
    found = []
    for stage in stages:
        runs = [child("measure", config, changes, stage, CALLS) for _ in range(passes)]
        measured = {
            "memory": ([1e-6 * run["memory"] for run in runs], 1e-6, "MB"),
            "FLOPs of a round": ([1e-6 * run["flops"] / run["rounds"] for run in runs], 1e-6, "MFLOP"),
            "seconds of a round": ([1e3 * run["seconds"] for run in runs], 1e3, "ms"),
        }
        for (what, (values, factor, unit)), key in zip(measured.items(), ("memory", "flops", "seconds"), strict=True):
            label = f"{name} {stage} {what}"
            foreseen = [factor * predicted[stage][key]]
            found.append(report.make_result(label, values, unit))
            found.append(report.make_result(f"{label}, predicted", foreseen, unit, label, values))
            print(f"{label}: {found[-2]['value']:.4g} {unit}, predicted x {found[-1]['ratio']:.3f}", flush=True)
    return found


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the custom case alone, one pass")
    parser.add_argument("--out", help="file for the JSON object")
    parser.add_argument("--passes", type=int, help="processes that measure each stage (default 3; 1 if quick)")
    parser.add_argument("--cases", type=functools.partial(work.names, CASES), help="custom,iot,streams")
    args = parser.parse_args()
    cases = args.cases or (["custom"] if args.quick else list(CASES))
    passes = args.passes or (1 if args.quick else 3)
    found = [result for name in cases for result in compare(name, passes)]
    report.finish(report.make_report("ahead", report.host(), work.versions(*PACKAGES), found), args.out)


if __name__ == "__main__":
    main()
