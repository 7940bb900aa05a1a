"""Intervals over clients: right coverage where records of a client depend on one another, which records drawn alone miss."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_health.evaluation.bootstrap import (
    Interval,
    client_intervals,
    mean_replicates,
    percentiles,
    rows_with_intervals,
)

CLIENTS, PER = 60, 8


def world(seed):
    """Records of clients that differ: true mean 0, deviation 1 between clients and 0.5 within."""
    r = np.random.default_rng(seed)
    return np.repeat(r.normal(size=CLIENTS), PER) + 0.5 * r.normal(size=CLIENTS * PER)


CLIENT = np.repeat(np.arange(CLIENTS), PER)


def share_covered(client):
    hits = 0
    for seed in range(150):
        low, high = percentiles(mean_replicates(world(seed), client, np.random.default_rng(seed), 200))
        hits += low <= 0 <= high
    return hits / 150


def test_drawing_clients_covers_and_drawing_records_does_not():
    # 150 worlds: 95 % coverage gives less than .87 once in 10,000; a cluster of 8 so alike leaves records with about .5
    assert share_covered(CLIENT) > 0.87
    assert share_covered(np.arange(len(CLIENT))) < 0.7


def test_means_by_weights_are_means_by_drawing_rows():
    values = world(0)
    replicates = mean_replicates(values, CLIENT, np.random.default_rng(0), 4000)
    found = client_intervals(lambda rows: {("r", "m"): values[rows].mean()}, CLIENT, np.random.default_rng(1), 2000)
    assert replicates.mean() == pytest.approx(values.mean(), abs=0.01)
    assert found["r", "m"][:2] == pytest.approx(percentiles(replicates), abs=0.04)
    assert found["r", "m"].n == CLIENTS


def test_unequal_clients_keep_their_weight():
    values, client = np.array([0.0, 0, 0, 8]), np.array([5, 5, 5, 2])
    replicates = mean_replicates(values, client, np.random.default_rng(0), 3000)
    assert set(np.round(replicates, 9)) == {0.0, 2.0, 8.0}


def test_a_figure_that_draws_often_leave_undefined_has_no_interval():
    assert np.isnan(percentiles(np.array([np.nan] * 20 + [1.0] * 80))).all()
    assert percentiles(np.array([np.nan] * 5 + [1.0] * 95)) == (1.0, 1.0)
    assert np.isnan(percentiles(np.empty(0))).all()
    one = client_intervals(lambda rows: {("r", "m"): 1.0}, np.zeros(4, int), np.random.default_rng(0))
    assert np.isnan(one["r", "m"][:2]).all()


def test_differences_are_paired():
    values = world(0)
    both = client_intervals(
        lambda rows: {
            ("r", "m"): values[rows].mean(),
            ("r", "gain"): (values[rows] + 0.1).mean() - values[rows].mean(),
        },
        CLIENT,
        np.random.default_rng(0),
        100,
    )
    assert both["r", "gain"].high - both["r", "gain"].low < 1e-9 < both["r", "m"].high - both["r", "m"].low


def test_the_bootstrap_is_asked_only_where_there_is_one_seed():
    def never():
        raise AssertionError("seeds have an interval of their own")

    one, two = {("r", "m"): 1.0, ("r", "x"): 2.0}, {("r", "m"): 3.0, ("r", "x"): 2.0}
    rows = rows_with_intervals("d", "m", [one, two], never)
    assert rows[0].value == 2.0 and rows[0].n == 2
    rows = rows_with_intervals("d", "m", [one], lambda: {("r", "m"): Interval(0.5, 1.5, 7)})
    assert (rows[0].value, rows[0].low, rows[0].high, rows[0].n) == (1.0, 0.5, 1.5, 7)
    assert np.isnan(rows[1].low) and rows[1].n == 1
