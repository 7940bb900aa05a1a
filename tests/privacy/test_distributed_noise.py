"""Distributed noise: in the running program, on paper, and what it refuses."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import toy
from dp_accounting import GaussianDpEvent, ZCDpEvent, rdp

from fedjax_health import prepare, tree
from fedjax_health.config import PrivacyConfig
from fedjax_health.federated.cohort import make_full, make_poisson
from fedjax_health.federated.federation import init_state
from fedjax_health.federated.round import make_round
from fedjax_health.prepared import Prepared
from fedjax_health.privacy import accounting, groups, renyi, second_opinion
from fedjax_health.privacy.event_fields import event_fields, event_of
from fedjax_health.privacy.plan import Release, make_plan
from fedjax_health.privacy.revealed import RevealedSampledDpEvent
from fedjax_health.threefry import root_key
from fedjax_health.transforms.base import Keys
from fedjax_health.transforms.distributed import LEAST_STEPS, MOST_SLACK, grid_step, make_noise_grid, slack
from fedjax_health.types import UserError

pytestmark = pytest.mark.quick_compile

DELTA, Z, C = 1e-5, 2.0, 0.5
LOSING = toy.devices_config(failures_per_hour=900.0)  # about a seventh breaks off
N = 150


def make(secure="ideal", fleet=None, devices=1, chunk=4, share=0.75, rotate=False, **train):
    section = {"secure": secure, "secure_degree": 8}
    whole = {"sampler": "full", "cohort": 24, "clients_per_chunk": chunk, "compression": {"rotate": rotate}, **train}
    config = toy.train_config(**whole, aggregation=section)
    return toy.make_parts(
        toy.linear(), config, mechanism="distributed_gaussian", fleet=fleet, devices=devices, least_share=share
    )


@functools.cache
def program(secure="ideal", losing=False, devices=1, chunk=24, share=0.75):
    """(parts, function of keys [n], client learning rate and who exists): n federations' first round, from one model.

    It returns by how much the models moved, f64[n, P], and the metrics.
    """
    parts = make(secure, LOSING if losing else None, devices, chunk, share)
    data, round_fn, first = toy.make_data(parts), make_round(parts), init_state(parts, toy.keys(0)[0])
    numbers = toy.hyper(None, noise_multiplier=Z)

    def one(key, rate, include):
        own = {**numbers, "client_learning_rate": rate}
        state, metrics = round_fn(first._replace(key=key), own, data._replace(include=include))
        return tree.subtract(state.params.client, first.params.client), metrics

    mapped = jax.jit(jax.vmap(one, (0, None, None)))

    def run(n, rate=0.1, clients=24):
        moved, metrics = mapped(toy.keys(*range(1, n + 1)), jnp.float32(rate), jnp.arange(24) < clients)
        return toy.flat(moved), jax.device_get(metrics)

    return parts, run


@pytest.mark.parametrize(("losing", "devices", "chunk"), [(False, 1, 24), (True, 4, 5)])
def test_the_noise_of_a_round_is_that_of_those_who_came_and_at_least_the_whole(losing, devices, chunk):
    """Clients whose update is exactly zero: the model moves by the noise, and by nothing else."""
    parts, run = program(losing=losing, devices=devices, chunk=chunk)
    moved, metrics = run(N, 0.0)
    came, void = metrics["sim/cohort"], metrics["public/secure_aborted"] > 0
    grid = parts.noise_grid
    assert grid is not None and grid.least == 18
    np.testing.assert_array_equal(void, (came < 18) | void)  # fewer are never given out
    assert (moved[void] == 0).all() and (~void).sum() > N / 4
    assert np.allclose(
        np.asarray(metrics["public/noise_std"])[~void], Z * float(parts.transform.l2_bound(None, hyper())), rtol=1e-4
    )
    std = np.asarray(metrics["public/noise_std"])[~void] * np.sqrt(came[~void] / 18) / came[~void]
    unit = (moved[~void] / std[:, None]).ravel()
    assert scipy.stats.kstest(unit, "norm").pvalue > 1e-3
    for wrong in (2 / 3, 3 / 2):
        assert scipy.stats.kstest(unit / wrong, "norm").pvalue < 1e-6


def hyper():
    return toy.hyper(None, noise_multiplier=Z)


def test_rounds_of_too_few_are_void_though_there_is_a_quorum():
    _, run = program()
    for clients, void in ((17, 1.0), (18, 0.0)):
        moved, metrics = run(N, clients=clients)
        assert ((moved == 0) == void).all() and (metrics["public/secure_aborted"] == void).all()
        assert (metrics["sim/secure_least_quorum"] == 8).all()


def test_masked_is_ideal_noise_and_drop_outs_included():
    (ideal, theirs), (masked, ours) = (program(secure, True, 4, 5)[1](N) for secure in ("ideal", "masked"))
    np.testing.assert_array_equal(theirs["public/secure_aborted"], ours["public/secure_aborted"])
    # two programs differ in a last bit here and there, and with it in a coin of the rounding: one step of one client's
    step = float(grid_step(jnp.float32(Z), jnp.float32(C), program()[0].noise_grid))
    np.testing.assert_allclose(ideal, masked, atol=1.1 * step / 18)
    assert (theirs["public/secure_aborted"] > 0).any()


@pytest.mark.parametrize("rotate", [False, True])
def test_emptying_a_client_moves_its_message_by_at_most_the_bound(rotate):
    parts = make(rotate=rotate)
    like = tree.zeros_like(toy.linear().init(toy.keys(0)[0]).client)
    flat, unravel = jax.flatten_util.ravel_pytree(like)
    grid = parts.noise_grid
    assert grid is not None
    step = float(grid_step(jnp.float32(Z), jnp.float32(C * (1 + 2.0**-11)), grid))

    def moved(scale, key):
        update = scale * jax.random.normal(key, flat.shape)
        keys = Keys(jax.random.fold_in(key, 1), jax.random.fold_in(key, 2))
        sent, empty = (
            parts.transform.client(unravel(u), parts.transform.memory(like), hyper(), keys)[0]
            for u in (update, 0 * flat)
        )
        return jnp.linalg.norm(jax.lax.bitcast_convert_type(sent - empty, jnp.int32).astype(jnp.float32))

    scale = jnp.asarray([0.0, 1e-3, 0.05, 1.0, 1e20, jnp.nan], jnp.float32)
    keys = jax.vmap(root_key)(jnp.arange(200, dtype=jnp.uint32))
    found = np.asarray(jax.jit(jax.vmap(jax.vmap(moved, (0, None)), (None, 0)))(scale, keys))
    assert found.max() <= grid.reach / Z  # so that the noise of `least` clients is Z times it
    assert found[:, 3].max() * step > 0.99 * C and (found[:, [0, 5]] == 0).all()


def test_the_grid_is_as_fine_as_the_ring_allows():
    assert make_noise_grid(12_459, 1_200, 750).deviation == 1024
    assert make_noise_grid(12_459, 110_000, 75_000).deviation == 16
    with pytest.raises(UserError, match="could wrap modulo 2"):
        make_noise_grid(12_459, 1_000_000, 750_000)
    coarse = make_noise_grid(10**6, 110_000, 75_000)._replace(deviation=LEAST_STEPS)
    assert slack(coarse) < MOST_SLACK
    assert slack(coarse._replace(deviation=1)) > 1


def test_noise_too_large_for_the_grid_sends_nothing():
    parts, _ = program()
    grid = parts.noise_grid
    assert grid is not None
    step = grid_step(jnp.float32(2.1 * grid.most_noise), jnp.float32(C), grid)
    assert math.isnan(float(step))
    update = tree.zeros_like(toy.linear().init(toy.keys(0)[0]).client)
    large = toy.hyper(None, noise_multiplier=2.1 * grid.most_noise)
    sent = parts.transform.client(update, parts.transform.memory(update), large, Keys(*toy.keys(1, 2)))[0]
    assert (np.asarray(sent) == 0).all()


# on paper

K, T = 2000, 30
CONFIG = PrivacyConfig("distributed_gaussian", 8.0, DELTA, Z, 4.0)


def plan_of(sampler, config=CONFIG, grid=None):
    return make_plan(config, K, [Release("vitals/vae", "vitals", sampler, T, C, least=150, grid=grid)])


@pytest.mark.parametrize("sampler", [make_poisson(K, 200.0, 8), make_full(K, 8)], ids=["poisson", "full"])
def test_figures_are_those_of_gaussians_whose_participants_are_known_by_renyi(sampler):
    ledger, q = plan_of(sampler).ledger({"vitals/vae": T}), sampler.expected / K
    same = make_plan(
        dataclasses.replace(CONFIG, mechanism="local_gaussian"), K, [Release("vitals/vae", "vitals", sampler, T, C)]
    ).ledger({"vitals/vae": T})
    assert ledger["epsilon_total"] == ledger["epsilon_rdp"] == pytest.approx(same["epsilon_rdp"], rel=1e-6)
    assert same["epsilon_total"] < ledger["epsilon_total"]  # PLD is tighter, but not known for discrete noise
    assert ledger["accountant"].startswith("RDP") and same["accountant"].startswith("PLD")
    assert (ledger["relation"], ledger["unit"], ledger["server_sees_sums_of"]) == ("zero_out_one", "client", 150)
    assert ledger["epsilon_replace_one"] > ledger["epsilon_total"]
    assert (ledger["replace_one_method"], same["replace_one_method"]) == (groups.DIRECT_RENYI, groups.DIRECT)
    if q < 1:
        assert ledger["groups"][0]["epsilon"] > 2 * ledger["epsilon_total"]
    event = ledger["events"][1]["event_fields"]
    assert event_of(event) == RevealedSampledDpEvent(q, ZCDpEvent(0.5 * (1 / Z + MOST_SLACK) ** 2))
    assert any("noise they drew" in sentence for sentence in ledger["not_covered"])


def test_full_participation_is_zcdp_by_dp_accounting():
    """Everybody in every round and no class shares: dp-accounting's own zCDP event says the same."""
    event = RevealedSampledDpEvent(1.0, ZCDpEvent(0.125))
    accountant = rdp.RdpAccountant(renyi.ORDERS.tolist())
    accountant.compose(ZCDpEvent(0.125), T)
    assert accounting.epsilon_of([(event, T)], DELTA) == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-9)
    gauss = RevealedSampledDpEvent(1.0, GaussianDpEvent(2.0))
    assert accounting.epsilon_of([(event, T)], DELTA) >= accounting.epsilon_of([(gauss, T)], DELTA)
    assert groups.replace_one([(event, T)], DELTA).epsilon <= accounting.epsilon_of(
        [(RevealedSampledDpEvent(1.0, ZCDpEvent(0.5)), T)], DELTA
    )


def test_the_curve_read_one_way_is_the_curve_read_the_other():
    curve = renyi.curve_of([(RevealedSampledDpEvent(0.1, ZCDpEvent(0.125)), T), (GaussianDpEvent(4.0), 1)])
    for delta in (1e-3, 1e-5, 1e-9):
        epsilon = curve.get_epsilon_for_delta(delta)
        assert curve.get_delta_for_epsilon([epsilon]) == pytest.approx([delta], rel=1e-6)
    assert curve.get_delta_for_epsilon([0.0])[0] <= 1.0
    assert (np.diff(curve.get_delta_for_epsilon(np.linspace(0, 20, 50).tolist())) <= 0).all()


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        (ZCDpEvent(0.1), "does not cover ZCDpEvent"),
        (RevealedSampledDpEvent(0.1, ZCDpEvent(0.1, 0.1)), "RevealedSampledDpEvent of ZCDpEvent"),
        (RevealedSampledDpEvent(0.1, ZCDpEvent(0.0)), "RevealedSampledDpEvent of ZCDpEvent"),
        (RevealedSampledDpEvent(1.5, ZCDpEvent(0.1)), "sampling probability 1.5"),
    ],
)
def test_events_that_are_not_covered(event, sentence):
    with pytest.raises(UserError, match=sentence):
        accounting.epsilon_of([(event, 1)], DELTA)


def test_hidden_participants_do_not_mix_with_it():
    events = [(RevealedSampledDpEvent(0.1, ZCDpEvent(0.1)), 1), (make_poisson(K, 200.0, 8).account(1.0), 1)]
    with pytest.raises(UserError, match="does not mix"):
        second_opinion.opinions(events, DELTA)


def test_noise_is_calibrated_for_the_whole_run_and_the_table_stops_in_time():
    plan = plan_of(make_poisson(K, 200.0, 8), dataclasses.replace(CONFIG, noise_multiplier=0.0))
    table = plan.epsilon_table(plan.releases[0], {})
    assert 7.9 < table[-1] <= 8.0 and (np.diff(table) >= 0).all()
    assert event_fields(plan.event(plan.releases[0]))["event"]["type"] == "ZCDpEvent"


@pytest.mark.parametrize(
    ("changes", "grid", "sentence"),
    [
        ({"noise_multiplier": 0.2}, make_noise_grid(100, 250, 150), r"noise multiplier of 0\.2 is outside \[0\.3"),
        ({"noise_multiplier": 5.0}, make_noise_grid(10**7, 250, 150), "or use a smaller model"),
        ({"epsilon": 60.0}, make_noise_grid(100, 250, 150), "too little for privacy.epsilon=60"),
    ],
)
def test_noise_that_the_grid_does_not_hold(changes, grid, sentence):
    plan_of(make_poisson(K, 200.0, 8), CONFIG, make_noise_grid(100, 250, 150))
    with pytest.raises(UserError, match=sentence):
        plan_of(make_poisson(K, 200.0, 8), dataclasses.replace(CONFIG, **changes), grid)


def test_a_run_plans_for_the_grid_that_it_has():
    parts, none = program()[0], None
    section = types.SimpleNamespace(
        train=toy.train_config(sampler="full", aggregation={"secure": "ideal", "secure_degree": 8})
    )
    config: Any = types.SimpleNamespace(
        privacy=dataclasses.replace(CONFIG, delta=0.0),
        vae=section,
        gan=None,
        wgan_gp=None,
        representation="public",
    )
    release = prepare.plan_privacy(config, [Prepared(toy.domain(), none, none, {"vae": parts})]).releases[0]  # pyright: ignore[reportArgumentType]
    assert (release.grid, release.least, release.l2_clip_norm) == (parts.noise_grid, 18, C)


def test_without_a_secure_sum_there_is_nothing_to_hide_in():
    with pytest.raises(UserError, match="hides a client in a secure sum only"):
        toy.make_parts(toy.linear(), toy.train_config(), mechanism="distributed_gaussian")
