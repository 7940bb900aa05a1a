"""Membership risk by subgroup: found where it is planted, absent where it is not, and not read of few clients."""

from __future__ import annotations

import numpy as np
import pytest
import toy

from fedjax_health.config import EvaluationConfig
from fedjax_health.data.schema import Column, Schema
from fedjax_health.evaluation.setting import Setting
from fedjax_health.evaluation.subgroup_risk import client_groups, large_groups, risk_figures, risk_rows
from fedjax_health.evaluation.suite import make_targets
from fedjax_health.types import Table

SCHEMA = Schema(
    "toy",
    (
        Column(name="x", low=0, high=1),
        Column(name="sex", kind="binary", role="group", categories=("f", "m")),
        Column(name="y", kind="binary", role="label"),
    ),
)


def test_a_client_is_of_the_category_that_most_of_its_records_have():
    sex = [0, 1, 1, 0, 1, np.nan]
    t = Table(
        np.column_stack([np.zeros(6), sex]).astype(np.float32), np.zeros(6, np.int32), np.array([0, 0, 0, 4, 4, 7])
    )
    groups = client_groups(t, SCHEMA)["sex"]
    assert groups["sex=m"].tolist() == [True, False, False]
    assert groups["sex=f"].tolist() == [False, True, False]  # as many of either: the first; missing: none


def halves(n):
    first = np.arange(n) < n // 2
    return {"sex": {"sex=f": first, "sex=m": ~first}}


def test_risk_is_found_where_it_is_planted():
    r = np.random.default_rng(0)
    member, outsider = r.normal(size=400), r.normal(size=400)
    member[:200] += 2  # of "f" only
    f = risk_figures("a", member, outsider, halves(400), halves(400), {"sex=f", "sex=m"})
    assert f["a", "membership_auc[sex=f]"] == pytest.approx(0.92, abs=0.04)
    assert f["a", "membership_auc[sex=m]"] == pytest.approx(0.5, abs=0.06)
    gap = f["a", "membership_auc[sex=f]"] - f["a", "membership_auc[sex=m]"]
    assert f["a", "membership_auc_gap[sex]"] == pytest.approx(gap)
    assert f["a", "targets[sex=f]"] == 400


def test_few_clients_are_too_few_to_judge_and_scores_must_be_finite():
    assert large_groups(halves(38), halves(400)) == set() and large_groups(halves(40), halves(400)) == {
        "sex=f",
        "sex=m",
    }
    few = risk_figures("a", np.arange(38.0), np.arange(400.0), halves(38), halves(400), set())
    assert np.isnan(few["a", "membership_auc[sex=f]"]) and few["a", "targets[sex=f]"] == 219
    assert np.isnan(few["a", "membership_auc_gap[sex]"])
    bad = risk_figures("a", np.full(400, np.nan), np.arange(400.0), halves(400), halves(400), {"sex=m"})
    assert np.isnan(bad["a", "membership_auc[sex=m]"])


@pytest.mark.parametrize("seeds", [1, 2])
def test_rows_of_a_run_have_intervals(seeds, monkeypatch):
    monkeypatch.setattr("fedjax_health.evaluation.subgroup_risk.FEWEST_CLIENTS", 3)
    domain = toy.domain()
    include = np.ones((seeds, int(domain.train.client.max()) + 1), bool)
    include[:, ::2] = False
    setting = Setting(domain, include, EvaluationConfig(100, 0, 0.05), 0, None)
    targets = [make_targets(setting, s) for s in range(seeds)]
    r = np.random.default_rng(0)
    pairs = [tuple(r.normal(size=int(side.client.max()) + 1) for side in t) for t in targets]
    rows = risk_rows(setting, [("vae", "federated+synthetic:domias", pairs)])
    assert {r.row for r in rows} == {"federated+synthetic:domias"} and {r.model for r in rows} == {"vae"}
    area = next(r for r in rows if r.metric == "membership_auc[sex=female]")
    assert area.low <= area.value <= area.high
    assert area.n == (2 if seeds == 2 else sum(len(side) for side in pairs[0]))
    assert risk_rows(setting, []) == []
