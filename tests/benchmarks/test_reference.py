"""The work's arrays, the two reference programs, and the schema of what benchmarks report."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks import reference, report, work

ROOT = pathlib.Path(work.__file__).parents[1]


def test_data_is_the_stated_distribution_drawn_again():
    rng = np.random.default_rng(0)
    direction = rng.standard_normal(16)
    weight = 6.0 * direction / np.sqrt(np.sum(direction**2))
    shift = 0.3 * rng.standard_normal((1000, 16))
    bias = 0.5 * rng.standard_normal(1000)
    x = rng.standard_normal((1000, 64, 16)) + shift[:, None, :]
    logit = np.einsum("krf,f->kr", x, weight) + bias[:, None]
    y = rng.random((1000, 64)) < 1 / (1 + np.exp(-logit))
    data = work.make_data()
    np.testing.assert_array_equal(data.x, x.astype(np.float32))
    np.testing.assert_array_equal(data.y, y.astype(np.float32))
    assert data.x_test.shape == (10_000, 16) and data.y_test.shape == (10_000,)
    assert {array.dtype for array in data} == {np.dtype(np.float32)}


def test_data_is_the_same_each_time_and_other_with_another_seed():
    first, again, other = work.make_data(), work.make_data(), work.make_data(seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.x, other.x)


def test_initial_parameters_fill_their_bounds():
    for (weight, bias), (rows, columns) in zip(work.init_params(), ((16, 64), (64, 64), (64, 1)), strict=True):
        assert weight.shape == (rows, columns) and bias.shape == (columns,) and weight.dtype == bias.dtype == np.float32
        assert 0.8 / np.sqrt(rows) < np.abs(weight).max() <= 1 / np.sqrt(rows)


@pytest.mark.parametrize("cohort", [100, 1000])
def test_cohorts_are_without_replacement_and_a_short_run_is_a_prefix(cohort):
    drawn = work.cohorts(cohort, 5)
    assert drawn.shape == (5, cohort) and drawn.dtype == np.int32 and drawn.min() >= 0 and drawn.max() < 1000
    assert all(len(set(row)) == cohort for row in drawn.tolist())
    np.testing.assert_array_equal(work.cohorts(cohort, 2), drawn[:2])


def test_flops_leave_out_the_first_layers_input_gradient():
    forwards = 2 * 64 * (16 * 64 + 64 * 64 + 64 * 1)
    assert work.update_flops() == 3 * forwards - 2 * 64 * (16 * 64) == 1_859_584


def test_accuracy_of_the_bayes_rule_and_of_its_opposite():
    data = work.make_data()
    rng = np.random.default_rng(0)
    direction = rng.normal(size=16)
    column = (direction / np.linalg.norm(direction)).astype(np.float32)[:, None]
    first = np.concatenate([column, -column], 1)  # relu(z) - relu(-z) = z
    second = np.float32([[1.0], [-1.0]])
    zero = np.float32([0.0])
    right = work.accuracy([(first, np.zeros(2, np.float32)), (second, zero)], data)
    wrong = work.accuracy([(first, np.zeros(2, np.float32)), (-second, zero)], data)
    assert 0.88 < right < 0.93 and wrong == pytest.approx(1 - right, abs=1e-4)


def _uniform(orders):
    """Whether each row stands at each place equally often: chi-square within six deviations of its mean."""
    expected = len(orders) / 64
    statistic = sum(np.sum((np.bincount(column, minlength=64) - expected) ** 2) / expected for column in orders.T)
    return abs(statistic - 63 * 63) < 6 * np.sqrt(2 * 63 * 63)


@pytest.mark.parametrize("order", ["sort", "rank"])
def test_orders_are_uniform_permutations(order):
    keys = jax.random.split(jax.random.key(3), 2000)
    orders = np.asarray(jax.jit(jax.vmap(reference.ORDER[order]))(keys))
    np.testing.assert_array_equal(np.sort(orders, 1), np.broadcast_to(np.arange(64), orders.shape))
    coarse = np.argsort(np.random.default_rng(0).integers(0, 2, orders.shape), 1, kind="stable")  # one random bit a row
    assert _uniform(orders) and not _uniform(coarse)


def _final(dense, order, chunk, devices, unroll=1, cohort=40, rounds=3):
    program = reference.make_program(
        cohort, rounds, dense=dense, order=order, chunk=chunk, unroll=unroll, devices=devices
    )
    return jax.device_get(program.run(*program.inputs))


@pytest.mark.parametrize(
    ("dense", "chunk", "devices", "unroll"),
    [
        pytest.param("outer", 10, 4, 1, marks=pytest.mark.long),
        pytest.param("outer", 5, 1, 4, marks=pytest.mark.long),
        ("dot", 0, 2, 1),
        ("outer", 1, 1, 1),
    ],
)
def test_with_the_same_shuffles_every_form_gives_the_same_parameters(dense, chunk, devices, unroll):
    plain = _final("dot", "rank", 0, 1)
    tuned = _final(dense, "rank", chunk, devices, unroll)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), tuned, plain)
    other = _final("dot", "sort", 0, 1)
    assert max(np.abs(a - b).max() for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(plain), strict=True)) > 1e-4


def test_one_round_is_numpys_average_of_clients_sgd():
    cohort = work.cohorts(3, 1)[0]
    data, key = work.make_data(), jax.random.fold_in(jax.random.key(0), 0)
    trained = []
    for client in cohort.tolist():
        params = [(w.astype(np.float64), b.astype(np.float64)) for w, b in work.init_params()]
        order = np.asarray(reference.ORDER["rank"](jax.random.fold_in(key, client)))
        for rows in order.reshape(4, 16):
            hidden = [data.x[client][rows].astype(np.float64)]
            for w, b in params[:-1]:
                hidden.append(np.maximum(hidden[-1] @ w + b, 0.0))
            logit = hidden[-1] @ params[-1][0] + params[-1][1]
            back = (1 / (1 + np.exp(-logit)) - data.y[client][rows][:, None]) / 16
            stepped = []
            for (w, b), h in zip(params[::-1], hidden[::-1], strict=True):
                stepped.append((w - 0.05 * h.T @ back, b - 0.05 * back.sum(0)))
                back = (back @ w.T) * (h > 0)
            params = stepped[::-1]
        trained.append(params)
    expected = jax.tree.map(lambda *leaves: np.mean(leaves, 0), *trained)
    result = _final("outer", "rank", 10, 4, cohort=3, rounds=1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), result, expected)


def test_plain_and_tuned_reach_the_same_accuracy_to_a_point():
    programs = [reference.plain(100), reference.tuned(100)]
    found, first, params = reference.rates(programs, 2)
    plain, tuned = (work.accuracy(layers, work.make_data()) for layers in params)
    assert abs(plain - tuned) < 0.01 and abs(plain - 0.901) < 0.005
    assert [len(rates) for rates in found] == [2, 2] and min(map(min, found)) > 0 and min(first) > 0


def test_matmul_rate_counts_two_operations_a_term(monkeypatch):
    monkeypatch.setattr(work, "timed", lambda call: (0.5, call()))
    assert reference.matmul_rate(64, repeats=2) == [2e-9 * 64**3 / 0.5] * 2


@pytest.mark.parametrize(("children", "least", "most"), [(True, 300, 1000), (False, 10, 200)])
def test_peak_memory_counts_child_processes_if_asked(children, least, most):
    hold = "import time; held = bytearray(300_000_000); time.sleep(3)"
    code = (
        "import subprocess, sys; from benchmarks import work\n"
        f"with work.peak_memory(children={children}) as peak:\n"
        f"  subprocess.run([sys.executable, '-c', {hold!r}]); print(peak())"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert least < float(result.stdout) < most


def test_host_devices_must_come_before_jax():
    with pytest.raises(RuntimeError, match="before"):
        work.use_host_devices(2)


def test_result_takes_the_median_and_ratios_pass_by_pass():
    result = report.make_result("a", [1.0, 4.0, 2.0], "s", "b", [1.0, 1.0, 4.0])
    assert result == {
        "name": "a",
        "value": 2.0,
        "low": 1.0,
        "high": 4.0,
        "n": 3,
        "unit": "s",
        "against": "b",
        "ratio": 1.0,
    }
    assert report.make_result("a", [1.0, 3.0, 5.0], "s", "b", [2.0])["ratio"] == 1.5
    assert set(report.make_result("a", [1.0], "s")) == {"name", "value", "low", "high", "n", "unit"}
    for bad in ([], [float("nan")], [1.0, float("inf")]):
        with pytest.raises(ValueError, match="finite"):
            report.make_result("a", bad, "s")


def test_report_is_one_line_of_json_and_the_file_is_the_same(tmp_path, capsys):
    whole = report.make_report("x", "cpu", {"jax": "0"}, [report.make_result("a", [1.0, 2.0], "s")])
    report.finish(whole, str(tmp_path / "new" / "x.json"))
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 and json.loads(printed) == whole
    assert (tmp_path / "new" / "x.json").read_text() == printed


@pytest.mark.parametrize(
    "change",
    [
        {"low": 3.0},
        {"high": 0.0},
        {"n": 0},
        {"ratio": 1.0},
        {"against": "b"},
        {"other": 1},
    ],
)
def test_check_refuses_what_breaks_the_schema(change):
    good = report.make_result("a", [1.0, 2.0], "s")
    report.make_report("x", "cpu", {}, [good])
    with pytest.raises(ValueError, match=r"a result has|a is"):
        report.make_report("x", "cpu", {}, [good | change])
    with pytest.raises(ValueError, match="one name"):
        report.make_report("x", "cpu", {}, [good, good])
    with pytest.raises(ValueError, match="at least one"):
        report.make_report("x", "cpu", {}, [])
