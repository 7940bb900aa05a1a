"""What a run says of its canaries: figures that agree with the ledger, and a stop where they cannot."""

from __future__ import annotations

import dp_accounting
import numpy as np
import pytest

from fedjax_health.privacy import accounting
from fedjax_health.privacy.audit import Scores, audit_rows, refuted
from fedjax_health.types import UserError

DELTA, CANARIES, FEDERATIONS = 1e-5, 500, 4
CLAIMED = 2.0


def scores(noise, rounds, seed=0):
    """Of a Gaussian mechanism in which all take part in every round: sums ~ N(x T, T z^2), z as it really is."""
    rng = np.random.default_rng(seed)
    inserted = rng.random((FEDERATIONS, CANARIES)) < 0.5
    during = rounds * inserted + np.sqrt(rounds) * noise * rng.normal(size=inserted.shape)
    loss = (during - rounds / 2) / CLAIMED**2
    together = np.broadcast_to(rounds * np.eye(CANARIES), (FEDERATIONS, CANARIES, CANARIES))
    return Scores(inserted.astype(np.float32), np.full(inserted.shape, rounds, np.float32), together, during, loss)


def rows(found, rounds):
    event = dp_accounting.GaussianDpEvent
    accounted = accounting.epsilon_of([(event(CLAIMED), rounds)], DELTA)
    rng = np.random.default_rng(1)
    made = audit_rows("vitals/vae", found, event, rounds, CLAIMED, DELTA, accounted, rng)
    return accounted, {row.metric: row for row in made}


@pytest.mark.parametrize("rounds", [1, 4])
def test_a_right_mechanism_is_estimated_and_not_refuted(rounds):
    for seed in range(5):
        accounted, by_metric = rows(scores(CLAIMED, rounds, seed), rounds)
        assert set(by_metric) == {"epsilon_accounted", "epsilon_estimate", "epsilon_lower_bound"}
        assert by_metric["epsilon_accounted"].value == accounted
        estimate, bound = by_metric["epsilon_estimate"], by_metric["epsilon_lower_bound"]
        assert abs(estimate.value / accounted - 1) < 0.25 and estimate.n == FEDERATIONS
        assert estimate.low < estimate.value < estimate.high
        assert 0 <= bound.value <= accounted and bound.n == FEDERATIONS * CANARIES
        assert {row.domain for row in by_metric.values()} == {"vitals"}


@pytest.mark.parametrize("noise", [0.0, 0.1, 4 / 3])
def test_a_run_with_less_noise_than_claimed_publishes_nothing(noise):
    with pytest.raises(UserError, match=r"'vitals/vae' refutes .* the noise has multiplier .*nothing is published"):
        rows(scores(noise, 3), 3)


def test_a_client_that_counts_more_than_its_bound_publishes_nothing():
    found = scores(CLAIMED, 3)
    longer = found._replace(during=found.during + 3 * found.inserted)  # each counts twice
    with pytest.raises(UserError, match=r"a client counts [12][.0-9]* times its bound"):
        rows(longer, 3)


def test_a_right_run_is_stopped_as_seldom_as_said():
    stopped = sum(bool(refuted(scores(CLAIMED, 2, seed), CLAIMED)) for seed in range(2000))
    assert stopped <= 3  # of 2,000 at 1e-4 each: more has a chance below 1e-4
    louder = sum(bool(refuted(scores(CLAIMED * 1.2, 2, seed), CLAIMED)) for seed in range(50))
    assert louder == 0  # interference of other messages looks like more noise
    assert all(refuted(scores(CLAIMED * 0.8, 2, seed), CLAIMED) for seed in range(50))
