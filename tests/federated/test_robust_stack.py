"""The aggregator that stacks a round's updates: any devices, any chunks, attacks and absence."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_health import tree
from fedjax_health.attacks.poisoning import make_update_attack, malicious
from fedjax_health.federated import robust, sharding
from fedjax_health.federated.aggregate import Members, make_mean

pytestmark = pytest.mark.quick_compile

SHARE = 0.3
NAMES = sorted(robust.RULES)
ROBUST = [name for name in NAMES if name != "mean"]
C, D = 11, 6


KEY = jax.random.key(3)
SLOTS = 16
ZERO = {"b": jnp.zeros(2), "w": jnp.zeros((2, 2))}


def cohort(seed):
    """Sixteen slots with distinct ids in no order, three of them dead."""
    r = np.random.default_rng(seed)
    updates = {"b": r.normal(size=(SLOTS, 2)), "w": r.normal(size=(SLOTS, 2, 2))}
    live = np.isin(np.arange(SLOTS), [2, 7, 15], invert=True)
    updates = {k: np.where(live.reshape((-1,) + (1,) * (v.ndim - 1)), v, np.nan) for k, v in updates.items()}
    client = np.where(live, r.permutation(1000)[:SLOTS], 0)
    members = (client.astype(np.int32), live, r.integers(1, 9, SLOTS).astype(np.float32), np.zeros(SLOTS, np.int32))
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), updates), Members(*map(jnp.asarray, members))


def take(rows, order):
    return jax.tree.map(lambda leaf: leaf[order], rows)


def gathered(devices, chunk, updates, members):
    """The accumulator as a round makes it: clients dealt round-robin, chunks in a loop on every device, merged."""
    aggregator = robust.make_stacked(robust.mean, None)

    def on_device(share):
        mine = share[1].client.shape[0]

        def body(i, acc):
            part = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, i * chunk, chunk), share)
            return aggregator.add(acc, *part)

        start = sharding.varying(aggregator.init(ZERO, mine))
        return aggregator.merge(jax.lax.fori_loop(0, mine // chunk, body, start), {}, sharding.AXIS)[0]

    deal = np.arange(SLOTS).reshape(-1, devices).T.reshape(-1)
    merged = sharding.over_clients(sharding.make_mesh(devices), on_device)
    return jax.jit(merged)(take((updates, members), deal))


def total(name, attack, acc):
    return jax.jit(robust.make_stacked(robust.make_rule(name, SHARE), attack).total)(acc, KEY)[0]


def test_any_devices_and_chunks_gather_the_same_clients():
    updates, members = cohort(1)
    stacks = [gathered(d, c, updates, members) for d, c in ((1, 16), (1, 4), (2, 2), (4, 4), (4, 1))]
    for acc in stacks:
        assert int(acc.filled) == SLOTS
        assert np.array_equal(np.sort(acc.members.client), np.sort(members.client))
        assert np.array_equal(np.isnan(acc.update["b"]).any(1), ~np.asarray(acc.members.live))
    assert not np.array_equal(stacks[0].members.client, stacks[-1].members.client)  # in another order
    stacks = jax.device_get(stacks)
    aggregator = robust.make_stacked(robust.mean, None)
    assert not aggregator.bounded
    for name in NAMES:
        for attack in (None, "gaussian", "alie") if name in ("mean", "krum") else (None,):
            act = make_update_attack(attack, 0.3, 0.0 if attack == "alie" else 2.0, KEY) if attack else None
            finish = jax.jit(robust.make_stacked(robust.make_rule(name, SHARE), act).total)
            first, denominator = finish(stacks[0], KEY)
            assert float(denominator) == 1.0
            for acc in stacks[1:]:
                jax.tree.map(np.testing.assert_array_equal, finish(acc, KEY)[0], first)
            # and it is the rule on the live rows, the leaves side by side
            flat = jnp.asarray(np.hstack([updates["b"], updates["w"].reshape(SLOTS, 4)]))
            client, live, weight, _ = members
            if act is not None and attack == "alie":  # whose rows know no order
                flat = act(flat, client, live, KEY)
            if attack != "gaussian":
                want = jax.jit(robust.make_rule(name, SHARE))(flat, live, weight)
                np.testing.assert_allclose(np.hstack([first["b"], first["w"].reshape(4)]), want, rtol=1e-4, atol=1e-5)


def test_whole_round_in_one_program_and_mapped_over_seeds():
    aggregator = robust.make_stacked(robust.make_rule("krum", 0.2), make_update_attack("gaussian", 0.2, 1.0, KEY))
    runs = [cohort(s) for s in (5, 6)]
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), *runs)
    apart = [aggregator.total(gathered(1, 16, *run), KEY)[0] for run in runs]
    for devices in (2, 4):
        program = jax.jit(jax.vmap(lambda run, n=devices: aggregator.total(gathered(n, 2, *run), KEY)[0]))
        mapped = program(both)
        for i, one in enumerate(apart):
            jax.tree.map(lambda all_, own, i=i: np.testing.assert_allclose(all_[i], own, rtol=1e-5), mapped, one)


def test_stacked_mean_without_attack_is_the_mean():
    updates, members = cohort(2)
    mean = make_mean(None)
    summed, denominator = mean.total(mean.add(mean.init(ZERO, SLOTS), updates, members), KEY)
    got = total("mean", None, gathered(2, 4, updates, members))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b / denominator, rtol=1e-5, atol=1e-6), got, summed)


@pytest.mark.parametrize("name", NAMES)
def test_weight_zero_is_absence(name):
    updates, members = cohort(3)
    aggregator = robust.make_stacked(robust.make_rule(name, SHARE), None)
    finish = jax.jit(lambda m: aggregator.total(aggregator.add(aggregator.init(ZERO, SLOTS), updates, m), KEY)[0]["b"])
    absent = finish(members._replace(live=members.live.at[4].set(False)))
    np.testing.assert_array_equal(finish(members._replace(weight=members.weight.at[4].set(0.0))), absent)
    assert name == "krum" or not np.array_equal(finish(members), absent)


def test_attack_moves_the_mean_and_not_the_robust():
    updates, members = cohort(4)
    bad = np.asarray(malicious(KEY, members.client, 0.3) & members.live)
    assert 0 < bad.sum() <= SHARE * 13
    acc, attack = gathered(2, 4, updates, members), make_update_attack("sign_flip", 0.3, 1000.0, KEY)
    shift = {
        n: float(tree.global_norm(tree.subtract(total(n, None, acc), total(n, attack, acc))))
        for n in ("mean", "median", "norm_bound", "multi_krum")
    }
    assert shift.pop("mean") > 50
    assert all(moved < 3 for moved in shift.values()), shift
