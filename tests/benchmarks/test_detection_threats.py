"""Pure parts of the benchmark of evasion, devices and streams."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks import detection_threats, report
from fedjax_health.types import Row, Table


def test_parts_are_known_by_name():
    assert set(detection_threats.PARTS) == {"evasion", "nsl_kdd", "device", "stream"}
    for part in detection_threats.PARTS:
        assert part in (detection_threats.__doc__ or "")


def test_devices_of_worlds_stay_apart():
    one = Table(np.zeros((3, 2), np.float32), np.zeros(3, np.int32), np.array([0, 0, 1], np.int32))
    whole = detection_threats.pooled([one, one, one])
    assert whole.client.tolist() == [0, 0, 1, 2, 2, 3, 4, 4, 5] and whole.values.shape == (9, 2)


def test_a_figure_undefined_in_a_world_is_left_out_and_results_keep_the_form():
    per_seed = [{("a", "x"): 0.5, ("a", "y"): math.nan}, {("a", "x"): 0.7, ("a", "y"): 0.1}]
    found = detection_threats._means("evasion", per_seed)
    assert [r["name"] for r in found] == ["evasion/a: x"] and found[0]["n"] == 2
    rows = [Row("threats", "-", "r", "m", 2.0, math.nan, math.nan, 1), Row("threats", "-", "r", "k", 2.0, 1.0, 3.0, 9)]
    found += [detection_threats._result("device", r) for r in rows]
    report.check({"benchmark": "b", "device": "d", "versions": {}, "results": found})


@pytest.mark.long
def test_small_worlds_go_through_every_part_of_simulated_logs():
    parts = {name: detection_threats.PARTS[name](True, "") for name in ("evasion", "device", "stream")}
    found = [result for results in parts.values() for result in results]
    report.check({"benchmark": "b", "device": "d", "versions": {}, "results": found})
    rate = {r["name"]: r["value"] for r in found}
    clean, under = rate["evasion/detector: detection_rate"], rate["evasion/detector, white-box: detection_rate"]
    assert under < clean - 0.2 and rate["evasion/detector, random: detection_rate"] > clean - 0.1
    assert rate["evasion/hardened each step, white-box: detection_rate"] > under
    assert all(value == 1.0 for name, value in rate.items() if name.endswith(": valid"))
