"""Agreement with SDMetrics 0.32.0 and SynthEval 1.7.3, from figures recorded by `benchmarks.metric_oracles`."""

from __future__ import annotations

import json
import pathlib
import re

import numpy as np
import pytest

from benchmarks.metric_oracles import ORACLES, PATH
from benchmarks.peers.metric_oracles import checksum, tables
from fedjax_health.evaluation.columns import category_figures, numeric_figures
from fedjax_health.evaluation.copying import adversarial_accuracy
from fedjax_health.evaluation.distances import mmd2
from fedjax_health.evaluation.pairs import contingency_similarity, correlation_similarity
from fedjax_health.types import Table

RECORDED = json.loads(pathlib.Path(PATH).read_text(encoding="utf-8"))
TOLERANCE = 1e-6
MADE = tables()
COLUMNS = dict(zip("abcd", range(4), strict=True))


def _table(values: np.ndarray) -> Table:
    return Table(values, np.zeros(len(values), np.int32), np.arange(len(values), dtype=np.int32))


def _sdmetrics(name: str) -> float:
    which, metric, *rest = name.split("/")
    real, synthetic = MADE["real"], MADE[which]
    if metric == "ks":
        found = numeric_figures(_table(real), _table(synthetic), COLUMNS[rest[0]], np.random.default_rng(0))
        return found["ks_complement"]
    if metric == "tv":
        j = COLUMNS[rest[0]]
        return category_figures(real[:, j], synthetic[:, j], 3)["tv_complement"]
    if metric == "correlation":
        if which == "gaps":  # SDMetrics drops a row where either is missing, as pairwise complete does for one pair
            assert np.isnan(synthetic[:, :2]).any()
        return correlation_similarity(real[:, :2], synthetic[:, :2], rest[0])
    assert metric == "contingency"
    return contingency_similarity(real[:, 2:].astype(np.int64), synthetic[:, 2:].astype(np.int64))


def _accuracy(real: np.ndarray, synthetic: np.ndarray) -> float:
    return float(np.mean([side.mean() for side in adversarial_accuracy(real, synthetic)]))


def _syntheval(name: str) -> float:
    which, metric, *rest = name.split("/")
    real, synthetic = MADE["real"][:, :2], MADE[which][:, :2]
    if metric == "mmd":
        # SynthEval scales by the real mean and SD, and its kernel is exp(-γ |x - y|² / 2), so σ = 1 / √γ
        scaled = [(t - real.mean(0)) / (real.std(0) + 1e-8) for t in (real, synthetic)]
        return mmd2(*scaled, np.array([float(rest[0]) ** -0.5]))
    holdout = MADE["synthetic" if which == "other" else "other"][:, :2]
    near = _accuracy(real, synthetic)
    return near if metric == "nnaa" else _accuracy(holdout, synthetic) - near


OURS = {"sdmetrics": _sdmetrics, "syntheval": _syntheval}


def test_the_tables_are_those_that_the_oracles_saw():
    assert set(RECORDED) == set(ORACLES) == set(OURS)
    for said in RECORDED.values():
        assert said["checksum"] == pytest.approx(checksum(MADE), abs=1e-9)


@pytest.mark.parametrize("oracle", ORACLES)
def test_the_recorded_versions_are_those_required(oracle):
    text = (pathlib.Path(PATH).parents[2] / "benchmarks" / "peers" / "requirements" / f"{oracle}.txt").read_text()
    pinned = dict(re.findall(r"^([\w.-]+)==([\d.]+)$", text, re.MULTILINE))
    said = RECORDED[oracle]["versions"]
    assert {name: version for name, version in said.items() if name in pinned}.items() <= pinned.items()
    assert said[oracle] == pinned[oracle]


@pytest.mark.parametrize(
    ("oracle", "name"), [(oracle, name) for oracle, said in RECORDED.items() for name in said["figures"]]
)
def test_agrees_to_a_millionth(oracle, name):
    recorded = RECORDED[oracle]["figures"][name]
    assert OURS[oracle](name) == pytest.approx(recorded, abs=TOLERANCE)


def test_another_table_does_not_agree():
    # the figures tell tables apart, so that agreement says something
    mine, recorded = MADE["synthetic"], RECORDED["sdmetrics"]["figures"]["other/correlation/pearson"]
    assert abs(correlation_similarity(MADE["real"][:, :2], mine[:, :2]) - recorded) > 0.1
