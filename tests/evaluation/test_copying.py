"""Signs of copying on a table of members, on an independent one, and the rows of a run with their floors and ceiling."""

from __future__ import annotations

import numpy as np
import pytest
import toy

from fedjax_health.config import EvaluationConfig
from fedjax_health.data.schema import Column, Schema
from fedjax_health.evaluation import copying
from fedjax_health.evaluation.setting import Setting, Subject, included
from fedjax_health.types import Table

SCHEMA = Schema(
    "toy",
    (
        Column(name="a", low=-6, high=6, center=0, scale=1),
        Column(name="b", low=-6, high=6, center=0, scale=1),
        Column(name="y", kind="binary", role="label"),
    ),
)
CLIENTS, PER = 100, 5


def people(seed):
    r = np.random.default_rng(seed)
    values = r.normal(size=(CLIENTS * PER, 2)).astype(np.float32)
    label = (values[:, 0] > 0).astype(np.int32)
    return Table(values, label, np.repeat(np.arange(CLIENTS), PER).astype(np.int32))


def made(table):
    return table._replace(client=np.arange(len(table.label), dtype=np.int32))


@pytest.mark.parametrize("copied", [False, True])
def test_only_a_copy_shows_and_its_interval_leaves_out_what_chance_gives(copied):
    training, holdout = people(0), people(1)
    means = copying.copying_means(training, holdout, made(training if copied else people(2)), SCHEMA)
    figures = copying.copying_figures("synthetic", means)
    found = copying.copying_intervals("synthetic", means, np.random.default_rng(0))
    assert set(figures) == set(found) == {("synthetic", name) for name in copying.FIGURES}
    for name, chance in (("privacy_loss", 0.0), ("nearer_to_training", 0.5)):
        at, interval = figures["synthetic", name], found["synthetic", name]
        assert interval.low <= at <= interval.high
        assert (interval.low <= chance <= interval.high) != copied
    assert figures["synthetic", "authenticity"] == pytest.approx(0.0 if copied else 0.45, abs=0.1)
    assert found["synthetic", "nnaa"].n == CLIENTS and found["synthetic", "authenticity"].n == CLIENTS * PER


def test_a_loss_is_the_difference_of_two_accuracies():
    training, holdout, synthetic = people(0), people(1), made(people(2))
    means = copying.copying_means(training, holdout, synthetic, SCHEMA)
    swapped = copying.copying_means(holdout, training, synthetic, SCHEMA)
    f, g = (copying.copying_figures("r", m) for m in (means, swapped))
    assert f["r", "privacy_loss"] == pytest.approx(f["r", "nnaa"] - g["r", "nnaa"])
    assert f["r", "nearer_to_training"] == pytest.approx(1 - g["r", "nearer_to_training"])


@pytest.mark.parametrize("seeds", [1, 2])
def test_rows_of_a_run(seeds):
    domain = toy.domain()
    clients = int(domain.train.client.max()) + 1
    include = np.ones((seeds, clients), bool)
    include[:, : clients // 4] = False
    setting = Setting(domain, include, EvaluationConfig(60, 0, 0.05), 0, None)
    tables = [made(domain.train) for _ in range(seeds)]  # a generator that publishes its training records
    copier = [
        Table(*(c[np.isin(domain.train.client, included(setting, s, True))] for c in t)) for s, t in enumerate(tables)
    ]
    rows = copying.copying_rows(setting, [Subject("copier", [made(t) for t in copier], 10, lambda *_: np.zeros(0))], {})
    assert {r.row for r in rows} == {"synthetic", copying.CEILING, copying.COPULA, copying.MARGINALS}
    assert {r.metric for r in rows} == set(copying.FIGURES)
    assert all(r.low <= r.value <= r.high for r in rows)
    by = {(r.row, r.metric): r for r in rows}
    n = by["synthetic", "nnaa"].n
    assert n == 2 if seeds == 2 else 2 < n <= len(np.unique(domain.test.client))
    few = setting._replace(config=EvaluationConfig(1, 0, 0.05))
    assert copying.copying_rows(few, [], {}) == []
