"""Local training: which records a client visits, and what its steps add up to."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import toy

from fedjax_health.federated.algorithms import make_local_descent
from fedjax_health.federated.client import make_plan, make_run_client


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7, 10])
def test_epochs_visit_each_own_record_once_an_epoch(count):
    plan = make_plan(toy.train_config(local="epochs", local_epochs=2, batch_size=4), 10)
    index, live = jax.device_get(plan.index(jnp.int32(count), jax.random.key(0)))
    assert index.shape == (6, 4)
    for epoch, runs in zip(index.reshape(2, 12), live.reshape(2, 3), strict=True):
        own = epoch[epoch < count]
        assert sorted(own) == list(range(count))
        assert np.all(epoch[:count] < count)  # full batches first, the partial one last
        assert list(runs) == [b * 4 < count for b in range(3)]
    if count == 10:
        assert not np.array_equal(index[:3], index[3:])  # a fresh order each epoch


def test_epoch_order_is_uniform():
    plan = make_plan(toy.train_config(local="epochs", batch_size=1), 5)
    index, _ = jax.vmap(plan.index, (None, 0))(jnp.int32(4), jax.random.split(jax.random.key(1), 4000))
    first = np.bincount(np.asarray(index)[:, 0, 0], minlength=6)
    assert np.all(first[4:] == 0)
    assert scipy.stats.chisquare(first[:4]).pvalue > 1e-3


def test_steps_draw_uniformly_with_replacement_within_the_client():
    plan = make_plan(toy.train_config(local="steps", local_steps=50, batch_size=40), 10)
    index, live = jax.device_get(plan.index(jnp.int32(7), jax.random.key(0)))
    assert index.shape == (50, 40)
    assert live.all()
    tally = np.bincount(index.reshape(-1), minlength=10)
    assert np.all(tally[7:] == 0)
    assert scipy.stats.chisquare(tally[:7]).pvalue > 1e-3
    one, _ = plan.index(jnp.int32(1), jax.random.key(0))
    assert np.all(np.asarray(one) == 0)
    none, live = plan.index(jnp.int32(0), jax.random.key(0))
    assert not np.any(live)
    assert np.all(np.asarray(none) < 0)  # empty slots


def softmax_step(w, b, x, y, rate):
    """One step of full-batch softmax regression in NumPy."""
    logits = x @ w + b
    p = np.exp(logits - logits.max(1, keepdims=True))
    error = (p / p.sum(1, keepdims=True) - np.eye(2)[y]) / len(y)
    return w - rate * x.T @ error, b - rate * error.sum(0)


def runner(config, optimizer="sgd", step_clip=0.0):
    model, population = toy.linear(), toy.domain().population
    algorithm = make_local_descent(model, optimizer, step_clip)
    run = make_run_client(population, algorithm, make_plan(config, population.max_count))
    return model, jax.jit(jax.vmap(run, (None, None, 0, None, None)))


@pytest.mark.parametrize("epochs", [1, 3])
def test_local_descent_equals_numpy(epochs):
    config = toy.train_config(local="epochs", local_epochs=epochs, batch_size=toy.H)
    model, run = runner(config)
    params, data = model.init(jax.random.key(0)), toy.domain().data
    update, metrics = run(params, data, jnp.arange(24), toy.hyper(None), jax.random.key(1))
    start = {k: np.asarray(v, np.float64) for k, v in params.client["params"]["Dense_0"].items()}
    count, offset = np.asarray(data.count), np.asarray(data.offset)
    assert 0 in count and toy.H in count
    for k in range(24):
        rows = slice(offset[k], offset[k] + count[k])
        w, b = start["kernel"], start["bias"]
        for _ in range(epochs if count[k] else 0):
            w, b = softmax_step(w, b, np.asarray(data.x)[rows], np.asarray(data.y)[rows], 0.1)
        got = jax.tree.map(lambda leaf, k=k: np.asarray(leaf[k]), update["params"]["Dense_0"])
        np.testing.assert_allclose(got["kernel"], start["kernel"] - w, atol=2e-6)
        np.testing.assert_allclose(got["bias"], start["bias"] - b, atol=2e-6)
    assert np.all(np.asarray(metrics["sim/loss"])[count > 0] > 0)


@pytest.mark.parametrize(("local", "optimizer"), [("epochs", "sgd"), ("steps", "sgd"), ("steps", "adam")])
def test_client_without_records_changes_nothing(local, optimizer):
    model, run = runner(toy.train_config(local=local), optimizer)
    update, metrics = run(
        model.init(jax.random.key(0)), toy.domain().data, jnp.arange(24), toy.hyper(None), jax.random.key(1)
    )
    norms = np.linalg.norm(toy.flat(update), axis=1)
    empty = np.asarray(toy.domain().data.count) == 0
    assert empty.any()
    assert np.all(norms[empty] == 0)
    assert np.all(norms[~empty] > 0)
    assert np.all(np.asarray(metrics["sim/loss"])[empty] == 0)


def test_step_clip_bounds_each_step():
    model, run = runner(toy.train_config(local_steps=4), step_clip=0.01)
    params = model.init(jax.random.key(0))
    update, _ = run(params, toy.domain().data, jnp.arange(24), toy.hyper(None), jax.random.key(1))
    norms = np.linalg.norm(toy.flat(update), axis=1)
    assert norms.max() <= 4 * 0.1 * 0.01 * (1 + 1e-5)
    _, free = runner(toy.train_config(local_steps=4))
    update, _ = free(params, toy.domain().data, jnp.arange(24), toy.hyper(None), jax.random.key(1))
    assert np.linalg.norm(toy.flat(update), axis=1).max() > 4 * 0.1 * 0.01


def test_steps_beyond_the_clients_own_leave_the_optimiser_alone():
    """Adam's momentum would go on moving; its first step is at most the learning rate, whatever the gradient."""
    model, run = runner(toy.train_config(local="epochs", batch_size=3), "adam")
    update, _ = run(
        model.init(jax.random.key(0)), toy.domain().data, jnp.arange(24), toy.hyper(None), jax.random.key(1)
    )
    most, count = np.abs(toy.flat(update)).max(1), np.asarray(toy.domain().data.count)
    one_step, two_steps = (count > 0) & (count <= 3), count > 3
    assert one_step.any() and two_steps.any()
    assert most[one_step].max() <= 0.1 * (1 + 1e-4)
    assert most[two_steps].max() > 0.15
