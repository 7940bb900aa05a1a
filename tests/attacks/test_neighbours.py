"""Neighbours by blocks against all distances at once, and exact zeros for copies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from fedjax_health.attacks import neighbours
from fedjax_health.attacks.neighbours import closeness, nearest, nearest_index, nearest_sets

R = np.random.default_rng(0)
POINTS, TO = R.normal(5, 1, (1100, 6)), R.normal(5, 1, (700, 6))  # three blocks; an offset costs float32 digits
DISTANCE = cdist(POINTS, TO)


def test_nearest_is_that_of_all_distances_and_a_copy_is_at_zero():
    assert nearest(POINTS, TO) == pytest.approx(DISTANCE.min(1), rel=1e-4)
    assert np.mean(nearest_index(POINTS, TO) == DISTANCE.argmin(1)) > 0.999
    assert np.all(nearest(POINTS, POINTS) == 0)
    assert nearest(POINTS[:0], TO).shape == (0,)


def test_sets_hold_the_nearest_and_all_where_there_are_fewer():
    found = np.sort(nearest_sets(POINTS, TO, 10), 1)
    assert np.mean(found == np.sort(np.argsort(DISTANCE, 1)[:, :10], 1)) > 0.999
    assert nearest_sets(POINTS, TO[:3], 10).tolist()[0] in (
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    )


@pytest.mark.parametrize("pairs", [1 << 20, 7])
def test_closeness_is_the_sum_over_all_pairs_whatever_is_computed_at_once(monkeypatch, pairs):
    monkeypatch.setattr(neighbours, "PAIRS", pairs)
    few = slice(0, 1100 if pairs > 7 else 40)
    radius, least = 1.5, 1e-6
    weight = np.where(radius >= DISTANCE, np.log((radius + least) / (DISTANCE + least)), 0.0).sum(1)
    assert weight.max() > 0 == weight.min()
    assert closeness(POINTS[few], TO, radius, least) == pytest.approx(weight[few], abs=1e-9)
    alone = closeness(POINTS[:5], POINTS[:5], 1e-3, least)
    assert alone == pytest.approx(np.log((1e-3 + least) / least))
