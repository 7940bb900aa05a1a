"""Threats: consistent flow counters, devices that differ, and attacks neither trivial nor hopeless to detect."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from fedjax_health.data import threats
from fedjax_health.data.equations import broken_equations
from fedjax_health.data.simulator import simulate_table
from fedjax_health.data.threats import make_threats
from fedjax_health.types import Table

SIMULATOR = make_threats()
SCHEMA = SIMULATOR.schema
COMPILED = jax.jit(SIMULATOR.simulate)


@pytest.fixture(scope="module")
def table() -> Table:
    return simulate_table(SIMULATOR, 2000, seed=0, batch_size=50)


def _column(table: Table, name: str) -> np.ndarray:
    return table.values[:, SCHEMA.index(name)].astype(np.float64)


def test_one_device_has_the_promised_shapes_and_is_a_function_of_its_key():
    values, label, count = COMPILED(jax.random.key(3))
    assert values.shape == (40, len(SCHEMA.inputs))
    assert values.dtype == jnp.float32
    assert label.shape == (40,)
    assert label.dtype == jnp.int32
    assert count.shape == ()
    assert count.dtype == jnp.int32
    again, other = COMPILED(jax.random.key(3)), COMPILED(jax.random.key(4))
    assert np.array_equal(values, again[0])
    assert np.array_equal(label, again[1])
    assert count == again[2]
    assert not np.array_equal(values, other[0])


def test_jit_equals_no_jit_up_to_rounding():
    key = jax.random.key(11)
    plain, compiled = SIMULATOR.simulate(key), COMPILED(key)
    # One packet more or less moves the counters that follow from it by one packet's worth.
    assert np.isclose(plain[0], compiled[0], rtol=1e-3, atol=1.0).all()
    assert (np.asarray(plain[0]) == compiled[0]).mean() > 0.99
    assert np.array_equal(plain[1], compiled[1])
    assert plain[2] == compiled[2]


def test_counters_agree_with_one_another(table):
    out, back = _column(table, "packets_out"), _column(table, "packets_in")
    bytes_out, bytes_in = _column(table, "bytes_out"), _column(table, "bytes_in")
    assert out.min() >= 1
    assert back.min() >= 1
    for total, packets in ((bytes_out, out), (bytes_in, back)):
        assert np.all(total >= 40 * packets)
        assert np.all(total <= 1500 * packets * (1 + 1e-6))
    size = (bytes_out + bytes_in) / (out + back)
    assert np.allclose(_column(table, "mean_packet_size"), size, atol=0.06)
    gap = 1000 * _column(table, "duration") / (out + back)
    assert np.allclose(_column(table, "mean_interarrival"), gap, atol=0.06, rtol=1e-6)
    broken = broken_equations(table.values, SCHEMA)
    assert len(broken) == 4 and not any(rows.any() for rows in broken.values())


def test_values_keep_range_resolution_and_code_book(table):
    for column in SCHEMA.inputs:
        x = _column(table, column.name)
        assert np.isfinite(x).all(), column.name
        if column.kind == "numeric":
            assert x.min() >= column.low
            assert x.max() <= column.high
            assert np.allclose(x, np.round(x, column.decimals), rtol=1e-6, atol=1e-4)
            assert (x == column.high).mean() < 1e-3
        else:
            assert set(np.unique(x)) == set(range(len(column.categories)))


def test_devices_are_attacked_by_few_kinds(table):
    attack = table.label > 0
    assert 0.10 < attack.mean() < 0.25
    assert np.bincount(table.label, minlength=7).min() > 200
    counts = np.bincount(table.client)
    assert counts.min() == 10
    assert counts.max() == 40
    seen = np.zeros((2000, 7), bool)
    seen[table.client, table.label] = True
    kinds = seen[:, 1:].sum(1)
    assert (kinds == 0).mean() > 0.4
    assert (kinds == 1).mean() > 0.25
    assert kinds.max() == 2
    assert seen[:, 0].mean() > 0.99  # hardly a device without benign traffic


def test_attacks_come_in_campaigns(table):
    attack = (table.label > 0).astype(int)
    same = table.client[1:] == table.client[:-1]
    after_attack = attack[1:][same & (attack[:-1] == 1)].mean()
    assert after_attack > 0.6 > attack.mean() + 0.3


def test_benign_traffic_differs_by_class_and_by_device(table):
    benign = table.label == 0
    duration = np.log(_column(table, "duration")[benign])
    kind, client = _column(table, "device_class")[benign], table.client[benign]
    by_class = scipy.stats.f_oneway(*[duration[kind == k] for k in range(5)])
    assert by_class.pvalue < 1e-12
    within, who = duration[kind == 0], client[kind == 0]
    cuts = np.flatnonzero(np.diff(who)) + 1
    assert scipy.stats.f_oneway(*np.split(within, cuts)).statistic > 3
    shuffled = np.random.default_rng(0).permutation(within)
    assert scipy.stats.f_oneway(*np.split(shuffled, cuts)).pvalue > 1e-3


def test_detection_is_neither_trivial_nor_hopeless(table):
    attack = table.label > 0
    for i, column in enumerate(SCHEMA.inputs):
        area = roc_auc_score(attack, table.values[:, i])
        assert max(area, 1 - area) < 0.85, column.name
    train, test = table.client < 1400, table.client >= 1400
    trees = HistGradientBoostingClassifier(max_iter=150, random_state=0).fit(table.values[train], attack[train])
    score = trees.predict_proba(table.values[test])[:, 1]
    label = table.label[test]
    assert 0.92 < roc_auc_score(label > 0, score) < 0.98
    found = score > np.quantile(score[label == 0], 0.99)
    assert 0.5 < found[label > 0].mean() < 0.8
    rate = {name: found[label == i].mean() for i, name in enumerate(threats.ATTACKS)}
    assert rate["flooding"] > rate["data_alteration"] + 0.1
    assert rate["flooding"] > rate["replay"] + 0.1


def test_pick_draws_by_weight_and_never_a_zero_weight():
    weights = jnp.asarray([2.0, 0.0, 1.0, 1.0], jnp.float32)
    uniform = (jnp.arange(1000, dtype=jnp.float32) + 0.5) / 1000.0
    picked = threats._pick(jnp.broadcast_to(weights[None, :], (1000, 4)), uniform)
    assert np.bincount(picked, minlength=4).tolist() == [500, 0, 250, 250]
