"""Exact distribution functions: near the steps of the records, exact where values repeat, and no record's value by itself."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_health.data.cells import Variable
from fedjax_health.data.empirical import exact_functions

SMOOTH = Variable(0, -1, 0.0, -10.0, 10.0, 0.0, False, 0.0, 1.0)
WHOLE = Variable(0, -1, 0.0, 0.0, 200.0, 1.0, False, 80.0, 20.0)


def function(own, variable, label=None, weight=None, classes=1):
    label = np.zeros(len(own), int) if label is None else label
    return exact_functions(
        np.asarray(own, float), label, np.ones(len(own)) if weight is None else weight, variable, classes
    )


def test_it_is_never_further_from_the_steps_than_one_record():
    own = np.random.default_rng(0).normal(size=500)
    edges, below = function(own, SMOOTH)
    steps = np.searchsorted(np.sort(own), np.sort(own), side="right") / 500
    assert np.abs(np.interp(np.sort(own), edges, below[0]) - steps).max() <= 1 / 500 + 1e-9
    assert (np.diff(edges) > 0).all() and (np.diff(below) >= 0).all() and below[0, 0] == 0.0 and below[0, -1] == 1.0
    # what it gives back lies between records, not in their cells, which would have 200 each
    drawn = np.interp(np.random.default_rng(1).random(100_000), below[0], edges)
    assert max(np.sum(np.abs(drawn - value) < 2e-5) for value in own[:50]) < 50


def test_a_value_that_repeats_keeps_its_cell_and_one_that_does_not_reaches_to_its_neighbours():
    edges, below = function([60, 60, 60, 70, 90, 90], WHOLE)
    at = lambda value: float(np.interp(value, edges, below[0]))  # noqa: E731
    assert at(60.5) - at(59.5) == pytest.approx(0.5) and at(90.5) - at(89.5) == pytest.approx(1 / 3)
    assert (
        at(65.0) == pytest.approx(0.5) and at(80.0) == pytest.approx(4 / 6) and at(72.5) == pytest.approx(0.5 + 0.5 / 6)
    )
    crowded, share = function([70, 70, 71, 72, 72], WHOLE)  # neighbours on both sides: nowhere to go
    assert np.interp([70.5, 71.5], crowded, share[0]) == pytest.approx([0.4, 0.6])


def test_classes_weights_and_gaps():
    own, label = np.array([60.0, 60.0, 80.0, 80.0, np.nan]), np.array([0, 0, 1, 1, 1])
    edges, below = function(own, WHOLE, label, np.array([1.0, 1.0, 3.0, 1.0, 9.0]), 3)
    assert np.interp(70, edges, below[0]) == 1.0 and np.interp(70, edges, below[1]) == 0.0
    assert np.interp(70, edges, below[2]) == pytest.approx(2 / 6)  # a class without a record
    edges, below = function([np.nan], WHOLE, classes=2)
    assert edges.tolist() == [-0.5, 200.5] and below.tolist() == [[0.0, 1.0]] * 2
    edges, below = function([75.0], WHOLE)
    assert np.interp([74.5, 75.5], edges, below[0]) == pytest.approx([0.0, 1.0])
