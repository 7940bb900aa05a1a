"""Alerts of a stream and time to detection, against a stream counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_health.data.nsl_kdd import SCHEMA as NSL_KDD
from fedjax_health.data.threats import THREATS
from fedjax_health.evaluation.alerts import (
    FLOWS_PER_DAY,
    Campaigns,
    alert_rows,
    alerts_of,
    campaigns_of,
    is_stream,
    start_seconds,
    time_figures,
)
from fedjax_health.types import Table

DEVICE, DURATION = THREATS.index("device_class"), THREATS.index("duration")
SCAN, FLOOD = THREATS.label.categories.index("scanning"), THREATS.label.categories.index("flooding")


def stream(labels: list[list[int]], kind: int = 1) -> Table:
    """Devices of a kind (1: infusion pump, a flow every 300 s) whose flows last 10 s."""
    count = [len(one) for one in labels]
    values = np.zeros((sum(count), len(THREATS.inputs)), np.float32)
    values[:, DEVICE], values[:, DURATION] = kind, 10.0
    return Table(
        values, np.concatenate(labels).astype(np.int32), np.repeat(np.arange(len(count)), count).astype(np.int32)
    )


def test_an_alert_needs_alarms_of_the_same_device():
    alarm, client = np.array([1, 0, 1, 1, 1, 0, 0, 1], bool), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert alerts_of(alarm, client).tolist() == alarm.tolist()
    assert alerts_of(alarm, client, 2, 3).tolist() == [False, False, True, True, False, False, False, False]
    assert alerts_of(alarm, client, 2, 2).tolist() == [False, False, False, True, False, False, False, False]
    assert alerts_of(alarm, client, 2, 4).tolist() == [False, False, True, True, False, False, False, True]


def test_only_logs_that_say_their_kind_of_device_are_a_stream():
    assert is_stream(THREATS) and not is_stream(NSL_KDD)


def test_flows_of_a_kind_begin_at_equal_distances():
    table = stream([[0, 0, 0], [0, 0]])
    assert start_seconds(table, THREATS).tolist() == [0, 300, 600, 0, 300]
    assert start_seconds(stream([[0, 0]], 2), THREATS).tolist() == [0, 60]
    assert set(FLOWS_PER_DAY) == set(THREATS.inputs[DEVICE].categories)


def test_campaigns_of_a_stream_known_by_hand():
    s, f = SCAN, FLOOD
    table = stream([[0, s, s, 0, s, 0, f, s], [s, 0, 0, 0, 0, 0, 0, s, 0], [0, 0]])
    alert = np.zeros(len(table.label), bool)
    alert[[0, 4, 15]] = True  # a false one; the third scan of the first device; the scan after the long pause
    found = campaigns_of(table, THREATS, alert, start_seconds(table, THREATS))
    order = np.lexsort((found.flows, found.kind, found.client))
    rows = list(zip(*(c[order].tolist() for c in found), strict=True))
    assert rows == [
        (0, f, np.inf, np.inf),  # never seen; lies inside the other, which goes on
        (0, s, 3.0, 3 * 300.0 + 10.0),
        (1, s, 1.0, 10.0),
        (1, s, np.inf, np.inf),  # six benign flows part it from the next
    ]


def test_campaigns_never_seen_are_later_than_all_others():
    some = Campaigns(
        np.arange(4), np.array([1, 1, 1, 2]), np.array([1.0, 3.0, np.inf, np.inf]), np.array([10, 610, np.inf, np.inf])
    )
    figures = time_figures("r", THREATS, some)
    assert figures["r", "campaigns_seen"] == 0.5 and figures["r", "seen_at_once"] == 0.25
    assert figures["r", "flows_to_alert_median"] == 3 and figures["r", "flows_to_alert_p90"] == np.inf
    assert figures["r", "seconds_to_alert_median[flooding]"] == 610
    assert figures["r", "flows_to_alert_median[scanning]"] == np.inf
    assert ("r", "campaigns_seen[replay]") not in figures  # there was none


def test_rows_of_a_known_stream_and_intervals_that_hold_the_truth():
    truth, rng = 0.1, np.random.default_rng(0)
    table = stream([[0] * 20 + [SCAN] * 5] * 200)
    alarm = rng.random(len(table.label)) < np.where(table.label > 0, 0.4, truth)
    rows = {r.metric: r for r in alert_rows("threats", "r", THREATS, table, alarm, np.random.default_rng(1))}
    per_day = rows["false_alerts_per_day"]
    assert per_day.value == pytest.approx(288 * alarm[table.label == 0].mean()) and per_day.n == 200
    assert per_day.low < 288 * truth < per_day.high and per_day.high - per_day.low < 10
    assert not per_day.low < 288 * 0.15 < per_day.high
    assert rows["alerts_per_day"].value == pytest.approx(288 * alarm.mean())
    assert rows["false_alerts_per_1000_benign"].low < 100 < rows["false_alerts_per_1000_benign"].high
    seen = rows["campaigns_seen"]
    assert seen.value == alarm.reshape(200, 25)[:, 20:].any(1).mean() and seen.low < seen.value < seen.high
    assert rows["campaigns_seen[scanning]"].n == 200 and "campaigns_seen[replay]" not in rows
    assert rows["flows_to_alert_median"].value == 2 and rows["seconds_to_alert_median"].value == 310


def test_intervals_hold_infinity_where_campaigns_may_be_missed():
    table = stream([[SCAN, 0]] * 20)
    alarm = (np.arange(40) % 4 == 0) & (table.label > 0)  # half of the devices
    rows = {r.metric: r for r in alert_rows("threats", "r", THREATS, table, alarm, np.random.default_rng(1))}
    assert rows["flows_to_alert_median"].low == 1 and rows["flows_to_alert_median"].high == np.inf
    assert rows["flows_to_alert_p90"].value == np.inf
