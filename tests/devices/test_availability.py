"""Availability against its law: means, sojourn times, autocorrelation; one trajectory whoever asks, and when."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from fedjax_health.devices.availability import make_always, make_diurnal, make_markov
from fedjax_health.devices.clock import Clock

WORLD = jax.random.key(11)


def _clocks(seconds: np.ndarray) -> Clock:
    day, second = np.divmod(np.asarray(seconds, np.float64), 86400)
    whole = np.floor(second)
    return Clock(jnp.asarray(day, jnp.int32), jnp.asarray(whole, jnp.float32), jnp.asarray(second - whole, jnp.float32))


def _path(available, clients: int, seconds: np.ndarray) -> np.ndarray:
    """bool[times, clients]."""
    client = jnp.arange(clients, dtype=jnp.int32)
    return np.asarray(jax.jit(lambda c: jax.lax.map(lambda t: available(WORLD, client, t), c))(_clocks(seconds)))


def _correlation(left: np.ndarray, right: np.ndarray, mean: float) -> tuple[float, float]:
    """Autocorrelation about the known mean, and its standard deviation under independence of clients."""
    products = (left - mean) * (right - mean) / (mean * (1 - mean))
    return float(products.mean()), float(products.std() / np.sqrt(products.size))


def test_always():
    assert _path(make_always(), 7, np.array([0.0, 1e7])).all()
    for make in (lambda: make_markov(1.0, 60.0), lambda: make_diurnal(1.0)):
        assert _path(make(), 7, np.array([0.0, 1e7])).all()


# windows: many a day; one of half a day; several days long
@pytest.mark.parametrize(("fraction", "mean_on"), [(0.3, 600.0), (0.6, 40_000.0), (0.2, 5 * 86400.0), (0.9, 90.0)])
def test_markov_has_the_mean_and_the_autocorrelation_of_its_chain(fraction, mean_on):
    clients = 30_000
    rate = 1 / (mean_on * (1 - fraction))
    lags = np.array([0.05, 0.5, 1.5, 4.0]) / rate  # within a window, across one, across several
    for origin in (0.0, 40_000.3, 3 * 365 * 86400.0 + 86399.0):
        path = _path(make_markov(fraction, mean_on), clients, origin + np.concatenate([[0.0], lags]))
        for now in path:
            assert scipy.stats.binomtest(int(now.sum()), clients, fraction).pvalue > 1e-5
        for lag, later in zip(lags, path[1:], strict=True):
            found, deviation = _correlation(path[0], later, fraction)
            assert abs(found - np.exp(-rate * lag)) < 4.5 * deviation + 1e-3
    found, deviation = _correlation(path[0], path[2], fraction)  # the test can tell a chain that is 30 % faster
    assert abs(found - np.exp(-1.3 * rate * lags[1])) > 4.5 * deviation


def test_markov_sojourns_are_exponential_and_trajectories_are_consistent():
    fraction, mean_on, step = 0.4, 900.0, 5.0
    times = np.arange(0.0, 2 * 86400.0, step)
    path = _path(make_markov(fraction, mean_on), 40, times)
    shuffled = np.random.default_rng(0).permutation(len(times))[:500]
    np.testing.assert_array_equal(_path(make_markov(fraction, mean_on), 40, times[shuffled]), path[shuffled])
    on, off = [], []
    for column in path.T:
        edges = np.flatnonzero(np.diff(column.astype(int))) + 1
        for begin, end in itertools.pairwise(edges):
            (on if column[begin] else off).append(step * (end - begin))
    mean_off = mean_on * (1 - fraction) / fraction
    for sojourns, mean in ((on, mean_on), (off, mean_off)):
        jitter = np.random.default_rng(1).uniform(-step, 0, len(sojourns))  # the grid rounds both ends
        assert len(sojourns) > 1000
        assert scipy.stats.kstest(np.array(sojourns) + jitter, "expon", (0, mean)).pvalue > 1e-3
        assert scipy.stats.kstest(np.array(sojourns) + jitter, "expon", (0, 1.25 * mean)).pvalue < 1e-3


def test_markov_is_memoryless():
    """What is known before now does not help: P(on later | now, before) is P(on later | now)."""
    fraction, mean_on = 0.5, 1000.0
    rate = 1 / (mean_on * (1 - fraction))
    before, now, later = _path(make_markov(fraction, mean_on), 60_000, 5000.0 + np.array([0.0, 0.4, 0.8]) / rate)
    expected = fraction + (1 - fraction) * np.exp(-0.4)
    for past in (False, True):
        chosen = now & (before == past)
        assert scipy.stats.binomtest(int(later[chosen].sum()), int(chosen.sum()), expected).pvalue > 1e-5


def test_clients_and_worlds_are_independent():
    available = make_markov(0.5, 1e5)
    client = jnp.arange(20_000, dtype=jnp.int32)
    clock = _clocks(np.array(1e6))
    here = np.asarray(available(WORLD, client, clock))
    there = np.asarray(available(jax.random.key(12), client, clock))
    assert abs(np.corrcoef(here, there)[0, 1]) < 0.03
    assert abs(np.corrcoef(here[:-1], here[1:])[0, 1]) < 0.03


@pytest.mark.parametrize("available", [make_markov(0.3, 600.0), make_diurnal(0.3)], ids=["markov", "diurnal"])
def test_jit_vmap_and_slots_do_not_matter(available):
    client = jnp.array([5, 1, 900_000_000, 5], jnp.int32)
    clocks = _clocks(np.array([0.0, 12_345.6, 9e7]))
    worlds = jax.random.split(WORLD, 3)
    together = np.asarray(jax.jit(jax.vmap(available, (0, None, 0)))(worlds, client, clocks))
    for i in range(3):
        clock = jax.tree.map(lambda x, i=i: x[i], clocks)
        alone = np.asarray(available(worlds[i], client, clock))
        np.testing.assert_array_equal(together[i], alone)
        np.testing.assert_array_equal(np.asarray(available(worlds[i], client[::-1], clock)), alone[::-1])
        assert alone[0] == alone[3]


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.8])
def test_diurnal_means_and_cycle(fraction):
    hours = np.arange(0.0, 86400.0, 60.0) + 30.0
    path = _path(make_diurnal(fraction), 2000, hours)
    np.testing.assert_allclose(path.mean(0), fraction, atol=1 / len(hours) + 1e-6)  # every client, over its day
    np.testing.assert_array_equal(_path(make_diurnal(fraction), 2000, hours[:9] + 400 * 86400.0), path[:9])  # every day
    share = path.mean(1)
    assert abs(hours[share.argmax()] / 3600 - 2.0) < 2.5 or hours[share.argmax()] / 3600 > 23.5
    night, noon = share[(hours < 4 * 3600)].mean(), share[(hours > 12 * 3600) & (hours < 16 * 3600)].mean()
    assert night > 1.5 * noon
    switches = np.abs(np.diff(np.vstack([path, path[:1]]).astype(int), axis=0)).sum(0)
    np.testing.assert_array_equal(switches, 2)  # once on, once off


def test_four_times_as_many_at_night():
    share = _path(make_diurnal(0.5), 40_000, np.array([2.0, 14.0]) * 3600).mean(1)
    assert share[0] / share[1] == pytest.approx(4.0, abs=0.15)
