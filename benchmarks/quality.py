"""Synthetic vitals against the real ones: central, federated IID and by patient, private or not, beside floors and rivals.

`python -m benchmarks.quality [--quick] [--out FILE] [--data FOLDER] [--seeds 3] [--only PATTERN] [--peers]`.

Data sets: `physionet2019` (hours where seven vitals and age are present, 70/30 by patient), `physionet2019-gaps` (all hours,
the seven nullable), `vitals-2000` and `vitals-10000` (simulated clients). A row is data set / case / what, such as
`physionet2019/epsilon 8/vae`; cases are `central` (20,000 rows), `iid` (rows dealt to as many clients at random), `federated`
(by patient), and these at a budget: `central epsilon 8` (hides a row), `iid epsilon 8`, `epsilon 8` (by patient; both hide a
client).

Non-private generators are judged at the data's resolution against the records that they were trained on, as published
comparisons do, and hold them to be equally important. Under a guarantee PhysioNet is judged at whole numbers; by patient every
patient counts the same, and one record drawn from each in turn is the reference. What other patients' records reach
against the same table is `real`, the ceiling for data that were not copied.

Floors: `independent-marginals` and `gaussian-copula` (both pooled and without privacy), and `one-shot`: the private copula that
the representation is, before any training, at the same budget as the generator beside it. Rivals: `aim`, by a trusted
curator at the same budget; with --peers CTGAN and TVAE on the central rows, without privacy.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks import quality_data, report, work
from benchmarks.quality_cases import cases, measure, rows_of
from benchmarks.quality_figures import results_of
from benchmarks.quality_peers import EPOCHS
from fedjax_health.types import UserError

PACKAGES = ("jax", "jaxlib", "numpy", "flax", "optax", "dp-accounting", "scikit-learn", "mbi")


def results(
    quick: bool, folder: str, seeds: int, wanted: Callable[[str], bool] = lambda name: True, peer_epochs: int = 0
) -> list[dict[str, Any]]:
    """All figures; each row is printed as soon as it is known.

    Args:
      quick: one seed, few rounds, central and epsilon 8 of complete hours only.
      folder: of the data.
      seeds: repeats of each generator.
      wanted: whether a row is measured, by its name.
      peer_epochs: of CTGAN and TVAE; 0 leaves them out.

    Raises:
      UserError: no row is wanted, or a peer fails.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for name in quality_data.NAMES[:1] if quick else quality_data.NAMES:
        planned = [f"{name}/{row}" for case in cases(quick) for row in rows_of(case, False, peer_epochs > 0, quick)]
        if not any(map(wanted, planned)):
            continue
        data = quality_data.load(name, folder)
        for seed in range(1 if quick else seeds):
            marked = set()
            for case in cases(quick):
                rows = measure(data, case, seed, wanted, case.marks in marked, peer_epochs, quick)
                for row, figures in rows:
                    for metric, value in figures.items():
                        found.setdefault(row, {}).setdefault(metric, []).append(value)
                    print(row, {k: round(v, 4) for k, v in figures.items()}, flush=True)
                marked.add(case.marks)
    if not found:
        raise UserError("no row's name matches --only; names are such as 'physionet2019/epsilon 8/vae'")
    return results_of(found)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, few rounds, fewer generators")
    parser.add_argument("--out", help="file for the JSON object")
    parser.add_argument("--data", default="../shared/data", help="folder with physionet2019/")
    parser.add_argument("--seeds", type=int, default=3, help="repeats of each generator")
    parser.add_argument("--only", default="", help="regular expression: rows whose name has it somewhere")
    parser.add_argument(
        "--peers", action="store_true", help="CTGAN and TVAE, too; builds their environment on first use"
    )
    parser.add_argument("--peer-epochs", type=int, default=EPOCHS, help="epochs of CTGAN and TVAE")
    args = parser.parse_args()
    if min(args.seeds, args.peer_epochs) < 1:
        parser.error(f"--seeds is {args.seeds} and --peer-epochs {args.peer_epochs}: give at least 1")
    try:
        pattern = re.compile(args.only)
    except re.error as error:
        parser.error(f"--only {args.only!r} is no regular expression: {error}")
    began = time.perf_counter()

    def wanted(name: str) -> bool:
        return pattern.search(name) is not None

    try:
        found = results(args.quick, args.data, args.seeds, wanted, args.peer_epochs if args.peers else 0)
    except UserError as error:
        sys.exit(f"error: {error}")
    print(f"{time.perf_counter() - began:.0f} s", flush=True)
    report.finish(report.make_report("quality", report.host(), work.versions(*PACKAGES), found), args.out)


if __name__ == "__main__":
    main()
