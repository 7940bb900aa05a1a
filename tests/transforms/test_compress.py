"""Compression by config: order, exact bits, refusals, and what a clip and noise after it still promise."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.sharding import PartitionSpec

from fedjax_health import tree
from fedjax_health.federation_config import CompressionConfig
from fedjax_health.transforms.base import Keys, Wire, chain, full_wire
from fedjax_health.transforms.clip import make_clip
from fedjax_health.transforms.compress import download_wire, make_compression, make_download
from fedjax_health.transforms.noise import make_gaussian_noise
from fedjax_health.types import UserError

pytestmark = pytest.mark.quick_compile

OFF = CompressionConfig(
    rotate=False, sparsify="none", keep_fraction=0.1, error_feedback=False, bits=0, sign=False, down_bits=0
)


def update(seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return {
        "w": jnp.asarray(scale * rng.normal(size=(9, 10)), jnp.float32),
        "b": jnp.asarray(scale * rng.normal(size=(10,)), jnp.float32),
    }


def flat(t):
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(t)])


def compression(**changes):
    return make_compression(dataclasses.replace(OFF, **changes), update())


def keys(own=0, shared=7):
    return Keys(jax.random.key(own), jax.random.key(shared))


def hyper(clip=0.5, noise=1.0):
    return {"l2_clip_norm": jnp.float32(clip), "noise_multiplier": jnp.float32(noise)}


CONFIGS = {
    "nothing": ({}, (100, 32, 0)),
    "rotate": ({"rotate": True}, (128, 32, 0)),
    "8 bits": ({"bits": 8}, (100, 8, 32)),
    "rotate, 4 bits": ({"rotate": True, "bits": 4}, (128, 4, 32)),
    "sign": ({"sign": True}, (100, 1, 32)),
    "rotate, sign": ({"rotate": True, "sign": True}, (128, 1, 32)),
    "top_k": ({"sparsify": "top_k"}, (10, 32, 10 * 7)),
    "top_k, 6 bits": ({"sparsify": "top_k", "bits": 6}, (10, 6, 10 * 7 + 32)),
    "top_k, sign": ({"sparsify": "top_k", "sign": True}, (10, 1, 10 * 7 + 32)),
    "rand_k": ({"sparsify": "rand_k", "keep_fraction": 0.25}, (25, 32, 64)),
    "rand_k, 3 bits": ({"sparsify": "rand_k", "keep_fraction": 0.25, "bits": 3}, (25, 3, 64 + 32)),
    "rotate, top_k, 8 bits": ({"rotate": True, "sparsify": "top_k", "bits": 8}, (13, 8, 13 * 7 + 32)),
    "feedback, top_k, 8 bits": ({"error_feedback": True, "sparsify": "top_k", "bits": 8}, (10, 8, 10 * 7 + 32)),
    "feedback, rotate, 4 bits": ({"error_feedback": True, "rotate": True, "bits": 4}, (128, 4, 32)),
    "feedback, rand_k": ({"error_feedback": True, "sparsify": "rand_k"}, (10, 32, 64)),
    "feedback, sign": ({"error_feedback": True, "sign": True}, (100, 1, 32)),
}


@pytest.mark.parametrize(("changes", "expected"), CONFIGS.values(), ids=CONFIGS)
def test_wires_equal_hand_counts(changes, expected):
    values, bits, side = expected
    wire = compression(**changes).wire(full_wire(update()))
    assert wire[1:] == expected and wire.bits == values * bits + side


@pytest.mark.parametrize(("changes", "expected"), CONFIGS.values(), ids=CONFIGS)
def test_no_more_values_are_sent_than_the_wire_says(changes, expected):
    transform, (values, bits, _) = compression(**changes), expected
    sent = transform.client(update(), transform.memory(update()), {}, keys())[0]
    assert np.count_nonzero(flat(sent)) <= values
    if bits < 32:
        assert len(np.unique(flat(sent)[flat(sent) != 0])) <= 2**bits


@pytest.mark.parametrize(("changes", "expected"), CONFIGS.values(), ids=CONFIGS)
def test_memory_bound_and_the_way_back(changes, expected):
    del expected
    transform = compression(**changes)
    memory = transform.memory(update())
    if "error_feedback" in changes:
        assert jax.tree.map(jnp.shape, memory) == jax.tree.map(jnp.shape, update())
    else:
        assert jax.tree.leaves(memory) == []
    bound = transform.l2_bound(jnp.float32(2.0), {})
    assert (bound is not None) == (set(changes) <= {"rotate"})
    sent, after, _ = jax.jit(transform.client)(update(), memory, {}, keys())
    assert jax.tree.structure(after) == jax.tree.structure(memory)
    back = transform.server(sent, {}, keys(own=5))[0]
    assert jax.tree.map(jnp.shape, back) == jax.tree.map(jnp.shape, update())


def test_all_off_costs_nothing():
    transform, k = compression(), keys()

    def both(u):
        return transform.server(transform.client(u, transform.memory(u), {}, k)[0], {}, k)[0]

    assert jax.tree.leaves(transform.memory(update())) == []
    assert jax.make_jaxpr(both)(update()).eqns == []
    jax.tree.map(np.testing.assert_array_equal, both(update()), update())


@pytest.mark.parametrize(
    "changes",
    [
        {"bits": 2},
        {"rotate": True, "bits": 2},
        {"sparsify": "rand_k", "keep_fraction": 0.3},
        {"rotate": True, "sparsify": "rand_k", "keep_fraction": 0.3, "bits": 3},
    ],
)
def test_the_unbiased_chains_are_unbiased(changes):
    n, transform = 20_000, compression(**changes)

    def decoded(key):
        k = Keys(key, jax.random.fold_in(key, 1))  # another rotation every time
        return transform.server(transform.client(update(), transform.memory(update()), {}, k)[0], {}, k)[0]

    out = jax.jit(jax.vmap(decoded))(jax.random.split(jax.random.key(0), n))
    out = np.concatenate([np.asarray(leaf, np.float64).reshape(n, -1) for leaf in jax.tree.leaves(out)], 1)
    keep = out.std(0) > 1e-3
    z = (out.mean(0) - flat(update()))[keep] / (out.std(0)[keep] / np.sqrt(n))
    assert keep.sum() > 95 and np.abs(z).max() < 4.5 and 0.6 < z.std() < 1.4


@pytest.mark.parametrize(("feedback", "gain"), [(False, 5.0), (True, 1.0)])
def test_random_coordinates_are_scaled_up_only_without_error_feedback(feedback, gain):
    transform = compression(sparsify="rand_k", keep_fraction=0.2, error_feedback=feedback)
    sent = flat(transform.client(update(), transform.memory(update()), {}, keys())[0])
    np.testing.assert_allclose(sent, np.where(sent != 0, gain * flat(update()), 0), rtol=1e-6)


def test_rotation_helps_quantisation_of_an_uneven_update():
    u = {**update(scale=0.01), "b": jnp.zeros(10).at[0].set(5.0)}

    def loss(transform):
        def one(key):
            k = Keys(key, key)
            back = transform.server(transform.client(u, transform.memory(u), {}, k)[0], {}, k)[0]
            return tree.global_norm(tree.subtract(back, u)) ** 2

        return float(jnp.mean(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 200))))

    assert loss(compression(rotate=True, bits=4)) < 0.3 * loss(compression(bits=4))


# a clip and noise after compression


def private(**changes):
    clip = make_clip()
    return chain(compression(**changes), clip, make_gaussian_noise(lambda h: h["l2_clip_norm"]))


PRIVATE = [
    {"rotate": True},
    {"rotate": True, "bits": 3},
    {"rotate": True, "sparsify": "top_k", "bits": 4},
    {"sign": True},
]


@pytest.mark.parametrize("changes", PRIVATE)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_the_bound_holds_after_compression_and_after_turning_back(changes, scale):
    transform = private(**changes)
    bound = transform.l2_bound(None, hyper(0.5))
    assert bound is not None and float(bound) == 0.5
    quiet = hyper(0.5, 0.0)
    total = None
    for seed in range(6):
        u = update(seed, scale)
        sent, _, _ = transform.client(u, transform.memory(u), quiet, keys(own=seed))
        assert float(tree.global_norm(sent)) <= 0.5 * (1 + 1e-5)
        without = total
        total = sent if total is None else tree.add(total, sent)
        if without is not None:  # one client more or less moves what leaves the server by no more than the bound
            a, b = (transform.server(t, quiet, keys())[0] for t in (total, without))
            assert float(tree.global_norm(tree.subtract(a, b))) <= 0.5 * (1 + 1e-4)


def test_the_bound_is_not_that_of_what_went_in():
    """Why the clip stands after: one bit of a clipped spike has ten times its norm."""
    u = {**jax.tree.map(jnp.zeros_like, update()), "b": jnp.zeros(10).at[0].set(1.0)}
    clip = make_clip()
    before = chain(clip, compression(bits=1))
    sent, _, _ = before.client(u, before.memory(u), hyper(0.5), keys())
    assert float(tree.global_norm(sent)) == pytest.approx(5.0, rel=1e-5)
    assert before.l2_bound(None, hyper(0.5)) is None


@pytest.mark.parametrize("changes", [{}, *PRIVATE])
def test_noise_has_the_stated_deviation_in_every_coordinate(changes):
    transform = private(**changes)
    u = update()
    sent = transform.client(u, transform.memory(u), hyper(), keys())[0]
    clean = flat(transform.server(sent, hyper(noise=0.0), keys())[0])

    def noisy(key):
        return transform.server(sent, hyper(0.5, 1.3), Keys(key, keys().shared))[0]

    out = jax.jit(jax.vmap(noisy))(jax.random.split(jax.random.key(11), 3000))
    noise = np.concatenate([np.asarray(leaf, np.float64).reshape(3000, -1) for leaf in jax.tree.leaves(out)], 1) - clean
    np.testing.assert_allclose(noise.std(0), 0.65, rtol=4.5 / np.sqrt(2 * 3000))
    assert scipy.stats.kstest(noise.ravel() / 0.65, "norm").pvalue > 1e-3
    assert scipy.stats.kstest(noise.ravel() / 0.6, "norm").pvalue < 1e-6
    assert np.abs(np.corrcoef(noise.T) - np.eye(100)).max() < 5.5 / np.sqrt(3000)


@pytest.mark.parametrize("name", ["rotate, top_k, 8 bits", "feedback, top_k, 8 bits", "rand_k, 3 bits"])
def test_sharded_over_devices_equals_a_loop(name):
    transform = compression(**CONFIGS[name][0])
    many = jax.tree.map(lambda *x: jnp.stack(x), *[update(s) for s in range(8)])
    memory = jax.vmap(transform.memory)(many) if "feedback" in name else transform.memory(update())
    own, shared = jax.random.split(jax.random.key(1), 8), jax.random.key(7)
    axis = 0 if "feedback" in name else None

    def clients(u, m, key):
        sent, m, _ = jax.vmap(lambda u, m, k: transform.client(u, m, {}, Keys(k, shared)), (0, axis, 0))(u, m, key)
        return jax.lax.psum(jax.tree.map(lambda x: jnp.sum(x, 0), sent), "clients"), m

    mesh = jax.make_mesh((4,), ("clients",), axis_types=(jax.sharding.AxisType.Auto,))
    spec, none = PartitionSpec("clients"), PartitionSpec()
    mapped = jax.shard_map(
        clients, mesh=mesh, in_specs=(spec, spec, spec), out_specs=(none, spec if axis == 0 else none)
    )
    total, _ = jax.jit(mapped)(many, memory, own)
    loop = np.zeros(len(flat(total)))
    for s in range(8):
        u, m = jax.tree.map(lambda x, s=s: x[s], (many, memory))
        loop += flat(transform.client(u, m, {}, Keys(own[s], shared))[0])
    np.testing.assert_allclose(flat(total), loop, atol=1e-4)


# the way down


@pytest.mark.parametrize("bits", [0, 1, 8, 16])
def test_the_way_down(bits):
    config = dataclasses.replace(OFF, down_bits=bits)
    params, key = update(3), jax.random.key(2)
    received = jax.jit(make_download(config))(params, key)
    m = np.abs(flat(params)).max()
    wire = download_wire(config, params)
    if bits == 0:
        np.testing.assert_array_equal(flat(received), flat(params))
        assert wire == Wire(100, 100, 32, 0)
        return
    assert np.abs(flat(received) - flat(params)).max() <= 2 * m / (2**bits - 1) * 1.01
    assert len(np.unique(flat(received))) <= 2**bits
    assert wire == Wire(100, 100, bits, 32) and wire.bits == 100 * bits + 32


# refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sign": True, "bits": 4}, "bits=4"),
        ({"sparsify": "top"}, "'top'.*none, top_k or rand_k"),
        ({"sparsify": "top_k", "keep_fraction": 0.0}, "keep_fraction=0.0"),
        ({"bits": 17}, "17 bits"),
        ({"bits": -1}, "-1 bits"),
        ({"error_feedback": True}, "nothing lossy"),
        ({"error_feedback": True, "rotate": True}, "nothing lossy"),
        ({"error_feedback": True, "bits": 3}, "bits=3.*at least 4 bits"),
        ({"error_feedback": True, "rotate": True, "bits": 2}, "bits=2.*at least 3 bits"),
        ({"error_feedback": True, "sparsify": "top_k", "bits": 2}, "bits=2.*at least 3 bits"),
    ],
)
def test_refusals(changes, message):
    with pytest.raises(UserError, match=message):
        compression(**changes)


@pytest.mark.parametrize("bits", [-1, 17])
def test_a_download_of_too_many_bits_is_refused(bits):
    with pytest.raises(UserError, match=f"{bits} bits"):
        make_download(dataclasses.replace(OFF, down_bits=bits))
