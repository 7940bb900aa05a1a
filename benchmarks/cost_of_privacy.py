"""What a budget costs: the four tables of the default run at epsilon = infinity, 8, 3 and 1, side by side.

`python -m benchmarks.cost_of_privacy [--quick] [--out FILE] [--config configs/iot.py] [--epsilons inf,8] [--folder DIR]` runs
`launch.main` once for each budget (infinity: mechanism "none"), everything else as the config has it, and reads the runs'
own tables. No setting is tuned for a budget: the noise alone differs. A figure is the mean over the run's seeds with its
95 % Student-t interval, as in the tables; rows that no budget touches (real records, the copula) are named once.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any, NamedTuple

from benchmarks import report, work
from fedjax_health.report.read import read_json, read_tidy
from fedjax_health.types import Row

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("jax", "jaxlib", "numpy", "flax", "optax", "dp-accounting")
EPSILONS = (math.inf, 8.0, 3.0, 1.0)


class Figure(NamedTuple):
    """A metric that tells what privacy costs, in every row of its table."""

    table: str
    metric: str


FIGURES = (
    Figure("similarity", "wasserstein_sd"),
    Figure("similarity", "correlation_error_mean"),
    Figure("similarity", "c2st_auc"),
    Figure("utility", "auroc"),
    Figure("utility", "f1"),
    Figure("membership", "auc"),
    Figure("membership", "tpr_at_1pct_fpr"),
    Figure("detection", "detection_rate"),
    Figure("detection", "false_positive_rate"),
    Figure("detection", "auroc"),
)


def run_once(config: str, epsilon: float, workdir: str) -> None:
    """One run of `launch.main` at a budget.

    Args:
      config: such as "configs/iot.py:smoke".
      epsilon: budget, inf for none.
      workdir: folder of the run; a finished one is not run again.

    Raises:
      SystemExit: the run failed.
    """
    budget = ["--config.privacy.mechanism=none"] if math.isinf(epsilon) else [f"--config.privacy.epsilon={epsilon:g}"]
    command = [sys.executable, "-m", "launch.main", f"--config={config}", f"--workdir={workdir}", *budget]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise SystemExit(f"the run at epsilon = {epsilon:g} ended with {done.returncode}; its folder is {workdir}")


def chosen(rows: list[Row], figure: Figure) -> list[Row]:
    """The rows of a table that a figure names, those with a value."""
    return [r for r in rows if r.metric == figure.metric and math.isfinite(r.value)]


def results_of(workdir: str, epsilon: float) -> list[dict[str, Any]]:
    """A finished run's figures, and the epsilon that its ledger accounts for.

    Args:
      workdir: folder of the run.
      epsilon: its budget.
    """
    at = f"epsilon {epsilon:g}"
    found = []
    for figure in FIGURES:
        for row in chosen(read_tidy(workdir, figure.table), figure):
            name = f"tables/{at}/{figure.table}/{row.domain}/{row.model}/{row.row}/{row.metric}"
            low, high = (row.value if math.isnan(v) else v for v in (row.low, row.high))
            found.append({"name": name, "value": row.value, "low": low, "high": high, "n": row.n, "unit": row.metric})
    spent = (read_json(workdir, "privacy_ledger.json") or {}).get("epsilon_total")
    if spent is not None:
        found.append(report.make_result(f"tables/{at}/epsilon accounted", [spent], "epsilon"))
    return found


def main() -> None:
    """Runs, reads, reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the smoke variant at two budgets")
    parser.add_argument("--out", help="file for the JSON object")
    parser.add_argument("--config", help="run configuration; configs/iot.py")
    parser.add_argument("--epsilons", help="budgets, inf for none; inf,8,3,1")
    parser.add_argument("--folder", help="where the runs' folders go and stay; else a temporary one")
    args = parser.parse_args()
    config = args.config or ("configs/iot.py:smoke" if args.quick else "configs/iot.py")
    asked = args.epsilons or ("inf,8" if args.quick else ",".join(f"{e:g}" for e in EPSILONS))
    with tempfile.TemporaryDirectory() as temporary:
        results = []
        for epsilon in map(float, asked.split(",")):
            workdir = os.path.join(args.folder or temporary, f"epsilon_{epsilon:g}")
            run_once(config, epsilon, workdir)
            results += results_of(workdir, epsilon)
            print(json.dumps({"epsilon": epsilon, "figures": len(results)}), file=sys.stderr, flush=True)
    report.finish(report.make_report("cost_of_privacy", report.host(), work.versions(*PACKAGES), results), args.out)


if __name__ == "__main__":
    main()
