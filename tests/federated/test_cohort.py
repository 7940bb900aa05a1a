"""The sampler that runs is the one accounted for: sizes, uniformity, truncation."""

from __future__ import annotations

import dp_accounting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from dp_accounting import dp_event
from jax.extend.core import ClosedJaxpr, Jaxpr

from fedjax_health import rng
from fedjax_health.federated import cohort
from fedjax_health.threefry import root_key
from fedjax_health.types import UserError

FIRST = jnp.int32(0)  # round


def draw(sampler, draws, seed=0):
    out, metrics = jax.jit(jax.vmap(lambda key: sampler.sample(cohort.everyone, key, FIRST)))(
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
    few, many = (cohort.make_poisson(1000, 30.0, m).sample(cohort.everyone, key, FIRST)[0] for m in (1, 40))
    assert few.client.shape != many.client.shape
    np.testing.assert_array_equal(few.client[few.mask], many.client[many.mask])
    other = cohort.make_poisson(1000, 30.0, 1).sample(cohort.everyone, jax.random.key(4), FIRST)[0]
    assert not np.array_equal(few.client, other.client)


def test_everyone_takes_part_at_rate_one():
    sampler = cohort.make_poisson(7, 7.0, 4)
    out, metrics = sampler.sample(cohort.everyone, jax.random.key(0), FIRST)
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
    out, metrics = jax.jit(jax.vmap(lambda key: sampler.sample(cohort.everyone, key, FIRST)))(
        jax.random.split(jax.random.key(0), 400)
    )
    assert abs(float(metrics["sim/sampled"].mean()) - 50) < 5 * np.sqrt(50 / 400)
    ids = np.asarray(out.client)[np.asarray(out.mask)] / 20_000_000
    assert scipy.stats.kstest(ids, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(("size", "expected"), [(1000, 100.0), (10**6, 1.0), (30, 29.5), (10**6, 1000.0), (8, 8.0)])
def test_gaps_reach_past_the_last_client(size, expected):
    enough = cohort.enough_gaps(expected, expected / size)
    assert scipy.stats.binom.logsf(min(enough, size) - 1, size, expected / size) < np.log(1e-30) or enough > size
    sampler = cohort.make_poisson(size, expected, 1)
    assert min(enough, size) >= sampler.slots  # the first slots are read without a look at how many were drawn


def test_event_follows_the_slots():
    whole = cohort.make_poisson(20, 10.0, 1)
    assert whole.account(1.5) == dp_accounting.PoissonSampledDpEvent(0.5, dp_accounting.GaussianDpEvent(1.5))
    cut = cohort.make_poisson(1000, 10.0, 8)  # 29 = 10 + 6 sqrt(9.9), whatever the chunk
    assert cut.account(1.5) == dp_event.TruncatedSubsampledGaussianDpEvent(1000, 0.01, 29, 1.5)
    assert cut.slots >= 10 + 6 * np.sqrt(9.9)


@pytest.mark.parametrize("expected", [1.0, 3.5])
def test_small_expected_cohorts(expected):
    _, _, taken = draw(cohort.make_poisson(10, expected, 1), 3000, seed=5)
    assert min(binomial_p(taken.sum(1), 10, expected / 10)) > 1e-3


def sizes_of(abstract):
    """Elements of every array that a jaxpr makes, inner programs included."""
    for equation in abstract.eqns:
        yield from (v.aval.size for v in equation.outvars)
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: isinstance(x, ClosedJaxpr | Jaxpr)):
            if isinstance(inner, ClosedJaxpr | Jaxpr):
                yield from sizes_of(inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner)


@pytest.mark.parametrize("size", [10**6, 10**9, 2**30])
@pytest.mark.parametrize("make", [cohort.make_fixed, cohort.make_poisson])
def test_a_cohort_of_a_huge_population_costs_that_of_the_cohort(make, size):
    sampler = make(size, 50, 8)
    program = jax.make_jaxpr(lambda key: sampler.sample(cohort.everyone, key, FIRST))(jax.random.key(0))
    assert max(sizes_of(program.jaxpr)) < 2000
    (client, mask), _ = jax.jit(lambda key: sampler.sample(cohort.everyone, key, FIRST))(jax.random.key(0))
    assert client.shape == mask.shape == (sampler.slots,) and sampler.slots < 150
    ids = np.asarray(client)[np.asarray(mask)]
    assert len(ids) >= 20 and len(set(ids)) == len(ids) and np.all((ids >= 0) & (ids < size))
    assert np.median(ids) > size / 20  # not the first ones


@pytest.mark.parametrize("size", [20, cohort.SMALL, cohort.SMALL + 44])  # a whole permutation, and a keyed one
def test_fixed_draws_exactly_that_many_different_clients_each_as_likely(size):
    sampler, draws = cohort.make_fixed(size, 15, 4), 3000
    assert sampler.slots == 16 and sampler.expected == 15.0
    out, metrics, taken = draw(sampler, draws)
    assert taken.max() == 1 and np.all(taken.sum(1) == 15) and np.all(metrics["sim/sampled"] == 15)
    np.testing.assert_array_equal(out.mask, np.tile(np.arange(16) < 15, (draws, 1)))
    q = 15 / size
    share = np.sum(np.square(taken.sum(0) - draws * q)) / (draws * q * (1 - q)) * (size - 1) / size
    assert 1e-3 < scipy.stats.chi2.cdf(share, size - 1) < 1 - 1e-3
    # pairs, as often as without replacement asks
    both = (taken.T @ taken)[np.triu_indices(size, 1)] / draws
    pair = q * 14 / (size - 1)
    assert abs(both.mean() - pair) < 1e-9
    assert np.abs(both - pair).max() < 6 * np.sqrt(pair * (1 - pair) / draws)


def test_fixed_rejects_the_first_clients_for_ever():
    """What a keyed permutation without a key would draw must fail the share test above."""
    taken = np.tile(np.arange(300) < 15, (3000, 1)).astype(int)
    share = np.sum(np.square(taken.sum(0) - 150)) / (150 * 0.95) * 299 / 300
    assert scipy.stats.chi2.cdf(share, 299) > 1 - 1e-9


@pytest.mark.parametrize("size", [60, 1000])
def test_fixed_looks_for_others_in_the_place_of_those_that_are_off(size):
    sampler = cohort.make_fixed(size, 10, 1)

    def odd_ones(client):
        return client % 2 == 1

    sample = jax.jit(jax.vmap(lambda key: sampler.sample(odd_ones, key, FIRST)))
    (client, mask), metrics = jax.device_get(sample(jax.random.split(jax.random.key(0), 500)))
    assert np.all(client[mask] % 2 == 1) and np.all(client[~mask] == 0)
    np.testing.assert_array_equal(mask.sum(1), metrics["sim/sampled"])
    full = mask.sum(1) == 10  # of 40 candidates half are on
    assert full.mean() > 0.99
    assert all(len(set(row)) == 10 for row in client[full])
    assert scipy.stats.chisquare(np.bincount(client[mask] // 2, minlength=size // 2)).pvalue > 1e-3


def test_fixed_goes_short_when_too_few_are_on():
    sampler = cohort.make_fixed(1000, 10, 4)
    for who, most in ((lambda client: client % 100 == 7, 9), (lambda client: client < 0, 0)):
        (client, mask), metrics = jax.device_get(sampler.sample(who, jax.random.key(0), FIRST))
        assert mask.shape == (12,) and mask.sum() <= most
        assert metrics["sim/sampled"] == mask.sum() and np.all(client[~mask] == 0)
    few = cohort.make_fixed(6, 5, 1)
    (client, mask), _ = jax.device_get(few.sample(lambda client: client < 3, jax.random.key(0), FIRST))
    assert sorted(client[mask]) == [0, 1, 2]  # all that there are


@pytest.mark.parametrize("make", [cohort.make_fixed, cohort.make_poisson, lambda k, c, m: cohort.make_full(k, m)])
def test_a_cohort_is_a_function_of_seed_and_round(make):
    sampler = make(1000, 20, 4)

    def of(seed, round_index):
        key = rng.stream_key(root_key(seed), round_index, rng.Stream.COHORT)
        out = jax.jit(lambda k: sampler.sample(cohort.everyone, k, FIRST))(key)[0]
        return tuple(np.asarray(out.client)[np.asarray(out.mask)])

    assert of(0, 3) == of(0, 3)
    different = {of(0, 3), of(0, 4), of(1, 3)}
    assert len(different) == (1 if sampler.expected == 1000 else 3)


def test_full_is_everyone_whoever_is_on():
    """A client that is off is asked all the same, and does not answer: its absence is the devices' to say."""
    sampler = cohort.make_full(10, 4)
    for on in (cohort.everyone, lambda client: client < 3):
        (client, mask), metrics = sampler.sample(on, jax.random.key(0), FIRST)
        np.testing.assert_array_equal(client, [*range(10), 0, 0])
        np.testing.assert_array_equal(mask, [True] * 10 + [False] * 2)
        assert metrics == {"sim/sampled": 10.0}
    assert sampler.account(1.5) == dp_accounting.GaussianDpEvent(1.5)  # no amplification


def test_poisson_does_not_look_for_others():
    """Whom the accountant amplifies by: who is off was drawn all the same."""
    sampler = cohort.make_poisson(300, 20.0, 1)
    on, off = (sampler.sample(who, jax.random.key(0), FIRST)[0] for who in (cohort.everyone, lambda client: client < 0))
    jax.tree.map(np.testing.assert_array_equal, on, off)


def test_fixed_has_no_accountant():
    with pytest.raises(UserError, match=r"sampler='fixed' has no accountant.*use sampler='poisson' or 'full'"):
        cohort.make_fixed(100, 10, 1).account(1.0)
