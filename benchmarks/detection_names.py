"""NSL-KDD's training file, split so that some attack names are of the future; how a detector is judged on them."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.detection_data import LEFT_OUT, World
from benchmarks.detection_parts import MAX_FPR
from configs import nsl_kdd
from fedjax_health.config import from_config_dict
from fedjax_health.data.domain import domain_from_source
from fedjax_health.data.nsl_kdd import FAMILIES, load_nsl_kdd, training_names
from fedjax_health.data.split import inclusion_masks
from fedjax_health.evaluation.arena import rows_where
from fedjax_health.evaluation.controls import Predict
from fedjax_health.evaluation.utility import positive_score
from fedjax_health.types import Table

SEED, FOLDS, LEAST = 77, 5, 10


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
        "nsl_kdd shift", source.schema, train, np.tile(include, (FOLDS, 1)), (), (), (), config.classifier,
        config.evaluation.unknown_share,
    )  # fmt: skip
    return Shift(world, own, held, held_names, folds_of(own), seeds)


def two_halves(benign: Table) -> np.ndarray:
    """i[M], which half of the validation clients a record is of; what is calibrated on one half is judged on the other."""
    return benign.client % 2


class Found(NamedTuple):
    """How a detector does on one set of attacks."""

    auroc: float
    detection_rate: float


def found_of(predicts: Sequence[Predict], benign: Table, attacks: Table, seed: int) -> Found:
    """AUROC, and detection at 5 % of the benign records.

    Args:
      predicts: the detector; or two, the first of which judges benign records of the first half of the clients and was
        calibrated on the second, and the other way round. Figures are then means over both, weighted by benign records.
      benign: of validation clients.
      attacks: any.
      seed: of the detector's trainings.
    """
    half = two_halves(benign) if len(predicts) > 1 else np.zeros(len(benign.label), int)
    quiet = np.zeros(len(benign.label))
    for h, predict in enumerate(predicts):
        quiet[half == h] = positive_score(predict(rows_where(benign, half == h), seed))
    point = np.quantile(quiet, 1 - MAX_FPR)
    each, weight = [], np.bincount(half, minlength=len(predicts)) / len(half)
    for h, predict in enumerate(predicts):
        loud, mine = positive_score(predict(attacks, seed)), quiet[half == h]
        truth = np.repeat([0, 1], [len(mine), len(loud)])
        each.append((roc_auc_score(truth, np.concatenate([mine, loud])), np.mean(loud > point)))
    return Found(*(float(value) for value in weight @ np.array(each)))


def judge(shift: Shift, predicts: Sequence[Predict]) -> dict[str, np.ndarray]:
    """Figures of a detector, f64[seeds] each.

    Args:
      shift: what it was trained on.
      predicts: the detector of each fold and seed, or two halves of it, as for `found_of`.

    Returns:
      auroc[name] of every name; auroc and detection_rate (at 5 % of the benign validation records), means over names of at
      least LEAST records; seen_auroc and seen_detection_rate, means over folds for names that training had.
    """
    found: dict[str, list[float]] = {}
    rates: list[list[float]] = [[] for _ in range(shift.seeds)]
    seen: list[Found] = []
    benign = rows_where(shift.held, shift.held.label == 0)
    for n in range(FOLDS * shift.seeds):
        fold = shift.folds[n // shift.seeds]
        known = np.isin(shift.held_names, np.setdiff1d(shift.names, fold))
        seen.append(found_of(predicts, benign, rows_where(shift.held, (shift.held.label > 0) & known), n))
        for name in fold:
            attacks = shift.records(name)
            mine = found_of(predicts, benign, attacks, n)
            found.setdefault(name, []).append(mine.auroc)
            if len(attacks.label) >= LEAST:
                rates[n % shift.seeds].append(mine.detection_rate)
    often = [name for name in found if len(shift.records(name).label) >= LEAST]
    seen_auroc, seen_rate = np.reshape(seen, (FOLDS, shift.seeds, 2)).mean(0).T
    return {
        "auroc": np.mean([found[name] for name in often], 0),
        "detection_rate": np.mean(rates, 1),
        "seen_auroc": seen_auroc,
        "seen_detection_rate": seen_rate,
        **{f"auroc[{name}]": np.array(found[name]) for name in found},
    }
