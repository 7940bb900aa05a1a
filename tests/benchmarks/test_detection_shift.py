"""Attack names that are left out: dealt to folds, never trained on, and judged name by name."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from benchmarks import detection_shift
from benchmarks.detection_data import World, detector
from benchmarks.detection_names import FOLDS, Shift, folds_of, found_of, judge, two_halves
from benchmarks.detection_shift import CANDIDATES, PARTS, PLAIN, REAL, ROWS, halves, trained_for
from configs import nsl_kdd
from fedjax_health.config import from_config_dict
from fedjax_health.data.nsl_kdd import FAMILIES, SCHEMA
from fedjax_health.evaluation import controls
from fedjax_health.evaluation.arena import rows_where
from fedjax_health.types import Table, UserError

SEEDS = 2


def shift() -> Shift:
    """400 records that a detector sees as their attack name's number, 0 for benign ones."""
    r = np.random.default_rng(0)
    common = ["neptune", "smurf", "back", "satan", "warezclient"]
    names = np.concatenate([np.repeat(["normal", *common], 60), np.repeat(["phf", "perl"], [3, 2])])
    label = np.array([0 if n == "normal" else 1 for n in names], np.int32)
    values = np.array([["normal", *common, "phf", "perl"].index(n) for n in names], np.float32)[:, None]
    table = Table(values, label, np.sort(r.integers(0, 9, len(names))).astype(np.int32))
    world = World("s", SCHEMA, table, np.ones((FOLDS * SEEDS, 9), bool), (), (), (), detector(4))
    half = np.arange(len(names)) % 2 == 0
    held = Table(*(column[half] for column in table))
    return Shift(world, names, held, names[half], folds_of(names), SEEDS)


def test_every_name_is_left_out_once_and_families_are_spread():
    counts = {"neptune": 9, "smurf": 5, "back": 5, "satan": 2, "ipsweep": 8, "phf": 1, "perl": 1}
    names = np.repeat(["normal", *counts], [4, *counts.values()])
    folds = folds_of(names)
    assert sorted(itertools.chain(*folds)) == sorted(counts) and len(folds) == FOLDS
    assert folds == [["neptune"], ["back", "ipsweep"], ["smurf", "satan", "phf"], ["perl"], []]
    for family in FAMILIES.values():  # no fold takes all names of a family that has several
        mine = [len(set(fold) & set(family)) for fold in folds]
        assert max(mine) < max(sum(mine), 2)


def test_names_left_out_are_not_trained_on_and_all_others_are():
    s = shift()
    keep = s.keep()
    assert keep.shape == (FOLDS * SEEDS, len(s.names))
    for n, row in enumerate(keep):
        fold = s.folds[n // SEEDS]
        assert set(s.names[~row]) == set(fold) and "normal" not in fold
    name = "neptune"
    assert len(s.records(name).label) == (s.names == name).sum() + (s.held_names == name).sum()


def test_each_name_counts_the_same_and_only_where_it_was_left_out():
    s = shift()
    first = s.folds[0]

    def predict(of: Table, n: int) -> np.ndarray:
        """In fold 0 its own names are taken for benign; elsewhere every attack is found, but for two of seed 1."""
        p = np.where(of.values[:, 0] > 0, 0.9, 0.1)
        if n // SEEDS == 0:
            number = [
                ["normal", "neptune", "smurf", "back", "satan", "warezclient", "phf", "perl"].index(a) for a in first
            ]
            p[np.isin(of.values[:, 0], number)] = 0.0
        return np.stack([1 - p, p], 1)

    figures = judge(s, [predict])
    often = [name for name in {*s.names} - {"normal"} if len(s.records(name).label) >= 10]
    missed = len(set(first) & set(often))
    assert 0 < missed < len(often) == 5
    np.testing.assert_allclose(figures["auroc"], 1 - missed / len(often))
    np.testing.assert_allclose(figures["detection_rate"], 1 - missed / len(often))
    np.testing.assert_allclose(figures["seen_auroc"], 1.0)
    np.testing.assert_allclose(figures["seen_detection_rate"], 1.0)
    assert {f"auroc[{name}]" for name in itertools.chain(*s.folds)} <= set(figures)
    np.testing.assert_allclose(figures[f"auroc[{first[0]}]"], 0.0)


@pytest.mark.parametrize("name", list(CANDIDATES))
def test_candidates_are_changes_that_the_config_takes(name):
    raw = nsl_kdd.get_config()
    before = from_config_dict(raw).classifier
    raw.update_from_flattened_dict(CANDIDATES[name])
    after = from_config_dict(raw)
    assert next(iter(CANDIDATES)) == PLAIN and all(key.startswith("classifier.") for key in CANDIDATES[name])
    assert after.classifier == before or CANDIDATES[name]


def test_two_halves_of_a_detector_are_judged_apart_and_weigh_as_much_as_they_judge():
    r = np.random.default_rng(1)
    client = np.repeat(np.arange(5), [5, 10, 15, 20, 50]).astype(np.int32)
    benign = Table(r.normal(size=(100, 1)).astype(np.float32), np.zeros(100, np.int32), client)
    attacks = Table(r.normal(1.0, size=(40, 1)).astype(np.float32), np.ones(40, np.int32), np.zeros(40, np.int32))

    def alarm(sign: float, shift: float = 0.0):
        return lambda t, s: np.stack([1 - t.values[:, 0], sign * t.values[:, 0] + shift], 1)

    one, two = found_of([alarm(1)], benign, attacks, 0), found_of([alarm(1)] * 2, benign, attacks, 0)
    np.testing.assert_allclose(one, two)  # without calibration it is the same figure
    assert found_of([alarm(1), alarm(1, 100.0)], benign, attacks, 0).auroc == pytest.approx(one.auroc)
    part = [found_of([alarm(1)], rows_where(benign, two_halves(benign) == h), attacks, 0).auroc for h in (0, 1)]
    assert found_of([alarm(1), alarm(-1)], benign, attacks, 0).auroc == pytest.approx(
        0.7 * part[0] + 0.3 * (1 - part[1])
    )


def test_what_is_calibrated_never_judges_the_records_that_calibrated_it():
    s = shift()
    asked: list[set[int]] = []

    def record(of: Table, n: int) -> np.ndarray:
        asked.append({*of.client.tolist()})
        return np.stack([1 - of.values[:, 0], 1 + of.values[:, 0]], 1)

    rows = {REAL: record, controls.ANOMALY: record}
    predicts = halves(rows, controls.JOINED, [s.held] * 3, 0.5)
    benign = rows_where(s.held, s.held.label == 0)
    calibrated = [asked[0], asked[len(asked) // 2]]
    assert calibrated[0] and calibrated[0] | calibrated[1] == {*benign.client.tolist()}
    asked.clear()
    found_of(predicts, benign, rows_where(s.held, s.held.label > 0), 0)
    for seen in calibrated:
        assert seen.isdisjoint(asked[0 if seen is calibrated[0] else len(asked) // 2])
    assert halves(rows, REAL, [], 0.5) == [record]


def test_a_joined_row_is_trained_as_its_parts_and_every_part_of_the_benchmark_is_said():
    assert trained_for([controls.JOINED]) == {REAL, controls.ANOMALY} and trained_for([REAL]) == {REAL}
    assert trained_for(ROWS) == {*ROWS} - {controls.JOINED} and set(PARTS["known"]) <= {*ROWS}
    for part in PARTS:
        assert f"\n{part} " in (detection_shift.__doc__ or "")
    with pytest.raises(UserError, match="--only"):
        list(detection_shift.results(list(PARTS), re.compile("nothing"), "nowhere", 2, True))
