"""Robust rules: exact on known answers, blind to dead rows and to order, standing where the mean falls."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import trim_mean

from fedjax_health.federated import robust
from fedjax_health.types import UserError

SHARE = 0.3
NAMES = sorted(robust.RULES)
ROBUST = [name for name in NAMES if name != "mean"]
C, D = 11, 6


@functools.cache
def rule(name, share=SHARE):
    return jax.jit(robust.make_rule(name, share))


def stack(seed, c=C, d=D):
    r = np.random.default_rng(seed)
    return r.normal(size=(c, d)).astype(np.float32), r.uniform(0.5, 3, c).astype(np.float32)


def call(name, u, live=None, w=None, share=SHARE):
    c = len(u)
    live = np.ones(c, bool) if live is None else live
    w = np.ones(c, np.float32) if w is None else w
    return np.asarray(rule(name, share)(jnp.asarray(u), jnp.asarray(live), jnp.asarray(w)))


# ---- references in float64, on the live rows only


def krum_order(u, w, share):
    n = len(u)
    f = min(int(share * n + 1e-9), max(n - 3, 0) // 2)
    distance = ((u[:, None] - u[None]) ** 2).sum(-1)
    return np.argsort([np.sort(np.delete(distance[i], i))[: max(n - f - 2, 1)].sum() for i in range(n)], kind="stable")


def weiszfeld(u, w, share):
    v = u.mean(0)
    for _ in range(3000):
        b = w / np.maximum(np.linalg.norm(u - v, axis=1), 1e-6)
        v = b @ u / b.sum()
    return v


def bounded(u, w, share):
    norm = np.linalg.norm(u, axis=1)
    return np.average(u * np.minimum(1, np.median(norm) / norm)[:, None], 0, w)


REFERENCE = {
    "mean": lambda u, w, share: np.average(u, 0, w),
    "norm_bound": bounded,
    "median": lambda u, w, share: np.median(u, 0),
    "trimmed_mean": lambda u, w, share: trim_mean(u, share + 1e-9, 0),
    "krum": lambda u, w, share: u[krum_order(u, w, share)[0]],
    "multi_krum": lambda u, w, share: u[krum_order(u, w, share)[: len(u) - int(share * len(u) + 1e-9)]].mean(0),
    "geometric_median": weiszfeld,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 10, 11])
def test_rule_equals_its_reference_on_the_live_rows(name, n):
    for seed in range(3):
        u, w = stack(seed)
        rows = np.sort(np.random.default_rng(seed).permutation(C)[:n])
        live = np.isin(np.arange(C), rows)
        u[~live] = np.random.default_rng(seed).choice([np.nan, np.inf, -np.inf, 1e30, 5], (C - n, D))
        want = REFERENCE[name](u[rows].astype(np.float64), w[rows], SHARE)
        got = call(name, u, live, w)
        assert got.dtype == np.float32
        if name == "geometric_median":  # by its value: the place is not unique (two clients), or slow to reach (at one)
            reached, least = (np.linalg.norm(u[rows] - v, axis=1) @ w[rows] for v in (got, want))
            assert reached <= least * (1 + 1e-5) + 1e-5, (seed, reached / least - 1)
        else:
            np.testing.assert_allclose(got, want, rtol=3e-5, atol=3e-5, err_msg=f"seed {seed}")


def test_references_cover_every_rule():
    assert set(REFERENCE) == set(robust.RULES)
    assert set(robust.RULES) > robust.WEIGHTED_RULES
    with pytest.raises(UserError, match="did you mean 'median'"):
        robust.make_rule("medain", 0.1)
    for share in (-0.1, 0.5, float("nan")):
        with pytest.raises(UserError, match="assumed_attackers"):
            robust.make_rule("krum", share)


def test_known_answers():
    column = np.array([[1], [2], [3], [4], [100]], np.float32)
    assert call("mean", column) == 22
    assert call("median", column) == 3
    assert call("median", column, np.array([1, 1, 1, 1, 0], bool)) == 2.5
    assert call("trimmed_mean", column, share=0.2) == 3
    assert call("trimmed_mean", column, share=0.0) == 22
    assert call("norm_bound", column) == np.float32((1 + 2 + 3 + 3 + 3) / 5)
    # scores with f = 1 (two nearest): 5, 2, 2, 5, large; the first of the best
    np.testing.assert_array_equal(robust.krum_scores(jnp.asarray(column), jnp.ones(5, bool), 0.2)[:4], [5, 2, 2, 5])
    assert call("krum", column, share=0.2) == 2
    assert call("multi_krum", column, share=0.2) == 2.5
    np.testing.assert_allclose(call("geometric_median", column), [3], atol=1e-5)
    # the Fermat point of an isosceles right triangle; and a vertex of 120 degrees or more is its own answer
    fermat = (3 - np.sqrt(3)) / 6
    corner = np.array([[0, 0], [1, 0], [0, 1]], np.float32)
    np.testing.assert_allclose(call("geometric_median", corner), [fermat, fermat], atol=1e-5)
    wide = np.array([[0, 0], [1, 0], [-1, 0.1]], np.float32)
    np.testing.assert_allclose(call("geometric_median", wide), [0, 0], atol=1e-4)
    # where the coordinate median is one of the updates and not the answer
    stuck = np.array([[0, 0], [10, 0.1], [-0.1, -10]], np.float32)
    np.testing.assert_allclose(call("geometric_median", stuck), weiszfeld(stuck + 0.0, np.ones(3), 0), atol=1e-4)


def test_share_times_count_is_not_rounded_to_one_attacker_less():
    u = np.arange(150, dtype=np.float32)[:, None] ** 2
    np.testing.assert_allclose(call("trimmed_mean", u, share=0.42), (np.arange(63, 87) ** 2).mean(), rtol=1e-6)
    assert np.floor(np.float32(0.42) * np.float32(150)) == 62  # what the slack is for


@pytest.mark.parametrize("name", NAMES)
def test_nobody_and_a_lone_client(name):
    u, w = stack(4)
    u[3:] = np.nan
    np.testing.assert_array_equal(call(name, u, np.zeros(C, bool), w), np.zeros(D))
    np.testing.assert_array_equal(call(name, u, np.arange(C) > 2, w), np.zeros(D))  # live, and all of them NaN
    for lone in (0, 2):
        np.testing.assert_allclose(call(name, u, np.arange(C) == lone, w), u[lone], rtol=1e-6)
    np.testing.assert_array_equal(call(name, np.zeros_like(u)), np.zeros(D))  # equal updates: no 0 / 0


@pytest.mark.parametrize("name", NAMES)
def test_order_of_clients_does_not_matter(name):
    u, w = stack(5)
    live = np.array([1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1], bool)
    order = np.random.default_rng(1).permutation(C)
    np.testing.assert_allclose(
        call(name, u[order], live[order], w[order]), call(name, u, live, w), rtol=1e-5, atol=1e-6
    )
    axes = np.random.default_rng(2).permutation(D)
    np.testing.assert_allclose(call(name, u[:, axes], live, w), call(name, u, live, w)[axes], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_units_and_origin_do_not_matter(name):
    u, w = stack(6)
    base = call(name, u, w=w)
    np.testing.assert_allclose(call(name, 1e-3 * u, w=w), 1e-3 * base, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(call(name, -u, w=w), -base, rtol=1e-5, atol=1e-6)
    if name != "norm_bound":  # the only rule that knows a zero
        np.testing.assert_allclose(call(name, u + 2, w=w), base + 2, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_weights_count_where_they_are_said_to(name):
    u, _ = stack(7, 7)
    w = np.array([1, 2, 1, 1, 2, 1, 1], np.float32)
    plain, weighted = call(name, u), call(name, u, w=w)
    assert np.array_equal(plain, weighted) == (name not in robust.WEIGHTED_RULES)
    np.testing.assert_allclose(call(name, u, w=5 * w), weighted, rtol=1e-5, atol=1e-6)
    if name in ("mean", "geometric_median"):  # twice the weight = twice the client
        np.testing.assert_allclose(call(name, u[[0, 1, 1, 2, 3, 4, 4, 5, 6]]), weighted, rtol=1e-4, atol=1e-5)


ONSLAUGHT = {"far": 1e6, "at the edge of float32": 1e18, "beyond it": 1e25, "inf": np.inf, "nan": np.nan}


@pytest.mark.parametrize("kind", ONSLAUGHT)
@pytest.mark.parametrize("name", NAMES)
def test_breakdown(name, kind):
    """Three attackers of eleven, together or scattered: the robust rules stay near the honest, the mean does not."""
    honest, _ = stack(8)
    honest += 1.0
    for scatter in (np.ones((3, D)), np.random.default_rng(0).normal(size=(3, D))):
        u = honest.copy()
        with np.errstate(over="ignore"):
            u[:3] = (ONSLAUGHT[kind] * scatter).astype(np.float32)
        got = call(name, u)
        assert np.isfinite(got).all() or name == "mean"
        error = np.linalg.norm(got - honest[3:].mean(0))
        spread = np.linalg.norm(honest[3:] - honest[3:].mean(0), axis=1).max()
        if name == "mean" and ONSLAUGHT[kind] < 1e20:
            assert error > 1e5
        else:
            assert error < spread


@pytest.mark.parametrize("name", ["median", "geometric_median"])
def test_breakdown_just_below_a_half_and_above(name):
    u, _ = stack(9)
    u[:5] = 1e6
    assert np.abs(call(name, u)).max() < 5
    u[:6] = 1e6
    assert np.abs(call(name, u)).max() > 1e5


def test_rules_for_a_share_break_above_it():
    for name in ("trimmed_mean", "multi_krum"):
        u, _ = stack(10)
        u[:3] = 1e6 * np.arange(1, 4, dtype=np.float32)[:, None]
        assert np.abs(call(name, u, share=0.3)).max() < 5
        assert np.abs(call(name, u, share=0.1)).max() > 1e4


def test_krum_sees_small_differences_far_from_the_origin():
    r = np.random.default_rng(11)
    u = (100 + 0.01 * r.normal(size=(9, 40)) * r.uniform(0.5, 2, (9, 1))).astype(np.float32)
    best = krum_order(u.astype(np.float64), None, 0.2)[0]
    np.testing.assert_array_equal(call("krum", u, share=0.2), u[best])
    gram = u @ u.T  # the naive way loses them
    naive = np.diagonal(gram)[:, None] + np.diagonal(gram)[None] - 2 * gram
    exact = ((u[:, None].astype(np.float64) - u[None]) ** 2).sum(-1)
    assert np.abs(naive - exact).max() > 0.5 * exact.max()


def test_krum_scores_of_a_majority_at_the_edge_of_float32_are_not_nan():
    u, _ = stack(12)
    u[:8] = (1.7e19 / np.sqrt(D) * np.where(np.arange(8) % 2, 1, -1))[:, None]
    assert np.isfinite(robust.krum_scores(jnp.asarray(u), jnp.ones(C, bool), 0.0)).all()


@pytest.mark.parametrize("name", NAMES)
def test_jit_and_vmap_change_nothing(name):
    plain = robust.make_rule(name, SHARE)
    batches = [stack(s) for s in range(3)]
    u, w = (jnp.stack([jnp.asarray(b[i]) for b in batches]) for i in range(2))
    live = jnp.asarray(np.random.default_rng(0).random((3, C)) < 0.8)
    mapped = jax.jit(jax.vmap(plain))(u, live, w)
    for i in range(3):
        one = plain(u[i], live[i], w[i])
        np.testing.assert_allclose(jax.jit(plain)(u[i], live[i], w[i]), one, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(mapped[i], one, rtol=1e-5, atol=1e-6)
