"""Efficiency rows: known answers from hand-made round metrics."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_health.devices.round import METRICS
from fedjax_health.evaluation.efficiency import Cost, run_rows, training_rows

COST = Cost(5e6, 300, 400)


def _rows(simulated, chunk_seconds=(2.0, 4.0), compile_seconds=9.0):
    rows = training_rows("vitals", "vae", COST, simulated, np.array(chunk_seconds), 2, compile_seconds)
    assert {(r.domain, r.model) for r in rows} == {("vitals", "vae")}
    assert len({(r.row, r.metric) for r in rows}) == len(rows)
    return {(r.row, r.metric): r for r in rows}


def _simulated(seeds=2, rounds=4):
    base = np.arange(1.0, rounds + 1)[None, :] + 10.0 * np.arange(seeds)[:, None]
    return {name: base * (i + 1) for i, name in enumerate(METRICS)}


def test_known_answers():
    simulated = _simulated()
    rows = _rows(simulated)
    total = 0.5 * (10 + 50)  # mean over the seeds of a metric's sum, times its place in METRICS
    place = {name: i + 1 for i, name in enumerate(METRICS)}
    for key, name in {
        ("federation", "bytes up in all"): "sim/bytes_up",
        ("federation", "bytes down in all"): "sim/bytes_down",
        ("federation", "FLOPs in all"): "sim/flops",
        ("devices", "energy in all (J)"): "sim/energy_joules",
        ("devices", "simulated time in all (s)"): "sim/round_seconds",
        ("devices", "clients offline in all"): "sim/offline",
        ("devices", "clients out of memory in all"): "sim/out_of_memory",
        ("devices", "clients failed in all"): "sim/failed",
        ("devices", "clients late in all"): "sim/late",
    }.items():
        assert rows[key].value == pytest.approx(total * place[name])
        assert rows[key].n == 2
        assert rows[key].low < rows[key].value < rows[key].high
    assert rows["devices", "round latency median (s)"].value == pytest.approx(0.5 * (2.5 + 12.5))
    assert rows["devices", "round latency p95 (s)"].value == pytest.approx(0.5 * (3.85 + 13.85))
    slugs = [place[n] for n in METRICS if n.startswith("sim/alive_")]
    assert rows["federation", "clients a round"].value == pytest.approx(total / 4 * sum(slugs))
    shares = [
        rows["devices", f"share of {n} among participants"].value
        for n in ("wearable on BLE", "phone on LTE", "phone on Wi-Fi", "hospital gateway")
    ]
    np.testing.assert_allclose(shares, np.array(slugs) / sum(slugs))


def test_exact_and_measured_rows():
    rows = _rows(_simulated())
    for key, value in {
        ("client", "FLOPs a round"): 5e6,
        ("client", "bytes up a round"): 300.0,
        ("client", "bytes down a round"): 400.0,
        ("federation", "rounds"): 4.0,
    }.items():
        assert (rows[key].value, rows[key].low, rows[key].high) == (value, value, value)
    assert rows["machine", "compile (s)"].value == 9.0
    steady = rows["machine", "steady seconds a round and federation"]
    assert (steady.value, steady.n) == (pytest.approx(0.75), 2)  # two calls of two rounds of two federations
    assert np.isnan(_rows(_simulated(), (2.0,))["machine", "steady seconds a round and federation"].low)
    assert ("machine", "steady seconds a round and federation") not in _rows(_simulated(), ())


def test_nobody_took_part():
    rows = _rows({name: np.zeros((1, 3)) for name in METRICS})
    assert rows["federation", "clients a round"].value == 0.0
    assert np.isnan(rows["devices", "share of phone on LTE among participants"].value)


def test_a_missing_metric_is_an_error():
    simulated = _simulated()
    del simulated["sim/late"]
    with pytest.raises(KeyError, match="sim/late"):
        _rows(simulated)


def test_run_rows():
    wall, memory = run_rows(12.5)
    assert (wall.value, wall.metric) == (12.5, "wall time (s)")
    assert memory.value > 10
