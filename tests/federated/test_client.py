"""Local training: which records a client visits, and what its steps add up to."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import toy

from fedjax_health.federated.algorithms import Start, make_fedavg, make_local_rule
from fedjax_health.federated.client import make_plan, make_run_client
from fedjax_health.threefry import root_key


def batches_of(plan, count, seed=0):
    """The batches that a client with `count` records really visits, i32[own steps, B]."""
    index = np.asarray(plan.index(jnp.int32(count), root_key(seed)))
    return index, index[: int(plan.own(jnp.int32(count)))]


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7, 10])
def test_epochs_visit_each_own_record_once_an_epoch(count):
    plan = make_plan(toy.train_config(local="epochs", local_epochs=2, batch_size=4), 10, 0)
    index, own = batches_of(plan, count)
    assert index.shape == (6, 4) and plan.ragged
    assert len(own) == 2 * -(-count // 4)
    for epoch in own.reshape(2, -1):
        assert sorted(epoch[epoch < count]) == list(range(count))
        assert np.all(epoch[:count] < count)  # full batches first, the partial one last
    if count == 10:
        assert not np.array_equal(own[:3], own[3:])  # a fresh order each epoch


@pytest.mark.parametrize("most", [5, 600])  # by ranks, and by a sort
def test_epoch_order_is_uniform(most):
    plan = make_plan(toy.train_config(local="epochs", batch_size=1), most, 0)
    index = jax.vmap(plan.index, (None, 0))(jnp.int32(4), jax.random.split(root_key(1), 4000))
    for place in range(4):
        tally = np.bincount(np.asarray(index)[:, place, 0], minlength=5)
        assert tally[4] == 0
        assert scipy.stats.chisquare(tally[:4]).pvalue > 1e-3
    assert np.all(np.asarray(index)[:, 4:, 0] == most)
    pairs = np.asarray(index)[:, 0, 0] * 4 + np.asarray(index)[:, 1, 0]
    assert (
        scipy.stats.chisquare(np.bincount(pairs, minlength=16)[[i for i in range(16) if i // 4 != i % 4]]).pvalue > 1e-3
    )


def test_steps_draw_uniformly_with_replacement_within_the_client():
    plan = make_plan(toy.train_config(local="steps", local_steps=50, batch_size=40), 10, 0)
    assert not plan.ragged
    index, own = batches_of(plan, 7)
    assert index.shape == own.shape == (50, 40)
    tally = np.bincount(index.reshape(-1), minlength=10)
    assert np.all(tally[7:] == 0)
    assert scipy.stats.chisquare(tally[:7]).pvalue > 1e-3
    assert np.all(batches_of(plan, 1)[0] == 0)
    assert np.all(batches_of(plan, 0)[0] == 0)  # an empty slot of a client without records


def softmax_step(w, b, x, y, rate):
    """One step of full-batch softmax regression in NumPy."""
    logits = x @ w + b
    p = np.exp(logits - logits.max(1, keepdims=True))
    error = (p / p.sum(1, keepdims=True) - np.eye(2)[y]) / len(y)
    return w - rate * x.T @ error, b - rate * error.sum(0)


def runner(config, optimizer="sgd", step_clip=0.0):
    model, population = toy.linear(), toy.domain().population
    algorithm = make_fedavg(model, make_local_rule(optimizer, step_clip))
    run = make_run_client(population, algorithm, make_plan(config, population.max_count, population.min_count))

    def of(params, data, client, hyper, key):
        message, _, metrics = run(Start(params, (), ()), data, client, hyper, key)
        return message, metrics

    return model, jax.jit(jax.vmap(of, (None, None, 0, None, None)))


@pytest.mark.parametrize("epochs", [1, 3])
def test_local_descent_equals_numpy(epochs):
    config = toy.train_config(local="epochs", local_epochs=epochs, batch_size=toy.H)
    model, run = runner(config)
    params, data = model.init(root_key(0)), toy.domain().data
    update, metrics = run(params, data, jnp.arange(24), toy.hyper(None), root_key(1))
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
    update, metrics = run(model.init(root_key(0)), toy.domain().data, jnp.arange(24), toy.hyper(None), root_key(1))
    norms = np.linalg.norm(toy.flat(update), axis=1)
    empty = np.asarray(toy.domain().data.count) == 0
    assert empty.any()
    assert np.all(norms[empty] == 0)
    assert np.all(norms[~empty] > 0)
    assert np.all(np.asarray(metrics["sim/loss"])[empty] == 0)


def test_step_clip_bounds_each_step():
    model, run = runner(toy.train_config(local_steps=4), step_clip=0.01)
    params = model.init(root_key(0))
    update, _ = run(params, toy.domain().data, jnp.arange(24), toy.hyper(None), root_key(1))
    norms = np.linalg.norm(toy.flat(update), axis=1)
    assert norms.max() <= 4 * 0.1 * 0.01 * (1 + 1e-5)
    _, free = runner(toy.train_config(local_steps=4))
    update, _ = free(params, toy.domain().data, jnp.arange(24), toy.hyper(None), root_key(1))
    assert np.linalg.norm(toy.flat(update), axis=1).max() > 4 * 0.1 * 0.01


def test_steps_beyond_the_clients_own_leave_the_optimiser_alone():
    """Adam's momentum would go on moving; its first step is at most the learning rate, whatever the gradient."""
    model, run = runner(toy.train_config(local="epochs", batch_size=3), "adam")
    update, _ = run(model.init(root_key(0)), toy.domain().data, jnp.arange(24), toy.hyper(None), root_key(1))
    most, count = np.abs(toy.flat(update)).max(1), np.asarray(toy.domain().data.count)
    one_step, two_steps = (count > 0) & (count <= 3), count > 3
    assert one_step.any() and two_steps.any()
    assert most[one_step].max() <= 0.1 * (1 + 1e-4)
    assert most[two_steps].max() > 0.15
