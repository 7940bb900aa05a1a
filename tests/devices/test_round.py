"""A round on the devices: a NumPy reference and known answers."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from exact_device import EXACT, FLEET, MORNING, PLAIN, ROUND, TINY, WORLD, exact, plain_config, play, work_of

from fedjax_health.devices.profile import CLASSES, PHONE_LTE, describe
from fedjax_health.devices.round import (
    HARDWARE,
    RETRY_SECONDS,
    make_devices,
)


def test_known_answer():
    alive, seconds, m = play(exact(), 3, mask=[True, False, True])
    np.testing.assert_array_equal(alive, [True, False, True])
    assert seconds == m["sim/round_seconds"] == 3.25
    # computing, bytes, 2 s of link, a tail of 0.4 s after the download and one at the end
    one = 1e6 * 1e-9 + 1000 * 3e-6 + 2000 * 1e-6 + 2.0 * 0.5 + 2 * 0.4 * 0.25
    assert m["sim/energy_joules"] == pytest.approx(2 * one)
    assert (m["sim/bytes_up"], m["sim/bytes_down"], m["sim/flops"], m["sim/alive_exact"]) == (2e3, 4e3, 2e6, 2)
    assert m["sim/offline"] == m["sim/out_of_memory"] == m["sim/failed"] == m["sim/late"] == 0


def test_a_short_computation_cuts_the_radio_tail_short():
    work = work_of(1, flops=1e5)
    energy = play(exact(), 1, work)[2]["sim/energy_joules"]
    assert energy == pytest.approx(1e5 * 1e-9 + 1000 * 3e-6 + 2000 * 1e-6 + 2.0 * 0.5 + (0.1 + 0.4) * 0.25)


def test_seconds_is_the_equation():
    layer = make_devices(dataclasses.replace(FLEET, shares=(0.25,) * 4), 10)
    client = jnp.arange(300, dtype=jnp.int32)
    still = make_devices(FLEET, 10, False, tuple(c._replace(luck=0.0) for c in CLASSES))
    work = work_of(300)._replace(flops=jnp.linspace(0.0, 1e9, 300))
    device = jax.tree.map(np.float64, describe(jax.random.fold_in(WORLD, HARDWARE), client, FLEET.shares))
    expected = (
        device.latency_seconds
        + 8 * 2000 / device.down_bits_per_second
        + np.float64(work.flops) / device.flops_per_second
        + 8 * 1000 / device.up_bits_per_second
    )
    np.testing.assert_allclose(still.seconds(WORLD, client, work, ROUND), expected, rtol=1e-5)
    lucky = np.asarray(layer.seconds(WORLD, client, work, ROUND))
    assert (lucky != np.asarray(layer.seconds(WORLD, client, work, jax.random.key(9)))).all()
    np.testing.assert_allclose(
        lucky[[7, 3]],
        layer.seconds(WORLD, client[jnp.array([7, 3])], work._replace(flops=work.flops[jnp.array([7, 3])]), ROUND),
        rtol=1e-6,
    )


def test_luck_is_the_deviation_of_the_log_between_rounds():
    only_flops = PHONE_LTE._replace(spread=0.0, latency_seconds=0.0)
    layer = make_devices(PLAIN, 1, False, (only_flops,))
    client = jnp.arange(5000, dtype=jnp.int32)
    seconds = np.asarray(layer.seconds(WORLD, client, work_of(5000, 5e9, 0.0, 0.0), ROUND))
    assert scipy.stats.kstest(np.log(seconds), "norm", (0, PHONE_LTE.luck)).pvalue > 1e-3
    assert scipy.stats.kstest(np.log(seconds), "norm", (0, 1.15 * PHONE_LTE.luck)).pvalue < 1e-3


def test_deadline_leaves_the_late_out_and_they_pay_until_it():
    work = work_of(2)._replace(flops=jnp.array([1e6, 9e6]))
    alive, seconds, m = play(exact(deadline_seconds=5.25), 2, work)
    np.testing.assert_array_equal(alive, [True, False])
    assert (seconds, m["sim/late"]) == (5.25, 1)
    assert m["sim/flops"] == pytest.approx(1e6 + 4e6)  # the late one computed from 1.25 s to the deadline
    assert (m["sim/bytes_up"], m["sim/bytes_down"]) == (1000, 4000)
    alive, seconds, m = play(exact(deadline_seconds=1.0), 2, work)  # in the middle of the download
    assert not alive.any()
    assert m["sim/bytes_down"] == pytest.approx(2 * 1500)
    assert (m["sim/flops"], m["sim/bytes_up"], m["sim/late"]) == (0, 0, 2)
    assert m["sim/energy_joules"] == pytest.approx(2 * (1500 * 1e-6 + 0.75 * 0.5 + 0.4 * 0.25))
    alive, seconds, _ = play(exact(deadline_seconds=100.0), 2, work)  # nobody to wait for
    assert alive.all()
    assert seconds == pytest.approx(11.25)


def test_finishing_exactly_at_the_deadline_is_in_time():
    alive, seconds, _ = play(exact(deadline_seconds=3.25), 2)
    assert alive.all()
    assert seconds == 3.25


def test_over_commitment_ends_with_the_kth_answer():
    work = work_of(4)._replace(flops=jnp.array([4e6, 1e6, 3e6, 2e6]))
    alive, seconds, m = play(exact(2, over_commitment=2.0), 4, work)
    np.testing.assert_array_equal(alive, [False, True, False, True])
    assert (seconds, m["sim/late"]) == (4.25, 2)
    assert m["sim/flops"] == pytest.approx(1e6 + 2e6 + 3e6 + 3e6)  # the others had computed for 3 s
    alive, seconds, m = play(exact(3, over_commitment=2.0, deadline_seconds=4.5), 4, work)  # the deadline comes first
    assert (alive.sum(), seconds, m["sim/late"]) == (2, 4.5, 2)
    alive, seconds, _ = play(exact(9, over_commitment=2.0), 4, work)  # too few asked: all of them
    assert (alive.sum(), seconds) == (4, 6.25)
    alive, seconds, _ = play(exact(2, over_commitment=1.0), 4, work)
    assert (alive.sum(), seconds) == (4, 6.25)


def test_memory_refuses():
    layer = exact(classes=(EXACT, TINY), shares=(0.5, 0.5))
    alive, _, m = play(layer, 400)
    assert m["sim/out_of_memory"] == 400 - alive.sum() == 400 - m["sim/alive_exact"]
    assert m["sim/alive_tiny"] == 0
    assert scipy.stats.binomtest(int(alive.sum()), 400, 0.5).pvalue > 1e-4
    assert m["sim/bytes_down"] == 2000 * alive.sum()  # who refuses gets nothing sent
    assert play(layer, 400, work_of(400, memory=1e3))[0].all()  # what just fits


def test_failures_are_exponential():
    rate = 600.0  # an hour: 3.25 s survive with exp(-0.5417)
    alive, _, m = play(exact(failures_per_hour=rate), 20_000)
    survive = math.exp(-rate / 3600 * 3.25)
    assert scipy.stats.binomtest(int(alive.sum()), 20_000, survive).pvalue > 1e-4
    assert scipy.stats.binomtest(int(alive.sum()), 20_000, survive * 1.04).pvalue < 1e-4  # it can tell
    assert m["sim/failed"] == 20_000 - alive.sum()
    # mean time computing of all, by integrating the survival from 1.25 s to 2.25 s
    computing = (math.exp(-1.25 / 6) - math.exp(-2.25 / 6)) * 6
    assert m["sim/flops"] / 20_000 == pytest.approx(1e6 * computing, rel=0.02)
    again = play(exact(failures_per_hour=rate), 20_000, key=jax.random.key(8))[0]
    assert abs(np.corrcoef(alive, again)[0, 1]) < 0.03


def test_the_server_waits_for_the_silent_until_the_deadline_and_else_notices():
    alive, seconds, m = play(exact(failures_per_hour=600.0, deadline_seconds=50.0), 40)
    assert 0 < alive.sum() < 40
    assert (seconds, m["sim/failed"], m["sim/late"]) == (50.0, 40 - alive.sum(), 0)
    assert play(exact(failures_per_hour=600.0), 40)[1] == pytest.approx(3.25)
    alive, seconds, m = play(exact(failures_per_hour=1e6), 40)  # all break off at once
    assert not alive.any()
    assert 0 < seconds < 0.25
    assert (m["sim/failed"], m["sim/flops"], m["sim/bytes_down"]) == (40, 0, 0)


def test_nobody_at_work_asks_again_later():
    for mask, layer in (([False] * 3, exact()), ([True] * 3, exact(classes=(TINY,)))):
        alive, seconds, m = play(layer, 3, mask=mask)
        assert not alive.any()
        assert seconds == RETRY_SECONDS
        assert m["sim/energy_joules"] == m["sim/bytes_up"] == m["sim/flops"] == 0
    assert play(exact(deadline_seconds=5.0), 3, mask=[False] * 3)[1] == 5.0


def test_timetable_starts_rounds_at_the_deadline():
    _, seconds, m = play(exact(timetable=True, deadline_seconds=40.0), 2)
    assert (seconds, m["sim/round_seconds"]) == (40.0, 3.25)
    _, seconds, m = play(exact(timetable=True, deadline_seconds=90.0), 2, mask=[False, False])
    assert (seconds, m["sim/round_seconds"]) == (90.0, RETRY_SECONDS)


def test_data_independence():
    flag = lambda timetable=False, **c: make_devices(plain_config(**c), 3, timetable).data_independent  # noqa: E731
    assert flag()
    assert flag(deadline_seconds=9.0, failures_per_hour=1.0)
    assert not flag(over_commitment=1.3)
    assert not flag(availability="markov", on_fraction=0.5)  # the clock moves with who took part
    assert not flag(availability="diurnal", on_fraction=0.5, deadline_seconds=9.0)
    assert flag(True, availability="diurnal", on_fraction=0.5, deadline_seconds=9.0)
    assert not flag(True, availability="diurnal", on_fraction=0.5, deadline_seconds=9.0, over_commitment=2.0)


def test_who_began_to_work_and_whether_any_may_be_lost():
    """Of those asked: not who is off, nor whose memory is too small; whoever breaks off or is late had begun."""
    config = dataclasses.replace(FLEET, availability="markov", deadline_seconds=20.0)
    work = work_of(2000, 5e10, 1e5, 1e5, 1e8)
    client, mask = jnp.arange(2000, dtype=jnp.int32), jnp.arange(2000) % 5 > 0
    out = jax.jit(make_devices(config, 300).play)(WORLD, client, mask, work, MORNING, ROUND)
    lost = float(out.metrics["sim/failed"] + out.metrics["sim/late"])
    assert lost > 0 and not bool(jnp.any(out.alive & ~out.joined)) and not bool(jnp.any(out.joined & ~mask))
    assert float(jnp.sum(out.joined)) == float(jnp.sum(out.alive)) + lost
    safe = dataclasses.replace(FLEET, failures_per_hour=0.0, deadline_seconds=0.0)
    assert make_devices(safe, 300).loses_nobody
    for change in ({"failures_per_hour": 0.1}, {"deadline_seconds": 60.0}, {"over_commitment": 1.1}):
        assert not make_devices(dataclasses.replace(safe, **change), 300).loses_nobody
