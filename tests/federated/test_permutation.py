"""The keyed permutation: a bijection, and as good as uniform in what a cohort shows of it."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from fedjax_health.federated import permutation

N, DRAWS, KEYS = 300, 12, 20_000
ALPHA = 1e-4  # of each of some twenty tests with fixed keys


@functools.cache
def sample(rounds):
    """Places of the first DRAWS indices under KEYS keys, i64[KEYS, DRAWS], by a network of so many rounds."""
    keys = jax.random.split(jax.random.key(0), KEYS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(permutation, "ROUNDS", rounds)
        mapped = jax.jit(jax.vmap(lambda key: permutation.permute(jnp.arange(DRAWS, dtype=jnp.int32), N, key)))
        return np.asarray(mapped(keys), np.int64)


def inclusion(places):
    """p-value of: every client is drawn as often as any other. One key draws DRAWS different ones of N, which spreads the
    counts less than a multinomial, by the factor (N - DRAWS) / (N - 1)."""
    count = np.bincount(places.reshape(-1), minlength=N)
    expected = places.size / N
    statistic = np.sum((count - expected) ** 2) / expected * (N - 1) / (N - DRAWS)
    return scipy.stats.chi2.sf(statistic, N - 1)


def position(places):
    """p-value of: every client is as likely as any other in each position, the least of all by Bonferroni."""
    p = [scipy.stats.chisquare(np.bincount(column, minlength=N)).pvalue for column in places.T]
    return min(1.0, len(p) * min(p))


def pairs(places):
    """p-value of: two positions hold independent places but for their being different, the least of all pairs."""
    p = []
    for i in range(DRAWS):
        for j in range(i):
            apart = (places[:, i] - places[:, j]) % N  # uniform on 1 ... N - 1
            p.append(scipy.stats.chisquare(np.bincount(apart, minlength=N)[1:]).pvalue)
            both = (places[:, i] // 30) * 10 + places[:, j] // 30  # tenths of the population
            share = (np.full((10, 10), 900) - 30 * np.eye(10)).reshape(-1) / (N * (N - 1))
            p.append(scipy.stats.chisquare(np.bincount(both, minlength=100), share * len(places)).pvalue)
    return min(1.0, len(p) * min(p))


def orders(places):
    """p-value of: the first four come in each of their 24 orders equally often."""
    rank = np.argsort(np.argsort(places[:, :4], 1), 1) @ np.array([64, 16, 4, 1])
    return scipy.stats.chisquare(np.unique(rank, return_counts=True)[1]).pvalue


@pytest.mark.parametrize("statistic", [inclusion, position, pairs, orders])
def test_uniform(statistic):
    assert statistic(sample(permutation.ROUNDS)) > ALPHA


@pytest.mark.parametrize("rounds", [1, 2])
def test_the_same_statistics_reject_a_weak_network(rounds):
    weak = sample(rounds)
    assert len({len(set(row)) for row in weak[:100].tolist()}) == 1  # a bijection all the same
    assert pairs(weak) < 1e-12
    if rounds == 1:  # the left half goes through unchanged
        assert position(weak) < 1e-12
        assert inclusion(weak) < 1e-12


def test_the_statistics_pass_a_true_permutation():
    draw = np.random.default_rng(0)
    true = np.argsort(draw.random((KEYS, N)), 1)[:, :DRAWS]
    assert min(statistic(true) for statistic in (inclusion, position, pairs, orders)) > ALPHA


@pytest.mark.parametrize("n", [1, 2, 3, 257, 1000, 1024, 5000, 2**20 - 3])
def test_bijection(n):
    permute = jax.jit(permutation.permute, static_argnums=1)
    for seed in range(3):
        places = np.asarray(permute(jnp.arange(n, dtype=jnp.int32), n, jax.random.key(seed)))
        assert places.dtype == np.int32
        np.testing.assert_array_equal(np.sort(places), np.arange(n))


def test_largest_population():
    n = 2**30
    index = jnp.array([0, 1, 2, n // 2, n - 2, n - 1], jnp.int32)
    places = np.asarray(permutation.permute(index, n, jax.random.key(0)))
    assert len(set(places.tolist())) == 6
    assert places.min() >= 0
    assert places.max() < n


def test_no_drift_with_the_index_in_a_large_population():
    n = 10**6 + 3
    places = np.asarray(jax.jit(permutation.permute, static_argnums=1)(jnp.arange(4000), n, jax.random.key(1))) / n
    assert scipy.stats.kstest(places, "uniform").pvalue > ALPHA
    assert abs(np.corrcoef(np.arange(4000), places)[0, 1]) < 4 / np.sqrt(4000)
    assert abs(np.corrcoef(places[1:], places[:-1])[0, 1]) < 4 / np.sqrt(4000)


def test_keys_give_different_permutations_and_vmap_is_a_loop():
    index, keys = jnp.arange(40, dtype=jnp.int32), jax.random.split(jax.random.key(2), 5)
    loop = [permutation.permute(index, 1000, key) for key in keys]
    mapped = jax.jit(jax.vmap(lambda key: permutation.permute(index, 1000, key)))(keys)
    np.testing.assert_array_equal(mapped, loop)
    same = [np.mean(np.asarray(loop[i]) == np.asarray(loop[j])) for i in range(5) for j in range(i)]
    assert max(same) < 0.1  # two random permutations agree at one index of a thousand
    one_by_one = [permutation.permute(index[i : i + 1], 1000, keys[0]) for i in range(0, 40, 13)]
    np.testing.assert_array_equal(np.concatenate(one_by_one), loop[0][::13])
