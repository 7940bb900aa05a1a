"""The adaptive clip norm in a federation: chunks, devices, checkpoints, sweeps, neighbours, canaries and costs."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_config
import toy
from privacy import contracts

from fedjax_health.config import from_config_dict
from fedjax_health.federated.adaptive_clip import SHARE_BELOW
from fedjax_health.federated.canaries import with_canaries
from fedjax_health.models.classifier import make_classifier
from fedjax_health.prepare import plan_privacy
from fedjax_health.prepared import Prepared
from fedjax_health.privacy.accounting import epsilon_of
from fedjax_health.privacy.audit_estimate import estimate_epsilon
from fedjax_health.threefry import root_key
from fedjax_health.train.checkpoint import Checkpoints
from fedjax_health.train.loop import make_train

pytestmark = pytest.mark.quick_compile

START = 0.5  # C_0 of the toy's hyper-parameters


@functools.cache
def parts_of(devices=1, private=True, **changes):
    settings = toy.train_config(**{"clip_quantile": 0.5, "clip_learning_rate": 1.0} | changes)
    return toy.make_parts(toy.linear(), settings, private=private, devices=devices), settings


def trained(parts, settings, chunks=3, seeds=(5,), **changes):
    train = make_train(parts, settings)
    state, hyper, data = (
        train.init(toy.keys(*seeds)),
        toy.hyper(len(seeds), **changes),
        toy.make_data(parts, len(seeds)),
    )
    found = []
    for _ in range(chunks):
        state, metrics = train.run_chunk(state, hyper, data)
        found.append(np.asarray(metrics["public/clip_norm"]))
    return jax.device_get(state._replace(key=())), np.concatenate(found, 1)


def test_chunks_and_devices_change_nothing():
    whole = trained(*parts_of(clients_per_chunk=0))
    assert np.ptp(whole[1]) > 0.1
    for chunk, devices in ((1, 1), (8, 1), (4, 2)):
        other = trained(*parts_of(devices, clients_per_chunk=chunk))
        np.testing.assert_allclose(other[1], whole[1], rtol=1e-5)
        np.testing.assert_allclose(toy.flat(other[0].params), toy.flat(whole[0].params), rtol=1e-4, atol=1e-5)


def test_the_first_round_is_that_of_the_fixed_norm():
    """Without noise both clip at C_0; the second round is another."""
    states = {}
    for quantile in (0.0, 0.5):
        settings = toy.train_config(clip_quantile=quantile, clip_learning_rate=1.0, rounds_per_chunk=1)
        parts = toy.make_parts(toy.linear(), settings)
        train, hyper = make_train(parts, settings), toy.hyper(noise_multiplier=0.0, l2_clip_norm=0.05)
        state = train.init(toy.keys(5))
        for t in range(2):
            state, metrics = train.run_chunk(state, hyper, toy.make_data(parts))
            states[quantile, t] = toy.flat(state.params)
            assert ("public/clip_norm" in metrics) == (quantile > 0)
    np.testing.assert_allclose(states[0.0, 0], states[0.5, 0], rtol=1e-4, atol=1e-6)
    assert np.abs(states[0.0, 1] - states[0.5, 1]).max() > 1e-4


def test_resumes_from_a_checkpoint(tmp_path):
    parts, settings = parts_of()
    train, hyper, data = make_train(parts, settings), toy.hyper(2), toy.make_data(parts, 2)
    state, _ = train.run_chunk(train.init(toy.keys(1, 2)), hyper, data)
    with Checkpoints(str(tmp_path)) as checkpoints:
        checkpoints.save(2, state)
        back = checkpoints.restore(jax.eval_shape(train.init, toy.keys(1, 2)))
    assert np.abs(back.control.log_ratio).min() > 0.01
    resumed, found = train.run_chunk(back, hyper, data)
    went_on, expected = train.run_chunk(state, hyper, data)
    np.testing.assert_array_equal(found["public/clip_norm"], expected["public/clip_norm"])
    np.testing.assert_array_equal(toy.flat(resumed.params), toy.flat(went_on.params))


def test_a_sweep_of_the_first_norm_traces_once():
    parts, settings = parts_of()
    train, data = make_train(parts, settings), toy.make_data(parts, 2)
    for bounds in ((0.1, 0.5), (2.0, 30.0)):
        hyper = toy.hyper(2) | {"l2_clip_norm": jnp.asarray(bounds, jnp.float32)}
        _, metrics = train.run_chunk(train.init(toy.keys(1, 2)), hyper, data)
        np.testing.assert_allclose(metrics["public/clip_norm"][:, 0], bounds, rtol=1e-6)
        ratio = np.asarray(metrics["public/noise_std"]) / np.asarray(bounds)[:, None]
        np.testing.assert_allclose(ratio, 1.0, rtol=1e-6)  # of the message, whatever C is
    assert train.traces() == 1


def test_one_client_more_moves_the_sum_by_at_most_its_unit():
    """Neighbouring populations under the same keys, hostile records included; the sum before its noise."""
    parts, _ = parts_of(sampler="full", cohort=24)
    n, generator = 100, np.random.default_rng(0)
    hyper = toy.hyper(n, noise_multiplier=0.0, client_learning_rate=5.0)
    client, bad = generator.integers(0, 24, n), generator.choice(contracts.HOSTILE, n)
    itself = np.arange(24)[None] == client[:, None]
    seeds = contracts.seeds_of(1, n)
    a, b = (contracts.observe(parts, seeds, hyper, mask, client, bad).summed for mask in (itself | True, ~itself))
    moved = np.linalg.norm((a - b)[:, 0], axis=1)
    assert moved.max() == pytest.approx(START, rel=1e-4)  # is reached
    assert (moved <= START * (1 + 1e-4)).all()


def test_canaries_audit_it():
    """1,200 canaries of 6 runs through the message's whole length: the epsilon of one Gaussian."""
    settings = toy.train_config(clip_quantile=0.5, sampler="full", cohort=24, rounds_per_chunk=1)
    parts = toy.make_parts(make_classifier(toy.encoder().layout.dim, 2, (384,)), settings)
    parts = with_canaries(parts, 200, root_key(9), knows_clients=True)
    train, hyper = make_train(parts, settings), toy.hyper(6)
    state, _ = train.run_chunk(train.init(toy.keys(*range(6))), hyper, toy.make_data(parts, 6))
    score, mine = np.asarray(state.audit.during, np.float64), np.asarray(state.audit.inserted) > 0
    estimate = estimate_epsilon(score[mine], score[~mine], 1e-5, same_deviation=True)
    assert estimate == pytest.approx(epsilon_of([(parts.sampler.account(1.0), 1)], 1e-5), rel=0.15)


def test_costs_one_value_each_way():
    d = 2 * toy.encoder().layout.dim + 2
    costs = parts_of()[0].costs
    assert (costs.bytes_up, costs.bytes_down) == (4 * d + 4, 4 * d + 4)
    eight = toy.make_parts(toy.linear(), toy.train_config(clip_quantile=0.5, compression={"bits": 8})).costs
    fixed = toy.make_parts(toy.linear(), toy.train_config(compression={"bits": 8})).costs
    assert eight.bytes_up == fixed.bytes_up + 1


def test_a_run_puts_it_into_its_ledger():
    for quantile, also in ((0.5, SHARE_BELOW), (0.0, "")):
        changes = {"models": ("vae",), "vae.train.clip_quantile": quantile, "privacy.noise_multiplier": 1.0}
        config = from_config_dict(test_config._changed(changes))
        prepared = Prepared(toy.domain(), np.ones((1, 24), bool), np.ones((1, 2)) / 2, {"vae": parts_of()[0]})
        plan = plan_privacy(config, [prepared])
        assert [r.also for r in plan.releases] == [also]
        assert plan.event(plan.releases[0]) == parts_of()[0].sampler.account(1.0)  # one Gaussian covers both
