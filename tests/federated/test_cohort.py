"""The sampler that runs is the one accounted for: sizes, uniformity, truncation."""

from __future__ import annotations

import dp_accounting
import jax
import numpy as np
import pytest
import scipy.stats
from dp_accounting import dp_event

from fedjax_health.federated import cohort


def draw(sampler, draws, seed=0):
    out, metrics = jax.jit(jax.vmap(lambda key: sampler.sample(cohort.everyone, key)))(
        jax.random.split(jax.random.key(seed), draws)
    )
    taken = np.zeros((draws, sampler.size), int)
    rows, slots = np.nonzero(np.asarray(out.mask))
    np.add.at(taken, (rows, np.asarray(out.client)[rows, slots]), 1)
    return jax.device_get(out), jax.device_get(metrics), taken


def binomial_p(sizes, size, q):
    """p-values of the mean and the variance of Binomial(size, q) (both normal for this many draws)."""
    mean, variance = size * q, size * q * (1 - q)
    fourth = variance * (1 + 3 * (size - 2) * q * (1 - q))
    z = (
        (sizes.mean() - mean) / np.sqrt(variance / len(sizes)),
        (sizes.var() - variance) / np.sqrt((fourth - variance**2) / len(sizes)),
    )
    return [2 * scipy.stats.norm.sf(abs(v)) for v in z]


def test_sizes_are_binomial_and_another_rate_is_rejected():
    _, metrics, taken = draw(cohort.make_poisson(60, 12.0, 4), 4000)
    sizes = taken.sum(1)
    assert min(binomial_p(sizes, 60, 0.2)) > 1e-3
    assert min(binomial_p(sizes, 60, 0.21)) < 1e-6
    fixed = np.full(4000, 12)  # a sampler of fixed size has the right mean and the wrong variance
    assert min(binomial_p(fixed, 60, 0.2)) < 1e-6
    np.testing.assert_array_equal(metrics["sim/sampled"], sizes)
    np.testing.assert_array_equal(metrics["sim/overflow"], 0)


def test_clients_are_distinct_equally_likely_and_independent():
    _, _, taken = draw(cohort.make_poisson(60, 12.0, 1), 4000, seed=1)
    assert taken.max() == 1
    chi = np.sum(np.square(taken.sum(0) - 800)) / (4000 * 0.2 * 0.8)
    assert scipy.stats.chi2.sf(chi, 60) > 1e-3
    correlation = np.corrcoef(taken.T)[np.triu_indices(60, 1)]
    assert scipy.stats.kstest(correlation * np.sqrt(4000), "norm").pvalue > 1e-3
    skewed = taken.sum(0) + np.where(np.arange(60) == 59, 300, 0)
    assert scipy.stats.chi2.sf(np.sum(np.square(skewed - 800)) / (4000 * 0.2 * 0.8), 60) < 1e-3


def test_empty_slots_are_zero_and_ids_ascend():
    out, _, _ = draw(cohort.make_poisson(500, 20.0, 8), 200)
    assert out.client.shape[1] % 8 == 0
    assert np.all(out.client[~out.mask] == 0)
    assert not np.all(out.mask)
    for client, mask in zip(out.client, out.mask, strict=True):
        assert np.all(np.diff(client[mask]) > 0)
        assert np.all(np.diff(mask.astype(int)) <= 0)  # live slots first


def test_addressed_by_key_not_by_slots():
    key = jax.random.key(3)
    few, many = (
        jax.jit(lambda k, m=m: cohort.make_poisson(1000, 30.0, m).sample(cohort.everyone, k))(key)[0] for m in (1, 40)
    )
    assert few.client.shape != many.client.shape
    np.testing.assert_array_equal(few.client[few.mask], many.client[many.mask])
    other = cohort.make_poisson(1000, 30.0, 1).sample(cohort.everyone, jax.random.key(4))[0]
    assert not np.array_equal(few.client, other.client)


def test_everyone_takes_part_at_rate_one():
    sampler = cohort.make_poisson(7, 7.0, 4)
    out, metrics = sampler.sample(cohort.everyone, jax.random.key(0))
    assert sampler.slots == 8
    np.testing.assert_array_equal(out.client, [0, 1, 2, 3, 4, 5, 6, 0])
    np.testing.assert_array_equal(out.mask, [True] * 7 + [False])
    assert float(metrics["sim/overflow"]) == 0


def test_overflow_keeps_a_uniform_subset(monkeypatch):
    monkeypatch.setattr(cohort, "OVERFLOW_DEVIATIONS", 0.0)
    sampler = cohort.make_poisson(40, 10.0, 1)
    assert sampler.slots == 10
    _, metrics, taken = draw(sampler, 4000)
    sampled = metrics["sim/sampled"].astype(int)
    assert min(binomial_p(sampled, 40, 0.25)) > 1e-3
    np.testing.assert_array_equal(taken.sum(1), np.minimum(sampled, 10))
    np.testing.assert_array_equal(metrics["sim/overflow"], np.maximum(sampled - 10, 0))
    assert np.mean(sampled > 10) > 0.3
    cut = taken[sampled > 10]
    share = cut.sum(0) / len(cut)  # keeping the first ten would favour small ids
    assert abs(np.corrcoef(np.arange(40), share)[0, 1]) < 0.5
    assert np.max(np.abs(share - 0.25)) < 5 * np.sqrt(0.25 * 0.75 / len(cut))


def test_millions_of_clients_without_an_array_of_them():
    sampler = cohort.make_poisson(20_000_000, 50.0, 10)
    out, metrics = jax.jit(jax.vmap(lambda key: sampler.sample(cohort.everyone, key)))(
        jax.random.split(jax.random.key(0), 400)
    )
    assert abs(float(metrics["sim/sampled"].mean()) - 50) < 5 * np.sqrt(50 / 400)
    ids = np.asarray(out.client)[np.asarray(out.mask)] / 20_000_000
    assert scipy.stats.kstest(ids, "uniform").pvalue > 1e-3


def test_event_follows_the_slots():
    whole = cohort.make_poisson(20, 10.0, 1)
    assert whole.account(1.5) == dp_accounting.PoissonSampledDpEvent(0.5, dp_accounting.GaussianDpEvent(1.5))
    cut = cohort.make_poisson(1000, 10.0, 8)
    assert cut.account(1.5) == dp_event.TruncatedSubsampledGaussianDpEvent(
        1000, 0.01, 29, 1.5
    )  # 10 + 6 sqrt(9.9), whatever the chunk
    assert cut.slots >= 10 + 6 * np.sqrt(9.9)


@pytest.mark.parametrize("expected", [1.0, 3.5])
def test_small_expected_cohorts(expected):
    _, _, taken = draw(cohort.make_poisson(10, expected, 1), 3000, seed=5)
    assert min(binomial_p(taken.sum(1), 10, expected / 10)) > 1e-3
