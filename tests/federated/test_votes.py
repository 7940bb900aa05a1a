"""Clients dealt to teachers, and rounds in which teachers vote: who trains whom, chunks, devices, seeds, resuming."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import dp_accounting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import toy

from fedjax_health import build, rng
from fedjax_health.data.encode import Layout
from fedjax_health.federated.federation import Parts, State
from fedjax_health.federated.teachers import make_dealt
from fedjax_health.models.base import ballot_of
from fedjax_health.train.checkpoint import Checkpoints
from fedjax_health.train.loop import Train, make_train
from fedjax_health.types import Batch

pytestmark = pytest.mark.quick_compile
SIZE, TEACHERS, EACH = 23, 4, 2


@functools.cache
def cohorts(draws: int = 400) -> np.ndarray:
    """i[draws, TEACHERS, EACH]: who is asked, -1 = nobody."""
    sampler = make_dealt(SIZE, TEACHERS, EACH)
    draw = jax.jit(jax.vmap(lambda key: sampler.sample(lambda client: client > 99, key, jnp.int32(0))[0]))
    cohort = jax.device_get(draw(toy.keys(*range(draws))))
    return np.where(cohort.mask, cohort.client, -1).reshape(draws, TEACHERS, EACH)


def test_every_client_has_one_teacher_and_teachers_differ_by_one_client():
    own = [set(cohorts()[:, j].ravel()) - {-1} for j in range(TEACHERS)]
    assert sorted(len(clients) for clients in own) == [5, 6, 6, 6]
    assert set.union(*own) == set(range(SIZE)) and sum(map(len, own)) == SIZE


def test_a_round_asks_different_clients_all_equally_often():
    drawn = cohorts()
    real = drawn[:, :, 0] != drawn[:, :, 1]
    assert (real | (drawn[:, :, 0] == -1)).all() and (drawn.max(2) >= 0).all()
    counts = np.bincount(drawn[drawn >= 0], minlength=SIZE)  # 2 of 6 places each, also in the teacher of five
    expected = len(drawn) * EACH / 6
    assert scipy.stats.chi2.sf(np.square(counts - expected).sum() / (expected * 2 / 3), SIZE) > 1e-4
    assert (drawn[1:] != drawn[:-1]).any((1, 2)).mean() > 0.9


def test_the_event_is_one_gaussian_whatever_is_sampled():
    sampler = make_dealt(SIZE, TEACHERS, EACH)
    assert sampler.account(1.5) == dp_accounting.GaussianDpEvent(1.5)
    assert (sampler.slots, sampler.expected, sampler.events(7)) == (TEACHERS * EACH, TEACHERS * EACH, 7)


def built(devices: int = 1, **changes: Any) -> tuple[Parts, Train]:
    section: Any = toy.model_config("pategan", **changes)
    parts = toy.make_parts(build.MODELS["pategan"](toy.encoder().layout, 2, section), section.train, devices=devices)
    return parts, make_train(parts, section.train)


def run(
    parts: Parts, train: Train, seeds: tuple[int, ...] = (0,), chunks: int = 2, include: Any = None
) -> tuple[State, Any]:
    state, metrics = train.init(toy.keys(*seeds)), None
    data = toy.make_data(parts, len(seeds), include)
    for _ in range(chunks):
        state, metrics = train.run_chunk(state, toy.hyper(len(seeds)), data)
    return state, metrics


def close(a: Any, b: Any) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x, np.float64), np.asarray(y, np.float64), rtol=2e-4, atol=2e-5)


def test_results_depend_on_neither_chunks_nor_devices_and_two_calls_are_one_program():
    parts, train = built()
    state, _ = run(parts, train)
    assert train.traces() == 1
    others = [built(clients_per_chunk=1), built(devices=3, clients_per_chunk=2)]
    for p, t in others:
        other, _ = run(p, t)
        assert t.traces() == 1
        close((state.params, state.scheme), (other.params, other.scheme))


def test_seeds_side_by_side_are_the_seeds_alone():
    parts, train = built()
    both, _ = run(parts, train, (0, 1))
    assert (toy.flat(both.params)[0] != toy.flat(both.params)[1]).any()
    for i in range(2):
        alone, _ = run(parts, train, (i,))
        close(jax.tree.map(lambda leaf, i=i: leaf[i], (both.params, both.scheme)),
              jax.tree.map(lambda leaf: leaf[0], (alone.params, alone.scheme)))  # fmt: skip


def test_a_checkpoint_between_chunks_changes_nothing(tmp_path):
    parts, train = built()
    whole, _ = run(parts, train, chunks=3)
    first, _ = run(parts, train, chunks=1)
    with Checkpoints(str(tmp_path)) as checkpoints:
        checkpoints.save(2, first)
    with Checkpoints(str(tmp_path)) as checkpoints:
        state = checkpoints.restore(jax.eval_shape(train.init, toy.keys(0)))
    data = toy.make_data(parts)
    for _ in range(2):
        state, _ = train.run_chunk(state, toy.hyper(), data)
    np.testing.assert_array_equal(toy.flat(state.params), toy.flat(whole.params))
    np.testing.assert_array_equal(toy.flat(state.scheme), toy.flat(whole.scheme))


def test_a_teacher_whose_clients_are_gone_stays_as_it_was_and_the_others_learn():
    parts, train = built()
    start = toy.flat(jax.tree.map(lambda leaf: leaf[0], train.init(toy.keys(0)).scheme))
    sampler = parts.sampler
    keys = jax.vmap(lambda t: rng.stream_key(toy.keys(0)[0], t, rng.Stream.COHORT))(jnp.arange(1, 200))
    asked = jax.vmap(lambda key: sampler.sample(lambda client: client >= 0, key, jnp.int32(0))[0])(keys)
    own = np.unique(np.asarray(asked.client).reshape(-1, 4, 2)[:, 1])
    include = np.ones((1, 24), bool)
    include[0, own] = False
    state, metrics = run(parts, train, chunks=1, include=include)
    moved = (toy.flat(jax.tree.map(lambda leaf: leaf[0], state.scheme)) != start).any(1)
    assert len(own) == 6 and moved.tolist() == [True, False, True, True]
    assert (np.asarray(metrics["sim/cohort"]) <= 6).all()


def test_a_rounds_teacher_step_is_the_mean_of_its_clients_updates():
    """One round by hand: a local step of plain SGD for each client, at the teacher's own parameters."""
    parts, _ = built(local_steps=1, rounds_per_chunk=1)
    train = make_train(parts, toy.train_config(rounds_per_chunk=1))
    start = train.init(toy.keys(3))
    first = jax.tree.map(lambda leaf: jnp.copy(leaf[0]), start.params)
    state, metrics = train.run_chunk(start, toy.hyper(l2_clip_norm=1e9), toy.make_data(parts))
    stream = lambda name: rng.stream_key(toy.keys(3)[0], 1, name)  # noqa: E731
    cohort, _ = parts.sampler.sample(lambda client: client >= 0, stream(rng.Stream.COHORT), jnp.int32(0))
    store, hyper = toy.domain().data, toy.hyper(None, l2_clip_norm=1e9)
    for j in range(4):
        steps = []
        for client in np.asarray(cohort.client).reshape(4, 2)[j]:
            key = jax.random.fold_in(rng.client_key(stream(rng.Stream.CLIENT), jnp.int32(client)), 0)
            key_index, key_steps = jax.random.split(key)
            count = int(store.count[client])
            u = jax.random.uniform(key_index, (1, 3))
            index = jnp.clip((u * count).astype(jnp.int32), 0, max(count - 1, 0))[0]
            batch = parts.population.batch(store, jnp.int32(client), index)
            update, _ = parts.model.field(first, batch, hyper, jax.random.fold_in(key_steps, 0))
            steps.append(jax.tree.map(lambda u, count=count: (0.1 if count else 0.0) * u, update))
        mean = jax.tree.map(lambda a, b: 0.5 * (a + b), *steps)
        wanted = jax.tree.map(jnp.subtract, first.client, mean)
        close(jax.tree.map(lambda leaf, j=j: leaf[0, j], state.scheme), wanted)
    assert np.asarray(metrics["sim/cohort"]).item() == 8


LAYOUT = Layout(numeric=2, bits=0, blocks=(), missing=(-1, -1))


def test_a_vote_is_one_bit_by_either_threshold():
    x, label = jax.random.normal(jax.random.key(0), (6, 2)), jnp.array([0, 1, 0, 1, 1, 0], jnp.int32)
    found = {}
    for threshold in ("mean", "zero"):
        section: Any = toy.model_config("pategan")
        model = build.MODELS["pategan"](LAYOUT, 2, dataclasses.replace(section, threshold=threshold))
        params, ballot = model.init(jax.random.key(1)), ballot_of(model)
        assert ballot is not None
        found[threshold] = np.asarray(ballot.vote(params.client, x, label))
        told = np.asarray(model.score(params, x, label, jax.random.key(2)))
    mean = np.array([told[np.asarray(label) == y].mean() for y in (0, 1)])[np.asarray(label)]
    np.testing.assert_array_equal(found["zero"], told > 0)
    np.testing.assert_array_equal(found["mean"], told > mean)
    assert found["mean"].dtype == bool and (found["mean"] != found["zero"]).any()


def test_without_noise_the_generator_learns_an_easy_toy():
    """Five teachers with rows of their own around (2, -1) or (-2, 1) by label; clean votes, as a server would count them."""
    config: Any = toy.model_config("pategan")
    config = dataclasses.replace(config, hidden=(16,), latent=3, votes=64, generator_batch=64, teachers=5)
    model = build.MODELS["pategan"](LAYOUT, 2, config)
    ballot = ballot_of(model)
    assert ballot is not None
    hyper = toy.hyper(None, generator_learning_rate=3e-3)
    start = model.init(jax.random.key(0))

    def rows(key: jax.Array) -> Batch:
        key_y, key_x = jax.random.split(key)
        y = jax.random.bernoulli(key_y, 0.4, (32,)).astype(jnp.int32)
        centre = jnp.where(y[:, None] == 1, jnp.array([[-2.0, 1.0]]), jnp.array([[2.0, -1.0]]))
        return Batch(centre + 0.4 * jax.random.normal(key_x, (32, 2)), y, jnp.ones((32,), bool))

    def one(carry: Any, key: jax.Array) -> tuple[Any, None]:
        params, teachers, average = carry
        key_t, key_v, key_r = jax.random.split(key, 3)

        def taught(teacher: Any, own: jax.Array) -> Any:
            update, _ = model.field(params._replace(client=teacher), rows(own), hyper, own)
            return jax.tree.map(lambda w, d: w - 0.05 * d, teacher, update)

        teachers = jax.vmap(taught)(teachers, jax.random.split(key_t, 5))
        x, label = ballot.draw(params, hyper, key_v)
        votes = jnp.sum(jax.vmap(ballot.vote, (0, None, None))(teachers, x, label).astype(jnp.int32), 0)
        update, _ = ballot.study(params, x, label, votes > 2)
        params = params._replace(client=jax.tree.map(lambda w, d: w - 0.3 * d, params.client, update))
        params, _ = model.refine(params, hyper, key_r)
        average = jax.tree.map(lambda a, p: 0.98 * a + 0.02 * p, average, model.release(params))
        return (params, teachers, average), None

    teachers = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (5, *leaf.shape)), start.client)
    carry = start, teachers, model.release(start)
    (_, _, after), _ = jax.jit(lambda c: jax.lax.scan(one, c, jax.random.split(jax.random.key(1), 800)))(carry)

    def error(released: Any) -> float:
        label = jnp.repeat(jnp.arange(2, dtype=jnp.int32), 500)
        x = np.asarray(jax.jit(model.sample)(released, label, jax.random.key(2)))
        centres = np.array([[2.0, -1.0], [-2.0, 1.0]])
        return float(np.mean([np.linalg.norm(x[500 * y : 500 * (y + 1)].mean(0) - centres[y]) for y in (0, 1)]))

    begin, end = error(model.release(start)), error(after)
    assert end < 0.5 * begin, (begin, end)
