"""The one-shot copula as a model of a run: what it makes, what it costs, and that nothing else changes."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
from typing import Any

import dp_accounting
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import toy

from configs import base
from fedjax_health import build, experiment, one_shot, prepare
from fedjax_health import config as configuration
from fedjax_health.data.cells import variables
from fedjax_health.data.population import make_store
from fedjax_health.data.representation import layout_of
from fedjax_health.evaluation.rows import read_rows
from fedjax_health.federated import sharding
from fedjax_health.privacy.fit import statistics_noise
from fedjax_health.results import TABLES
from fedjax_health.types import UserError

pytestmark = pytest.mark.quick_compile
CLIENTS = 1500
ROWS = 40_000


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    """The toy domain, under any name, in place of loaded ones."""
    monkeypatch.setattr(build, "build_domain", lambda name, config: domain()._replace(name=name))


@functools.cache
def domain():
    return toy.domain(CLIENTS)


@pytest.fixture
def bare(monkeypatch):
    """Runs without their evaluation."""
    monkeypatch.setattr(experiment, "evaluate", lambda *_: None)
    monkeypatch.setattr(experiment, "render_report", lambda path: os.path.join(path, "report.html"))
    monkeypatch.setattr(experiment, "show", lambda *_: None)


def config(**changes: Any) -> configuration.Config:
    raw = base.get_config()
    raw.models, raw.seeds, raw.data.domains = ("copula",), 2, ("toy",)
    raw.evaluation.max_rows = 300
    for section in (raw.vae, raw.classifier):
        section.hidden = (8,)
        section.train.rounds, section.train.rounds_per_chunk = 4, 2
        section.train.cohort, section.train.batch_size = 30, 4
    raw.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return configuration.from_config_dict(raw)


def ledger_of(run: pathlib.Path) -> dict:
    return json.loads((run / "privacy_ledger.json").read_text())


def test_without_noise_the_table_has_the_clients_shares_gaps_and_correlations(bare, tmp_path):
    open_run = config(privacy__mechanism="none", seeds=1, evaluation__synthetic_rows=ROWS)
    experiment.run(open_run, str(tmp_path / "run"))
    made = pd.read_parquet(tmp_path / "run" / "synthetic" / "toy_copula.parquet")
    p = prepare.bare_domain("toy", open_run, sharding.make_mesh())
    asked, weight = prepare.asked_records(p, 0, False)
    weight = weight / weight.sum()
    real = pd.DataFrame(asked.values, columns=[c.name for c in toy.SCHEMA.inputs])
    sick = (made.sick == "1").to_numpy()
    assert len(made) == ROWS and sick.mean() == pytest.approx(weight[asked.label == 1].sum(), abs=0.015)
    within = []
    for c in (0, 1):
        mine, rows = asked.label == c, made[sick == c]
        own = weight[mine] / weight[mine].sum()
        for i, ward in enumerate("abc"):
            assert (rows.ward == ward).mean() == pytest.approx(own[real.ward[mine] == i].sum(), abs=0.015)
        assert (rows.sex == "male").mean() == pytest.approx(own[real.sex[mine] == 1].sum(), abs=0.015)
        assert rows.lactate.isna().mean() == pytest.approx(own[real.lactate[mine].isna()].sum(), abs=0.015)
        names = ["systolic", "diastolic"]
        rho = [scipy.stats.spearmanr(t[names]).statistic for t in (rows, real[mine])]
        assert rho[0] == pytest.approx(rho[1], abs=0.07) and rho[1] > 0.3  # real records are some 2,000 a class
        within.append([np.average(real.systolic[mine], weights=own), rows.systolic.mean()])
    assert within[1][1] - within[0][1] == pytest.approx(within[1][0] - within[0][0], abs=1.0)
    ledger = ledger_of(tmp_path / "run")
    assert ledger["epsilon_total"] is None and ledger["one_shot"]["epsilon_one_shot"] is None
    assert ledger["asked_of_clients"][-1] == "category shares"


def gaussian_epsilon(noises: list[float], delta: float) -> float:
    """Of Gaussian mechanisms together, which are one: 1 / z^2 = sum of theirs (an accountant of its own)."""
    return dp_accounting.get_epsilon_gaussian(1.0 / np.sqrt(np.sum(1.0 / np.square(noises))), delta)


def test_alone_it_costs_its_statistics_and_class_shares(bare, tmp_path):
    experiment.run(config(), str(tmp_path / "run"))
    ledger, delta = ledger_of(tmp_path / "run"), CLIENTS**-1.1
    z = statistics_noise(8.0, delta, 0.45, 3)
    assert z == pytest.approx(np.sqrt(3) / 0.45 * dp_accounting.get_sigma_gaussian(8.0, delta))
    names = [f"{what} toy" for what in ("class shares", "distribution functions", "correlation", "category shares")]
    assert [e["name"] for e in ledger["events"]] == names
    assert [e["noise_multiplier"] for e in ledger["events"]] == [20.0, z, z, z]
    expected = gaussian_epsilon([20.0, z, z, z], delta)
    assert ledger["epsilon_total"] == pytest.approx(expected, rel=0.01)
    assert ledger["one_shot"] == {
        "generators": ["toy/copula"],
        "epsilon_one_shot": ledger["epsilon_total"],
        "alone": True,
    }
    rows = read_rows(str(tmp_path / "run" / "tables" / "privacy.csv"))
    (alone,) = [r for r in rows if r.metric == "epsilon_one_shot"]
    assert (alone.domain, alone.model) == ("toy", "copula") and alone.value == pytest.approx(expected, rel=0.01)


def plan(**changes: Any):
    given = config(**changes)
    return prepare.plan_privacy(
        given, [prepare.bare_domain(n, given, sharding.make_mesh()) for n in given.data.domains]
    )


def test_beside_a_trained_model_the_whole_meets_the_budget_and_other_runs_are_asked_nothing_more():
    both, without = plan(models=("copula", "vae")), plan(models=("vae",))
    assert [r.stage for r in both.releases] == [r.stage for r in without.releases] == ["toy/vae"]
    assert both.questions("toy")[:2] == without.questions("toy") and len(both.questions("toy")) == 3
    # the queries share what two had, and training keeps what it has
    assert both.statistics_noise == pytest.approx(without.statistics_noise * np.sqrt(1.5))
    assert both.noise_multiplier == pytest.approx(without.noise_multiplier, rel=2e-3)
    ledger = both.ledger({"toy/vae": 4})
    alone = gaussian_epsilon([20.0, *(3 * [both.statistics_noise])], both.delta)
    assert ledger["one_shot"]["epsilon_one_shot"] == pytest.approx(alone, rel=0.01)
    assert alone < ledger["epsilon_total"] <= 8.0 and not ledger["one_shot"]["alone"]
    assert "one_shot" not in without.ledger({"toy/vae": 4})
    two = plan(data__domains=("toy", "ward"))
    assert len(two.ledger({})["events"]) == 8 and two.fits()[0][1] == 6
    assert two.statistics_noise == pytest.approx(both.statistics_noise * np.sqrt(2))


def test_a_share_that_the_class_shares_leave_no_room_for_is_refused():
    with pytest.raises(UserError) as e:
        plan(privacy__representation_share=0.99, privacy__prior_noise_multiplier=1.0)
    assert "representation_share=0.99" in str(e.value) and "more than privacy.epsilon=8" in str(e.value)


def in_every_table(tmp_path):
    run, given = tmp_path / "run", config(models=("copula", "vae"), quick_compile=False)
    experiment.run(given, str(run))
    rows = {name: read_rows(str(run / "tables" / f"{name}.csv")) for name in TABLES}
    for name in ("similarity", "utility", "membership", "efficiency", "fairness", "privacy"):
        assert {r.model for r in rows[name]} >= ({"copula"} if name == "privacy" else {"copula", "vae"}), name
    found = {(r.row, r.metric): r.value for r in rows["efficiency"] if r.model == "copula"}
    assert 0 < found["client", "bytes up in all"] < found["federation", "bytes up in all"]
    attacked = {r.row for r in rows["membership"] if r.model == "copula"}
    assert attacked == {r.row for r in rows["membership"] if r.model == "vae"}
    synthetic = {p.name: p.read_bytes() for p in (run / "synthetic").iterdir()}
    assert {f"toy_{m}.{e}" for m in given.models for e in ("parquet", "generator.json")} < set(synthetic)
    assert "One-shot copula" in (run / "report.html").read_text()
    return run, given, synthetic


def test_it_is_in_every_table_beside_a_trained_one(tmp_path):
    in_every_table(tmp_path)


@pytest.mark.long
def test_it_goes_on_where_it_stopped(tmp_path):
    run, given, synthetic = in_every_table(tmp_path)
    first = {name: (run / "tables" / f"{name}.csv").read_bytes() for name in TABLES if name != "efficiency"}
    experiment.run(given, str(run))
    assert synthetic == {p.name: p.read_bytes() for p in (run / "synthetic").iterdir()}
    assert first == {name: (run / "tables" / f"{name}.csv").read_bytes() for name in first}


def test_a_run_whose_noise_is_gone_publishes_the_same_again(bare, tmp_path):
    run, given = tmp_path / "run", config(privacy__randomness="system")
    experiment.run(given, str(run))
    before = {p.name: p.read_bytes() for p in (run / "synthetic").iterdir()}
    assert not (run / "secret_key.json").exists()
    experiment.run(given, str(run))
    assert before == {p.name: p.read_bytes() for p in (run / "synthetic").iterdir()}
    experiment.run(given, str(tmp_path / "other"))
    assert before["toy_copula.csv"] != (tmp_path / "other" / "synthetic" / "toy_copula.csv").read_bytes()


def test_a_clients_bytes_are_counted():
    given = config(privacy__mechanism="none", seeds=1)
    bare_domain = prepare.bare_domain("toy", given, sharding.make_mesh())
    p = prepare.measure(bare_domain, prepare.plan_privacy(given, [bare_domain]), given, prepare.BY_SEED)
    found = one_shot.traffic(toy.SCHEMA, domain().encoder.layout, p.fitted[0], False)
    # systolic 60 ... 260, pulse pressure 0 ... 230 (bounded as diastolic is), lactate 0 ... 20 by tenths; 10 pairs twice
    cells = [round((v.high - v.low) / v.step) + 1 for v in variables(toy.SCHEMA)]
    assert cells[0] == 201 and cells[2] == 201
    assert found.up == 4 * 2 * (1 + sum(cells) + 20 + 2 + 3)
    assert found.down == 4 * 3 * sum(len(set(e)) for e in np.asarray(p.fitted[0].edges).tolist())


def test_a_table_of_numbers_alone_is_asked_nothing_more(bare, monkeypatch, tmp_path):
    whole = domain()
    keep = [i for i, c in enumerate(toy.SCHEMA.inputs) if c.kind == "numeric" and not c.nullable]
    names = {toy.SCHEMA.inputs[i].name for i in keep} | {"sick"}
    schema = dataclasses.replace(toy.SCHEMA, columns=tuple(c for c in toy.SCHEMA.columns if c.name in names))
    encoder = toy.make_encoder(schema)

    def cut(table):
        return table._replace(values=table.values[:, keep])

    numbers = whole._replace(
        schema=schema, encoder=encoder, train=cut(whole.train), validation=cut(whole.validation), test=cut(whole.test),
        data=make_store(cut(whole.train), encoder, CLIENTS),
    )  # fmt: skip
    monkeypatch.setattr(build, "build_domain", lambda name, config: numbers)
    assert layout_of(schema, "copula").dim == 2
    experiment.run(config(privacy__randomness="system"), str(tmp_path / "run"))
    ledger = ledger_of(tmp_path / "run")
    assert ledger["asked_of_clients"] == ["class shares", "distribution functions", "correlation"]
    before = (tmp_path / "run" / "synthetic" / "toy_copula.csv").read_bytes()
    experiment.run(config(privacy__randomness="system"), str(tmp_path / "run"))
    assert before == (tmp_path / "run" / "synthetic" / "toy_copula.csv").read_bytes()
