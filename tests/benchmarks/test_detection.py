"""Pure parts of the detection benchmark: what is left of the attack records, how detectors are judged, what is reported."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import detection, detection_parts, report
from benchmarks.detection_data import NAMES, World, types
from benchmarks.detection_data import detector as detector_of
from benchmarks.detection_parts import NEVER, Options, by_device, devices_of, judge, keep_share, results
from benchmarks.detection_world import ROWS, Fits
from fedjax_health.data.schema import Column, Schema
from fedjax_health.evaluation import controls
from fedjax_health.types import Table, UserError

KINDS = ("benign", "dos", "spoof")
SCHEMA = Schema(
    "w", (Column(name="x", low=-9, high=9), Column(name="kind", kind="categorical", role="label", categories=KINDS))
)
SEEDS = 3


def table(seed: int, clients: np.ndarray) -> Table:
    r = np.random.default_rng(seed)
    client = np.repeat(clients, 20).astype(np.int32)
    label = np.where(r.random(len(client)) < 0.3, r.integers(1, 3, len(client)), 0).astype(np.int32)
    return Table((label + r.normal(size=len(client)))[:, None].astype(np.float32), label, client)


def world() -> World:
    include = np.arange(40)[None, :] % 4 != np.arange(SEEDS)[:, None]
    held_out = [table(s, np.arange(40 + 5 * s, 50 + 5 * s)) for s in range(SEEDS)]
    groups = tuple({"odd": t.label != 1} for t in held_out)
    validation = tuple(table(9, np.arange(90, 99)) for _ in range(SEEDS))
    return World("w", SCHEMA, table(5, np.arange(40)), include, validation, tuple(held_out), groups, detector_of(8))


def detector(skill: float) -> controls.Predict:
    def predict(of: Table, seed: int) -> np.ndarray:
        r = np.random.default_rng([seed, len(of.label)])
        p = 1 / (1 + np.exp(-(skill * of.values[:, 0] + r.normal(size=len(of.label)) - 1)))
        return np.stack([1 - p, p / 2, p / 2], 1)

    return predict


@pytest.mark.parametrize("share", [0.1, 0.01])
def test_all_benign_and_a_share_of_each_type_is_kept_and_less_is_part_of_more(share):
    of = world()
    keep = keep_share(of, share)
    more = keep_share(of, 0.1)
    for s in range(SEEDS):
        there = of.include[s][of.table.client]
        assert keep[s][of.table.label == 0].all() and (more[s] | ~keep[s]).all()
        for c in (1, 2):
            mine = there & (of.table.label == c)
            assert (keep[s] & mine).sum() == max(1, round(share * mine.sum()))
        training = of.training(keep[s], s)
        assert len(training.label) == (there & keep[s]).sum() and set(training.client) <= set(
            np.flatnonzero(of.include[s])
        )
    assert (keep[0] != keep[1]).any()  # seeds lose other records


def test_thresholds_come_from_validation_records():
    of = world()
    judged = judge(of, "real", detector(2.0), of.groups)
    for s in range(SEEDS):
        v = of.validation[s]
        alarm = 1 - detector(2.0)(v, s)[v.label == 0, 0]
        assert np.mean(alarm >= judged.point[s]) <= detection_parts.MAX_FPR
        assert judged.figures[s]["real", "detection_rate[odd]"] == judged.figures[s]["real", "detection_rate[spoof]"]


def test_devices_are_drawn_for_all_seeds_at_once_and_the_first_draw_is_the_data():
    of = world()
    mine = judge(of, "a", detector(2.0), of.groups)
    drawn = by_device(of, mine, devices := devices_of(of))
    assert len(devices.ids) == 20  # blocks that two seeds test are one device
    for name, values in drawn.items():
        assert values[0] == pytest.approx(np.mean([f["a", name] for f in mine.figures])), name
        assert len(values) == len(devices.drawn)


def test_gains_are_told_over_real_and_over_smote_and_make_a_report():
    of = world()
    rows = {"real": detector(0.5), "smote": detector(1.0), "real+balanced": detector(3.0)}
    found = list(results(of, "w@10%", Fits(rows, {"real": 2.0, "generator": 1.0}), of.groups))
    value = {r["name"].removeprefix("detection/w@10%/"): r for r in found}
    for metric in ("auroc", "detection_rate[odd]"):
        a, b, c = (value[f"{row}: {metric}"]["value"] for row in ("real+balanced", "real", "smote"))
        assert value[f"real+balanced: {metric}_gain"]["value"] == pytest.approx(a - b)
        assert value[f"real+balanced: {metric}_gain[over smote]"]["value"] == pytest.approx(a - c)
        assert value[f"smote: {metric}_gain"]["value"] == pytest.approx(c - b)
    device = value["real+balanced: auroc_gain[by device]"]
    assert device["n"] == 20 and device["low"] > 0  # far better, and by no chance of the devices
    assert "real: auroc_gain" not in value and value["generator: fit_seconds"]["value"] == 1.0
    report.check({"benchmark": "detection", "device": "d", "versions": {}, "results": found})


def test_of_an_unknown_attack_only_its_own_figures_are_told():
    of = world()
    groups = [{NEVER: np.isin(t.label, (0, 1))} for t in of.test]
    found = list(
        results(
            of, "w without dos", Fits({"real": detector(1.0), "real+balanced": detector(1.0)}, {}), groups, f"[{NEVER}]"
        )
    )
    names = {r["name"].split(": ")[1] for r in found}
    assert {f"detection_rate[{NEVER}]", f"auroc[{NEVER}]", f"auroc[{NEVER}]_gain"} <= names
    assert all(name.removesuffix("_gain").endswith(f"[{NEVER}]") for name in names)


def test_rows_have_one_name_each_and_controls_are_among_them():
    assert len(set(ROWS)) == len(ROWS) and {
        *controls.MAKERS,
        controls.ANOMALY,
        controls.TREES,
        controls.WEIGHTED,
    } <= set(ROWS)
    assert {"threats", "nsl_kdd"} <= set(NAMES) and types("threats")[0] == "benign" and len(types("nsl_kdd")) == 5
    with pytest.raises(UserError, match="--only"):
        detection.results(Options(True, "nowhere", 2, lambda name: False), list(detection.PARTS))
