"""The written-out generator gives the numbers of JAX's own, whatever they are drawn for and wherever."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from fedjax_health.federated import sharding
from fedjax_health.threefry import root_key, threefry

SEEDS = (0, 1, 2**31 - 1)
LOGITS = jnp.log(jnp.array([0.1, 0.6, 0.3]))
DRAWS = {
    "split": lambda key: jax.random.key_data(jax.random.split(key, 7)),
    "split into a matrix": lambda key: jax.random.key_data(jax.random.split(key, (2, 3))),
    "fold_in": lambda key: jax.random.key_data(jax.random.fold_in(key, 12345)),
    "fold_in of a large number": lambda key: jax.random.key_data(jax.random.fold_in(key, jnp.uint32(2**32 - 1))),
    "32 bits": lambda key: jax.random.bits(key, (3, 5)),
    "16 bits": lambda key: jax.random.bits(key, (7,), jnp.uint16),
    "8 bits": lambda key: jax.random.bits(key, (2, 3, 5), jnp.uint8),
    "one number": lambda key: jax.random.bits(key),
    "no numbers": lambda key: jax.random.bits(key, (0, 3)),
    "64 numbers": lambda key: jax.random.bits(key, (64,)),
    "65 numbers": lambda key: jax.random.bits(key, (65,)),
    "normal": lambda key: jax.random.normal(key, (129,)),
    "uniform": lambda key: jax.random.uniform(key, (10, 10), minval=-2.0, maxval=3.0),
    "randint": lambda key: jax.random.randint(key, (20,), 0, 1000),
    "bernoulli": lambda key: jax.random.bernoulli(key, 0.3, (40,)),
    "permutation": lambda key: jax.random.permutation(key, 100),
    "gumbel": lambda key: jax.random.gumbel(key, (33,)),
    "categorical": lambda key: jax.random.categorical(key, LOGITS, shape=(50,)),
}


def assert_equal(ours, theirs):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), ours, theirs)


def pairs(seeds=SEEDS):
    return [(root_key(seed), jax.random.key(seed)) for seed in seeds]


@pytest.mark.parametrize("name", DRAWS)
def test_draws_are_those_of_jax(name):
    draw = jax.jit(DRAWS[name])
    for ours, theirs in pairs():
        assert_equal(draw(ours), draw(theirs))
    outside = DRAWS[name](pairs()[1][0])
    if jnp.issubdtype(outside.dtype, jnp.floating):  # a program fuses products and sums, and rounds them once
        np.testing.assert_allclose(outside, draw(pairs()[1][0]), rtol=1e-5, atol=1e-6)
    else:
        assert_equal(outside, draw(pairs()[1][0]))


def test_published_numbers_of_threefry():
    """Known answers of threefry2x32 with 20 rounds, from the Random123 distribution (kat_vectors)."""
    ones, pi = 0xFFFFFFFF, (0x243F6A88, 0x85A308D3)
    known = [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((ones, ones), (ones, ones), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), pi, (0xC4923A9C, 0x483DF7A0)),
    ]
    for key, counter, answer in known:
        words = threefry(jnp.array(key, jnp.uint32), *(jnp.uint32(word) for word in counter))
        assert tuple(int(word) for word in words) == answer


def test_seeds_may_be_traced_and_of_either_sign():
    def words(make):
        return lambda seed: jax.random.key_data(make(seed))

    for seed in (jnp.int32(5), jnp.uint32(2**32 - 1), jnp.uint32(2**31)):
        assert_equal(jax.jit(words(root_key))(seed), jax.jit(words(jax.random.key))(seed))
    seeds = jnp.arange(4, dtype=jnp.uint32)
    assert_equal(jax.vmap(words(root_key))(seeds), jax.vmap(words(jax.random.key))(seeds))


def everything(key):
    return [draw(key) for draw in DRAWS.values()]


def keys(make, n):
    return jax.random.split(make(3), n)


def in_vmap(make):
    return jax.vmap(everything)(keys(make, 4))


def in_nested_vmap(make):
    addressed = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(keys(make, 3), jnp.arange(5))
    return jax.vmap(jax.vmap(lambda key: jax.random.normal(key, (3,))))(addressed)


def in_scan(make):
    def step(key, i):
        return jax.random.fold_in(key, i), everything(key)

    last, drawn = jax.lax.scan(step, make(3), jnp.arange(4))
    return jax.random.key_data(last), drawn


def in_cond(make):
    def chosen(key, i):
        return jax.lax.cond(i > 1, lambda: jax.random.normal(key, (6,)), lambda: jax.random.uniform(key, (6,)))

    alone = [chosen(key, jnp.int32(i)) for i, key in enumerate(keys(make, 4))]
    return alone, jax.vmap(chosen)(keys(make, 4), jnp.arange(4))


def in_while(make):
    def until_large(key):
        def more(state):
            return state[0] + 1, jax.random.normal(jax.random.fold_in(key, state[0]))

        return jax.lax.while_loop(lambda state: state[1] < 0.5, more, (jnp.int32(0), jnp.float32(0.0)))

    return until_large(make(3)), jax.vmap(until_large)(keys(make, 5))


def in_shard_map(make):
    """Replicated keys, one key a device, and one key addressed by the device's number, in a loop."""
    split, whole = PartitionSpec(sharding.AXIS), PartitionSpec()

    def work(common, own):
        here = jax.lax.axis_index(sharding.AXIS)
        mine = jax.random.fold_in(common, here)
        start = sharding.varying(jnp.zeros(3, jnp.float32))
        total = jax.lax.fori_loop(
            0, 3, lambda i, acc: acc + jax.random.normal(jax.random.fold_in(mine, i), (3,)), start
        )
        shared = sharding.varying(jax.random.normal(common, (5,)))
        return shared[None], jax.random.bits(own[0], (70,))[None], total[None]

    mapped = jax.shard_map(work, mesh=sharding.make_mesh(4), in_specs=(whole, split), out_specs=split)
    return mapped(make(3), keys(make, 4))


@pytest.mark.parametrize("where", [in_vmap, in_nested_vmap, in_scan, in_cond, in_while, in_shard_map])
def test_wherever_they_are_drawn(where):
    assert_equal(jax.jit(functools.partial(where, root_key))(), jax.jit(functools.partial(where, jax.random.key))())


def test_keys_are_arrays_like_jaxs():
    ours, theirs = keys(root_key, 4), keys(jax.random.key, 4)
    assert ours.shape == theirs.shape == (4,)
    assert jnp.issubdtype(ours.dtype, jax.dtypes.prng_key)
    assert jax.random.key_impl(ours) != jax.random.key_impl(theirs)  # a mix-up of the two is an error
    chosen = jnp.where(jnp.array([True, False, True, False]), ours, ours[::-1])
    assert_equal(jax.random.key_data(chosen)[1], jax.random.key_data(theirs)[2])


def test_there_are_no_64_bit_draws():
    with pytest.raises(ValueError, match="64-bit"), jax.enable_x64(True):
        jax.random.bits(root_key(0), (3,), jnp.uint64)
