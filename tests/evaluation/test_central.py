"""Central classifiers on tables with a known rule, and whether a table picks the model that real records pick."""

from __future__ import annotations

import numpy as np
import pytest
import toy

from fedjax_health.config import EvaluationConfig
from fedjax_health.evaluation import central
from fedjax_health.evaluation.central import (
    BOOSTED,
    FEDERATED,
    KINDS,
    LOGISTIC,
    SHOWN,
    Choice,
    fit_central,
    ranking_figures,
)
from fedjax_health.evaluation.downstream import Fitted
from fedjax_health.evaluation.setting import Setting, Subject
from fedjax_health.evaluation.suite import COPULA, Fits
from fedjax_health.evaluation.utility import positive_score
from fedjax_health.evaluation.utility import ranking_figures as areas
from fedjax_health.types import Table


def xor(seed, m=600):
    """Sick where exactly one of two things holds: boosted trees can tell, a logistic regression cannot."""
    r = np.random.default_rng(seed)
    sex, high = r.integers(2, size=m), r.integers(2, size=m)
    values = np.column_stack([r.integers(3, size=m), 90 + 80 * high, 50 + r.integers(30, size=m), r.random(m), sex])
    values[r.random(m) < 0.1, 3] = np.nan
    return Table(values.astype(np.float32), (sex ^ high).astype(np.int32), np.arange(m, dtype=np.int32))


def auroc(kind, train, test):
    score = fit_central(kind, train, toy.SCHEMA, 0)(test)
    assert score.shape == (len(test.label), 2) and score.sum(1) == pytest.approx(1)
    return areas(test.label != 0, positive_score(score))[0]


def test_a_rule_is_learnt_by_what_can_express_it():
    assert auroc(BOOSTED, xor(0), xor(1)) > 0.95
    assert 0.4 < auroc(LOGISTIC, xor(0), xor(1)) < 0.6


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_a_plain_rule_and_nothing_from_shuffled_labels(kind):
    def plain(seed):
        return (t := xor(seed))._replace(label=(t.values[:, 1] > 120).astype(np.int32))

    train = plain(0)
    shuffled = train._replace(label=np.random.default_rng(0).permutation(train.label))
    assert auroc(kind, train, plain(1)) > 0.99
    assert 0.4 < auroc(kind, shuffled, plain(1)) < 0.6


def test_one_class_is_that_class_for_certain():
    table = xor(0)
    for value in (0, 1):
        score = fit_central(LOGISTIC, table._replace(label=np.full(600, value, np.int32)), toy.SCHEMA, 0)(table)
        assert np.array_equal(score[:, 1], np.full(600, value))


def test_ranking_by_hand():
    worth = {"a": 0.9, "b": 0.8, "c": 0.7}
    same = ranking_figures("r", Choice({"a": 0.6, "b": 0.55, "c": 0.5}, worth))
    assert list(same.values()) == pytest.approx([1.0, 1.0, 0.0])
    other = ranking_figures("r", Choice({"a": 0.5, "b": 0.55, "c": 0.6}, worth))
    assert list(other.values()) == pytest.approx([-1.0, 0.0, 0.2])
    assert np.isnan(list(ranking_figures("r", Choice({"a": np.nan, "b": 0.5, "c": 0.5}, worth)).values())).all()
    flat = ranking_figures("r", Choice(dict.fromkeys(worth, 0.5), worth))
    assert np.isnan(flat["r", "ranking[kendall]"]) and flat["r", "ranking[regret]"] == 0


@pytest.mark.parametrize("seeds", [1, 2])
def test_rows_of_a_run(seeds, monkeypatch):
    monkeypatch.setattr(central.client_intervals, "__defaults__", (20,))
    domain = toy.domain()
    include = np.ones((seeds, int(domain.train.client.max()) + 1), bool)
    include[:, :3] = False
    setting = Setting(domain, include, EvaluationConfig(100, 0, 0.05), 0, None)

    def flat(table, seed):
        return np.full((len(table.label), 2), 0.5)

    fitted = Fitted(flat, lambda table, seed: np.zeros(len(table.label)))
    keys = (("-", "real"), ("-", COPULA), ("noise", "synthetic"))
    r = np.random.default_rng(0)
    noise = [domain.train._replace(label=r.permutation(domain.train.label)) for _ in range(seeds)]
    subject = Subject("noise", noise, 10, lambda *_: np.zeros(0))
    rows = central.central_rows(setting, [subject], {}, Fits(dict.fromkeys(keys, fitted), {}))
    by = {(r.model, r.row, r.metric): r for r in rows}
    assert {(m, row) for m, row, _ in by} == {
        (m, f"{row}{tail}") for m, row in keys for tail in ("", *(f":{k}" for k in SHOWN))
    }
    assert by["-", f"real:{LOGISTIC}", "auroc"].value > by["noise", f"synthetic:{LOGISTIC}", "auroc"].value + 0.1
    assert by["-", "real", "ranking[regret]"].value <= by["noise", "synthetic", "ranking[regret]"].value
    judged = by["-", f"real:{BOOSTED}", "auroc"]
    assert judged.low <= judged.value <= judged.high
    assert judged.n == (seeds if seeds > 1 else len(np.unique(domain.test.client)))
    assert FEDERATED not in KINDS
