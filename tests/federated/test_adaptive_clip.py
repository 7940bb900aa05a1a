"""The adaptive clip norm: against NumPy, its bound under hostile updates, where it goes, and what it does in a federation."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
import toy

from fedjax_health import tree
from fedjax_health.config import PrivacyConfig
from fedjax_health.federated.adaptive_clip import (
    RANGE,
    SHARE_BELOW,
    Clipped,
    Control,
    make_adaptive_clip,
    with_clip_norm,
)
from fedjax_health.federated.algorithms import Local, Start, make_fedavg
from fedjax_health.federated.cohort import make_poisson
from fedjax_health.federated.mime_lite import make_mime_lite
from fedjax_health.federated.scaffold import make_scaffold
from fedjax_health.models.base import ModelParams
from fedjax_health.privacy.plan import Release, make_plan
from fedjax_health.threefry import root_key
from fedjax_health.transforms.base import Keys, chain, full_wire
from fedjax_health.transforms.clip import make_clip
from fedjax_health.transforms.compress import make_compression
from fedjax_health.types import UserError

pytestmark = pytest.mark.quick_compile

PLAIN = make_fedavg(toy.linear(), optax.identity())
DIM, START = 30, 0.5  # coordinates, C_0 of the toy's hyper-parameters


def numbers(bound=START):
    return toy.hyper(None, l2_clip_norm=bound)


@functools.partial(jax.jit, static_argnums=0)
def messages(algorithm, updates, control, hyper):
    """What clients with these updates f32[n, d] send; Clipped with a leading axis n."""
    start = Start(ModelParams({"w": jnp.zeros(updates.shape[1])}, ()), control, ())

    def one(update):
        return algorithm.final(start, Local({"w": -update}, (), ()), jnp.float32(1.0), hyper)[0]

    return jax.vmap(one)(updates)


@functools.partial(jax.jit, static_argnums=0)
def mean_round(algorithm, updates, control, hyper, noise=0.0, key=None):
    """One round over all of them: (direction f32[d], control)."""
    sent = jax.tree.map(lambda leaf: jnp.sum(leaf, 0), messages(algorithm, updates, control, hyper))
    if key is not None:
        draw = tree.normal_like(key, sent)
        sent = jax.tree.map(lambda s, z: s + noise * hyper["l2_clip_norm"] * z, sent, draw)
    mean = tree.scale(jnp.float32(1.0 / updates.shape[0]), sent)
    direction, control = algorithm.server(mean, control, hyper)
    return direction["w"], control


def begin(algorithm):
    return algorithm.control({"w": jnp.zeros(DIM)})


def clip_norm(algorithm, control, hyper):
    return float(algorithm.public(control, hyper)["public/clip_norm"])


def drawn(n, seed=0, median=2.0, spread=0.5):
    """Updates in random directions whose norms are log-normal."""
    draw = np.random.default_rng(seed)
    direction = draw.normal(size=(n, DIM))
    norm = median * np.exp(spread * draw.normal(size=(n, 1)))
    return (norm * direction / np.linalg.norm(direction, axis=1, keepdims=True)).astype(np.float32)


def reference(rounds, first, quantile, rate):
    """Algorithm 1 of the paper without noise, in float64: the mean of the clipped updates and C after every round."""
    clip, directions, norms = first, [], []
    for updates in rounds:
        u = np.asarray(updates, np.float64)
        norm = np.linalg.norm(u, axis=1)
        directions.append(np.mean(u * np.minimum(1.0, clip / norm)[:, None], 0))
        clip = np.clip(clip * np.exp(-rate * (np.mean(norm <= clip) - quantile)), first / 1000, first * 1000)
        norms.append(clip)
    return directions, norms


@pytest.mark.parametrize(("quantile", "rate", "kappa"), [(0.5, 0.2, 0.25), (0.9, 1.0, 0.25), (0.1, 3.0, 2.0)])
def test_equals_numpy(quantile, rate, kappa):
    algorithm, hyper = make_adaptive_clip(PLAIN, quantile, rate, kappa), numbers()
    rounds = [drawn(50, seed, spread=1.5) for seed in range(12)]
    control = begin(algorithm)
    directions, norms = reference(rounds, START, quantile, rate)
    assert np.ptp(np.log(norms)) > 0.5  # it moves
    for updates, direction, norm in zip(rounds, directions, norms, strict=True):
        ours, control = mean_round(algorithm, updates, control, hyper)
        np.testing.assert_allclose(ours, direction, rtol=1e-4, atol=1e-6)
        assert clip_norm(algorithm, control, hyper) == pytest.approx(norm, rel=1e-5)


def hostile():
    ones = np.ones(DIM, np.float32)
    spoiled = [np.where(np.arange(DIM) == 7, bad, ones) for bad in (np.nan, np.inf, -np.inf)]
    sizes = (0.0, 1e-30, 1e-8, 1e-3, 0.0912870929, 0.1, 3.0, 1e10, 1e18, 3e38)  # the fifth is about 0.5 long
    return np.stack([*spoiled, *(np.float32(size) * ones for size in sizes), *drawn(200)]).astype(np.float32)


@pytest.mark.parametrize("unit", [1e-3, 0.5, 100.0])
@pytest.mark.parametrize("log_ratio", [-math.log(RANGE), -1.0, 0.0, 2.0, math.log(RANGE)])
def test_a_message_is_never_longer_than_its_unit(unit, log_ratio):
    algorithm, hyper, updates = make_adaptive_clip(PLAIN, 0.5, 0.2), numbers(unit), hostile()
    control = Control(jnp.float32(log_ratio), ())
    sent = jax.device_get(messages(algorithm, updates, control, hyper))
    whole = np.concatenate([sent.update["w"], sent.below[:, None]], 1).astype(np.float64)
    length = np.linalg.norm(whole, axis=1)
    assert np.isfinite(whole).all() and (length <= unit * (1 + 1e-6)).all()
    with np.errstate(over="ignore", invalid="ignore"):
        norm = np.linalg.norm(updates.astype(np.float64), axis=1)
        short = norm <= clip_norm(algorithm, control, hyper) * (1 + 1e-6)
    np.testing.assert_array_equal(np.sign(sent.below), np.where(short, 1, -1))
    np.testing.assert_array_equal(whole[:3, :-1], 0.0)  # NaN, inf, -inf
    usable = norm < 1e19  # longer ones have squares beyond float32, and are taken for infinite
    clipped = usable & ~short
    assert (length[clipped] > unit * (1 - 1e-5)).all() and clipped.sum() >= 2
    # the clip that stands behind leaves all of them as they are
    keys, clip = Keys(root_key(0), root_key(1)), make_clip()
    again, _, metrics = jax.vmap(lambda m: clip.client(m, (), hyper, keys))(sent)
    assert not metrics["sim/clip_fraction"].any()
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(again), sent)


@pytest.mark.parametrize("kappa", [0.25, 1.0])
def test_one_gaussian_is_the_split_of_the_paper(kappa):
    """z of the whole message, measured on either part of it: z^-2 = z_Delta^-2 + (2 sigma_b)^-2."""
    algorithm, hyper = make_adaptive_clip(PLAIN, 0.5, 1.0, kappa), numbers()
    control = Control(jnp.float32(0.7), ())
    unit = Clipped({"w": jnp.eye(DIM)[0] * START}, jnp.float32(START))  # one deviation of noise of multiplier 1
    direction, after = algorithm.server(unit, control, hyper)
    for_update = float(direction["w"][0]) / clip_norm(algorithm, control, hyper)
    for_bit = 0.7 - float(after.log_ratio)
    assert for_bit == pytest.approx(math.sqrt(1 / kappa**2 + 0.25), rel=1e-4)
    assert for_update**-2 + (2 * for_bit) ** -2 == pytest.approx(1.0, rel=1e-4)
    assert (for_update < 1.01) == (kappa == 0.25)  # the default costs the update less than 1 % of noise


@pytest.mark.parametrize("first", [0.02, 0.5, 60.0])
@pytest.mark.parametrize("quantile", [0.3, 0.5, 0.8])
def test_finds_the_quantile_of_the_norms(quantile, first):
    algorithm, hyper = make_adaptive_clip(PLAIN, quantile, 0.2), numbers(first)
    exact = 2.0 * math.exp(0.5 * scipy.stats.norm.ppf(quantile))
    updates, key = drawn(2000), root_key(3)

    @jax.jit
    def run(noise):
        def one(control, key):
            control = mean_round(algorithm, updates, control, hyper, noise, key)[1]
            return control, control.log_ratio

        return jax.lax.scan(one, begin(algorithm), jax.random.split(key, 250))[1]

    for noise, tolerance in ((0.0, 0.05), (60.0, 0.15)):  # 60 / 2,000 is multiplier 3 on a cohort of 100
        tail = np.asarray(run(jnp.float32(noise)))[150:]
        assert first * math.exp(tail.mean()) == pytest.approx(exact, rel=tolerance)
        assert (np.std(tail) > 0.02) == (noise > 0)


def test_stays_within_its_range():
    algorithm, hyper = make_adaptive_clip(PLAIN, 0.5, 50.0), numbers()
    for norm, end in ((1e-9, START / RANGE), (1e9, START * RANGE)):
        control = begin(algorithm)
        for _ in range(3):
            _, control = mean_round(algorithm, np.full((4, DIM), norm, np.float32), control, hyper)
        assert clip_norm(algorithm, control, hyper) == pytest.approx(end, rel=1e-4)


def test_compressed_messages_still_find_the_quantile():
    """Rotated and of 8 bits, as the server decodes them, clips them and sums them."""
    algorithm, hyper = make_adaptive_clip(PLAIN, 0.8, 0.3), numbers()
    updates, control = drawn(500), begin(algorithm)
    template = jax.eval_shape(messages, algorithm, updates[:1], control, hyper)
    template = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape[1:], s.dtype), template)
    settings = toy.train_config(compression={"rotate": True, "bits": 8}).compression
    transform = chain(make_compression(settings, template), make_clip())
    assert transform.wire(full_wire(template)).bits == 32 * 8 + 32  # 30 + 1 values, rotated to 32

    @jax.jit
    def one_round(control, key):
        sent = messages(algorithm, updates, control, hyper)
        own = jax.random.split(key, updates.shape[0])
        decoded = jax.vmap(lambda m, k: transform.client(m, transform.memory(template), hyper, Keys(k, key))[0])(
            sent, own
        )
        total, _ = transform.server(jax.tree.map(lambda leaf: jnp.sum(leaf, 0), decoded), hyper, Keys(key, key))
        return algorithm.server(tree.scale(jnp.float32(1 / 500), total), control, hyper)[1]

    for t in range(120):
        control = one_round(control, jax.random.fold_in(root_key(0), t))
    exact = np.quantile(np.linalg.norm(updates, axis=1), 0.8)
    assert clip_norm(algorithm, control, hyper) == pytest.approx(exact, rel=0.05)


def test_the_ledger_says_what_else_is_released():
    config = PrivacyConfig("central_gaussian", 6.0, 0.0, 1.0, 20.0)
    sampler = make_poisson(200, 20.0, 4)
    adaptive = Release("vitals/vae", "vitals", sampler, 3, 0.5, also=SHARE_BELOW)
    releases = [adaptive, Release("vitals/gan", "vitals", sampler, 3, 0.5)]
    events = make_plan(config, 200, releases).ledger({"vitals/vae": 3, "vitals/gan": 3})["events"]
    assert [e["release"] for e in events[1:]] == [
        "synthetic/vitals_vae and its generator and the share of updates below the clip norm",
        "synthetic/vitals_gan and its generator",
    ]
    assert events[1]["event_fields"] == events[2]["event_fields"]


def test_what_it_cannot_wrap_is_refused():
    rule, model = optax.identity(), toy.linear()
    for inner in (make_scaffold(model, rule, 0.5), make_mime_lite(model, rule), make_adaptive_clip(PLAIN, 0.5, 0.2)):
        with pytest.raises(UserError, match="this algorithm sends more; use fedavg or fedprox"):
            make_adaptive_clip(inner, 0.5, 0.2)
    for quantile, rate, kappa, said in (
        (1.0, 0.2, 0.25, "clip_quantile=1.0"), (0.0, 0.2, 0.25, "clip_quantile=0.0"), (0.5, 0.2, 0.0, "bit_scale=0.0"),
        (0.5, 0.0, 0.25, "clip_learning_rate=0.0"), (0.5, math.inf, 0.25, "clip_learning_rate=inf"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=said):
            make_adaptive_clip(PLAIN, quantile, rate, kappa)
    assert with_clip_norm(PLAIN, toy.train_config(), "record_gaussian") is PLAIN
    for mechanism, changes in (
        ("record_gaussian", {}),
        ("a mechanism yet to be written", {}),
        ("none", {"algorithm": "fedbuff"}),
        ("none", {"hierarchy": {"institutions": 2}}),
        ("none", {"l2_clip_norm": math.inf}),
    ):
        with pytest.raises(UserError, match="adapts a finite bound on a client's whole update"):
            with_clip_norm(PLAIN, toy.train_config(clip_quantile=0.5, **changes), mechanism)
