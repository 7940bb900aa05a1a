"""The compiled chunk: traced once, the same for N federations as for each alone; and the host loop's stop rules."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from jax.extend.core import ClosedJaxpr, Jaxpr

from fedjax_health.models.gan import make_gan
from fedjax_health.train.loop import has_converged, make_hyper, make_train, run_rounds
from fedjax_health.types import UserError


@functools.cache
def setting():
    config = toy.train_config()
    parts = toy.make_parts(toy.linear(), config)
    return config, parts, make_train(parts, config)


def run(train, keys, hyper, data, chunks=2):
    state, seen = train.init(keys), []
    for _ in range(chunks):
        state, metrics = train.run_chunk(state, hyper, data)
        seen.append(jax.device_get(metrics))
    return jax.device_get(state), {k: np.concatenate([m[k] for m in seen], 1) for k in seen[0]}


@pytest.mark.parametrize("devices", [1, 4])
def test_traced_once_whatever_the_numbers_and_the_data(devices):
    config = toy.train_config()
    parts = toy.make_parts(toy.linear(), config, devices=devices)
    train, data = make_train(parts, config), toy.make_data(parts, 2)
    first, metrics = run(train, toy.keys(0, 1), toy.hyper(2), data)
    assert metrics["sim/loss"].shape == (2, 4) and list(first.round) == [4, 4]
    hyper = toy.hyper(2, client_learning_rate=0.7, l2_clip_norm=0.1, noise_multiplier=3.0, server_learning_rate=0.3)
    second, _ = run(train, toy.keys(2, 3), hyper, data._replace(include=data.include.at[0, :5].set(False)))
    assert train.traces() == 1
    assert not np.allclose(toy.flat(first.params), toy.flat(second.params))


def test_federations_side_by_side_equal_separate_runs():
    _, parts, train = setting()
    include = np.random.default_rng(0).random((3, 24)) < 0.8
    rates = jnp.array([0.05, 0.1, 0.4], jnp.float32)
    hyper, data = toy.hyper(3) | {"client_learning_rate": rates}, toy.make_data(parts, include=include)
    together, m = run(train, toy.keys(4, 5, 6), hyper, data)
    for i in range(3):
        pick = slice(i, i + 1)
        own = jax.tree.map(lambda leaf, pick=pick: leaf[pick], hyper)
        alone, n = run(train, toy.keys(4 + i), own, data._replace(include=data.include[pick]))
        np.testing.assert_allclose(toy.flat(together.params)[pick], toy.flat(alone.params), rtol=1e-5, atol=1e-5)
        for name in m:
            np.testing.assert_allclose(m[name][pick], n[name], rtol=1e-5, atol=1e-5, err_msg=name)
    assert len({tuple(row) for row in toy.flat(together.params)}) == 3


def test_chunks_of_another_length_give_the_same():
    _, parts, train = setting()
    longer = make_train(parts, toy.train_config(rounds_per_chunk=4))
    short, m = run(train, toy.keys(0), toy.hyper(), toy.make_data(parts), 2)
    long, n = run(longer, toy.keys(0), toy.hyper(), toy.make_data(parts), 1)
    np.testing.assert_array_equal(toy.flat(short.params), toy.flat(long.params))
    root = jax.random.key_data(toy.keys(0))  # keys are addressed: the state carries the root and nothing derived
    np.testing.assert_array_equal(jax.random.key_data(short.key), root)
    for name in m:
        np.testing.assert_allclose(m[name], n[name], rtol=1e-6, err_msg=name)


def constants(closed):
    """Sizes of every array closed over anywhere in a program."""
    jaxpr = closed
    if isinstance(closed, ClosedJaxpr):
        yield from (np.size(c) for c in closed.consts)
        jaxpr = closed.jaxpr
    for equation in jaxpr.eqns:
        yield from (np.size(v.val) for v in equation.invars if hasattr(v, "val"))
        leaves = jax.tree.leaves(equation.params, is_leaf=lambda x: isinstance(x, ClosedJaxpr | Jaxpr))
        for inner in leaves:
            if isinstance(inner, ClosedJaxpr | Jaxpr):
                yield from constants(inner)


def test_no_data_is_baked_into_the_program():
    _, parts, train = setting()
    state = train.init(toy.keys(0))
    assert max(constants(jax.make_jaxpr(train.run_chunk)(state, toy.hyper(), toy.make_data(parts)))) <= 64
    table = np.ones((40, 50), np.float32)
    baked = jax.make_jaxpr(jax.jit(lambda x: jax.lax.scan(lambda c, _: (c + table, None), x, None, 2)))(
        jnp.ones((40, 50))
    )
    assert max(constants(baked)) == 2000


def test_the_state_is_donated_and_the_callers_keys_are_not():
    _, parts, train = setting()
    keys = toy.keys(0)
    state = train.init(keys)
    train.run_chunk(state, toy.hyper(), toy.make_data(parts))
    assert jax.tree.leaves(state.params.client)[0].is_deleted()
    assert np.asarray(jax.random.key_data(keys)).shape == (1, 2)


def test_two_seeds_differ_in_every_stream():
    """Switches one source of randomness on at a time; equal data, so only that stream can make a difference."""
    quiet = toy.hyper(2, noise_multiplier=0.0, l2_clip_norm=1e9)

    def moved(model, hyper, **changes):
        parts = toy.make_parts(model, toy.train_config(rounds_per_chunk=1, **changes))
        train = make_train(parts, toy.train_config(rounds_per_chunk=1, **changes))
        state = train.init(toy.keys(0, 1))
        same = jax.tree.map(lambda leaf: jnp.stack([leaf[0], leaf[0]]), state.params)
        after, metrics = train.run_chunk(state._replace(params=same), hyper, toy.make_data(parts, 2))
        return after, jax.device_get(metrics)

    def differ(tree):
        a = toy.flat(tree)
        return not np.allclose(a[0], a[1], rtol=1e-4, atol=1e-6)

    _, _, train = setting()
    assert differ(train.init(toy.keys(0, 1)).params)  # INIT
    fixed = {"cohort": 24, "local": "epochs", "batch_size": toy.H}
    assert not differ(moved(toy.linear(), quiet, **fixed)[0].params)  # nothing is random here
    assert differ(moved(toy.linear(), toy.hyper(2), **fixed)[0].params)  # NOISE
    assert differ(moved(toy.linear(), quiet, **(fixed | {"cohort": 8}))[0].params)  # COHORT
    assert differ(moved(toy.linear(), quiet, cohort=24)[0].params)  # CLIENT
    gan = make_gan(toy.encoder().layout, 2, toy.gan_config())
    split, _ = moved(gan, quiet | {"client_learning_rate": jnp.zeros(2)}, **fixed)
    assert not differ(split.params.client)
    assert differ(split.params.server["generator"])  # REFINE


def test_convergence_rule():
    norms = np.array([[4.0, 4.0, 1.0, 1.0, 1.0, 1.005]])
    assert has_converged(norms, 2, 0.01)
    assert not has_converged(norms, 2, 0.001)
    assert not has_converged(norms[:, :4], 2, 0.01)
    assert not has_converged(norms[:, :3], 2, 10.0)  # two whole windows are needed
    assert not has_converged(norms, 0, 10.0)
    assert not has_converged(
        np.concatenate([norms, [[4.0, 4.0, 1.0, 1.0, 1.0, 2.0]]]), 2, 0.01
    )  # every seed must agree
    assert not has_converged(np.zeros((1, 0)), 2, 0.01)


def loop(limit, hyper=None, config=None, norms=None):
    base, parts, train = setting()
    calls: list = []
    outcome = run_rounds(
        train, config or base, train.init(toy.keys(0)), hyper or toy.hyper(), toy.make_data(parts), stage="toy/linear",
        round_limit=limit, limit_reason="round limit", norms=np.zeros((1, 0)) if norms is None else norms,
        on_chunk=lambda state, first, metrics, seconds: calls.append((first, metrics["sim/loss"].shape)),
    )  # fmt: skip
    return outcome, calls


def test_whole_chunks_up_to_the_limit():
    outcome, calls = loop(5)
    assert (outcome.rounds, outcome.reason) == (4, "round limit")
    assert calls == [(0, (1, 2)), (2, (1, 2))]
    outcome, calls = loop(1)
    assert outcome.rounds == 0 and calls == []


def test_only_the_published_federation_decides_when_to_stop():
    strict = toy.train_config(convergence_window=2, convergence_tolerance=0.01)
    outcome, _ = loop(6, config=strict, norms=np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 9.0, 9.0]]))
    assert (outcome.rounds, outcome.reason) == (0, "converged")


def test_convergence_stops_the_loop_and_counts_the_history():
    eager = toy.train_config(convergence_window=2, convergence_tolerance=1e9)
    outcome, _ = loop(6, config=eager)
    assert (outcome.rounds, outcome.reason) == (4, "converged")
    outcome, calls = loop(6, config=eager, norms=np.ones((1, 4)))
    assert (outcome.rounds, outcome.reason, calls) == (0, "converged", [])


@pytest.mark.parametrize("clip", [0.5, 1e38])
def test_a_loss_that_is_not_finite_names_stage_and_round(clip):
    hyper = toy.hyper(client_learning_rate=1e38, server_learning_rate=1e38, l2_clip_norm=clip, noise_multiplier=0.0)
    with pytest.raises(
        UserError, match=r"stage 'toy/linear' round \d: .* is (nan|inf) \(seed 0\).*checkpoint is kept"
    ) as error:
        loop(6, hyper)
    assert "Lower client_learning_rate" in str(error.value)


def test_hyper_is_one_float_a_federation():
    hyper = make_hyper({"a": 1, "b": 0.5}, 3)
    assert all(v.shape == (3,) and v.dtype == jnp.float32 and not v.weak_type for v in hyper.values())
    assert float(hyper["b"][2]) == 0.5
