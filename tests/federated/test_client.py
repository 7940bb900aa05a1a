"""Local training: which records a client visits, and what its steps add up to."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
import toy

from fedjax_health.data.population import Store, stored_population
from fedjax_health.federated.algorithms import Start, make_fedavg, make_local_rule
from fedjax_health.federated.client import MOST_RANKED, make_plan, make_run_client, shuffle
from fedjax_health.threefry import root_key

pytestmark = pytest.mark.quick_compile


def batches_of(plan, count, key=None):
    """All batches of the program, i32[S, B], and those that a client with `count` records really visits."""
    index = np.asarray(plan.index(jnp.int32(count), root_key(0) if key is None else key))
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


def frequencies(orders, count):
    """p-values of: each permutation of the own records is as likely (up to 5), each record in each place (more)."""
    own = orders[:, :count]
    if count <= 5:
        code = own @ (count ** np.arange(count))
        _, tally = np.unique(code, return_counts=True)
        expected = len(own) / math.factorial(count)
        seen = np.concatenate([tally, np.zeros(math.factorial(count) - len(tally), int)])
        return [scipy.stats.chisquare(seen, np.full(len(seen), expected)).pvalue]
    return [scipy.stats.chisquare(np.bincount(own[:, place], minlength=count)).pvalue for place in range(0, count, 7)]


RANKED, SORTED = MOST_RANKED, MOST_RANKED + 1


@pytest.mark.parametrize(("most", "count"), [(5, 4), (5, 5), (RANKED, 40), (SORTED, 40)])
def test_shuffle_is_a_uniform_permutation_of_the_own_records(most, count):
    draw = jax.jit(jax.vmap(lambda key: shuffle(jnp.int32(count), most, key)))
    orders = np.concatenate([np.asarray(draw(jax.random.split(root_key(s), 1000))) for s in range(6)])
    assert orders.shape == (6000, most) and orders.dtype == np.int32
    assert np.all(np.sort(orders[:, :count], 1) == np.arange(count))
    assert np.all(orders[:, count:] == most)
    assert min(frequencies(orders, count)) > 1e-4


def test_a_biased_shuffle_is_rejected():
    """A cyclic shift puts each record in each place equally often, a swap with any place (naive Fisher-Yates) nearly."""
    rng = np.random.default_rng(0)
    shifted = (np.arange(5) + rng.integers(0, 5, (6000, 1))) % 5
    naive = np.tile(np.arange(5), (6000, 1))
    for i in range(5):
        j, rows = rng.integers(0, 5, 6000), np.arange(6000)
        naive[rows, i], naive[rows, j] = naive[rows, j], naive[rows, i]
    for biased in (shifted, naive):
        assert np.all(np.sort(biased, 1) == np.arange(5))
        assert min(frequencies(biased, 5)) < 1e-6


@pytest.mark.parametrize("most", [7, SORTED])
def test_shuffle_of_no_records_and_of_all(most):
    none = shuffle(jnp.int32(0), most, root_key(0))
    assert np.all(np.asarray(none) == most)
    every = np.asarray(shuffle(jnp.int32(most), most, root_key(0)))
    assert np.array_equal(np.sort(every), np.arange(most)) and not np.array_equal(every, np.arange(most))


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


def in_numpy(params, data, client, batches, rate=0.1):
    """Update and mean loss of one client that visits these batches of record indices, f64."""
    w, b = (np.asarray(params.client["params"]["Dense_0"][k], np.float64) for k in ("kernel", "bias"))
    start, losses, count = (w, b), [], int(data.count[client])
    for batch in batches:
        rows = int(data.offset[client]) + batch[batch < count]
        x, y = np.asarray(data.x, np.float64)[rows], np.asarray(data.y)[rows]
        logits = x @ w + b
        losses.append(np.mean(scipy.special.logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]))
        w, b = softmax_step(w, b, x, y, rate)
    return start[0] - w, start[1] - b, np.mean(losses) if losses else 0.0


def check_against_numpy(config, lazy=True, batches_are=None):
    """Every toy client (ragged: 0 to 6 records) against NumPy over the batches that its plan names for its key."""
    model, population, data = toy.linear(), toy.domain().population._replace(lazy=lazy), toy.domain().data
    plan = make_plan(config, population.max_count, population.min_count)
    run = make_run_client(population, make_fedavg(model, make_local_rule("sgd", 0.0)), plan)
    params = model.init(root_key(0))

    def of(client, key):
        index = plan.index(data.count[client], jax.random.split(key)[0])
        return index, run(Start(params, (), ()), data, client, toy.hyper(None), key)

    keys = jax.random.split(root_key(1), 24)
    index, (message, _, metrics) = jax.device_get(jax.jit(jax.vmap(of))(jnp.arange(24), keys))
    count = np.asarray(data.count)
    steps = np.where(count > 0, plan.own(data.count), 0)
    assert 0 in count and toy.H in count and len(set(count)) > 4
    for k in range(24):
        batches = (index[k] if batches_are is None else batches_are(count[k]))[: steps[k]]
        kernel, bias, loss = in_numpy(params, data, k, batches)
        np.testing.assert_allclose(message["params"]["Dense_0"]["kernel"][k], kernel, atol=2e-6)
        np.testing.assert_allclose(message["params"]["Dense_0"]["bias"][k], bias, atol=2e-6)
        np.testing.assert_allclose(metrics["sim/loss"][k], loss, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("epochs", [1, 3])
def test_whole_passes_equal_numpy_whatever_the_order(epochs):
    config = toy.train_config(local="epochs", local_epochs=epochs, batch_size=toy.H)
    check_against_numpy(config, batches_are=lambda count: np.tile(np.arange(count), (epochs, 1)))


@pytest.mark.parametrize(("batch_size", "epochs"), [(1, 1), (2, 3), (5, 2)])
def test_ragged_clients_equal_numpy(batch_size, epochs):
    """Each client does ceil(n / B) steps a pass, as many passes as asked, each record once a pass: true local epochs."""
    config = toy.train_config(local="epochs", local_epochs=epochs, batch_size=batch_size)
    plan = make_plan(config, toy.H, 0)
    assert plan.ragged
    for count in range(toy.H + 1):
        assert int(plan.own(jnp.int32(count))) == epochs * -(-count // batch_size)
    check_against_numpy(config)


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("local", ["steps", "epochs"])
def test_reading_all_batches_at_once_or_one_by_one(local, lazy):
    check_against_numpy(toy.train_config(local=local, local_steps=3, local_epochs=2, batch_size=2), lazy)


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


@pytest.mark.parametrize("epochs", [1, 2])
def test_clients_of_one_size_need_no_mask_and_get_the_same(epochs):
    """With equal bounds the loop of varying length becomes a plain one; only the program may differ."""
    config = toy.train_config(local="epochs", local_epochs=epochs, batch_size=2)
    records = jax.random.normal(root_key(5), (12, toy.encoder().layout.dim))
    label, first = jnp.arange(12, dtype=jnp.int32) % 2, jnp.arange(3, dtype=jnp.int32) * 4
    store = Store(records, label, first, jnp.full((3,), 4, jnp.int32))
    model, messages = toy.linear(), []
    for least in (0, 4):
        plan = make_plan(config, 4, least)
        assert plan.ragged == (least == 0)
        algorithm = make_fedavg(model, make_local_rule("sgd", 0.0))
        run = make_run_client(stored_population(3, 4, least), algorithm, plan)
        start = Start(model.init(root_key(0)), (), ())
        one = jax.jit(jax.vmap(lambda k, run=run, start=start: run(start, store, k, toy.hyper(None), root_key(2))[::2]))
        messages.append(jax.device_get(one(jnp.arange(3))))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *messages)
    assert np.abs(toy.flat(messages[0][0])).max() > 1e-3
