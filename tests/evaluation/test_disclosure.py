"""Rates, the risk over a control group and its interval, and the rows of a run."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from fedjax_health.attacks.disclosure import Counted, Disclosure, Outcome
from fedjax_health.config import EvaluationConfig
from fedjax_health.data.domain import Domain
from fedjax_health.evaluation.disclosure import Rate, disclosure_rows, outcome_rows, residual_risk, wilson
from fedjax_health.evaluation.setting import Setting, Subject
from fedjax_health.types import Table


@pytest.mark.parametrize(("right", "guesses"), [(0, 50), (50, 50), (7, 400), (399, 1000)])
def test_wilson_is_that_of_statsmodels(right, guesses):
    rate = wilson(Counted(right, guesses))
    assert rate.value == right / guesses
    assert rate[1:] == pytest.approx(proportion_confint(right, guesses, method="wilson"), abs=1e-12)
    assert all(math.isnan(x) for x in wilson(Counted(0, 0)))


def test_risk_is_what_the_control_leaves_open():
    assert residual_risk(Rate(0.8, 0.8, 0.8), Rate(0.6, 0.6, 0.6)) == pytest.approx((0.5, 0.5, 0.5))
    assert residual_risk(Rate(0.6, 0.6, 0.6), Rate(0.6, 0.6, 0.6)) == pytest.approx((0, 0, 0), abs=1e-12)
    assert residual_risk(Rate(1, 1, 1), Rate(0.6, 0.5, 0.7)) == (1, 1, 1)
    assert residual_risk(Rate(0.2, 0.1, 0.3), Rate(0.9, 0.85, 0.95)) == (-1, -1, -1)
    assert math.isnan(residual_risk(Rate(1, 0.9, 1), Rate(1, 0.9, 1)).value)
    wide = residual_risk(Rate(0.5, 0.4, 0.6), Rate(0.5, 0.2, 1.0))
    assert wide.low == -1 and wide.value == 0 < wide.high


def test_the_interval_holds_the_risk_as_often_as_it_says_and_not_a_wrong_one():
    r, held, wrong, repeats = np.random.default_rng(0), 0, 0, 600
    for attack, control in zip(r.binomial(400, 0.55, repeats), r.binomial(300, 0.4, repeats), strict=True):
        _, low, high = residual_risk(wilson(Counted(int(attack), 400)), wilson(Counted(int(control), 300)))
        held += low <= 0.25 <= high
        wrong += low <= 0 <= high
    assert 0.93 < held / repeats < 0.975
    assert wrong / repeats < 0.2


def rows(*outcomes):
    return {r.metric: r for r in outcome_rows("d", "m", "a", outcomes)}


def test_seeds_add_up_and_the_control_is_scaled():
    one = Outcome(Counted(30, 100), Counted(5, 100), Counted(2, 100), 5.0)
    found = rows(one, one)
    assert {m: (r.value, r.n) for m, r in found.items()} == {
        "attack_rate": (0.3, 200),
        "baseline_rate": (0.05, 200),
        "control_rate": (pytest.approx(0.1), 200),
        "risk": (pytest.approx(2 / 9), 200),
    }
    assert all(r.low < r.value < r.high for r in found.values())
    assert found["control_rate"].high == pytest.approx(5 * wilson(Counted(4, 200)).high)


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(Counted(5, 100), Counted(9, 100), Counted(1, 100)),  # weaker than blind guesses
        Outcome(Counted(0, 100), Counted(0, 100), Counted(0, 100)),
        Outcome(Counted(100, 100), Counted(50, 100), Counted(100, 100)),  # everyone is as exposed
        Outcome(Counted(0, 0), Counted(0, 0), Counted(0, 0)),
        Outcome(Counted(50, 100), Counted(9, 100), Counted(0, 0)),  # no control
    ],
)
def test_what_is_not_assessed_is_no_risk_of_zero(outcome):
    assert np.isnan(rows(outcome)["risk"][4:7]).all()


def test_rows_of_a_run_show_members_others_and_the_ceiling_to_the_attack():
    clients = np.repeat(np.arange(6, dtype=np.int32), 2)
    train = Table(np.repeat(np.arange(6), 2)[:, None].astype(np.float32), np.zeros(12, np.int32), clients)
    include = np.ones((2, 6), bool)
    include[0, 4:], include[1, :3] = False, False
    domain = Domain(*([None] * len(Domain._fields)))._replace(name="ward", train=train)
    config = EvaluationConfig(100, 0, 0.05)
    asked = []

    def tried(synthetic, people, schema, queries, rng):
        asked.append(
            (len(synthetic.label), np.unique(people.member.values).tolist(), np.unique(people.outsider.values).tolist())
        )
        return {"": Outcome(Counted(queries, queries), Counted(0, queries), Counted(0, queries))}

    made = Table(np.zeros((9, 1), np.float32), np.zeros(9, np.int32), np.arange(9, dtype=np.int32))
    subject = Subject("vae", [made, made], 7, lambda table, s: np.zeros(1))
    found = disclosure_rows(
        Setting(domain, include, config, 0, None), [subject], {"spy": Disclosure("spy", "the table", tried)}
    )
    assert sorted(asked) == [(7, [0, 1, 2, 3], [4, 5]), (7, [3, 4, 5], [0, 1, 2]), (8, [0, 1, 2, 3], [4, 5])]
    assert {(r.model, r.row, r.metric): (r.value, r.n) for r in found if r.metric == "risk"} == {
        ("vae", "spy", "risk"): (1.0, 600),
        ("real", "spy", "risk"): (1.0, 300),
    }
