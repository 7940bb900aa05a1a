"""The plan of a run: delta, calibrated noise, what is spent when, and the ledger's totals."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from dp_accounting import dp_event

from fedjax_health.config import PrivacyConfig
from fedjax_health.federated.cohort import make_poisson
from fedjax_health.privacy import accounting, groups, second_opinion
from fedjax_health.privacy.event_fields import event_fields, event_of
from fedjax_health.privacy.plan import Release, make_plan, write_ledger
from fedjax_health.types import UserError

K = 200
CONFIG = PrivacyConfig("central_gaussian", epsilon=6.0, delta=0.0, noise_multiplier=0.0, prior_noise_multiplier=20.0)
SAMPLER = make_poisson(K, 20.0, 4)
RELEASES = [
    Release("vitals/vae", "vitals", SAMPLER, 10, 0.5),
    Release("vitals/gan", "vitals", SAMPLER, 6, 0.3),
    Release("threats/vae", "threats", SAMPLER, 8, 0.5),
]
ALL = {r.stage: r.rounds for r in RELEASES}


@pytest.fixture(scope="module")
def plan():
    return make_plan(CONFIG, K, RELEASES)


def test_the_whole_run_meets_the_budget_and_uses_it(plan):
    assert plan.delta == pytest.approx(K**-1.1)
    total = accounting.epsilon_of(plan.spent(ALL), plan.delta)
    assert 5.8 < total <= 6.0
    less = dataclasses.replace(plan, noise_multiplier=0.98 * plan.noise_multiplier)
    assert accounting.epsilon_of(less.spent(ALL), plan.delta) > 6.0


def test_spent_counts_every_round_and_every_histogram(plan):
    prior, *rounds = plan.spent({"vitals/gan": 4})
    assert prior[1] == 2  # two domains, though three trainings
    assert [count for _, count in rounds] == [0, 4, 0]
    assert rounds[1][0] == SAMPLER.account(plan.noise_multiplier)


def test_epsilon_table_goes_on_where_the_earlier_training_stopped(plan):
    first = plan.epsilon_table(RELEASES[0], {})
    second = plan.epsilon_table(RELEASES[1], {"vitals/vae": 10})
    last = plan.epsilon_table(RELEASES[2], {"vitals/vae": 10, "vitals/gan": 6})
    assert [len(t) for t in (first, second, last)] == [11, 7, 9]
    assert first[0] == pytest.approx(accounting.epsilon_of(plan.priors(), plan.delta))
    assert second[0] == pytest.approx(first[-1]) and last[0] == pytest.approx(second[-1])
    assert last[-1] == pytest.approx(accounting.epsilon_of(plan.spent(ALL), plan.delta))


def test_ledger_totals(plan, tmp_path):
    ran = {"vitals/vae": 10, "threats/vae": 3}
    ledger = plan.ledger(ran)
    assert ledger["epsilon_total"] == pytest.approx(accounting.epsilon_of(plan.spent(ran), plan.delta))
    assert ledger["epsilon_total"] < plan.ledger(ALL)["epsilon_total"] <= ledger["target_epsilon"] == 6.0
    assert ledger["epsilon_total"] <= ledger["epsilon_rdp"] < 1.5 * ledger["epsilon_total"]
    # two steps of group privacy at the same delta would cost more than 2 epsilon
    assert ledger["epsilon_total"] < ledger["epsilon_replace_one"] < 2 * ledger["epsilon_total"]
    assert ledger["replace_one_method"] == groups.DIRECT
    assert ledger["delta_replace_one"] == ledger["delta"] == plan.delta
    assert [group["size"] for group in ledger["groups"]] == [2, 5]
    assert ledger["groups"][0]["epsilon"] > 2 * ledger["epsilon_total"] and ledger["groups"][0]["delta"] == plan.delta
    assert (ledger["unit"], ledger["relation"]) == ("client", "add_or_remove_one")
    by_name = {event["name"]: event for event in ledger["events"]}
    assert list(by_name) == ["class shares vitals", "class shares threats", "train vitals/vae", "train threats/vae"]
    trained, prior = by_name["train threats/vae"], by_name["class shares vitals"]
    assert (trained["rounds"], trained["l2_clip_norm"], trained["sampling_probability"]) == (3, 0.5, 0.1)
    assert trained["noise_multiplier"] == plan.noise_multiplier
    assert (prior["rounds"], prior["noise_multiplier"], prior["sampling_probability"]) == (1, 20.0, 1.0)
    parts = [event["epsilon"] for event in ledger["events"]]
    assert max(parts) < ledger["epsilon_total"] < sum(parts)
    path = tmp_path / "privacy_ledger.json"
    write_ledger(str(path), ledger)
    assert json.loads(path.read_text()) == ledger
    rebuilt = [(event_of(event["event_fields"]), event["rounds"]) for event in json.loads(path.read_text())["events"]]
    assert accounting.merged(rebuilt) == accounting.merged(plan.spent(ran))


def test_a_contradiction_between_the_accountants_stops_the_run(plan, monkeypatch):
    total = plan.ledger(ALL)["epsilon_total"]
    monkeypatch.setattr(second_opinion, "_FINER", ())
    monkeypatch.setattr(second_opinion, "rdp_epsilon_of", lambda events, delta: 0.98 * total)
    with pytest.raises(UserError, match="contradict each other"):
        plan.ledger(ALL)


def test_noise_leaves_room_for_what_was_published_before(plan):
    before = [(plan.priors()[0][0], 200)]
    more = make_plan(CONFIG, K, RELEASES, before)
    assert accounting.epsilon_of([*before, *plan.spent(ALL)], plan.delta) > 6.0
    assert 5.8 < accounting.epsilon_of([*before, *more.spent(ALL)], more.delta) <= 6.0


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"type": "LaplaceDpEvent", "noise_multiplier": 1.0}, "no event that is known"),
        ([1, 2], "no event that is known"),
        ({"type": "GaussianDpEvent"}, "do not fit GaussianDpEvent"),
        ({"type": "GaussianDpEvent", "noise_multiplier": 1.0, "extra": 2}, "do not fit GaussianDpEvent"),
        ({"type": "GaussianDpEvent", "noise_multiplier": "1.0"}, "no number"),
        ({"type": "PoissonSampledDpEvent", "sampling_probability": True, "event": {}}, "no number"),
    ],
)
def test_events_come_back_only_from_their_own_fields(fields, said):
    with pytest.raises(UserError, match=said):
        event_of(fields)


def test_every_covered_event_comes_back():
    gaussian = dp_event.GaussianDpEvent(1.25)
    sampled = dp_event.PoissonSampledDpEvent(0.1, gaussian)
    nested = dp_event.ComposedDpEvent([dp_event.SelfComposedDpEvent(sampled, 3), dp_event.NoOpDpEvent(), gaussian])
    for event in (gaussian, sampled, nested, SAMPLER.account(0.7)):
        assert event_of(json.loads(json.dumps(event_fields(event)))) == event
    with pytest.raises(UserError, match="cannot hold LaplaceDpEvent"):
        event_fields(dp_event.SelfComposedDpEvent(dp_event.LaplaceDpEvent(1.0), 2))


def test_given_noise_is_used_as_it_stands():
    plan = make_plan(dataclasses.replace(CONFIG, noise_multiplier=0.3), K, RELEASES)
    assert plan.noise_multiplier == 0.3
    assert plan.epsilon_table(RELEASES[0], {})[-1] > CONFIG.epsilon  # training has to stop early


def test_delta_must_be_below_one_in_k():
    for delta in (1 / K, 0.5):
        with pytest.raises(UserError, match="not below 1/K"):
            make_plan(dataclasses.replace(CONFIG, delta=delta, noise_multiplier=1.0), K, RELEASES)
    below = make_plan(dataclasses.replace(CONFIG, delta=0.9 / K, noise_multiplier=1.0), K, RELEASES)
    assert below.delta == 0.9 / K


def test_histograms_alone_can_break_the_budget():
    with pytest.raises(UserError, match="prior_noise_multiplier"):
        make_plan(dataclasses.replace(CONFIG, epsilon=0.5, prior_noise_multiplier=0.5), K, RELEASES)


def test_no_mechanism_claims_nothing():
    plan = make_plan(dataclasses.replace(CONFIG, mechanism="none"), K, RELEASES)
    assert not plan.formal and plan.noise_multiplier == 0.0
    assert np.isnan(plan.epsilon_table(RELEASES[0], {})).all()
    ledger = plan.ledger(ALL)
    assert ledger["epsilon_total"] is None and ledger["delta"] is None and ledger["events"] == []
    assert ledger["epsilon_rdp"] is None and ledger["groups"] == []
    json.dumps(ledger, allow_nan=False)


def test_the_ledger_says_of_how_many_the_server_sees_sums(plan):
    """One training without secure aggregation, and it sees single updates."""
    assert plan.ledger({})["server_sees_sums_of"] == 1
    summed = [dataclasses.replace(r, least=9 + i) for i, r in enumerate(RELEASES)]
    for mechanism in ("central_gaussian", "none"):
        whole = make_plan(dataclasses.replace(CONFIG, mechanism=mechanism), K, summed)
        assert whole.ledger({})["server_sees_sums_of"] == 9
    mixed = dataclasses.replace(plan, releases=(*summed[:2], RELEASES[2]))
    assert mixed.ledger({})["server_sees_sums_of"] == 1
