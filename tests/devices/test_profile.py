"""Devices: known answers for a fleet without spread, and orderings that must hold for the shipped one."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_health.devices.profile import FLEET, DeviceProfile, simulate_rounds

EXACT = DeviceProfile("exact", 1.0, 1e6, 8e3, 16e3, 0.25, 1e-9, 1e-6, 0.0)


def _cost(cohort, flops=1e6, up=1000.0, down=2000.0, fleet=FLEET, seed=0):
    return simulate_rounds(np.asarray(cohort), flops, up, down, np.random.default_rng(seed), fleet)


def test_known_answer_without_spread():
    cost = _cost([1, 5, 0], fleet=(EXACT,))
    # 0.25 s latency + 2000 B at 16 kbit/s + 1e6 flop at 1e6 flop/s + 1000 B at 8 kbit/s
    np.testing.assert_allclose(cost.latency_seconds, [3.25, 3.25, 0.0])
    per_client = 1e6 * 1e-9 + 3000 * 1e-6
    np.testing.assert_allclose(cost.energy_joules, [per_client, 5 * per_client, 0.0])


def test_a_round_waits_for_its_slowest_client():
    slow = EXACT._replace(share=0.5, flops_per_second=1e4)
    fleet = (EXACT._replace(share=0.5), slow)
    times = _cost([1] * 200, fleet=fleet).latency_seconds
    np.testing.assert_allclose(np.unique(times.round(6)), [3.25, 102.25])
    assert 0.35 < np.mean(times > 50) < 0.65
    np.testing.assert_allclose(_cost([40] * 20, fleet=fleet).latency_seconds, 102.25)


def test_shares_are_respected():
    fleet = (EXACT._replace(share=0.9), EXACT._replace(share=0.1, joules_per_flop=0.0, joules_per_byte=0.0))
    energy = _cost([20_000], fleet=fleet).energy_joules[0] / (20_000 * 4e-3)
    assert energy == pytest.approx(0.9, abs=0.012)  # more than 5 standard deviations


def test_spread_is_the_deviation_of_the_log():
    fleet = (EXACT._replace(spread=0.5, latency_seconds=0.0, up_bits_per_second=np.inf, down_bits_per_second=np.inf),)
    log_time = np.log(_cost([1] * 4000, fleet=fleet).latency_seconds)
    assert log_time.std() == pytest.approx(0.5, abs=0.03)
    assert log_time.mean() == pytest.approx(0.0, abs=0.04)


@pytest.mark.parametrize("more", [{"flops": 1e9}, {"up": 1e6}, {"down": 1e6}])
def test_more_work_or_traffic_costs_more(more):
    base, heavy = _cost([5] * 50), _cost([5] * 50, **more)
    assert (heavy.latency_seconds > base.latency_seconds).all()
    assert (heavy.energy_joules > base.energy_joules).all()


def test_shipped_fleet_and_determinism():
    assert sum(d.share for d in FLEET) == pytest.approx(1.0)
    a, b, c = _cost([3, 4]), _cost([3, 4]), _cost([3, 4], seed=1)
    np.testing.assert_array_equal(a.latency_seconds, b.latency_seconds)
    assert (a.latency_seconds != c.latency_seconds).all()
