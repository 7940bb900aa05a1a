"""A rival is a row of the tables like the copula: fitted to each seed's clients, judged and used for training alike."""

from __future__ import annotations

import numpy as np
import pytest
import toy

from fedjax_health import checks
from fedjax_health.config import EvaluationConfig
from fedjax_health.evaluation import rivals
from fedjax_health.evaluation.downstream import Downstream, Fitted
from fedjax_health.evaluation.mixtures import held
from fedjax_health.evaluation.suite import OVERALL_ROWS, Setting, fit_all, included, similarity_rows
from fedjax_health.report.labels import BOUNDS


@pytest.fixture
def setting():
    plain = toy.domain()
    include = np.ones((2, int(plain.train.client.max()) + 1), bool)
    include[0, :3] = include[1, -3:] = False
    return Setting(plain, include, EvaluationConfig(100, 0, 0.05, ("aim",)), 0, None)


def test_each_seed_gets_its_own_clients_the_runs_budget_and_a_row(setting, monkeypatch):
    seen = []

    def maker(table, schema, n, generator, epsilon, delta):
        seen.append((len(table.label), n, generator.random(), epsilon, delta))
        rows = generator.integers(len(table.label), size=n)
        return table._replace(values=table.values[rows], label=table.label[rows], client=np.arange(n, dtype=np.int32))

    monkeypatch.setitem(rivals.MAKERS, "aim", maker)
    made = rivals.rival_tables(setting, (3.0, 1e-3))
    train = setting.domain.train
    kept = [int(np.isin(train.client, included(setting, s, True)).sum()) for s in range(2)]
    assert [s[0] for s in seen] == kept and max(kept) < len(train.label)
    assert [s[1] for s in seen] == [len(train.label)] * 2 and {s[3:] for s in seen} == {(3.0, 1e-3)}
    assert seen[0][2] != seen[1][2]
    rows = [r for r in similarity_rows(setting, [], made) if r.row == "aim"]
    assert {r.metric for r in rows} >= {"ks_complement", "c2st_auc"} and {(r.model, r.n) for r in rows} == {("-", 2)}
    fitted = {}

    def fit(view, tables, stage):
        fitted[stage] = view, tables
        return Fitted(lambda table, seed: np.zeros(0), lambda table, seed: np.zeros(0))

    def fit_mixtures(mixtures, stage):
        raise AssertionError("no rival is mixed with real records")

    at = held(train, int(train.client.max()) + 1)
    fits = fit_all(setting, [], made, Downstream(fit, fit_mixtures, at, lambda: 0))
    assert fitted[f"{setting.domain.name}/classifier/aim"] == ("synthetic", made["aim"])
    assert set(fits.by_row) == {("-", "real"), ("-", "gaussian-copula"), ("-", "aim")}


def test_without_rivals_nothing_is_made(setting):
    assert rivals.rival_tables(setting._replace(config=EvaluationConfig(100, 0, 0.05)), None) == {}


def test_every_rival_has_a_maker_and_a_name_for_readers():
    assert set(rivals.MAKERS) == set(checks.RIVALS) and set(checks.RIVALS) <= set(BOUNDS) & set(OVERALL_ROWS)
