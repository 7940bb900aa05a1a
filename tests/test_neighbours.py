"""Neighbours against full distance matrices; copies at 0, far offsets, ties, balls of radius 0; no more memory than blocks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from benchmarks import neighbours as benchmark
from benchmarks import report
from fedjax_health import neighbours
from fedjax_health.neighbours import (
    CENTRES,
    QUERIES,
    ball_counts,
    closeness,
    nearest,
    nearest_distance,
    nearest_others,
)


@pytest.fixture(scope="module")
def clouds():
    r = np.random.default_rng(0)
    return r.normal(size=(700, 4)), r.normal(size=(2300, 4))  # more than a block of either


def test_nearest_is_the_sorted_distance_matrix(clouds):
    points, to = clouds
    full = cdist(points, to)
    distance, index = nearest(points, to, 3)
    assert np.array_equal(index, np.argsort(full, 1)[:, :3])
    assert distance == pytest.approx(np.sort(full, 1)[:, :3], abs=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_copies_are_at_distance_exactly_zero_however_far_from_the_origin(clouds, offset):
    points = clouds[0] + offset
    distance, index = nearest(points, points[::-1])
    assert np.array_equal(distance[:, 0], np.zeros(len(points)))
    assert np.array_equal(index[:, 0], np.arange(len(points))[::-1])


def test_a_point_is_not_its_own_neighbour_but_its_copy_is(clouds):
    points = np.concatenate([clouds[0], clouds[0][:5]])
    distance, index = nearest_others(points, 2)
    assert not (index == np.arange(len(points))[:, None]).any()
    assert np.array_equal(np.flatnonzero(distance[:, 0] == 0), [*range(5), *range(700, 705)])
    full = cdist(points, points)
    np.fill_diagonal(full, np.inf)
    assert distance == pytest.approx(np.sort(full, 1)[:, :2], abs=1e-12)


def test_more_neighbours_than_points_is_an_error(clouds):
    with pytest.raises(ValueError, match="n_neighbors"):
        nearest(clouds[0], clouds[1][:2], 3)


def test_balls_hold_what_the_distance_matrix_says(clouds):
    points, centres = clouds
    assert len(points) > QUERIES and len(centres) > CENTRES
    radius = np.random.default_rng(1).uniform(0, 2, len(centres))
    inside = cdist(points, centres) <= radius
    held, holding = ball_counts(points, centres, radius)
    assert np.array_equal(held, inside.sum(1)) and np.array_equal(holding, inside.sum(0))
    assert 0 < held.min() < held.max()


def test_balls_are_closed_and_one_of_radius_zero_holds_copies_only():
    centres = np.array([[3.0, 1e3], [3.0, 1e3], [4.0, 1e3]])
    held, holding = ball_counts(centres, centres, np.zeros(3))
    assert held.tolist() == holding.tolist() == [2, 2, 1]
    assert ball_counts(centres, centres, np.ones(3))[0].tolist() == [3, 3, 3]
    assert ball_counts(centres, centres, np.full(3, 0.999))[0].tolist() == [2, 2, 1]


def test_the_benchmark_says_what_it_measured():
    found = benchmark.results(300, 1)
    report.check(report.make_report("neighbours", "a machine", {}, found))
    assert {r["unit"] for r in found} == {"s", "MB"} and len(found) == 13


def test_distance_to_nothing_but_oneself_is_zero_and_of_no_points_is_empty(clouds):
    assert nearest_distance(clouds[0], clouds[1]) == pytest.approx(cdist(*clouds).min(1), abs=1e-12)
    assert np.all(nearest_distance(clouds[0], clouds[0]) == 0)
    assert nearest_distance(clouds[0][:0], clouds[1]).shape == (0,)


@pytest.mark.parametrize("pairs", [1 << 20, 7])
def test_closeness_is_the_sum_over_all_pairs_whatever_is_computed_at_once(clouds, monkeypatch, pairs):
    monkeypatch.setattr(neighbours, "PAIRS", pairs)
    points, to = clouds[0][: 700 if pairs > 7 else 40] + 5, clouds[1] + 5  # an offset costs float32 digits
    distance, radius, least = cdist(points, to), 1.0, 1e-6
    weight = np.where(radius >= distance, np.log((radius + least) / (distance + least)), 0.0).sum(1)
    assert weight.max() > 0
    assert closeness(points, to, radius, least) == pytest.approx(weight, abs=1e-9)
    assert closeness(points + 100, to, radius, least).max() == 0
    alone = closeness(points[:5], points[:5], 1e-3, least)
    assert alone == pytest.approx(np.log((1e-3 + least) / least))
