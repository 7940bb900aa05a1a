"""The cheap random words: uniform, uncorrelated over coordinates, clients and rounds, and never the same twice."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from fedjax_health.transforms.hash_bits import draw_seed, hash_bits


def words(client=0, n=4096, start=0):
    key = jax.random.fold_in(jax.random.key(7), jnp.uint32(client))
    return np.asarray(hash_bits(draw_seed(key), (n,), start))


def uniform(*args, **kwargs):
    return words(*args, **kwargs) / 2.0**32


def reference(seed, index):
    x = (index * (seed[1] | 1) + seed[0]) % 2**32
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    return x ^ (x >> 16)


def test_known_answer():
    seed = np.array([0xDEADBEEF, 0x01234567], np.uint32)
    out = np.asarray(hash_bits(jnp.asarray(seed), (2, 5), 3)).ravel()
    assert out.tolist() == [reference([int(s) for s in seed], i) for i in range(3, 13)]


def test_words_are_uniform_and_a_skewed_stream_is_rejected():
    u = np.concatenate([uniform(client) for client in range(20)])
    assert scipy.stats.kstest(u, "uniform").pvalue > 1e-3
    assert scipy.stats.kstest(u**1.05, "uniform").pvalue < 1e-6
    bits = (np.concatenate([words(client) for client in range(20)])[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    z = (bits.mean(0) - 0.5) / (0.5 / np.sqrt(len(bits)))
    assert np.abs(z).max() < 4.5


def test_each_client_is_uniform():
    p = [scipy.stats.kstest(uniform(client), "uniform").pvalue for client in range(200)]
    assert scipy.stats.kstest(p, "uniform").pvalue > 1e-3


def test_no_word_occurs_twice_and_a_later_start_continues_the_stream():
    whole = words(n=2**16)
    assert len(np.unique(whole)) == len(whole)
    np.testing.assert_array_equal(words(n=100, start=50), whole[50:150])


@pytest.mark.parametrize("lag", [1, 2, 3, 8, 16, 32, 64, 1000])
def test_coordinates_are_uncorrelated(lag):
    u = np.stack([uniform(client) for client in range(20)]) - 0.5
    r = 12 * np.mean(u[:, lag:] * u[:, :-lag])
    assert abs(r) < 4.5 / np.sqrt(20 * (4096 - lag))


def test_clients_and_coordinates_are_uncorrelated():
    """The same coordinate over many clients, and two neighbours over clients, as an average over a cohort sees it."""
    u = np.stack([uniform(client, n=64) for client in range(4000)])
    r = np.corrcoef(u.T) - np.eye(64)
    assert np.abs(r).max() < 5 / np.sqrt(4000)
    p = [scipy.stats.kstest(column, "uniform").pvalue for column in u.T]
    assert scipy.stats.kstest(p, "uniform").pvalue > 1e-3
    pairs = np.corrcoef(np.stack([uniform(client) for client in range(60)])) - np.eye(60)
    assert np.abs(pairs).max() < 5 / np.sqrt(4096)


@pytest.mark.parametrize(
    ("word", "bit"), [(0, 0), (0, 5), (0, 16), (0, 31), (1, 1), (1, 5), (1, 16)]
)  # the lowest bit of the second word is not used, and its highest reaches only every other word
def test_close_seeds_give_unrelated_streams(word, bit):
    seed = np.array([123456789, 987654321], np.uint32)
    other = seed.copy()
    other[word] ^= np.uint32(1 << bit)
    a, b = (np.asarray(hash_bits(jnp.asarray(s), (2**14,))) for s in (seed, other))
    flipped = ((a ^ b)[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    assert abs(flipped.mean() - 0.5) < 0.02
