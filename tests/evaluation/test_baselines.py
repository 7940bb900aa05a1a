"""Floors keep what they promise (marginals, class shares, pairwise order) and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_health.data.schema import Column, Schema
from fedjax_health.evaluation.baselines import gaussian_copula, independent_marginals
from fedjax_health.evaluation.pairs import correlations
from fedjax_health.types import Table, UserError

SCHEMA = Schema(
    "toy",
    (
        Column(name="a", low=-6, high=6),
        Column(name="b", low=0, high=1000, nullable=True),
        Column(name="c", kind="categorical", categories=("x", "y", "z")),
        Column(name="t", kind="categorical", role="label", categories=("0", "1", "2")),
    ),
)


def draw(m: int = 2000) -> Table:
    r = np.random.default_rng(0)
    label = (np.arange(m) % 10 == 0).astype(np.int32)
    a = r.normal(size=m) + label
    b = np.exp(a + 0.3 * r.normal(size=m))
    b[r.random(m) < 0.5 * (a > 0.5)] = np.nan
    c = np.digitize(a + 0.2 * r.normal(size=m), [-0.5, 0.5])
    return Table(np.column_stack([a, b, c]).astype(np.float32), label, np.arange(m, dtype=np.int32))


@pytest.fixture(scope="module")
def pair():
    table = draw()
    return [f(table, SCHEMA, 4000, np.random.default_rng(1)) for f in (independent_marginals, gaussian_copula)]


def test_both_keep_marginals_class_shares_and_missingness(pair):
    real = draw()
    for t in pair:
        assert t.values.shape == (4000, 3)
        assert t.values.dtype == np.float32
        assert t.label.dtype == np.int32
        assert t.label.sum() == 400
        assert t.client.tolist() == list(range(4000))
        for c in (0, 1):
            r, s = real.values[real.label == c], t.values[t.label == c]
            assert np.isin(s[:, 0], r[:, 0]).all()
            assert np.isnan(s[:, 1]).mean() == pytest.approx(np.isnan(r[:, 1]).mean(), abs=0.06)
            assert np.bincount(s[:, 2].astype(int), minlength=3) / len(s) == pytest.approx(
                np.bincount(r[:, 2].astype(int), minlength=3) / len(r), abs=0.06
            )
        assert t.values[t.label == 0, 0].mean() == pytest.approx(real.values[real.label == 0, 0].mean(), abs=0.06)


def test_only_the_copula_keeps_the_joint_order(pair):
    healthy = [t.values[t.label == 0] for t in (draw(), *pair)]
    rho = [correlations(v, "spearman") for v in healthy]
    assert rho[0][0, 1] > 0.9
    assert abs(rho[1][0, 1]) < 0.06
    assert rho[2][0, 1] == pytest.approx(rho[0][0, 1], abs=0.06)
    assert rho[2][0, 2] == pytest.approx(rho[0][0, 2], abs=0.12)
    where_missing = [np.nanmean(v[np.isnan(v[:, 1]), 0]) - np.nanmean(v[:, 0]) for v in healthy]
    assert where_missing[0] > 0.8
    assert abs(where_missing[1]) < 0.15
    assert where_missing[2] > 0.5


@pytest.mark.parametrize("make", [independent_marginals, gaussian_copula])
def test_deterministic_and_robust_for_tiny_classes(make):
    table = draw(40)
    label = table.label.copy()
    label[:] = 0
    label[3], label[4:6] = 1, 2
    values = table.values.copy()
    values[label == 2, 1] = np.nan
    tiny = table._replace(label=label, values=values)
    one, two = (make(tiny, SCHEMA, 400, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(one.values, two.values, equal_nan=True)
    assert np.array_equal(one.label, two.label)
    assert np.bincount(one.label).tolist() == [370, 10, 20]
    assert np.array_equal(one.values[one.label == 1], np.repeat(values[3:4], 10, 0), equal_nan=True)
    assert np.isnan(one.values[one.label == 2, 1]).all()
    other = make(tiny, SCHEMA, 400, np.random.default_rng(8))
    assert not np.array_equal(one.values, other.values, equal_nan=True)


@pytest.mark.parametrize("make", [independent_marginals, gaussian_copula])
def test_row_counts(make):
    assert len(make(draw(50), SCHEMA, 7, np.random.default_rng(0)).label) == 7
    assert len(make(draw(50), SCHEMA, 0, np.random.default_rng(0)).label) == 0
    empty = Table(np.empty((0, 3), np.float32), np.empty(0, np.int32), np.empty(0, np.int32))
    with pytest.raises(UserError, match="no rows"):
        make(empty, SCHEMA, 5, np.random.default_rng(0))
