"""Vitals: physiology against references, the published moments, and a diagnosis that needs interactions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from fedjax_health.data import vitals_physiology as physiology
from fedjax_health.data.simulator import simulate_table
from fedjax_health.data.vitals import make_vitals
from fedjax_health.types import Table, UserError

SIMULATOR = make_vitals()
SCHEMA = SIMULATOR.schema
COMPILED = jax.jit(SIMULATOR.simulate)


@pytest.fixture(scope="module")
def table() -> Table:
    return simulate_table(SIMULATOR, 2000, seed=0, batch_size=50)


def _column(table: Table, name: str) -> np.ndarray:
    return table.values[:, SCHEMA.index(name)]


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=True)


def test_one_client_has_the_promised_shapes_and_is_a_function_of_its_key():
    values, label, count = COMPILED(jax.random.key(3))
    assert values.shape == (24, len(SCHEMA.inputs))
    assert values.dtype == jnp.float32
    assert label.shape == (24,)
    assert label.dtype == jnp.int32
    assert count.shape == ()
    assert count.dtype == jnp.int32
    again, other = COMPILED(jax.random.key(3)), COMPILED(jax.random.key(4))
    assert _same(values, again[0])
    assert np.array_equal(label, again[1])
    assert count == again[2]
    assert not _same(values, other[0])


def test_jit_equals_no_jit_up_to_one_step_of_resolution():
    key = jax.random.key(11)
    plain, compiled = SIMULATOR.simulate(key), COMPILED(key)
    steps = np.array([10.0 ** -(c.decimals or 0) for c in SCHEMA.inputs])
    assert np.array_equal(np.isnan(plain[0]), np.isnan(compiled[0]))
    assert np.all(np.nan_to_num(np.abs(np.asarray(plain[0]) - compiled[0])) <= 1.01 * steps)
    assert np.array_equal(plain[1], compiled[1])
    assert plain[2] == compiled[2]


@pytest.mark.parametrize("minutes", [90, 300, 1500])
def test_a_wrong_length_is_refused(minutes):
    with pytest.raises(UserError, match=f"minutes = {minutes}"):
        make_vitals(minutes)


def test_a_shorter_day_has_fewer_rows():
    simulator = make_vitals(480)
    values, _, count = jax.jit(simulator.simulate)(jax.random.key(0))
    assert simulator.max_records == 8
    assert values.shape[0] == 8
    assert 6 <= count <= 8


@pytest.mark.parametrize(
    ("name", "mean", "sd"), [("heart_rate", 72.4, 10.5), ("glucose", 110.3, 15.8), ("spo2", 97.5, 1.6)]
)
def test_pooled_moments_are_the_published_ones_within_two_percent(table, name, mean, sd):
    column = _column(table, name)
    assert abs(np.nanmean(column) / mean - 1) < 0.02
    assert abs(np.nanstd(column) / sd - 1) < 0.02


def test_values_keep_range_resolution_and_code_book(table):
    for column in SCHEMA.inputs:
        x = _column(table, column.name)
        assert np.isnan(x).any() == column.nullable, column.name
        x = x[~np.isnan(x)].astype(np.float64)
        if column.kind == "numeric":
            assert x.min() >= column.low
            assert x.max() <= column.high
            assert np.allclose(x, np.round(x, column.decimals), atol=1e-4)
            # A floor of nought (no steps) or a ceiling of 100 % is a value; elsewhere a pile at the bound is clipping.
            inner = [b for b in (column.low, column.high) if b not in (0, 100)]
            assert np.isin(x, inner).mean() < 1e-3
        else:
            assert set(np.unique(x)) == set(range(len(column.categories)))


def test_physiology_holds(table):
    sbp, dbp = _column(table, "sbp"), _column(table, "dbp")
    assert np.array_equal(np.isnan(sbp), np.isnan(dbp))
    assert np.nanmin(sbp - dbp) > 5
    assert np.all(_column(table, "spo2_min") <= _column(table, "spo2"))
    assert np.corrcoef(_column(table, "heart_rate"), np.log1p(_column(table, "activity")))[0, 1] > 0.15


def test_some_hours_lack_glucose_or_pressure(table):
    for name in ("glucose", "sbp"):
        assert 0.03 < np.isnan(_column(table, name)).mean() < 0.15


def test_rows_beyond_the_count_are_finite():
    keys = jax.random.split(jax.random.key(1), 50)
    values, _, count = jax.jit(jax.vmap(SIMULATOR.simulate))(keys)
    beyond = np.arange(24)[None, :] >= np.asarray(count)[:, None]
    assert beyond.sum() > 100
    assert np.isfinite(np.asarray(values)[beyond]).all()


def test_clients_differ_in_the_hours_on_record(table):
    counts = np.bincount(table.client)
    assert len(counts) == 2000
    assert counts.min() == 6
    assert counts.max() == 24
    assert len(np.unique(counts)) > 15


def test_clients_are_not_alike_but_shuffled_rows_are(table):
    rate = _column(table, "heart_rate")
    cuts = np.flatnonzero(np.diff(table.client)) + 1
    observed = scipy.stats.f_oneway(*np.split(rate, cuts))
    shuffled = scipy.stats.f_oneway(*np.split(np.random.default_rng(0).permutation(rate), cuts))
    assert observed.pvalue < 1e-12
    assert observed.statistic > 3
    assert shuffled.pvalue > 1e-3


def test_label_is_balanced_and_needs_interactions(table):
    assert 0.42 < table.label.mean() < 0.58
    train, test = table.client < 1500, table.client >= 1500
    trees = HistGradientBoostingClassifier(max_iter=150, random_state=0).fit(table.values[train], table.label[train])
    accuracy = trees.score(table.values[test], table.label[test])
    assert 0.915 < accuracy < 0.955
    x = np.where(np.isnan(table.values), np.nanmean(table.values, 0), table.values)
    x = (x - x.mean(0)) / x.std(0)
    line = LogisticRegression(max_iter=300).fit(x[train], table.label[train])
    assert line.score(x[test], table.label[test]) < accuracy - 0.05
    for name in range(x.shape[1]):
        area = roc_auc_score(table.label, x[:, name])
        assert max(area, 1 - area) < 0.88


def test_share_of_ill_hours_differs_between_clients(table):
    counts = np.bincount(table.client)
    ill = np.bincount(table.client, weights=table.label)
    share = ill / counts
    assert share.std() > 1.5 * np.sqrt(0.25 / counts.mean())  # independent hours would give one


def test_respond_is_the_first_order_filter():
    target = np.random.default_rng(1).normal(size=(4, 60)) + 5.0
    tau = 12.0
    kept, level, reference = np.exp(-1 / tau), target[0, 0], []
    for x in target.ravel():
        level = kept * level + (1 - kept) * x
        reference.append(level)
    ours = np.asarray(physiology.respond(jnp.asarray(target, jnp.float32), tau)).ravel()
    assert np.abs(ours - np.array(reference))[60:].max() < 0.02
    flat = physiology.respond(jnp.full((3, 60), 7.0, jnp.float32), tau)
    assert np.allclose(flat, 7.0, atol=1e-5)
    assert np.abs(ours - target.ravel()).max() > 0.5  # it does filter


def test_hour_states_are_stationary_with_the_stated_drift():
    steps = np.zeros((24, 24, physiology.NUM_HOUR_NORMALS), np.float32)
    steps[np.arange(24), np.arange(24)] = 1.0  # one unit innovation at a time reads off the weights
    states = np.stack([np.asarray(physiology.hour_states(jnp.asarray(s))) for s in steps])
    weight = states[:, :, 0].T
    covariance = weight @ weight.T
    lag = np.abs(np.subtract.outer(np.arange(24), np.arange(24)))
    assert np.allclose(covariance, physiology.DRIFT**lag, atol=1e-5)
    assert np.allclose(states[:, :, -1], np.eye(24))


def test_rhythm_is_the_cosine_of_the_clock():
    ours = physiology.rhythm(jnp.float32(400.0), jnp.float32(930.0), 24)
    clock = 400.0 + np.arange(1440).reshape(24, 60)
    assert np.allclose(ours, np.cos(2 * np.pi * (clock - 930.0) / 1440), atol=1e-5)


def test_window_and_meals_known_answers():
    inside = np.asarray(physiology.window(jnp.asarray([10.0, 50.0]), jnp.asarray([5.0, 30.0])))
    assert np.flatnonzero(inside[0]).tolist() == [10, 11, 12, 13, 14]
    assert np.flatnonzero(inside[1]).tolist() == list(range(50, 60))
    normals = jnp.zeros(physiology.NUM_CLIENT_NORMALS, jnp.float32)
    patient = physiology.draw_patient(normals, jnp.asarray([0.0, 0.9, 0.9, 0.5], jnp.float32), 24)
    assert patient.age == 0
    assert patient.sex == 0
    assert patient.chronic == 0
    assert patient.start == 360
    above = np.asarray(physiology.meals(patient, 24)).ravel()
    clock = (360 + np.arange(1440)) % 1440
    breakfast = (clock >= 450) & (clock < 700)
    assert clock[breakfast][above[breakfast].argmax()] == 450 + 40  # the peak is τ after the meal
    assert above.min() >= 0
    assert above[clock == 440].item() < 1.0
