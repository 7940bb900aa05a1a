"""Sites change features as they say, and never leave the schema."""

from __future__ import annotations

import numpy as np
import pytest
import toy
from tables import (
    SENSORS,
    TOY,
    config,
    patients,
    sensor_table,
)

from fedjax_health.data.feature_skew import Sites, apply_sites, draw_sites
from fedjax_health.data.schema import Column, Schema
from fedjax_health.types import Table

SKEWED = config(sites=3, site_gain=0.1, site_offset=0.5, site_noise=0.2)


def test_regression_recovers_gain_offset_and_noise_of_each_site():
    table = sensor_table(12, 2000)
    sites = draw_sites(12, 4, SKEWED, 0, "toy")
    skewed = apply_sites(table, SENSORS, sites, 0, "toy")
    np.testing.assert_array_equal(skewed.client, table.client)
    np.testing.assert_array_equal(skewed.label, table.label)
    np.testing.assert_array_equal(skewed.values[:, 2], table.values[:, 2])
    np.testing.assert_array_equal(np.isnan(skewed.values), np.isnan(table.values))
    for s in range(3):
        rows = (sites.site == s)[table.client]
        for column, scale in ((0, 20.0), (3, 5.0)):
            x, y = table.values[rows, column].astype(float), skewed.values[rows, column].astype(float)
            x, y = x[~np.isnan(x)], y[~np.isnan(y)]
            (slope, intercept), covariance = np.polyfit(x, y, 1, cov=True)
            error = np.sqrt(np.diag(covariance))
            assert abs(slope - 1 - sites.gain[s, column]) < 4 * error[0] < 0.02
            assert abs(intercept - sites.offset[s, column] * scale) < 4 * error[1] < 0.2 * scale
            residual = np.std(y - slope * x - intercept)
            assert residual == pytest.approx(sites.noise[s, column] * scale, rel=0.05)
        # a log column: the gain in units, offset and noise in the scale, which is after the transform
        after = np.log1p(np.float64(skewed.values[rows, 1])) - np.log1p(
            np.float64(table.values[rows, 1]) * (1 + sites.gain[s, 1])
        )
        assert abs(after.mean() - 0.5 * sites.offset[s, 1]) < 4 * after.std() / np.sqrt(len(after))
        assert after.std() == pytest.approx(0.5 * sites.noise[s, 1], rel=0.05)


def test_sites_are_drawn_with_the_deviations_asked_for():
    sites = draw_sites(
        5000, 4, config(sites=5000, site_gain=0.1, site_offset=2.0, site_noise=0.3, site_keep=0.4), 1, "a"
    )
    assert sites.gain.shape == sites.offset.shape == sites.noise.shape == (5000, 4)
    for draw, deviation in ((sites.gain, 0.1), (sites.offset, 2.0)):
        assert abs(draw.mean()) < 4 * deviation / np.sqrt(20000) and draw.std() == pytest.approx(deviation, rel=0.03)
    assert (sites.noise >= 0).all() and np.sqrt((sites.noise**2).mean()) == pytest.approx(0.3, rel=0.03)
    assert sites.keep.min() >= 0.4 and sites.keep.max() <= 1 and sites.keep.mean() == pytest.approx(0.7, abs=0.02)
    assert sorted(sites.site) == list(range(5000)) and not np.array_equal(sites.site, np.arange(5000))


def test_sites_are_equally_large():
    assert sorted(np.bincount(draw_sites(11, 1, config(sites=3), 0, "toy").site)) == [3, 4, 4]
    assert (draw_sites(11, 1, config(sites=3), 0, "toy").keep == 1).all()


def of_one_site(clients: int, columns: int, keep: float = 1.0, **fields: float) -> Sites:
    full = {name: np.full((1, columns), fields.get(name, 0.0)) for name in ("gain", "offset", "noise")}
    return Sites(site=np.zeros(clients, int), keep=np.array([keep]), **full)


def test_no_skew_changes_nothing():
    same = apply_sites(TOY, toy.SCHEMA, of_one_site(200, 5), 0, "toy")
    np.testing.assert_array_equal(same.client, TOY.client)
    np.testing.assert_array_equal(same.label, TOY.label)
    np.testing.assert_allclose(same.values, TOY.values, rtol=1e-6)


@pytest.mark.parametrize("skew", [{"noise": 3.0}, {"offset": 8.0}, {"gain": -2.0}, {"gain": 0.4, "noise": 100.0}])
def test_the_schema_holds_whatever_the_skew(skew):
    skewed = apply_sites(TOY, toy.SCHEMA, of_one_site(200, 5, **skew), 0, "toy").values
    ward, systolic, diastolic, lactate, sex = skewed.T
    np.testing.assert_array_equal(ward, TOY.values[:, 0])
    np.testing.assert_array_equal(sex, TOY.values[:, 4])
    np.testing.assert_array_equal(np.isnan(lactate), np.isnan(TOY.values[:, 3]))
    assert np.isnan(lactate).any() and np.isfinite(skewed[:, [0, 1, 2, 4]]).all()
    lactate = lactate[~np.isnan(lactate)]
    assert systolic.min() >= 60 and systolic.max() <= 260 and diastolic.min() >= 30 and diastolic.max() <= 160
    assert lactate.min() >= 0 and lactate.max() <= 20
    np.testing.assert_array_equal(systolic, np.round(systolic))
    np.testing.assert_array_equal(diastolic, np.round(diastolic))
    np.testing.assert_array_equal(lactate, np.round(lactate.astype(float), 1).astype(np.float32))
    assert (diastolic <= systolic).all()
    assert (systolic != TOY.values[:, 1]).mean() > 0.5


def test_at_most_holds_through_a_chain_and_where_values_are_missing():
    numeric = {"low": 0.0, "high": 10.0, "nullable": True}
    chain = Schema(
        "chain",
        (
            Column(name="a", at_most="b", **numeric),
            Column(name="b", at_most="c", **numeric),
            Column(name="c", **numeric),
            Column(name="sick", kind="binary", role="label"),
        ),
    )
    values = np.array([[5, 6, 7], [5, np.nan, 7], [np.nan, 6, 7], [5, 6, np.nan]], np.float32)
    table = Table(values, np.zeros(4, np.int32), np.zeros(4, np.int32))
    low_c = Sites(np.zeros(1, int), np.array([[0.0, 0.0, -0.9]]), *np.zeros((2, 1, 3)), np.ones(1))
    expected = [[0.7, 0.7, 0.7], [5, np.nan, 0.7], [np.nan, 0.7, 0.7], [5, 6, np.nan]]
    np.testing.assert_allclose(apply_sites(table, chain, low_c, 0, "toy").values, expected, rtol=1e-6)


def test_a_site_keeps_its_share_of_each_client_and_never_nothing():
    sizes = np.array([1, 2, 10, 0, 7, 100])
    table = patients(sizes)._replace(values=np.arange(120, dtype=np.float32)[:, None])
    schema = Schema("n", (Column(name="n", low=0, high=1e6), Column(name="y", kind="binary", role="label")))
    kept = apply_sites(table, schema, of_one_site(6, 1, keep=0.31), 0, "toy")
    np.testing.assert_array_equal(np.bincount(kept.client), [1, 1, 4, 0, 3, 31])
    row = kept.values[:, 0].astype(int)
    assert (np.diff(row) > 0).all()  # old order, and no record twice
    np.testing.assert_array_equal(table.label[row], kept.label)
    np.testing.assert_array_equal(table.client[row], kept.client)
    # any record may be kept: the mean of 31 of 100 is within 5 SD of the middle, over 100 seeds
    means = [
        apply_sites(table, schema, of_one_site(6, 1, keep=0.31), s, "toy").values[-31:, 0].mean() for s in range(100)
    ]
    assert abs(np.mean(means) - 69.5) < 5 * 28.9 / np.sqrt(3100) and np.std(means) > 2
