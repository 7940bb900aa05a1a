"""Rounds of known participants: against the sum over how many there were, and against amplification that is not there."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from dp_accounting import GaussianDpEvent, LaplaceDpEvent, PoissonSampledDpEvent

from fedjax_health.config import PrivacyConfig
from fedjax_health.federated.cohort import make_full, make_poisson
from fedjax_health.privacy import accounting, groups, second_opinion
from fedjax_health.privacy.event_fields import event_fields, event_of
from fedjax_health.privacy.plan import Release, make_plan
from fedjax_health.privacy.revealed import RevealedSampledDpEvent
from fedjax_health.types import UserError

DELTA = 1e-5


def event(q, z):
    return RevealedSampledDpEvent(q, GaussianDpEvent(z))


def exact_delta(epsilon, q, z, rounds):
    """sum_m Binomial(m; T, q) delta of m Gaussian rounds, whose mu is sqrt(m) / z (Balle and Wang 2018, Theorem 8)."""
    m = np.arange(1, rounds + 1)
    mu = np.sqrt(m) / z
    delta = scipy.stats.norm.cdf(mu / 2 - epsilon / mu) - np.exp(epsilon) * scipy.stats.norm.cdf(-mu / 2 - epsilon / mu)
    return float(np.sum(scipy.stats.binom.pmf(m, rounds, q) * delta))


@pytest.mark.parametrize(("q", "z", "rounds"), [(0.3, 1.0, 1), (0.05, 0.8, 40), (0.01, 2.0, 600), (1.0, 3.0, 20)])
def test_delta_is_that_of_how_often_the_client_took_part(q, z, rounds):
    epsilon = accounting.epsilon_of([(event(q, z), rounds)], DELTA)
    assert exact_delta(epsilon, q, z, rounds) <= DELTA  # pessimistic
    assert exact_delta(epsilon * 0.98 - 0.01, q, z, rounds) > DELTA  # and hardly so
    both = second_opinion.opinions([(event(q, z), rounds), (GaussianDpEvent(20.0), 1)], DELTA)
    assert epsilon < both.pld <= both.rdp < 2 * both.pld + 1


def test_sampling_that_hides_nothing_does_not_amplify():
    plan = [(event(0.01, 0.6), 600)], [(PoissonSampledDpEvent(0.01, GaussianDpEvent(0.6)), 600)]
    known, hidden = (accounting.epsilon_of(events, DELTA) for events in plan)
    assert known > 4 * hidden


def test_everybody_in_every_round_is_the_plain_gaussian():
    ours, plain = (accounting.epsilon_of([(e, 10)], DELTA) for e in (event(1.0, 2.0), GaussianDpEvent(2.0)))
    assert abs(ours / plain - 1) < 5e-3
    rdp, reference = (second_opinion.rdp_epsilon_of([(e, 10)], DELTA) for e in (event(1.0, 2.0), GaussianDpEvent(2.0)))
    assert abs(rdp / reference - 1) < 1e-3


def test_replacing_a_record_counts_half_the_noise():
    found = groups.replace_one([(event(0.1, 2.0), 30)], DELTA)
    assert found.epsilon <= accounting.epsilon_of([(event(0.1, 1.0), 30)], DELTA) * 1.001
    assert found.epsilon > accounting.epsilon_of([(event(0.1, 2.0), 30)], DELTA)


def test_a_ledger_holds_it_and_bad_ones_are_refused():
    assert event_of(event_fields(event(0.1, 2.0))) == event(0.1, 2.0)
    for bad in (event(0.0, 1.0), event(0.1, 0.0), event(1.5, 1.0), RevealedSampledDpEvent(0.1, LaplaceDpEvent(1.0))):
        with pytest.raises(UserError, match="does not cover RevealedSampledDpEvent"):
            accounting.epsilon_of([(bad, 1)], DELTA)
    mixed = [(event(0.1, 1.0), 1), (PoissonSampledDpEvent(0.1, GaussianDpEvent(1.0)), 1)]
    with pytest.raises(UserError, match="does not mix PoissonSampledDpEvent"):
        second_opinion.rdp_epsilon_of(mixed, DELTA)


@pytest.mark.parametrize("sampler", [make_poisson(400, 40.0, 8), make_full(400, 8)])
def test_a_plan_for_records_takes_no_amplification_and_counts_local_passes(sampler):
    config = PrivacyConfig("record_gaussian", 8.0, 1e-5, 3.0, 20.0)
    plan = make_plan(config, 4000, [Release("vitals/vae", "vitals", sampler, 20, 1.0, passes=4)])
    ledger = plan.ledger({"vitals/vae": 20})
    assert (ledger["unit"], ledger["relation"]) == ("record", "zero_out_one")
    trained = RevealedSampledDpEvent(sampler.expected / 400, GaussianDpEvent(3.0 / math.sqrt(4)))
    expected = accounting.epsilon_of([(trained, 20), (GaussianDpEvent(20.0), 1)], 1e-5)
    assert ledger["epsilon_total"] == pytest.approx(expected, rel=1e-9) and expected <= ledger["epsilon_rdp"]
    assert ledger["events"][1]["event"] == "RevealedSampledDpEvent"
    assert any("Whole clients" in sentence for sentence in ledger["not_covered"])
