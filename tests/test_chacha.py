"""The cipher gives the published numbers, keeps its uses apart, and draws the same wherever it runs."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from jax.sharding import PartitionSpec

from fedjax_health import chacha
from fedjax_health.federated import sharding

KEY = np.frombuffer(bytes(range(32)), "<u4")
KEYS = np.random.default_rng(0).integers(0, 2**32, (4, 8), np.uint32)


def stream(key, counter, nonce, blocks):
    """u32[blocks, 16] from another implementation; nonce: three words."""
    start = np.array([counter, *nonce], "<u4").tobytes()
    encryptor = Cipher(ChaCha20(key.astype("<u4").tobytes(), start), mode=None).encryptor()
    return np.frombuffer(encryptor.update(bytes(64 * blocks)), "<u4").reshape(blocks, 16)


def words(keys):
    return np.asarray(jax.random.key_data(keys))


def test_the_block_of_rfc_8439():
    """Section 2.3.2."""
    known = (
        "e4e7f110 15593bd1 1fdd0f50 c47120a3 c7f4d1c7 0368c033 9aaa2204 4e6cd4c3"
        " 466482d2 09aa9f07 05d7c214 a2028bd9 d19c12b5 b94e16de e883d0cb 4e3c50a2"
    )
    found = chacha.block(jnp.asarray(KEY), jnp.uint32(1), (0x09000000, 0x4A000000, 0))
    assert " ".join(f"{int(word):08x}" for word in found) == known


@pytest.mark.parametrize("counter", [0, 1, 2**31 - 1, 2**32 - 3])
def test_blocks_are_those_of_another_implementation(counter):
    nonce = (5, 2**32 - 1, 77)
    numbers = jnp.arange(3, dtype=jnp.uint32) + jnp.uint32(counter)
    for key in KEYS:
        found = jax.jit(lambda k: chacha.block(k, numbers, nonce))(jnp.asarray(key))
        np.testing.assert_array_equal(np.asarray(found).T, stream(key, counter, nonce, 3))


def test_written_out_rounds_are_those_of_the_loop(monkeypatch):
    """What accelerators run."""
    monkeypatch.setattr(jax, "default_backend", lambda: "other")
    found = chacha.block(jnp.asarray(KEY), jnp.arange(2, dtype=jnp.uint32), (1, 2, 3))
    np.testing.assert_array_equal(np.asarray(found).T, stream(KEY, 0, (1, 2, 3), 2))


@pytest.mark.parametrize(("count", "blocks"), [(1, 1), (16, 1), (17, 2), (256, 16), (257, 32), (1000, 64)])
def test_a_draw_is_the_key_stream(count, blocks):
    key = chacha.key_of(KEYS[0])
    whole = stream(KEYS[0], 0, (chacha.DRAW, 0, 0), blocks).T.reshape(-1)  # word by word over all blocks
    np.testing.assert_array_equal(jax.random.bits(key, (count,)), whole[:count])
    np.testing.assert_array_equal(jax.random.bits(key, (1, count, 1)).reshape(-1), whole[:count])


@pytest.mark.parametrize("dtype", ["uint16", "uint8"])
def test_short_numbers_are_pieces_of_the_words(dtype):
    found = jax.random.bits(chacha.key_of(KEYS[1]), (5, 11), jnp.dtype(dtype))
    blocks = -(-55 * found.dtype.itemsize // 64)
    whole = stream(KEYS[1], 0, (chacha.DRAW, 0, 0), blocks).T.reshape(-1).view(dtype)
    np.testing.assert_array_equal(found.reshape(-1), whole[:55])


def test_new_keys_are_half_a_block_each():
    key = chacha.key_of(KEYS[2])
    for data in (0, 1, 2**32 - 1):
        new = stream(KEYS[2], 0, (chacha.FOLD_IN, data, 0), 1)[0, :8]
        np.testing.assert_array_equal(words(jax.random.fold_in(key, jnp.uint32(data))), new)
    split = words(jax.random.split(key, (2, 3))).reshape(6, 8)
    for i in range(6):
        np.testing.assert_array_equal(split[i], stream(KEYS[2], 0, (chacha.SPLIT, i, 0), 1)[0, :8])


def test_no_use_of_a_key_repeats_what_another_gives():
    key = chacha.key_of(KEYS[3])
    folded = words(jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(500, dtype=jnp.uint32)))
    found = np.concatenate(
        [
            np.asarray(jax.random.bits(key, (16_000,))),
            folded.ravel(),
            words(jax.random.split(key, 500)).ravel(),
            KEYS[3],
        ]
    )
    # of n = 24,008 words of 32 bits n^2 / 2^33 = 0.07 pairs are equal by chance; two domains that met would give hundreds
    assert len(found) - len(np.unique(found)) <= 2
    assert len({chacha.DRAW, chacha.FOLD_IN, chacha.SPLIT}) == 3


def test_normals_and_uniforms_have_their_laws():
    key = chacha.key_of(KEY)
    normal, uniform = np.asarray(jax.random.normal(key, (100_000,))), np.asarray(jax.random.uniform(key, (100_000,)))
    assert scipy.stats.kstest(normal, "norm").pvalue > 1e-3 and scipy.stats.kstest(uniform, "uniform").pvalue > 1e-3
    assert scipy.stats.kstest(1.05 * normal, "norm").pvalue < 1e-3  # and the test can tell
    assert abs(np.corrcoef(normal[:-1], normal[1:])[0, 1]) < 0.015
    ones = np.unpackbits(np.asarray(jax.random.bits(key, (200_000,), jnp.uint8)))
    assert abs(ones.mean() - 0.5) < 4 * 0.5 / np.sqrt(ones.size)


def test_one_bit_of_the_key_changes_half_of_the_bits():
    for word, bit in ((0, 0), (3, 17), (7, 31)):
        near = KEY.copy()
        near[word] ^= np.uint32(1 << bit)
        both = [np.asarray(jax.random.bits(chacha.key_of(k), (4096,))) for k in (KEY, near)]
        assert abs(np.unpackbits((both[0] ^ both[1]).view(np.uint8)).mean() - 0.5) < 0.01


def draws(key):
    return (
        jax.random.bits(key, (70,)),
        jax.random.bits(key, (3, 5), jnp.uint8),
        jax.random.key_data(jax.random.split(key, 3)),
        jax.random.key_data(jax.random.fold_in(key, 7)),
        jax.random.randint(key, (20,), 0, 1000),
        jax.random.normal(key, (40,)),
    )


def alone():
    return [jax.jit(draws)(chacha.key_of(key)) for key in KEYS]


def in_vmap():
    return jax.jit(jax.vmap(draws))(chacha.key_of(KEYS))


def in_nested_vmap():
    found = jax.jit(jax.vmap(jax.vmap(draws)))(chacha.key_of(KEYS.reshape(2, 2, 8)))
    return jax.tree.map(lambda leaf: leaf.reshape(4, *leaf.shape[2:]), found)


def in_scan():
    return jax.jit(lambda keys: jax.lax.scan(lambda c, key: (c, draws(key)), 0, keys)[1])(chacha.key_of(KEYS))


def in_while():
    def step(i, state):
        return jax.tree.map(lambda all_, one: all_.at[i].set(one), state, draws(chacha.key_of(KEYS)[i]))

    start = jax.tree.map(lambda leaf: jnp.zeros((4, *leaf.shape), leaf.dtype), alone()[0])
    return jax.jit(lambda s: jax.lax.fori_loop(0, 4, step, s))(start)


def over_devices(devices):
    split = PartitionSpec(sharding.AXIS)
    mapped = jax.shard_map(jax.vmap(draws), mesh=sharding.make_mesh(devices), in_specs=split, out_specs=split)
    return jax.jit(mapped)(chacha.key_of(KEYS))


@pytest.mark.parametrize(
    "where",
    [
        in_vmap,
        in_nested_vmap,
        in_scan,
        in_while,
        functools.partial(over_devices, 1),
        functools.partial(over_devices, 4),
    ],
)
def test_the_same_numbers_wherever_they_are_drawn(where):
    together = where()
    for i, one in enumerate(alone()):
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda leaf, i=i: leaf[i], together), one)


def test_a_shared_key_draws_the_same_on_every_device_and_another_where_the_address_differs():
    def work(key, own):
        here = jax.random.fold_in(key, jax.lax.axis_index(sharding.AXIS))
        total = jax.lax.fori_loop(
            0, 3, lambda i, acc: acc + jax.random.bits(jax.random.fold_in(here, i), (5,)), sharding.varying(own[0])
        )
        return sharding.varying(jax.random.bits(key, (3,)))[None], total[None]

    specs = (PartitionSpec(), PartitionSpec(sharding.AXIS))
    for devices in (1, 4):
        mapped = jax.shard_map(work, mesh=sharding.make_mesh(devices), in_specs=specs, out_specs=specs[1])
        shared, total = jax.jit(mapped)(chacha.key_of(KEY), jnp.zeros((devices, 5), jnp.uint32))
        np.testing.assert_array_equal(shared, np.tile(jax.random.bits(chacha.key_of(KEY), (3,)), (devices, 1)))
        for i, row in enumerate(total):
            here = jax.random.fold_in(chacha.key_of(KEY), i)
            np.testing.assert_array_equal(
                row, sum(jax.random.bits(jax.random.fold_in(here, j), (5,)) for j in range(3))
            )
        assert len(np.unique(total, axis=0)) == devices


def test_keys_are_arrays_of_their_own_kind():
    keys = chacha.key_of(KEYS)
    assert keys.shape == (4,) and jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
    np.testing.assert_array_equal(words(keys), KEYS)
    seeded = [words(jax.random.key(seed, impl=chacha.CHACHA20)) for seed in (0, 1, 2**31 - 1)]
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations(seeded, 2))
    with pytest.raises((TypeError, ValueError)):
        chacha.key_of(KEYS[:, :7])


def test_what_a_key_cannot_give_is_refused():
    with pytest.raises(ValueError, match="64-bit"), jax.enable_x64(True):
        jax.random.bits(chacha.key_of(KEY), (3,), jnp.uint64)
    words_of_key = jax.ShapeDtypeStruct((8,), jnp.uint32)
    with pytest.raises(ValueError, match="words in one draw"):
        jax.eval_shape(lambda k: chacha._random_bits(k, 32, (2**18, 2**18)), words_of_key)
    with pytest.raises(ValueError, match="keys in one split"):
        jax.eval_shape(lambda k: chacha._split(k, (2**16, 2**16)), words_of_key)
