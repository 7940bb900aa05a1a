"""A column alone: leaks are found whatever their shape, noise is not taken for one, and intervals are those of clients."""

from __future__ import annotations

import numpy as np
import pytest
import toy
from sklearn.metrics import roc_auc_score

from fedjax_health.config import EvaluationConfig
from fedjax_health.data.schema import Column, Schema
from fedjax_health.evaluation.setting import Setting
from fedjax_health.evaluation.single_feature import METRIC, single_feature_rows, stepped_auroc
from fedjax_health.report import layout
from fedjax_health.types import Row, Table

SCHEMA = Schema(
    "log",
    (
        *(
            Column(name=name, low=-1e6, high=1e6, nullable=True)
            for name in ("noise", "address", "running", "gap", "some")
        ),
        Column(name="service", kind="categorical", categories=tuple("abcdefgh")),
        Column(name="attack", kind="categorical", role="label", categories=("benign", "flood", "scan")),
    ),
)


def log(seed: int, clients: int = 40, each: int = 50) -> Table:
    """Attacks come in bursts; `address` and `gap` name them, `running` counts all rows, `some` tells a little."""
    rng = np.random.default_rng(seed)
    client, n = np.repeat(np.arange(clients, dtype=np.int32), each), clients * each
    label = np.where(rng.random(clients) < 0.3, rng.integers(1, 3, clients), 0)[client].astype(np.int32)
    attack = label > 0
    address = np.where(attack, rng.choice([7.0, 13.0], n), rng.choice([3.0, 11.0, 19.0], n))
    gap = np.where(attack & (rng.random(n) < 0.9), np.nan, rng.normal(size=n))
    service = np.where(attack & (rng.random(n) < 0.5), 4, rng.integers(0, 8, n))
    values = [rng.normal(size=n), address, np.arange(n), gap, rng.normal(size=n) + attack, service]
    return Table(np.stack(values, 1).astype(np.float32), label, client)


def setting(**changes) -> Setting:
    domain = toy.domain()._replace(schema=SCHEMA, task="detection", train=log(0), test=log(1))._replace(**changes)
    return Setting(domain, np.ones((2, 40), bool), EvaluationConfig(100, 0, 0.05), 0, None)


def test_every_column_has_its_row_and_a_leak_of_any_shape_shows():
    rows = single_feature_rows(setting())
    assert [r.row for r in rows] == [c.name for c in SCHEMA.inputs]
    assert {(r.domain, r.model, r.metric, r.n) for r in rows} == {("toy", "real", METRIC, 40)}
    found = {r.row: r for r in rows}
    assert found["address"].value == 1.0 and found["gap"].value > 0.9
    assert abs(found["noise"].value - 0.5) < 0.08 and 0.6 < found["some"].value < 0.9
    assert 0.65 < found["service"].value < 0.9
    for r in rows:
        # of the counter, which is the same in all rows of a client but for a little, it is wide
        assert r.low <= r.value <= r.high and (r.high - r.low < 0.25) == (r.row != "running")
    assert found["some"].low > 0.6 and found["noise"].high < 0.6


def test_a_counter_shows_where_rows_of_the_same_hours_are_held_out():
    whole = log(0)
    held = np.arange(len(whole.label)) % 3 == 0
    train, test = (Table(*(c[rows] for c in whole)) for rows in (~held, held))
    assert {r.row: r.value for r in single_feature_rows(setting(train=train, test=test))}["running"] > 0.9


def test_intervals_are_of_clients_and_not_of_records():
    one = {r.row: r.high - r.low for r in single_feature_rows(setting())}
    alone = log(1)._replace(client=np.arange(2000, dtype=np.int32))
    many = {r.row: r.high - r.low for r in single_feature_rows(setting(test=alone))}
    assert many["running"] < 0.5 * one["running"]


def test_a_diagnosis_has_none_and_one_kind_of_record_gives_no_figure():
    assert single_feature_rows(setting(task="diagnosis")) == []
    benign = log(1)
    benign = benign._replace(label=np.zeros_like(benign.label))
    assert all(np.isnan([r.value, r.low, r.high]).all() for r in single_feature_rows(setting(test=benign)))


def test_stepped_auroc_is_that_of_the_drawn_records():
    rng = np.random.default_rng(0)
    step, positive, client = rng.integers(0, 5, 300), rng.random(300) < 0.4, rng.integers(0, 9, 300)
    drawn = rng.integers(0, 3, (4, 9)).astype(float)
    drawn[3] = 0.0
    found = stepped_auroc(step, positive, client, drawn)
    for row, value in zip(drawn[:3], found, strict=False):
        times = row[client].astype(int)
        assert value == pytest.approx(roc_auc_score(np.repeat(positive, times), np.repeat(step, times)), abs=1e-12)
    assert np.isnan(found[3])


def test_the_page_shows_them_in_a_grid_of_their_own_and_not_among_the_detectors():
    rows = [
        Row("d", "real", name, METRIC, v, v - 0.1, v + 0.1, 9) for name, v in (("a", 0.6), ("b", 0.9), ("c", np.nan))
    ]
    detectors = [Row("d", "-", "real", "detection_rate", 0.9, 0.8, 1.0, 5)]
    assert [line.row for line in layout.single_features([*detectors, *rows]).lines] == ["b", "a", "c"]
    assert [line.row for line in layout.trained([*detectors, *rows]).lines] == ["real"]
