"""Which detector finds attacks whose names it never saw? Chosen inside NSL-KDD's training file; the test set is not looked at.

`python -m benchmarks.detection_shift [--quick] [--out FILE] [--data FOLDER] [--parts changes ...] [--seeds 3]`.

Validation records are like training ones and rank detectors by what they remember. Here the attack names of the training file
are dealt to five folds, family by family; a detector is trained in its federation without the names of a fold, and judged by
the AUROC of benign validation records against each name left out. `auroc` is the mean over names of at least ten records,
which all count the same, and `seen_auroc` that against validation records of names that training had. Records are dealt to
clients by seed 77, so that no federation of `benchmarks.detection` is among these. Figures are means over seeds with Student-t
intervals, gains paired by seed.

changes     changes to the `classifier` section, against "plain"
detectors   rows of the detection table, the classifier as configs/nsl_kdd.py has it; generators do not see the names either.
            What is calibrated on benign validation records is judged on the other half of them
known       the same on validation clients of simulated logs and WUSTL-EHMS-2020: is anything lost where attacks are known?
"""

from __future__ import annotations

import argparse
import pathlib
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import detection_data, report, work
from benchmarks.detection_names import found_of, judge, load_shift, two_halves
from benchmarks.detection_world import Learners, fit
from benchmarks.quality_figures import mean_of
from fedjax_health.evaluation import controls
from fedjax_health.evaluation.arena import rows_where
from fedjax_health.evaluation.controls import Predict
from fedjax_health.evaluation.joined import joined
from fedjax_health.types import Table, UserError

PACKAGES = ("jax", "jaxlib", "numpy", "flax", "optax", "scikit-learn")
PLAIN = "plain"
_BOUND, _DROPOUT, _RATE = "classifier.input_bound", "classifier.input_dropout", "classifier.train.server_learning_rate"
_PLAIN = {_BOUND: 0.0, _DROPOUT: 0.0, _RATE: 0.01}
CANDIDATES: dict[str, dict[str, Any]] = {
    PLAIN: _PLAIN,
    "bound 2": {**_PLAIN, _BOUND: 2.0},
    "dropout .2": {**_PLAIN, _DROPOUT: 0.2},
    "rate .003": {**_PLAIN, _RATE: 0.003},
    "bound 2, rate .003": {**_PLAIN, _BOUND: 2.0, _RATE: 0.003},
    "bound 2, rate .003, dropout .2": {_BOUND: 2.0, _RATE: 0.003, _DROPOUT: 0.2},
}  # what else configs/nsl_kdd.py has stays
REAL = "real"
ROWS = (
    REAL, "synthetic", "real+synthetic", controls.BALANCED, *controls.MAKERS, controls.WEIGHTED, controls.TREES,
    controls.ANOMALY, controls.JOINED,
)  # fmt: skip
KNOWN = ("threats", "wustl-network")  # whose validation clients hold attacks like those in training


def halves(rows: Mapping[str, Predict], row: str, held: Sequence[Table], share: float) -> list[Predict]:
    """A row's detector, as `found_of` takes it: the joined one twice, calibrated on one half of the validation clients each.

    Args:
      rows: detectors by row.
      row: of `ROWS`.
      held: records of validation clients, of each seed.
      share: of the anomaly detector in the joined one.
    """
    if row != controls.JOINED:
        return [rows[row]]
    benign = [rows_where(table, table.label == 0) for table in held]
    parts = [[rows_where(table, two_halves(table) == 1 - h) for table in benign] for h in (0, 1)]
    return [joined(rows[REAL], rows[controls.ANOMALY], part, share) for part in parts]


def trained_for(rows: Sequence[str]) -> set[str]:
    """Rows that are trained so that these can be judged."""
    return {*rows, *((REAL, controls.ANOMALY) if controls.JOINED in rows else ())} - {controls.JOINED}


def changes(wanted: Sequence[str], folder: pathlib.Path, seeds: int, quick: bool) -> Iterator[dict[str, Any]]:
    """Figures of `CANDIDATES`, "plain" first; each is given as soon as it is known.

    Args:
      wanted: names.
      folder: of the files.
      seeds: federations of each fold.
      quick: fewer rounds.
    """
    plain: dict[str, np.ndarray] = {}
    for name in (PLAIN, *(name for name in wanted if name != PLAIN)):
        shift, began = load_shift(folder, seeds, CANDIDATES[name]), time.perf_counter()
        figures = judge(shift, [fit(Learners(shift.world, quick), shift.keep(), REAL.__eq__).rows[REAL]])
        plain = plain or figures
        yield from _means(f"detection_shift/{name}", figures, plain, "auroc_gain" if name != PLAIN else "")
        yield mean_of(f"detection_shift/{name}: fit_seconds", [time.perf_counter() - began], "s")


def detectors(wanted: Sequence[str], folder: pathlib.Path, seeds: int, quick: bool) -> Iterator[dict[str, Any]]:
    """Figures of `ROWS`, of the classifier as it is configured and of other detectors, all trained without the names of a fold.

    Args:
      wanted: rows.
      folder: of the files.
      seeds: federations of each fold.
      quick: fewer rounds.
    """
    shift = load_shift(folder, seeds, {})
    fits = fit(Learners(shift.world, quick), shift.keep(), {REAL, *trained_for(wanted)}.__contains__)
    real = judge(shift, [fits.rows[REAL]])
    for row in wanted:
        figures = judge(
            shift, halves(fits.rows, row, [shift.held] * len(shift.world.include), shift.world.unknown_share)
        )
        yield from _means(f"detection_shift/{row}", figures, real, "auroc_gain[over real]" if row != REAL else "")
        if row in fits.seconds:
            yield mean_of(f"detection_shift/{row}: fit_seconds", [fits.seconds[row]], "s")


def known(wanted: Sequence[str], data: str, seeds: int, quick: bool) -> Iterator[dict[str, Any]]:
    """Figures of `ROWS` on validation clients of other data, whose attacks are of the kinds in training.

    Args:
      wanted: rows.
      data: folder of the data sets.
      seeds: N.
      quick: fewer rounds, simulated logs alone.
    """
    for name in KNOWN[:1] if quick else KNOWN:
        world = detection_data.load(name, data, seeds)
        every = np.ones((seeds, len(world.table.label)), bool)
        fits = fit(Learners(world, quick), every, {REAL, *trained_for(wanted)}.__contains__)
        real: dict[str, np.ndarray] = {}
        for row in (REAL, *(row for row in wanted if row != REAL)):
            predicts, each = halves(fits.rows, row, world.validation, world.unknown_share), []
            for s, table in enumerate(world.validation):
                benign, attacks = (rows_where(table, (table.label > 0) == attack) for attack in (False, True))
                each.append(found_of(predicts, benign, attacks, s))
            figures = {
                f"seen_{metric}": np.array(values)
                for metric, values in zip(each[0]._fields, zip(*each, strict=True), strict=True)
            }
            real = real or figures
            gain = "seen_auroc_gain[over real]" if row != REAL else ""
            yield from _means(f"detection_shift/{name} validation/{row}", figures, real, gain)


def _means(
    at: str, figures: Mapping[str, np.ndarray], base: Mapping[str, np.ndarray], gain: str
) -> Iterator[dict[str, Any]]:
    """Means over seeds, and what the metric in a gain's name gains over a base, if one is told."""
    for metric, values in figures.items():
        yield mean_of(f"{at}: {metric}", list(values), "figure")
    if gain:
        metric = gain.split("_gain")[0]
        yield mean_of(f"{at}: {gain}", list(figures[metric] - base[metric]), "figure")


PARTS = {"changes": CANDIDATES, "detectors": ROWS, "known": (REAL, controls.ANOMALY, controls.JOINED)}


def results(
    parts: Sequence[str], wanted: re.Pattern[str], data: str, seeds: int, quick: bool
) -> Iterator[dict[str, Any]]:
    """Figures of the parts.

    Args:
      parts: of `PARTS`.
      wanted: names of candidates and rows.
      data: folder of the data sets.
      seeds: federations of each fold, or of a data set.
      quick: fewer rounds, and of each part the first name and the last two.

    Raises:
      UserError: no name is wanted, or a file is missing.
    """
    folder, every = pathlib.Path(data) / "nsl_kdd", {part: tuple(PARTS[part]) for part in parts}
    asked = {
        part: [name for name in (names[:1] + names[-2:] if quick else names) if wanted.search(name)]
        for part, names in every.items()
    }
    if not any(asked.values()):
        raise UserError("no candidate's or row's name matches --only; names are such as 'bound 2' and 'real|anomaly'")
    for part, names in asked.items():
        if not names:
            continue
        if part == "changes":
            yield from changes(names, folder, seeds, quick)
        elif part == "detectors":
            yield from detectors(names, folder, seeds, quick)
        else:
            yield from known(names, data, seeds, quick)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two seeds, few rounds, fewer names")
    parser.add_argument("--out", help="file for the JSON object")
    parser.add_argument("--data", default="../shared/data", help="folder with nsl_kdd/ and wustl_ehms/")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="what is measured")
    parser.add_argument("--seeds", type=int, default=3, help="federations of each fold")
    parser.add_argument("--only", default="", help="regular expression: candidates and rows whose name has it")
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error(f"--seeds is {args.seeds}: give at least 2, or there are no intervals")
    try:
        pattern = re.compile(args.only)
    except re.error as error:
        parser.error(f"--only {args.only!r} is no regular expression: {error}")
    found = []
    try:
        for result in results(args.parts, pattern, args.data, 2 if args.quick else args.seeds, args.quick):
            found.append(result)
            print("{name}: {value:.4f} [{low:.4f}, {high:.4f}] n = {n}".format(**result), flush=True)
    except UserError as error:
        sys.exit(f"error: {error}")
    report.finish(report.make_report("detection_shift", report.host(), work.versions(*PACKAGES), found), args.out)


if __name__ == "__main__":
    main()
