"""Records what SDMetrics and SynthEval say of small seeded tables: tests/evaluation/oracles.json, which a test compares with.

`python -m benchmarks.metric_oracles` builds an environment for each under benchmarks/peers/.envs on first use, and writes it.
SDMetrics is MIT and needs copulas, which is under the Business Source License; SynthEval is MIT; neither is a dependency.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from typing import Any

from benchmarks import compare
from fedjax_health.files import write_text
from fedjax_health.types import UserError

ORACLES = ("sdmetrics", "syntheval")
PATH = compare.ROOT / "tests" / "evaluation" / "oracles.json"


def ask(oracle: str) -> dict[str, Any]:
    """What one oracle says, in a process of its own.

    Args:
      oracle: of `ORACLES`; also its environment.

    Raises:
      UserError: its environment cannot be built, or it fails.
    """
    if not compare.installed(oracle):
        compare.build(oracle)
    command = [compare.python(oracle), "-W", "ignore", "-m", "benchmarks.peers.metric_oracles", oracle]
    variables = {**os.environ, "PYTHONPATH": str(compare.ROOT)}
    with tempfile.TemporaryDirectory() as folder:  # SynthEval leaves a file where it runs
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{oracle} ended with status {done.returncode}; it said:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().rsplit("\n", 1)[-1])


def main() -> None:
    """Asks both and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=str(PATH), help="file for the figures")
    out = parser.parse_args().out
    write_text(out, json.dumps({oracle: ask(oracle) for oracle in ORACLES}, indent=1, sort_keys=True) + "\n")
    print(out)


if __name__ == "__main__":
    main()
