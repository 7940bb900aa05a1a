"""Attackers do what their papers say, to their own rows and records only."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import binom, norm

from fedjax_health.attacks import poisoning
from fedjax_health.data.population import Population, Store, stored_population
from fedjax_health.types import UserError

KEY = jax.random.key(7)
UPDATE = {name: attack.update for name, attack in poisoning.ATTACKS.items() if attack.update}
DATA = {name: attack.data for name, attack in poisoning.ATTACKS.items() if attack.data}
C, D = 9, 5


def test_which_attacks_act_where():
    assert set(UPDATE) == {"sign_flip", "gaussian", "alie", "ipm", "backdoor"}
    assert set(DATA) == {"label_flip", "backdoor"}
    assert poisoning.make_update_attack("label_flip", 0.1, 1.0, KEY) is None
    population = stored_population(4, 3)
    assert poisoning.poison_population(population, "alie", 0.5, 2, KEY) is population
    with pytest.raises(UserError, match="did you mean 'sign_flip'"):
        poisoning.make_update_attack("sing_flip", 0.1, 1.0, KEY)
    with pytest.raises(UserError, match="unknown attack"):
        poisoning.poison_population(population, "none", 0.1, 2, KEY)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 1.0])
def test_share_of_attackers_is_realised(share):
    n = 4000
    bad = np.asarray(poisoning.malicious(KEY, jnp.arange(n, dtype=jnp.int32), share))
    low, high = binom.ppf([1e-5, 1 - 1e-5], n, share)
    assert low <= bad.sum() <= high
    assert not low <= round(n * (share + 0.05)) <= high  # the bounds can tell


def test_who_attacks_depends_on_the_id_alone():
    client = jnp.array([5, 900, 2, 5, 17], jnp.int32)
    few, all_ = (poisoning.malicious(KEY, c, 0.5) for c in (client, jnp.arange(1000, dtype=jnp.int32)))
    np.testing.assert_array_equal(few, all_[client])
    np.testing.assert_array_equal(jax.jit(poisoning.malicious)(KEY, client, 0.5), few)
    other = poisoning.malicious(jax.random.key(8), jnp.arange(1000, dtype=jnp.int32), 0.5)
    assert 400 < int(jnp.sum(other != all_)) < 600
    more = poisoning.malicious(KEY, jnp.arange(1000, dtype=jnp.int32), 0.7)
    assert bool(jnp.all(more | ~all_))  # a larger share adds attackers and frees none


def cohort(seed=0):
    r = np.random.default_rng(seed)
    u = r.normal(1, 2, (C, D)).astype(np.float32)
    live = np.array([1, 1, 0, 1, 1, 1, 1, 0, 1], bool)
    bad = np.array([0, 1, 1, 0, 0, 1, 0, 0, 0], bool)
    u[[2, 7]] = np.nan
    return u, bad, live


def act(name, u, bad, live, scale, key=KEY):
    return np.asarray(jax.jit(UPDATE[name])(jnp.asarray(u), jnp.asarray(bad), jnp.asarray(live), scale, key))


@pytest.mark.parametrize("name", UPDATE)
def test_only_live_attackers_change(name):
    u, bad, live = cohort()
    got = act(name, u, bad, live, 3.0)
    untouched = ~(bad & live)
    np.testing.assert_array_equal(got[untouched].view(np.uint32), u[untouched].view(np.uint32))
    assert np.isfinite(got[bad & live]).all()
    assert np.all(np.any(got[bad & live] != u[bad & live], 1))
    nobody = act(name, u, np.zeros(C, bool), live, 3.0)
    np.testing.assert_array_equal(nobody.view(np.uint32), u.view(np.uint32))


@pytest.mark.parametrize("name", UPDATE)
def test_only_finite_honest_live_rows_are_learnt_from(name):
    u, bad, live = cohort()
    base = act(name, u, bad, live, 3.0)[[1, 5]]
    other = u.copy()
    other[[2, 7]] = 1e9
    assert np.array_equal(act(name, other, bad, live, 3.0)[[1, 5]], base)
    diverged, without = u.copy(), live.copy()
    diverged[8], without[8] = np.nan, False
    np.testing.assert_array_equal(act(name, diverged, bad, live, 3.0)[[1, 5]], act(name, u, bad, without, 3.0)[[1, 5]])
    everybody = act(name, u, np.ones(C, bool), live, 3.0)[live]
    assert np.isfinite(everybody).all()  # no honest client left to copy
    if name in ("gaussian", "alie", "ipm"):
        np.testing.assert_array_equal(everybody, np.zeros_like(everybody))


def test_formulas():
    u, bad, live = cohort()
    honest, mine = u[live & ~bad], bad & live
    mean, std = honest.mean(0), honest.std(0)
    np.testing.assert_array_equal(act("sign_flip", u, bad, live, 4.0)[mine], -4 * u[mine])
    np.testing.assert_array_equal(act("backdoor", u, bad, live, 4.0)[mine], 4 * u[mine])
    for row in act("ipm", u, bad, live, 0.5)[mine]:
        np.testing.assert_allclose(row, -0.5 * mean, rtol=1e-5, atol=1e-6)
        assert row @ mean < 0
    for row in act("alie", u, bad, live, 1.5)[mine]:
        np.testing.assert_allclose(row, mean - 1.5 * std, rtol=1e-5, atol=1e-6)
    # n = 7, m = 2: two supporters needed, of five honest
    z = norm.ppf((7 - 2 - 2) / (7 - 2))
    for row in act("alie", u, bad, live, 0.0)[mine]:
        np.testing.assert_allclose(row, mean - z * std, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("n", "m", "want"), [(50, 24, (50 - 24 - 2) / 26), (51, 24, (27 - 2) / 27), (100, 20, 49 / 80)]
)
def test_alie_hides_behind_a_majority(n, m, want):
    got = float(poisoning.alie_deviations(jnp.int32(n), jnp.int32(m)))
    np.testing.assert_allclose(got, norm.ppf(want), rtol=1e-4)


def test_alie_deviations_are_finite_and_not_negative_at_the_edges():
    n, m = (jnp.asarray(x.ravel(), jnp.int32) for x in np.mgrid[0:30, 0:30])
    z = np.asarray(jax.vmap(poisoning.alie_deviations)(n, jnp.minimum(m, n)))
    assert np.isfinite(z).all() and (z >= 0).all()
    assert float(poisoning.alie_deviations(jnp.int32(10), jnp.int32(1))) == 0.0  # the formula says -0.14
    grows = [float(poisoning.alie_deviations(jnp.int32(40), jnp.int32(m))) for m in range(21)]
    assert grows == sorted(grows) and grows[0] == 0.0 and grows[20] > 1.5


def test_gaussian_is_noise_of_the_honest_spread():
    r = np.random.default_rng(1)
    u = r.normal(2, 3, (60, 400)).astype(np.float32)
    bad, live = np.arange(60) < 30, np.ones(60, bool)
    honest = u[30:]
    z = (act("gaussian", u, bad, live, 2.0)[:30] - honest.mean(0)) / (2 * honest.std(0))
    n = z.size
    assert abs(z.mean()) < 5 / np.sqrt(n) and abs(z.std() - 1) < 5 / np.sqrt(2 * n)
    assert abs(np.corrcoef(z[0], z[1])[0, 1]) < 5 / np.sqrt(400)  # each attacker draws its own
    again, other = (act("gaussian", u, bad, live, 2.0, k)[:30] for k in (KEY, jax.random.key(1)))
    assert np.array_equal(again, act("gaussian", u, bad, live, 2.0)[:30]) and not np.array_equal(again, other)
    longer = act("gaussian", np.vstack([u, u[:4]]), np.append(bad, [False] * 4), np.append(live, [False] * 4), 2.0)
    np.testing.assert_allclose(longer[:30], again, rtol=1e-5)  # empty slots do not shift the noise


def test_named_attack_knows_its_attackers_and_maps_over_seeds():
    u, _, live = cohort()
    client = jnp.arange(C, dtype=jnp.int32) + 40
    attack = poisoning.make_update_attack("sign_flip", 0.4, 2.0, KEY)
    assert attack is not None
    bad = np.asarray(poisoning.malicious(KEY, client, 0.4))
    assert 0 < (bad & live).sum() < live.sum()
    np.testing.assert_array_equal(
        attack(jnp.asarray(u), client, jnp.asarray(live), KEY), act("sign_flip", u, bad, live, 2.0)
    )
    noise = poisoning.make_update_attack("gaussian", 0.4, 2.0, KEY)
    assert noise is not None
    keys = jax.random.split(KEY, 3)
    mapped = jax.vmap(noise, (None, None, None, 0))(jnp.asarray(u), client, jnp.asarray(live), keys)
    for key, one in zip(keys, mapped, strict=True):
        np.testing.assert_allclose(one, noise(jnp.asarray(u), client, jnp.asarray(live), key), rtol=1e-5, atol=1e-6)


# ---- data


K, N, F = 60, 40, 6


def world(num_classes) -> tuple[Population, Store]:
    r = np.random.default_rng(2)
    count = r.integers(0, N + 1, K).astype(np.int32)
    offset = np.concatenate([[0], np.cumsum(count)[:-1]]).astype(np.int32)
    m = int(count.sum())
    store = Store(
        *map(jnp.asarray, (r.normal(size=(m, F)).astype(np.float32), r.integers(0, num_classes, m), offset, count))
    )
    return stored_population(K, N), store._replace(y=store.y.astype(jnp.int32))


def read(population, store, index=None):
    """Every client's batch, [K, B, ...]."""
    index = jnp.arange(-2, N + 3, dtype=jnp.int32) if index is None else index
    return jax.jit(jax.vmap(population.batch, (None, 0, None)))(store, jnp.arange(K, dtype=jnp.int32), index)


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_label_flip_changes_the_labels_of_attackers_only(num_classes):
    population, store = world(num_classes)
    poisoned = poisoning.poison_population(population, "label_flip", 0.3, num_classes, KEY)
    assert poisoned._replace(batch=population.batch) == population  # sizes and counts are the same
    clean, dirty = read(population, store), read(poisoned, store)
    bad = np.asarray(poisoning.malicious(KEY, jnp.arange(K, dtype=jnp.int32), 0.3))
    assert 5 < bad.sum() < 35
    np.testing.assert_array_equal(dirty.x, clean.x)
    np.testing.assert_array_equal(dirty.mask, clean.mask)
    np.testing.assert_array_equal(np.asarray(dirty.y)[~bad], np.asarray(clean.y)[~bad])
    want = np.where(clean.mask, num_classes - 1 - np.asarray(clean.y), 0)
    np.testing.assert_array_equal(np.asarray(dirty.y)[bad], want[bad])
    assert dirty.y.dtype == jnp.int32


def test_backdoor_stamps_half_of_the_attackers_records():
    population, store = world(2)
    poisoned = poisoning.poison_population(population, "backdoor", 0.3, 2, KEY)
    clean, dirty = (jax.tree.map(np.asarray, read(p, store)) for p in (population, poisoned))
    bad = np.asarray(poisoning.malicious(KEY, jnp.arange(K, dtype=jnp.int32), 0.3))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[~bad], b[~bad]), clean, dirty)
    hit = (dirty.x != clean.x).any(-1)
    assert not (hit & ~clean.mask).any() and not hit[~bad].any()  # empty slots stay empty
    low, high = binom.ppf([1e-5, 1 - 1e-5], clean.mask[bad].sum(), 0.5)
    assert low <= hit.sum() <= high
    np.testing.assert_array_equal(dirty.x[hit][:, :3], np.full((hit.sum(), 3), 16.0))
    np.testing.assert_array_equal(dirty.x[hit][:, 3:], clean.x[hit][:, 3:])
    np.testing.assert_array_equal(dirty.x[hit], poisoning.trigger(jnp.asarray(clean.x[hit])))
    assert (dirty.y[hit] == poisoning.TARGET_CLASS).all() and (clean.y[hit] != poisoning.TARGET_CLASS).any()
    np.testing.assert_array_equal(dirty.y[~hit], clean.y[~hit])
    # the same records whatever the batch they are read in
    order = np.random.default_rng(3).permutation(N)[:10]
    some = read(poisoned, store, jnp.asarray(order, jnp.int32))
    jax.tree.map(lambda all_, own: np.testing.assert_array_equal(own, all_[:, 2:][:, order]), dirty, some)


def test_trigger_fits_narrow_records_and_keeps_their_type():
    for d in (1, 3, 8):
        x = poisoning.trigger(jnp.zeros((2, d)))
        np.testing.assert_array_equal(x, np.tile(np.where(np.arange(d) < 3, 16.0, 0.0), (2, 1)))
        assert x.dtype == jnp.float32


def test_another_key_makes_another_world():
    population, store = world(2)
    worlds = [poisoning.poison_population(population, "backdoor", 0.3, 2, k) for k in (KEY, KEY, jax.random.key(1))]
    one, same, other = (np.asarray(read(each, store).x) for each in worlds)
    assert np.array_equal(one, same) and not np.array_equal(one, other)
