"""The benchmark of canary records: whose coin is whose, and that a run hides no client before its own."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks import canary_records

pytestmark = pytest.mark.quick_compile


def test_coins_belong_to_the_clients_that_hold_the_canaries(monkeypatch):
    monkeypatch.setattr(canary_records, "CLIENTS", 70)
    monkeypatch.setattr(canary_records, "CANARIES", 20)
    config = canary_records.configured(1.0, quick=True)
    p, canaries = canary_records.audited(config)
    assert p.include.shape == (2, 70) and p.include[:, :50].all()
    coins = p.include[:, 50:]
    assert 5 < coins[0].sum() < 15 and (coins[0] != coins[1]).any()
    train = p.domain.train
    for k in range(20):
        mine = train.client == 50 + k
        assert mine.sum() == canary_records.RECORDS and (train.label[mine] == canaries.label[k]).all()
        np.testing.assert_array_equal(train.values[mine], np.tile(canaries.values[k], (mine.sum(), 1)))
    assert p.domain.population.size == 70 and p.data.count.shape == (70,)
    assert p.parts["vae"].sampler.size == 70 and set(p.one_shots) == {"copula"}


def test_runs_are_private_as_they_say():
    private, plain = (canary_records.configured(epsilon, False) for epsilon in (3.0, math.inf))
    assert (private.privacy.mechanism, private.privacy.epsilon) == ("central_gaussian", 3.0)
    assert plain.privacy.mechanism == "none" and private.vae.train.sampler == plain.vae.train.sampler == "full"
    assert private.seeds >= 3 and canary_records.CANARIES >= 200
