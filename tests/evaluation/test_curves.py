"""Histograms add up, bins respect the published resolution, ROC curves are thinned without bending."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fedjax_health.data.schema import Column, Schema
from fedjax_health.evaluation.curves import correlation_cells, distribution_curves, roc_points, shared_edges
from fedjax_health.types import Table

SCHEMA = Schema(
    "toy",
    (
        Column(name="a", low=-10, high=10),
        Column(name="n", low=0, high=300, decimals=0, nullable=True),
        Column(name="c", kind="categorical", categories=("x", "y", "z")),
        Column(name="y", kind="binary", role="label"),
    ),
)


def draw(seed: int, m: int = 2000) -> Table:
    r = np.random.default_rng(seed)
    a = r.normal(size=m)
    n = np.round(80 + 15 * a)
    n[:100] = np.nan
    return Table(np.column_stack([a, n, r.integers(2, size=m)]).astype(np.float32), np.zeros(m, np.int32), np.arange(m))


def test_densities_share_bins_and_add_up():
    bins = distribution_curves(draw(0), {"vae": draw(1)}, SCHEMA)
    assert {b.domain for b in bins} == {"toy"}
    assert {b.model for b in bins} == {"real", "vae"}
    for feature in "anc":
        real, vae = ([b for b in bins if b.feature == feature and b.model == m] for m in ("real", "vae"))
        assert [(b.left, b.right) for b in real] == [(b.left, b.right) for b in vae]
        mass = [b.density * ((b.right - b.left) or 1) for b in real]
        assert sum(mass) == pytest.approx(0.99 if feature == "a" else 1.0, abs=0.011)
    category = [b for b in bins if b.feature == "c" and b.model == "real"]
    assert [(b.left, b.right) for b in category] == [(0, 0), (1, 1), (2, 2)]
    assert category[2].density == 0


def test_mass_outside_the_real_range_is_not_hidden():
    away = draw(1)
    away.values[:, 0] = 9
    bins = distribution_curves(draw(0), {"vae": away}, SCHEMA)
    assert sum(b.density for b in bins if b.feature == "a" and b.model == "vae") == 0


def test_integer_columns_get_whole_bins():
    edges = shared_edges(SCHEMA.inputs[1], np.arange(40.0, 140.0))
    width = np.diff(edges)
    assert np.all(width == width[0])
    assert width[0] == 3
    assert edges[0] % 1 == 0.5
    assert shared_edges(SCHEMA.inputs[1], np.full(5, 7.0)).tolist() == [6.5, 7.5]
    assert len(shared_edges(SCHEMA.inputs[0], np.full(5, 7.0))) == 2


def test_models_without_values_are_left_out():
    gone = draw(1)
    gone.values[:, 1] = np.nan
    bins = distribution_curves(draw(0), {"vae": gone}, SCHEMA)
    assert {b.model for b in bins if b.feature == "n"} == {"real"}
    assert "n" not in {b.feature for b in distribution_curves(gone, {"vae": draw(1)}, SCHEMA)}


def test_correlation_cells():
    cells = {(a, b): rho for a, b, rho in correlation_cells(draw(0), SCHEMA)}
    assert set(cells) == {(a, b) for a in "an" for b in "an"}
    assert cells["a", "a"] == 1
    assert cells["a", "n"] == cells["n", "a"] > 0.99


def test_roc_is_thinned_to_points_of_the_curve():
    r = np.random.default_rng(0)
    member, nonmember = r.normal(1, 1, 20_000), r.normal(0, 1, 20_000)
    fpr, tpr = roc_points(member, nonmember)
    assert len(fpr) <= 200
    assert (fpr[0], tpr[0]) == (0, 0)
    assert (fpr[-1], tpr[-1]) == (1, 1)
    assert np.all(np.diff(fpr) >= 0)
    assert np.all(np.diff(tpr) >= 0)
    assert ((fpr > 0) & (fpr < 1e-3)).sum() >= 10
    auc = roc_auc_score(np.repeat([1, 0], 20_000), np.concatenate([member, nonmember]))
    assert np.trapezoid(tpr, fpr) == pytest.approx(auc, abs=2e-3)


def test_small_and_undefined_rocs():
    fpr, tpr = roc_points(np.array([2.0, 3.0]), np.array([0.0, 1.0]))
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert tpr[fpr == 0].max() == 1
    for pair in ((np.empty(0), np.ones(2)), (np.ones(2), np.array([np.nan]))):
        assert [len(x) for x in roc_points(*pair)] == [0, 0]
