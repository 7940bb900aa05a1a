"""Hardening: devices train on their own attacks as an attacker would send them; what that gives, and what it costs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from fedjax_health.attacks.evasion import Evader, Target
from fedjax_health.data.threats import THREATS
from fedjax_health.evaluation.arena import make_arena, padded, rows_where
from fedjax_health.evaluation.evasion_rows import caught, recovery
from fedjax_health.evaluation.hardening import beside_own, harden_in_rounds, hardened, make_sender
from fedjax_health.evaluation.mixtures import held, spans_population
from fedjax_health.models.base import ModelParams
from fedjax_health.models.classifier import make_classifier
from fedjax_health.types import Batch, Table

pytestmark = pytest.mark.quick_compile


def shift(by: float, column: int = 0) -> Evader:
    """An attacker who adds a number times the budget to a column, whatever the detector."""
    return Evader("shift", "", (0, 0), lambda target, own, v, label, budget, key: v.at[:, column].add(by * budget))


def table(values: list[float], label: list[int], client: list[int]) -> Table:
    return Table(np.array(values, np.float32)[:, None], np.array(label, np.int32), np.array(client, np.int32))


def test_only_attack_rows_are_attacked_and_the_direction_is_that_of_the_attacked_batch():
    encoder = toy.encoder()
    classifier = make_classifier(encoder.layout.dim, 2, (5,))
    params = jax.jit(classifier.init)(jax.random.key(0))
    values = jnp.asarray(toy.domain().train.values[:6])
    label, mask = jnp.asarray([0, 1, 0, 1, 1, 0]), jnp.ones(6, bool)
    robust = hardened(classifier, shift(20.0, 1), encoder, 2.0)
    key = jax.random.key(1)
    encode = jax.jit(encoder.encode)
    x = encode(values)
    found = jax.jit(robust.field)(params, Batch(x, label, mask), {}, key)[0]
    changed = encode(
        jnp.asarray(np.asarray(values) + 40.0 * np.asarray(label)[:, None] * (np.arange(5) == 1), jnp.float32)
    )
    wanted, plain = (jax.jit(classifier.field)(params, Batch(b, label, mask), {}, key)[0] for b in (changed, x))

    def apart(a: ModelParams, b: ModelParams) -> float:
        return max(float(jnp.abs(p - q).max()) for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))

    assert apart(found, wanted) < 1e-4 < 1e-2 < apart(found, plain)


def test_evasive_flows_lie_with_the_device_that_made_them():
    first = [table([1, 2, 3], [1, 1, 2], [0, 2, 2])]
    second = [table([11, 12, 13], [1, 1, 2], [0, 2, 2])]
    both = beside_own([first, second])[0]
    assert both.values[:, 0].tolist() == [1, 11, 2, 3, 12, 13] and both.client.tolist() == [0, 0, 2, 2, 2, 2]
    assert both.label.tolist() == [1, 1, 1, 2, 1, 2]
    assert held(both, 4).count.tolist() == [2, 0, 4, 0]


def test_what_pads_a_world_is_neither_sent_nor_judged():
    worlds = [table([1, 2, 3], [1, 1, 2], [0, 0, 0]), table([5], [2], [0])]
    flows = padded(worlds, 4)
    assert flows.values.shape == (2, 4, 1) and flows.count.tolist() == [3, 1]
    target = Target(jnp.zeros(2), jnp.zeros(2))
    made = make_sender(shift(10.0))(target, worlds, worlds, 0.5, jax.random.split(jax.random.key(0), 2))
    assert [m.values[:, 0].tolist() for m in made] == [[6.0, 7.0, 8.0], [10.0]]
    assert made[1].label.tolist() == [2]


def test_detection_by_type_and_recovery_by_hand():
    label, alarm = np.array([1, 1, 2, 2, 2]), np.array([1, 0, 1, 1, 0], bool)
    found = caught("r", THREATS, label, alarm)
    assert found["r", "detection_rate"] == 0.6 and found["r", "detection_rate[flooding]"] == 0.5
    assert np.isnan(found["r", "detection_rate[replay]"])
    rates = {"detector": 0.8, "detector, white-box": 0.2, "h": 0.7, "h, white-box": 0.5, "h, old white-box": 0.65}
    figures = {(row, "detection_rate"): x for row, x in rates.items()}
    figures |= {("detector", "false_positive_rate"): 0.05, ("h", "false_positive_rate"): 0.04}
    more = recovery(figures, ["h"])
    assert more["detector", "detection_lost"] == pytest.approx(0.6) and more["h", "recovered"] == pytest.approx(0.5)
    assert more["h", "recovered_old"] == pytest.approx(0.75) and more["h", "detection_given_up"] == pytest.approx(0.1)
    assert more["h", "false_positives_added"] == pytest.approx(-0.01)
    figures["detector, white-box", "detection_rate"] = 0.8
    assert np.isnan(recovery(figures, ["h"])["h", "recovered"])  # nothing was lost


def test_worlds_train_side_by_side_on_their_own_records_and_on_what_lies_beside():
    config = toy.train_config(rounds=4, server_learning_rate=1.0)
    worlds, clients = [toy.domain(num_clients=24, seed=seed) for seed in (0, 1)], 24
    classifier = make_classifier(toy.encoder().layout.dim, 2, (4,))
    most = 3 * max(held(w.train, clients).most for w in worlds)
    parts = toy.make_parts(classifier, config, private=False, population=spans_population(clients, most))
    room = 2 * max(int((w.train.label > 0).sum()) for w in worlds)
    arena = make_arena(parts, classifier, config, worlds, room, 0.2, toy.keys(5, 5))
    before = arena.target(arena.fit(None, "before"))
    after = harden_in_rounds(arena, shift(30.0, 1), 1.0, worlds, before, toy.keys(2, 3), 2)
    assert arena.traces() == 1  # one program, whatever lies beside

    def leaves(target: Target, seed: int) -> np.ndarray:
        return np.concatenate([np.asarray(leaf)[seed].ravel() for leaf in jax.tree.leaves(target.released)])

    for seed, world in enumerate(worlds):
        assert np.abs(leaves(before, seed) - leaves(after, seed)).max() > 1e-3
        scores = arena.scores(before.released, [w.validation for w in worlds])[seed]
        benign = 1.0 - scores[world.validation.label == 0, 0]
        assert np.mean(benign >= float(before.threshold[seed])) <= 0.2  # chosen on this world's validation devices
        attacks = rows_where(world.test, world.test.label > 0)
        alarms = arena.alarms(before, [attacks, attacks])[seed]
        assert alarms.shape == attacks.label.shape and alarms.dtype == bool
    assert np.abs(leaves(before, 0) - leaves(before, 1)).max() > 1e-3  # equal keys, so that it is the records
