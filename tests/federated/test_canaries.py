"""Canaries in a federation: what they send and what is scored, and an audit that tells a right build from a wrong one."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from fedjax_health import tree
from fedjax_health.federated import canaries
from fedjax_health.federated.canaries import participation, with_canaries
from fedjax_health.federated.federation import init_state
from fedjax_health.models.classifier import make_classifier
from fedjax_health.privacy.accounting import epsilon_of
from fedjax_health.privacy.audit_bounds import audit_bound, clopper_pearson, one_run, one_run_gaussian
from fedjax_health.privacy.audit_estimate import estimate_composed, estimate_epsilon, estimate_noise_multiplier
from fedjax_health.threefry import root_key
from fedjax_health.train.loop import make_train
from fedjax_health.transforms.base import client_identity, server_identity
from fedjax_health.types import UserError

pytestmark = pytest.mark.quick_compile

DELTA = 1e-5
SEEDS, K, ROUNDS = 6, 200, 16
FULL: dict[str, Any] = {"sampler": "full", "cohort": 24, "rounds_per_chunk": 1}
POISSON: dict[str, Any] = {"cohort": 8, "rounds_per_chunk": ROUNDS}
MUTATIONS = {
    "right": lambda t: t,
    "no noise": lambda t: t._replace(server=server_identity),
    "no clip": lambda t: t._replace(client=client_identity),
}


@functools.cache
def audited(sampling: str, mutation: str = "right", length: float = 1.0, hidden: int = 384):
    """(parts, chunk run on a noise multiplier -> Audit on the host f64[N, K]); compiled once."""
    config = toy.train_config(**(FULL if sampling == "full" else POISSON))
    parts = toy.make_parts(make_classifier(toy.encoder().layout.dim, 2, (hidden,)), config)
    parts = parts._replace(transform=MUTATIONS[mutation](parts.transform))
    parts = with_canaries(parts, K, root_key(9), length, knows_clients=True)
    train = make_train(parts, config)

    @functools.cache
    def run(noise):
        numbers, data = toy.hyper(SEEDS, noise_multiplier=noise), toy.make_data(parts, SEEDS)
        state, _ = train.run_chunk(train.init(toy.keys(*range(SEEDS))), numbers, data)
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), jax.device_get(state.audit))

    return parts, run


def groups(audit, scores):
    mine = audit.inserted > 0
    return scores[mine], scores[~mine]


def accounted(parts, noise, rounds):
    return epsilon_of([(parts.sampler.account(noise), rounds)], DELTA)


def composed(parts, audit, rounds=ROUNDS):
    """The estimate from the canaries of all seeds together: each audits its own run of the same mechanism."""
    every = audit.during.ravel(), audit.rounds.ravel(), audit.inserted.ravel() > 0
    return estimate_composed(*every, parts.sampler.account, rounds, DELTA)


def test_one_full_round_is_estimated_to_15_percent():
    """1,200 canaries of 6 runs, noise 1 and 1/2: the epsilon of one Gaussian mechanism; half as much noise is rejected."""
    parts, run = audited("full")
    for noise in (1.0, 0.5):
        audit, exact = run(noise), accounted(parts, noise, 1)
        assert (audit.rounds == 1).all() and (audit.apart == 0).all()
        estimate = estimate_epsilon(*groups(audit, audit.during), DELTA, same_deviation=True)
        assert estimate == pytest.approx(exact, rel=0.15)
        assert composed(parts, audit, 1) == pytest.approx(exact, rel=0.15)
        assert estimate != pytest.approx(accounted(parts, noise / 2, 1), rel=0.15)


@pytest.mark.parametrize("noise", [1.0, 2.0])
def test_a_sampled_run_is_estimated_with_the_accountant(noise):
    parts, run = audited("poisson")
    estimate, exact = composed(parts, run(noise)), accounted(parts, noise, ROUNDS)
    assert estimate == pytest.approx(exact, rel=0.15)
    assert accounted(parts, noise / 2, ROUNDS) > 1.5 * exact


@pytest.mark.parametrize("noise", [1.0, 2.0])
@pytest.mark.parametrize("bound", [clopper_pearson, one_run])
def test_a_right_build_is_never_accused(bound, noise):
    """Every seed's lower bound, and that of all together, lies below the accounted epsilon; taking part is secret."""
    parts, run = audited("poisson")
    audit, exact = run(noise), accounted(parts, noise, ROUNDS)
    bounds = [
        audit_bound(scores, coins > 0, DELTA, bound, np.random.default_rng(seed))
        for seed, (scores, coins) in enumerate(zip(audit.loss, audit.inserted, strict=True))
    ]
    together = audit_bound(audit.loss.ravel(), audit.inserted.ravel() > 0, DELTA, bound, np.random.default_rng(0))
    assert max(*bounds, together) <= exact
    assert together > 0.1 * exact


def test_a_gaussian_round_obeys_the_bound_on_its_curve():
    parts, run = audited("full")
    audit, exact = run(1.0), accounted(parts, 1.0, 1)
    scores, coins = audit.during.ravel(), audit.inserted.ravel() > 0
    assert 0.2 * exact < audit_bound(scores, coins, DELTA, one_run_gaussian, np.random.default_rng(0)) <= exact


def test_a_tenth_of_the_noise_is_noticed():
    """What is accounted for is noise 2; the estimates and both bounds must see that a tenth of it ran."""
    parts, run = audited("poisson")
    audit, claimed = run(0.2), accounted(parts, 2.0, ROUNDS)
    assert composed(parts, audit) > 5 * claimed
    assert estimate_epsilon(*groups(audit, audit.during / np.sqrt(np.maximum(audit.rounds, 1))), DELTA) > claimed
    for bound in (clopper_pearson, one_run):
        coins = audit.inserted.ravel() > 0
        assert audit_bound(audit.loss.ravel(), coins, DELTA, bound, np.random.default_rng(0)) > claimed


def test_a_build_that_forgot_the_noise_is_noticed():
    parts, run = audited("poisson", "no noise")
    audit, claimed = run(2.0), accounted(parts, 2.0, ROUNDS)
    assert composed(parts, audit) > 5 * claimed
    coins = audit.inserted.ravel() > 0
    assert audit_bound(audit.loss.ravel(), coins, DELTA, one_run, np.random.default_rng(0)) > claimed


def test_long_messages_audit_the_clip():
    """Four times as long as the bound: clipped they are worth what they claim, and without a clip four times that."""
    for mutation, worth in (("right", 1.0), ("no clip", 4.0)):
        parts, run = audited("full", mutation, length=4.0)
        audit = run(2.0)
        noise = estimate_noise_multiplier(audit.during.ravel(), audit.rounds.ravel(), audit.inserted.ravel() > 0)
        assert noise == pytest.approx(2.0 / worth, rel=0.15)
        assert (composed(parts, audit, 1) > 2 * accounted(parts, 2.0, 1)) == (mutation == "no clip")


def test_coins_are_fair_and_turn_up_as_often_as_clients():
    parts, run = audited("poisson")
    audit, n = run(1.0), SEEDS * K
    assert participation(parts) == pytest.approx(1 / 3)
    assert abs(audit.inserted.mean() - 0.5) < 4 * 0.5 / np.sqrt(n)
    assert abs(audit.rounds.mean() / ROUNDS - 1 / 3) < 4 * np.sqrt(2 / 9 / (n * ROUNDS))
    assert abs(np.corrcoef(audit.inserted.ravel(), audit.rounds.ravel())[0, 1]) < 4 / np.sqrt(n)
    assert len({tuple(row) for row in audit.inserted}) == SEEDS  # each federation's own


@functools.cache
def small(compression=(), **changes):
    parts = toy.make_parts(toy.linear(), toy.train_config(compression=dict(compression), **changes))
    return with_canaries(parts, 40, root_key(1))


def all_directions(parts, size):
    index = jnp.arange(parts.canaries.size, dtype=jnp.int32)
    return np.asarray(jax.vmap(lambda j: canaries.direction(parts.canaries, j, size))(index), np.float64)


def test_directions_are_unit_vectors_of_their_own():
    c = all_directions(small(), 1000)
    np.testing.assert_allclose(np.linalg.norm(c, axis=1), 1.0, rtol=1e-6)
    others = c @ c.T - np.eye(40)
    assert np.abs(others).max() < 0.2 and others.std() == pytest.approx(1 / np.sqrt(1000), rel=0.15)
    assert not np.array_equal(c, all_directions(with_canaries(small(), 40, root_key(2)), 1000))


def test_what_the_auditor_knows_of_overlaps():
    """Against the directions themselves, and the coins of three rounds; the message's size is no multiple of a word."""
    parts = small()
    state = init_state(parts, root_key(3))
    size = tree.size(state.params.client)
    came = np.stack([canaries.took_part(parts, state._replace(round=jnp.int32(t))) for t in range(3)]).astype(float)
    c = all_directions(parts, size)
    found = jax.jit(lambda key: canaries.together(parts, key, 3))(root_key(3))
    assert size % 32 and 0 < came.mean() < 0.6 and np.ptp(came.sum(0)) > 1
    np.testing.assert_allclose(found, (c @ c.T) * (came.T @ came), atol=1e-5)


def test_directions_drawn_once_for_all_rounds_change_nothing(monkeypatch):
    parts = small()
    state, hyper = init_state(parts, root_key(3)), toy.hyper(None, noise_multiplier=0.7)
    zeros = tree.zeros_like(state.params.client)
    empty, message = parts.aggregator.init(zeros, 0), jax.tree.map(lambda leaf: leaf + 0.01, zeros)

    def play(parts):
        ready = canaries.with_directions(parts)
        acc = canaries.insert(ready, state, hyper, empty)
        return acc.update, canaries.observe(ready, state, hyper, empty, acc, message)

    drawn = jax.jit(lambda: play(parts))()
    assert canaries.with_directions(parts).canaries.words.shape == (40, -(-tree.size(zeros) // 32))
    monkeypatch.setattr(canaries, "MOST_WORDS", 0)  # too many to keep
    assert canaries.with_directions(parts).canaries.words is None
    jax.tree.map(np.testing.assert_array_equal, drawn, jax.jit(lambda: play(parts))())


@pytest.mark.parametrize("wire", ["none", "quantised"])
def test_what_is_inserted_and_what_is_scored(wire):
    """Against NumPy: the sum of C c_j over those that take part, and sum and scores of what is then published."""
    parts = small((("bits", 8),) if wire == "quantised" else ())
    state, hyper = init_state(parts, root_key(3)), toy.hyper(None, noise_multiplier=0.7)
    zeros = tree.zeros_like(state.params.client)
    size = tree.size(zeros)
    empty = parts.aggregator.init(zeros, 0)
    acc = jax.jit(lambda: canaries.insert(parts, state, hyper, empty))()
    coin = np.asarray(canaries.took_part(parts, state))
    here = coin & (np.asarray(state.audit.inserted) > 0)
    c = all_directions(parts, size)
    assert 0 < here.sum() < coin.sum() < 40 and float(acc.weight) == here.sum()
    seen = np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(acc.update)])
    tolerance = 1e-5 if wire == "none" else 0.05 * np.sqrt(here.sum())
    np.testing.assert_allclose(seen, 0.5 * c[here].sum(0), atol=tolerance)
    message = tree.scale(jnp.float32(1 / 8), acc.update)
    audit = jax.jit(lambda: canaries.observe(parts, state, hyper, empty, acc, message))()
    score = c @ seen / 0.5
    np.testing.assert_allclose(audit.during, np.where(coin, score, 0.0), atol=1e-5)
    np.testing.assert_allclose(audit.apart, np.where(coin, 0.0, score), atol=1e-5)
    np.testing.assert_array_equal(audit.rounds, coin)
    ratio = np.log(2 / 3 + np.exp((2 * score - 1) / (2 * 0.49)) / 3)
    np.testing.assert_allclose(audit.loss, ratio, rtol=1e-4, atol=1e-4)
    # as if all of that had come from real clients: nothing is left for an observer who knows them
    knowing = with_canaries(parts, 40, root_key(1), knows_clients=True)
    blind = jax.jit(lambda: canaries.observe(knowing, state, hyper, acc, acc, message))()
    np.testing.assert_allclose(blind.during + blind.apart, 0.0, atol=1e-5)


def test_the_audit_is_the_same_on_any_devices():
    results = []
    for devices in (1, 4):
        config = toy.train_config(rounds_per_chunk=2, clients_per_chunk=2)
        parts = with_canaries(toy.make_parts(toy.linear(), config, devices=devices), 40, root_key(1))
        train = make_train(parts, config)
        state, _ = train.run_chunk(train.init(toy.keys(5)), toy.hyper(), toy.make_data(parts))
        results.append(jax.device_get((state.audit, state.params.client)))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), *results)
    assert np.ptp(results[0][0].during) > 1.0


def test_scores_are_those_of_the_updates_however_they_are_sent():
    """Rotated, or as integers in a secure sum: who knows the clients' messages is left with the canaries, without noise."""
    scores = []
    for settings in ({}, {"compression": {"rotate": True}}, {"aggregation": {"secure": "ideal", "secure_degree": 8}}):
        config = toy.train_config(**FULL, **settings)
        parts = toy.make_parts(toy.linear(), config)
        rotated = config.compression.rotate
        parts = with_canaries(parts, 40, root_key(1), knows_clients=True, rotated=rotated)
        train = make_train(parts, config)
        numbers, data = toy.hyper(noise_multiplier=0.0), toy.make_data(parts)
        state, metrics = train.run_chunk(train.init(toy.keys(5)), numbers, data)
        assert float(metrics["public/update_norm"][0, 0]) > 0.01
        scores.append(np.asarray(state.audit.during)[0])
    assert np.ptp(scores[0]) > 1.0
    for other in scores[1:]:
        np.testing.assert_allclose(other, scores[0], atol=0.01)


def test_without_canaries_nothing_is_kept():
    parts = toy.make_parts(toy.linear(), toy.train_config())
    assert parts.canaries is None and init_state(parts, root_key(0)).audit == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 1}, "canaries=1: an audit compares two groups"),
        ({"length": 0.0}, r"canary length=0\.0"),
        ({"hierarchy": {"institutions": 2}}, "no hierarchy"),
        ({"aggregation": {"rule": "median"}}, r"aggregation\.rule='mean'"),
        ({"aggregation": {"weighting": "examples"}}, r"aggregation\.weighting='equal'"),
        ({"compression": {"sparsify": "top_k", "error_feedback": True}}, "turn error_feedback off"),
        ({"l2_clip_norm": float("inf")}, "set a finite l2_clip_norm"),
    ],
)
def test_a_federation_that_canaries_cannot_audit_is_refused(changes, message):
    own = {name: changes[name] for name in changes if name in ("k", "length")}
    config = toy.train_config(**{name: changes[name] for name in changes if name not in own})
    parts = toy.make_parts(toy.linear(), config, private=False)
    with pytest.raises(UserError, match=message):
        with_canaries(parts, own.pop("k", 10), root_key(0), **own)
