"""Paired differences over devices: the figures of any draw are those of its records, and only real differences show."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_health.data.schema import Column, Schema
from fedjax_health.evaluation.detection import detection_figures
from fedjax_health.evaluation.paired import client_draws, differences, drawn_figures, mean_figures

SCHEMA = Schema("t", (Column(name="x", low=0, high=1), Column(name="y", kind="binary", role="label")))
NAMES = ("detection_rate", "false_positive_rate", "detection_at_1pct_fpr", "auroc", "pr_auc")


def make(seed: int, clients: int = 150, ties: bool = False):
    """Attack records of some devices, of which some are harder than others, and a detector's alarms."""
    r = np.random.default_rng(seed)
    client = np.repeat(np.arange(clients), r.integers(1, 9, clients))
    positive = r.random(len(client)) < 0.3
    hard = r.normal(size=clients)[client]
    alarm = np.clip(0.4 + 0.2 * positive + 0.1 * hard + r.normal(0, 0.1, len(client)), 0, 1)
    return client, positive, np.round(alarm, 1) if ties else alarm


@pytest.mark.parametrize("ties", [False, True])
def test_a_draws_figures_are_those_of_its_records(ties):
    client, positive, alarm = make(0, ties=ties)
    draws = client_draws(client, np.random.default_rng(1), 5)
    assert draws.shape == (6, len(client)) and (draws[0] == 1).all()
    # every record of a client counts as often as its client, and as many clients are drawn as there are
    assert (draws[1:, np.unique(client, return_index=True)[1]].sum(1) == len(np.unique(client))).all()
    found = drawn_figures(positive, alarm, 0.5, draws)
    assert tuple(found) == NAMES
    for b, counts in enumerate(draws.astype(int)):
        rows = np.repeat(np.arange(len(client)), counts)
        p = np.stack([1 - alarm, alarm], 1)[rows]
        expected = detection_figures("r", SCHEMA, positive[rows].astype(int), p, 0.5)
        for name in NAMES:
            assert found[name][b] == pytest.approx(expected["r", name], abs=1e-12), (name, b)


def test_a_threshold_above_all_alarms_flags_nobody():
    client, positive, alarm = make(0)
    found = drawn_figures(positive, alarm, 2.0, client_draws(client, np.random.default_rng(1), 2))
    assert not found["detection_rate"].any() and not found["false_positive_rate"].any() and found["auroc"].all()


def test_what_a_draw_lacks_is_not_defined():
    client, alarm = np.arange(4), np.array([0.1, 0.2, 0.3, 0.4])
    found = drawn_figures(np.zeros(4, bool), alarm, 0.25, client_draws(client, np.random.default_rng(0), 3))
    assert np.isnan([found[n] for n in NAMES if n != "false_positive_rate"]).all()
    assert found["false_positive_rate"][0] == 0.5
    assert np.isnan(list(drawn_figures(alarm > 0.2, alarm * np.nan, 0.5, np.ones((2, 4))).values())).all()


def test_a_real_difference_is_told_apart_and_a_chance_one_is_not():
    outside, worse = 0, 0
    for seed in range(40):
        client, positive, alarm = make(seed)
        r = np.random.default_rng(1000 + seed)
        draws = client_draws(client, r, 100)
        same = [np.clip(alarm + r.normal(0, 0.05, len(alarm)), 0, 1) for _ in range(2)]
        mine, other = (mean_figures([drawn_figures(positive, a, 0.5, draws)]) for a in same)
        found = differences(mine, other, len(np.unique(client)))["auroc"]
        outside += not found.low <= 0 <= found.high
        blunt = drawn_figures(positive, np.clip(alarm + r.normal(0, 0.2, len(alarm)), 0, 1), 0.5, draws)
        against = differences(mine, mean_figures([blunt]), 150)["auroc"]
        worse += against.low > 0
        assert found.n == 150 and found.low <= found.high
    assert outside <= 8 and worse >= 38  # 5 % of 40 are expected, which is 2


def test_pairing_makes_the_interval_narrow_where_devices_differ_more_than_detectors():
    client, positive, alarm = make(3)
    draws = client_draws(client, np.random.default_rng(0))
    mine = mean_figures([drawn_figures(positive, alarm, 0.5, draws)] * 2)
    other = mean_figures([drawn_figures(positive, alarm - 0.01 * positive, 0.5, draws)])
    found = differences(mine, other, 150)["detection_rate"]
    alone = np.quantile(mine["detection_rate"][1:], [0.025, 0.975])
    assert found.value == pytest.approx(np.mean((alarm >= 0.5)[positive]) - np.mean((alarm >= 0.51)[positive]))
    assert found.high - found.low < np.ptp(alone) / 2
    assert np.isnan(differences(mine, other, 1)["auroc"][1:3]).all()
