"""Attack names that are left out: dealt to folds, never trained on, and judged name by name."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks.detection_data import World, detector
from benchmarks.detection_shift import CANDIDATES, FOLDS, PLAIN, Shift, folds_of, judge
from configs import nsl_kdd
from fedjax_health.config import from_config_dict
from fedjax_health.data.nsl_kdd import FAMILIES, SCHEMA
from fedjax_health.types import Table

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

    figures = judge(s, predict)
    often = [name for name in {*s.names} - {"normal"} if len(s.records(name).label) >= 10]
    missed = len(set(first) & set(often))
    assert 0 < missed < len(often) == 5
    np.testing.assert_allclose(figures["auroc"], 1 - missed / len(often))
    np.testing.assert_allclose(figures["detection_rate"], 1 - missed / len(often))
    np.testing.assert_allclose(figures["seen_auroc"], 1.0)
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
