"""Work A as a federation: the same mathematics as written by hand, and what its variants add."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import engine, report, throughput, work
from benchmarks.peers.line import parse_line
from fedjax_health.data.population import stored_population
from fedjax_health.models.base import ModelParams
from fedjax_health.types import Batch

ROOT = pathlib.Path(work.__file__).parents[1]
CLIENTS, ROWS = 8, 16


def _gradient(params, x, y):
    """Of the mean of softplus(z) - z y, by hand."""
    inputs, hidden = [x], x
    for weight, bias in params[:-1]:
        hidden = np.maximum(hidden @ weight + bias, 0.0)
        inputs.append(hidden)
    weight, bias = params[-1]
    z = (hidden @ weight + bias)[:, 0]
    delta = ((1.0 / (1.0 + np.exp(-z)) - y) / len(y))[:, None]
    found = []
    for (weight, _), layer_input in zip(reversed(params), reversed(inputs), strict=True):
        found.append((layer_input.T @ delta, delta.sum(0)))
        delta = (delta @ weight.T) * (layer_input > 0)
    return found[::-1]


def _small():
    data = work.make_data()
    return data.x[:CLIENTS, :ROWS], data.y[:CLIENTS, :ROWS]


def _program(config, federations=1):
    model = engine.make_model(init=work.init_params())
    population = stored_population(CLIENTS, ROWS, ROWS)
    store = engine.make_equal_store(*_small())
    program = engine.make_program(
        engine.make_parts(model, population, work.FEATURES, config), config, store, federations
    )
    return program, store


@pytest.mark.parametrize("dense", ["outer", "dot"])
def test_the_models_direction_is_the_gradient(dense):
    x, y = _small()
    model, params = engine.make_model(dense), work.init_params()
    batch = Batch(jnp.asarray(x[0]), jnp.asarray(y[0], jnp.int32), jnp.ones(ROWS, bool))
    tree = jax.tree.map(jnp.asarray, params)
    direction, metrics = model.field(ModelParams(tree, ()), batch, {}, jax.random.key(0))
    for (w, b), (w_hand, b_hand) in zip(direction, _gradient(params, x[0], y[0]), strict=True):
        np.testing.assert_allclose(w, w_hand, atol=2e-6)
        np.testing.assert_allclose(b, b_hand, atol=2e-6)
    z = np.asarray(model.predict(tree, batch.x))
    np.testing.assert_allclose(metrics["sim/loss"], np.mean(np.log1p(np.exp(z)) - z * y[0]), rtol=1e-5)


def test_initial_parameters_fill_their_bounds_and_follow_the_key():
    model = engine.make_model()
    first, other = (model.init(jax.random.key(seed)).client for seed in (0, 1))
    for (weight, bias), (w_other, _), rows in zip(first, other, work.LAYERS[:-1], strict=True):
        bound = 1 / np.sqrt(rows)
        assert weight.shape[0] == rows and bias.shape == weight.shape[1:]
        assert 0.7 * bound < np.abs(weight).max() <= bound and not np.array_equal(weight, w_other)
    fixed = engine.make_model(init=work.init_params()).init(jax.random.key(5)).client
    np.testing.assert_array_equal(fixed[1][0], work.init_params()[1][0])


def test_a_round_of_everybody_with_one_batch_each_is_one_central_step():
    x, y = _small()
    program, store = _program(config := engine.make_config(CLIENTS, 1, batch_size=ROWS))
    state, metrics = program.run(program.start([0]), program.place(engine.make_numbers(config), store))
    assert metrics["sim/cohort"].tolist() == [[CLIENTS]] and program.memory_mb > 0 and program.compile_s > 0
    central = _gradient(work.init_params(), x.reshape(-1, work.FEATURES), y.reshape(-1))
    expected = jax.tree.map(lambda p, g: p - work.RATE * g, work.init_params(), central)
    for new, by_hand in zip(jax.tree.leaves(state.params.client), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(new[0], by_hand, atol=2e-6)


def test_a_program_repeats_itself_and_takes_other_numbers_and_records():
    program, store = _program(config := engine.make_config(4, 2), federations=2)
    numbers = engine.make_numbers(config, 2)
    slow = {**numbers, "client_learning_rate": jnp.asarray([work.RATE, 0.001], jnp.float32)}

    def weights(seeds, hyper, records):
        state, _ = program.run(program.start(seeds), program.place(hyper, records))
        return np.asarray(state.params.client[0][0])

    first = weights([3, 3], numbers, store)
    np.testing.assert_array_equal(first, weights([3, 3], numbers, store))
    np.testing.assert_array_equal(first[0], first[1])
    assert not np.array_equal(first[1], weights([3, 4], numbers, store)[1])
    changed = weights([3, 3], slow, store)
    np.testing.assert_array_equal(changed[0], first[0])
    assert not np.array_equal(changed[1], first[1])
    assert not np.array_equal(first, weights([3, 3], numbers, store._replace(y=1 - store.y)))


@pytest.mark.long
def test_variants_do_what_they_say():
    ran = {name: throughput.make_ours(100, 1, variant).once() for name, variant in throughput.VARIANTS.items()}
    updates = {name: count for name, (_, count, _) in ran.items()}
    assert updates["plain"] == updates["devices"] == updates["8bit"] == updates["scaffold"] == 100
    assert 50 < updates["dp"] < 160 and 50 < updates["dp_system"] < 160  # Poisson(100)
    start = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(work.init_params())])
    moved = {
        name: np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(layers)]) - start
        for name, (_, _, layers) in ran.items()
    }
    # all devices are on, and SCAFFOLD's first round has no controls yet
    np.testing.assert_array_equal(moved["devices"], moved["plain"])
    np.testing.assert_allclose(moved["scaffold"], moved["plain"], atol=1e-6)
    error = np.linalg.norm(moved["8bit"] - moved["plain"]) / np.linalg.norm(moved["plain"])
    assert 0 < error < 0.05
    # the noise of one round: N(0, (1 * 1 / 100)^2) in each coordinate, over a much smaller mean
    assert np.std(moved["dp"]) == pytest.approx(0.01, rel=0.1)
    assert np.std(moved["dp_system"]) == pytest.approx(0.01, rel=0.1)
    assert not np.array_equal(moved["dp"], moved["dp_system"])


def test_a_variant_that_learns_less_is_refused():
    def measured(accuracy):
        return throughput.Measured([1.0], 1.0, accuracy)

    throughput.check_accuracy({"reference": measured(0.9), "plain": measured(0.891)}, "reference", ["plain"])
    with pytest.raises(RuntimeError, match="plain reaches an accuracy of"):
        throughput.check_accuracy({"reference": measured(0.9), "plain": measured(0.889)}, "reference", ["plain"])
    throughput.check_accuracy({"reference": measured(0.9), "dp": measured(0.5)}, "reference", [])


def test_results_are_a_valid_report_with_the_ratios_of_the_passes():
    names = ("reference-plain", "reference-tuned", "plain", "dp")
    entries = {name: throughput.Entry(lambda: None, 1.0, 2.0 if name == "plain" else None) for name in names}
    rates = ([10.0, 20.0, 30.0], [20.0, 40.0, 60.0], [15.0, 30.0, 45.0], [5.0, 10.0, 15.0])
    measured = {name: throughput.Measured(values, 0.5, 0.9) for name, values in zip(names, rates, strict=True)}
    found = throughput.results("A1", entries, measured, [100.0, 100.0, 100.0])
    report.make_report("throughput", "none", {}, found)
    by_name = {result["name"]: result for result in found}
    assert (by_name["A1 dp"]["against"], by_name["A1 dp"]["ratio"]) == ("A1 reference-tuned", 0.25)
    assert by_name["A1 dp over plain"]["value"] == pytest.approx(1 / 3)
    assert by_name["A1 dp over reference-plain"]["value"] == 0.5
    assert by_name["A1 plain memory of a device"]["value"] == 2.0 and "A1 dp memory of a device" not in by_name
    assert by_name["A1 plain arithmetic"]["value"] == pytest.approx(30.0 * work.update_flops() * 1e-9)


def test_the_peer_line():
    command = [sys.executable, "-m", "benchmarks.throughput", "--peer-line", "--work", "A1"]
    done = subprocess.run(
        [*command, "--rounds", "2", "--repeats", "2"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    line = parse_line(done.stdout)
    assert (line.system, line.work, line.rounds, len(line.rates)) == ("fedjax_health", "A1", 2, 2)
    assert 0.4 < line.accuracy < 1 and line.memory_mb > 50 and line.first_s > 0
