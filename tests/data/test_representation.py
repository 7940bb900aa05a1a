"""Representation: exact way back, normal scores, imputation, bounds by construction, and a generator's margins taken out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from fedjax_health.data.cells import edges_of, kept, prior_of, variables
from fedjax_health.data.encode import make_encoder
from fedjax_health.data.representation import KNOTS, MOST, calibrated, encode_table, layout_of, make_decode
from fedjax_health.data.schema import Column, Schema
from fedjax_health.privacy.fit import fit_representation

pytestmark = pytest.mark.quick_compile

SCHEMA = Schema(
    "toy",
    (
        Column(name="ward", kind="categorical", categories=("a", "b", "c")),
        Column(name="diastolic", low=30, high=160, decimals=0, at_most="systolic", nullable=True),
        Column(name="systolic", low=60, high=260, center=120, scale=20, decimals=0, nullable=True),
        Column(name="spo2", low=50, high=100, center=97, scale=3, decimals=0),
        Column(name="bytes", low=0, high=1e6, transform="log1p", decimals=0),
        Column(name="share", low=0, high=1),
        Column(name="sick", kind="binary", role="label"),
    ),
)
N = 4000
DECODE = jax.jit(make_decode(SCHEMA))


def records(n: int = N, seed: int = 0, gaps: float = 0.2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    systolic = np.clip(np.round(rng.normal(120, 20, n)), 60, 260)
    diastolic = np.clip(np.round(systolic - np.abs(rng.normal(45, 15, n))), 30, 160)
    diastolic = np.minimum(diastolic, systolic)
    spo2 = np.minimum(np.round(rng.normal(98, 2, n)), 100)  # a quarter of them are 100
    size = np.round(np.exp(rng.normal(4, 2, n))).clip(0, 1e6)
    share = rng.beta(2, 5, n) * (systolic / 260)
    gone = rng.random((2, n)) < np.array([[0.2], [gaps]])
    return np.stack(
        [rng.integers(0, 3, n), np.where(gone[0], np.nan, diastolic), np.where(gone[1], np.nan, systolic), spo2, size, share], 1
    ).astype(np.float32)  # fmt: skip


def labels(values):
    """One class in four, the sicker the higher the systolic pressure."""
    systolic = np.nan_to_num(values[:, 2], nan=120.0)
    return (systolic + 20 * np.random.default_rng(9).standard_normal(len(values)) > 140).astype(np.int32)


def fit(values, kind="copula"):
    none = lambda query: np.random.default_rng(0)  # noqa: E731
    label = labels(values)
    own, weight = np.arange(len(values)), np.ones(len(values))
    return fit_representation(values, label, weight, own, SCHEMA, kind, 0.0, none, np.random.default_rng(1))


def encode(values, kind, fitted, spread):
    source = None if spread is None else np.random.default_rng(spread)
    return encode_table(values, labels(values), SCHEMA, kind, fitted, source)


def scores(x, values, fitted):
    return np.einsum("mj,mij->mi", x[:, :5], np.asarray(fitted.factor, np.float64)[labels(values)])


@pytest.mark.parametrize("kind", ["scores", "copula"])
@pytest.mark.parametrize("spread", [None, 3])
def test_every_published_value_comes_back_as_it_was(kind, spread):
    values = records()
    fitted = fit(values, kind)
    x = encode(values, kind, fitted, spread)
    back = np.asarray(DECODE(x, labels(values), fitted))
    np.testing.assert_array_equal(np.isnan(back), np.isnan(values))
    exact = [0, 1, 2, 3]  # bytes are kept in cells a thousandth wide, shares without any resolution
    np.testing.assert_array_equal(back[:, exact], values[:, exact])
    np.testing.assert_allclose(back[:, 4], values[:, 4], rtol=2e-3, atol=1.0)
    off = np.abs(back[:, 5] - values[:, 5])
    assert (
        np.quantile(off, 0.999) < 5e-4 and off.max() < 2e-3
    )  # a class's rarest values lie where float32 has few scores


def test_scores_are_normal_though_a_quarter_of_the_values_are_one_and_uncorrelated_if_asked():
    values = records(20_000, gaps=0.0)
    for kind in ("scores", "copula"):
        fitted = fit(values, kind)
        x = encode(values, kind, fitted, 2)
        normal = scores(x, values, fitted)[~np.isnan(values[:, 1]) & ~np.isnan(values[:, 2])]
        assert max(scipy.stats.kstest(column, "norm").statistic for column in normal.T) < 0.03
        full = x[:, :5][~np.isnan(values[:, 1]) & ~np.isnan(values[:, 2])]
        off = np.abs(np.corrcoef(full.T) - np.eye(5)).max()
        assert off < 0.05 if kind == "copula" else off > 0.2


def test_standard_normal_is_a_copula_with_the_datas_margins_spikes_and_correlations():
    values = records(20_000, gaps=0.0)
    fitted = fit(values)
    x = encode(values, "copula", fitted, 2)
    x[:, :5] = np.random.default_rng(5).standard_normal((len(x), 5))
    made = np.asarray(DECODE(x, labels(values), fitted))
    assert np.mean(made[:, 3] == 100) == pytest.approx(np.mean(values[:, 3] == 100), abs=0.01)
    there = ~np.isnan(values[:, 1]) & ~np.isnan(values[:, 2])
    for j in (1, 2, 3, 4, 5):
        assert scipy.stats.ks_2samp(made[there, j], values[there, j]).statistic < 0.025
    rho = [scipy.stats.spearmanr(t[there][:, [2, 5]]).statistic for t in (made, values)]
    assert rho[0] == pytest.approx(rho[1], abs=0.03) and rho[1] > 0.2
    gap = [np.diff([np.nanmean(t[labels(values) == c, 2]) for c in (0, 1)])[0] for t in (made, values)]
    assert gap[0] == pytest.approx(gap[1], rel=0.15) and gap[1] > 15  # classes are as far apart


def test_whatever_a_generator_says_bounds_and_resolutions_hold():
    fitted = fit(records())
    x = 4.0 * np.random.default_rng(3).standard_normal((5000, make_encoder(SCHEMA).layout.dim)).astype(np.float32)
    made = np.asarray(DECODE(x, np.zeros(len(x), np.int32), fitted))
    both = ~np.isnan(made[:, 1]) & ~np.isnan(made[:, 2])
    assert both.any() and (made[both, 1] <= made[both, 2]).all()
    for j, c in enumerate(SCHEMA.inputs):
        if c.kind == "numeric":
            value = made[~np.isnan(made[:, j]), j]
            assert value.min() >= c.low and value.max() <= c.high
            assert c.decimals is None or (value == np.round(value)).all()


def test_missing_scores_are_drawn_given_the_others():
    """The law of a missing score in the copula is that of the present ones with the same neighbours."""
    values = records(20_000)
    fitted = fit(values)
    found, gone = scores(encode(values, "copula", fitted, 2), values, fitted), np.isnan(values[:, 1])
    slope = [np.polyfit(found[rows, 4], found[rows, 1], 1)[0] for rows in (gone, ~gone)]
    assert slope[0] == pytest.approx(slope[1], abs=0.06)
    assert np.std(found[gone, 0]) == pytest.approx(1.0, abs=0.05)
    plain = encode(values, "copula", fitted, None)
    np.testing.assert_array_equal(plain, encode(values, "copula", fitted, None))
    assert np.std(scores(plain, values, fitted)[gone, 0]) < 0.8  # a mean is not a draw


def test_a_generators_own_margins_are_taken_out():
    fitted = fit(records())
    rng = np.random.default_rng(4)
    x = np.zeros((40_000, make_encoder(SCHEMA).layout.dim), np.float32)
    x[:, :5] = rng.gamma(2.0, 0.5, (len(x), 5)) - 0.3  # skewed, shifted, too narrow
    label = np.zeros(len(x), np.int32)
    label[::4] = 1
    better = calibrated(fitted, "copula", x, label, (-1,) * 5)
    assert better.own.shape == (2, 5, KNOTS)
    plain, mended = (np.asarray(DECODE(x, label, f)) for f in (fitted, better))
    values = records()
    for j in (3, 4, 5):
        there = values[:, j]
        assert (
            scipy.stats.ks_2samp(mended[:, j], there).statistic
            < 0.03
            < scipy.stats.ks_2samp(plain[:, j], there).statistic
        )
    collapsed = calibrated(fitted, "copula", np.zeros_like(x), label, (-1,) * 5)
    assert np.isfinite(np.asarray(DECODE(x[:100], label[:100], collapsed))[:, 3:]).all()


def test_a_generators_own_correlations_are_taken_out():
    fitted = fit(records())
    rng = np.random.default_rng(5)
    x = np.zeros((20_000, make_encoder(SCHEMA).layout.dim), np.float32)
    normal = rng.standard_normal((len(x), 5))
    x[:, :5] = normal + 0.3 * np.roll(normal, 1, 1)
    label = np.arange(len(x), dtype=np.int32) % 2
    mended = calibrated(fitted, "copula", x, label, (-1,) * 5)
    for c in (0, 1):
        wanted = np.asarray(fitted.factor[c]) @ np.asarray(fitted.factor[c]).T
        plain, better = (
            np.corrcoef(x[label == c, :5] @ np.asarray(f.factor[c]).T, rowvar=False) for f in (fitted, mended)
        )
        assert np.abs(better - wanted).max() < 1e-3 < 0.1 < np.abs(plain - wanted).max()
    collapsed = calibrated(fitted, "copula", np.zeros_like(x), label, (-1,) * 5)
    np.testing.assert_allclose(collapsed.factor, MOST * np.asarray(fitted.factor), rtol=1e-5)  # no spread is made up


def test_layouts_differ_only_where_a_gap_is_filled():
    public = make_encoder(SCHEMA).layout
    assert layout_of(SCHEMA, "scores") == public and max(public.missing) > 0
    assert layout_of(SCHEMA, "copula") == public._replace(missing=(-1,) * 5)


def test_cells_hold_one_published_value_each_or_are_as_many_as_asked():
    parts = variables(SCHEMA)
    assert [(v.column, v.other) for v in parts] == [(1, 2), (2, -1), (3, -1), (4, -1), (5, -1)]
    gap, systolic, _, size, share = parts
    assert (gap.low, gap.high, gap.stand_in) == (-40.0, 230.0, 120.0) and systolic.center == 120.0
    edges = edges_of(systolic)
    assert len(edges) == 202 and edges[0] == 59.5 and edges[-1] == 260.5
    for v, most in ((size, 1024), (share, 64)):
        edges = edges_of(v, most)
        assert len(edges) <= most + 1 and (np.diff(edges) > 0).all()
    assert not np.isin(np.round(edges_of(size, 1024) % 1, 6), [0.0]).any()  # never through a published value
    prior = prior_of(systolic, edges_of(systolic))
    assert prior.sum() == pytest.approx(1.0) and (prior > 0).all() and 115 < 60 + np.argmax(prior) < 125


def test_a_distance_is_that_from_the_public_center_where_the_bound_is_missing():
    pairs = [(80, 130), (80, np.nan), (150, np.nan), (np.nan, 120), (90, 85)]
    values = np.array([[0, low, high, 98, 5, 0.5] for low, high in pairs])
    np.testing.assert_array_equal(kept(values, variables(SCHEMA))[:, 0], [50, 40, -30, np.nan, 0])


def test_decoding_is_compiled_once_for_all_seeds():
    traces = 0

    def count(x, label, fitted):
        nonlocal traces
        traces += 1
        return make_decode(SCHEMA)(x, label, fitted)

    once = jax.jit(count)
    x, label, fitted = jnp.zeros((4, make_encoder(SCHEMA).layout.dim)), jnp.zeros(4, jnp.int32), fit(records())
    once(x, label, fitted), once(x, label, fitted._replace(below=fitted.below + 0))
    assert traces == 1


def test_scores_of_missing_cells_do_not_move_a_generators_margins():
    fitted, missing = fit(records(), "scores"), make_encoder(SCHEMA).layout.missing
    j = next(k for k, bit in enumerate(missing) if bit >= 0)
    rng = np.random.default_rng(6)
    x = np.zeros((20_000, make_encoder(SCHEMA).layout.dim), np.float32)
    x[:, :5] = rng.standard_normal((len(x), 5))
    label, there = np.zeros(len(x), np.int32), calibrated(fitted, "scores", x, np.zeros(len(x), np.int32), missing)
    gone = rng.random(len(x)) < 0.6
    x[gone, missing[j]], x[gone, j] = 1.0, 7.0
    found = calibrated(fitted, "scores", x, label, missing)
    np.testing.assert_allclose(found.own[:, j, 5:-5], there.own[:, j, 5:-5], atol=0.25)
    assert (calibrated(fitted, "scores", x, label, (-1,) * 5).own[:, j, KNOTS // 2] > 6).all()  # the test can fail
