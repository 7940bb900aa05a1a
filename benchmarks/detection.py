"""Intrusion detection: what synthetic threat data give a federated detector, beside controls, on simulated and real logs.

`python -m benchmarks.detection [--quick] [--out FILE] [--data FOLDER] [--parts table4 ...] [--seeds 5] [--only PATTERN]`.

Parts: `table4` (simulated logs, WUSTL-EHMS-2020 by block with network, biometric or all columns, NSL-KDD on KDDTest+),
`low_data` (10 % and 1 % of the attack records), `unknown` (a type of attack that training never saw). A row is data set and
variant / detector, such as `threats@10%/real+balanced`; nothing here is private.

Detectors are the federated classifier trained on real, synthetic and both; with class weights or the focal loss; with attacks
raised to balance by real records again, SMOTE, a Gaussian copula (these three pool records) or the federated VAE; a federated
VAE of benign records; the classifier joined with it (`real|anomaly`); and boosted trees on pooled records. Thresholds allow 5 %
false alarms on validation records. Figures are means over seeds, which differ in the clients that train, with Student-t
intervals; gains are paired by seed, and `[by device]` are intervals over the test devices or blocks.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import report, work
from benchmarks.detection_parts import Options, low_data, table4, unknown
from fedjax_health.types import UserError

PACKAGES = ("jax", "jaxlib", "numpy", "flax", "optax", "scikit-learn", "imbalanced-learn")
PARTS: dict[str, Callable[[Options], Iterator[dict[str, Any]]]] = {
    "table4": table4,
    "low_data": low_data,
    "unknown": unknown,
}


def results(options: Options, parts: list[str]) -> list[dict[str, Any]]:
    """All figures; each is printed as soon as it is known.

    Args:
      options: how they are measured.
      parts: of `PARTS`.

    Raises:
      UserError: no row is wanted, or a file is missing.
    """
    found = []
    for part in parts:
        for result in PARTS[part](options):
            found.append(result)
            print("{name}: {value:.4f} [{low:.4f}, {high:.4f}] n = {n}".format(**result), flush=True)
    if not found:
        raise UserError("no row's name matches --only; names are such as 'threats@10%/real+balanced'")
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two seeds, few rounds, simulated logs, fewer rows")
    parser.add_argument("--out", help="file for the JSON object")
    parser.add_argument("--data", default="../shared/data", help="folder with wustl_ehms/ and nsl_kdd/")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="what is measured")
    parser.add_argument("--seeds", type=int, default=5, help="federations of each detector")
    parser.add_argument("--only", default="", help="regular expression: rows whose name has it somewhere")
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error(f"--seeds is {args.seeds}: give at least 2, or there are no intervals")
    try:
        pattern = re.compile(args.only)
    except re.error as error:
        parser.error(f"--only {args.only!r} is no regular expression: {error}")
    began = time.perf_counter()
    options = Options(
        args.quick, args.data, 2 if args.quick else args.seeds, lambda name: pattern.search(name) is not None
    )
    try:
        found = results(options, args.parts)
    except UserError as error:
        sys.exit(f"error: {error}")
    print(f"{time.perf_counter() - began:.0f} s", flush=True)
    report.finish(report.make_report("detection", report.host(), work.versions(*PACKAGES), found), args.out)


if __name__ == "__main__":
    main()
