"""Which detector finds attacks whose names it never saw? Chosen inside NSL-KDD's training file; the test set is not looked at.

`python -m benchmarks.detection_shift [--quick] [--out FILE] [--data FOLDER] [--seeds 3] [--only PATTERN]`.

Validation records are like training ones and rank detectors by what they remember. Here the attack names of the training file
are dealt to five folds, family by family; a detector is trained in its federation without the names of a fold, and judged by
the AUROC of benign validation records against each name left out. `auroc` is the mean over names of at least ten records,
which all count the same, and `seen_auroc` that against validation records of names that training had. Records are dealt to
clients by seed 77, so that no federation of `benchmarks.detection` is among these. Each candidate is a change to the
`classifier` section; the federated VAE of benign records stands beside them. Figures are means over seeds with Student-t
intervals, and `auroc_gain` is paired by seed with "plain".
"""

from __future__ import annotations

import argparse
import pathlib
import re
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks import report, work
from benchmarks.detection_data import LEFT_OUT, World
from benchmarks.detection_parts import MAX_FPR
from benchmarks.detection_world import Learners, fit
from benchmarks.quality_figures import mean_of
from configs import nsl_kdd
from fedjax_health.config import from_config_dict
from fedjax_health.data.domain import domain_from_source
from fedjax_health.data.nsl_kdd import FAMILIES, load_nsl_kdd, training_names
from fedjax_health.data.split import inclusion_masks
from fedjax_health.evaluation import controls
from fedjax_health.evaluation.arena import rows_where
from fedjax_health.evaluation.controls import Predict
from fedjax_health.evaluation.utility import positive_score
from fedjax_health.types import Table, UserError

PACKAGES = ("jax", "jaxlib", "numpy", "flax", "optax", "scikit-learn")
SEED, FOLDS, LEAST = 77, 5, 10
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
    controls.ANOMALY: {},
}  # what else configs/nsl_kdd.py has stays


def folds_of(names: np.ndarray) -> list[list[str]]:
    """Attack names that are left out together: each family's, the most frequent first, dealt in turn; benign ones never.

    Args:
      names: str[M], of training records.

    Returns:
      FOLDS lists; the i-th name of the f-th family is in list (i + f) mod FOLDS.
    """
    folds: list[list[str]] = [[] for _ in range(FOLDS)]
    for f, family in enumerate(FAMILIES.values()):
        count = {name: np.count_nonzero(names == name) for name in family}
        for i, name in enumerate(sorted(filter(count.get, family), key=lambda name: (-count[name], name))):
            folds[(i + f) % FOLDS].append(name)
    return folds


class Shift(NamedTuple):
    """The training file, split so that every fold's names are attacks of the future.

    Attributes:
      world: one seed of it is a fold and a seed, folds first; it has no test records.
      names: str[M], of the world's records.
      held, held_names: records of validation clients, and their names.
      folds: names left out together.
      seeds: federations of each fold.
    """

    world: World
    names: np.ndarray
    held: Table
    held_names: np.ndarray
    folds: list[list[str]]
    seeds: int

    def keep(self) -> np.ndarray:
        """bool[FOLDS x seeds, M], records that are trained on."""
        return np.repeat([~np.isin(self.names, fold) for fold in self.folds], self.seeds, 0)

    def records(self, name: str) -> Table:
        """All records of an attack, of training and of validation clients.

        Args:
          name: that is left out.
        """
        mine = rows_where(self.world.table, self.names == name), rows_where(self.held, self.held_names == name)
        return Table(*(np.concatenate(columns) for columns in zip(*mine, strict=True)))


def load_shift(folder: pathlib.Path, seeds: int, changes: Mapping[str, Any]) -> Shift:
    """Deals the training records to clients and the attack names to folds.

    Args:
      folder: of the files.
      seeds: federations of each fold.
      changes: dotted keys of configs/nsl_kdd.py to other values.

    Raises:
      UserError: a file is missing, or a change that the config refuses.
    """
    raw: Any = nsl_kdd.get_config()
    raw.update_from_flattened_dict(dict(changes))
    config = from_config_dict(raw)
    source, names = load_nsl_kdd(str(folder)), training_names(str(folder))
    # a record's number rides along as one more column, which no encoder reads, until its name is found again
    numbered = np.column_stack([source.table.values, np.arange(len(names), dtype=np.float32)])
    tagged = source._replace(table=source.table._replace(values=numbered))
    domain = domain_from_source("nsl_kdd", tagged, config.data, SEED)
    (train, own), (held, held_names) = (
        (t._replace(values=t.values[:, :-1]), names[t.values[:, -1].astype(int)])
        for t in (domain.train, domain.validation)
    )
    include = inclusion_masks(int(train.client.max()) + 1, LEFT_OUT, seeds, SEED, "nsl_kdd")
    world = World(
        "nsl_kdd shift", source.schema, train, np.tile(include, (FOLDS, 1)), (), (), (), config.classifier
    )  # fmt: skip
    return Shift(world, own, held, held_names, folds_of(own), seeds)


def judge(shift: Shift, predict: Predict) -> dict[str, np.ndarray]:
    """Figures of a detector, f64[seeds] each.

    Args:
      shift: what it was trained on.
      predict: the detector of each fold and seed.

    Returns:
      auroc[name] of every name; auroc and detection_rate (at 5 % of the benign validation records), means over names of at
      least LEAST records; seen_auroc, the mean over folds for names that training had.
    """
    found: dict[str, list[float]] = {}
    rates: list[list[float]] = [[] for _ in range(shift.seeds)]
    benign = rows_where(shift.held, shift.held.label == 0)
    for n in range(FOLDS * shift.seeds):
        fold = shift.folds[n // shift.seeds]
        trained = np.setdiff1d(shift.names, fold)
        quiet = positive_score(predict(benign, n))
        point = np.quantile(quiet, 1 - MAX_FPR)
        seen = rows_where(shift.held, (shift.held.label > 0) & np.isin(shift.held_names, trained))
        for name, attacks in [(name, shift.records(name)) for name in fold] + [("seen", seen)]:
            loud = positive_score(predict(attacks, n))
            truth = np.repeat([0, 1], [len(quiet), len(loud)])
            found.setdefault(name, []).append(float(roc_auc_score(truth, np.concatenate([quiet, loud]))))
            if name != "seen" and len(loud) >= LEAST:
                rates[n % shift.seeds].append(float(np.mean(loud > point)))
    seen_auroc = np.reshape(found.pop("seen"), (FOLDS, shift.seeds)).mean(0)
    often = [name for name in found if len(shift.records(name).label) >= LEAST]
    return {
        "auroc": np.mean([found[name] for name in often], 0),
        "detection_rate": np.mean(rates, 1),
        "seen_auroc": seen_auroc,
        **{f"auroc[{name}]": np.array(found[name]) for name in found},
    }


def results(
    candidates: Mapping[str, Mapping[str, Any]], folder: pathlib.Path, seeds: int, quick: bool
) -> Iterator[dict[str, Any]]:
    """Figures of all candidates, "plain" first; each is given as soon as it is known.

    Args:
      candidates: name -> changes to the config.
      folder: of the files.
      seeds: federations of each fold.
      quick: fewer rounds.
    """
    plain: dict[str, np.ndarray] = {}
    for name, changes in candidates.items():
        shift, began = load_shift(folder, seeds, changes), time.perf_counter()
        row = name if name == controls.ANOMALY else "real"
        predict = fit(Learners(shift.world, quick), shift.keep(), row.__eq__).rows[row]
        figures = judge(shift, predict)
        plain = plain or figures
        for metric, values in figures.items():
            yield mean_of(f"detection_shift/{name}: {metric}", list(values), "figure")
        if name != PLAIN:
            yield mean_of(f"detection_shift/{name}: auroc_gain", list(figures["auroc"] - plain["auroc"]), "figure")
        yield mean_of(f"detection_shift/{name}: fit_seconds", [time.perf_counter() - began], "s")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two seeds, few rounds")
    parser.add_argument("--out", help="file for the JSON object")
    parser.add_argument("--data", default="../shared/data", help="folder with nsl_kdd/")
    parser.add_argument("--seeds", type=int, default=3, help="federations of each fold")
    parser.add_argument("--only", default="", help="regular expression: candidates whose name has it somewhere")
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error(f"--seeds is {args.seeds}: give at least 2, or there are no intervals")
    try:
        pattern = re.compile(args.only)
    except re.error as error:
        parser.error(f"--only {args.only!r} is no regular expression: {error}")
    candidates = {name: c for name, c in CANDIDATES.items() if name == PLAIN or pattern.search(name)}
    found = []
    try:
        for result in results(
            candidates, pathlib.Path(args.data) / "nsl_kdd", 2 if args.quick else args.seeds, args.quick
        ):
            found.append(result)
            print("{name}: {value:.4f} [{low:.4f}, {high:.4f}] n = {n}".format(**result), flush=True)
    except UserError as error:
        sys.exit(f"error: {error}")
    report.finish(report.make_report("detection_shift", report.host(), work.versions(*PACKAGES), found), args.out)


if __name__ == "__main__":
    main()
