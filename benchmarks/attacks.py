"""What attacks find where the answer is known, and what shadow federations add.

`python -m benchmarks.attacks [--quick] [--out FILE] [--parts known,lira,shadows]`. Each part is a function quick -> results
in a module of its own, and runs in a process of its own:

known   of `benchmarks.known_attacks`: every attack that needs no shadow, on a table that is a copy of the members' records and
        on one of other people;
lira, shadows
        of `benchmarks.shadow_attacks`: attacks by shadow federations, and what 64 of them take.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
from typing import Any

from benchmarks import report, work

PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "scikit-learn")
PARTS = {  # name to module.function in `benchmarks`
    "known": "known_attacks.results",
    "lira": "shadow_attacks.lira_part",
    "shadows": "shadow_attacks.shadows_part",
}


def apart(part: str, quick: bool) -> list[dict[str, Any]]:
    """Results of a part, from a process of its own; what it prints on the way appears as it comes.

    Args:
      part: a name in `PARTS`.
      quick: as there.

    Raises:
      RuntimeError: the process fails.
    """
    module, function = PARTS[part].rsplit(".", 1)
    code = f"import json; from benchmarks.{module} import {function} as f; print(json.dumps(f({quick})))"
    root, last = pathlib.Path(__file__).parents[1], ""
    with subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if last:
                print(last, end="", flush=True)
            last = line
    if process.returncode:
        raise RuntimeError(f"part {part} ended with status {process.returncode}; its message stands above")
    return json.loads(last)


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer seeds")
    parser.add_argument("--out", help="file for the JSON object")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"which of {','.join(PARTS)}")
    args = parser.parse_args()
    if unknown := set(args.parts.split(",")) - set(PARTS):
        parser.error(f"--parts names {sorted(unknown)}; known are {', '.join(PARTS)}")
    found = []
    for part in args.parts.split(","):
        found += apart(part, args.quick)
    report.finish(report.make_report("attacks", report.host(), work.versions(*PACKAGES), found), args.out)


if __name__ == "__main__":
    main()
