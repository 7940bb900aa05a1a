"""When a split GAN's server updates its generator: every round, or when the discriminator has had its rounds."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo

from fedjax_health import build, checks
from fedjax_health.config import GanConfig, MedganConfig
from fedjax_health.data.encode import Layout
from fedjax_health.models import ladder
from fedjax_health.types import Batch

pytestmark = pytest.mark.quick_compile

LAYOUT = Layout(numeric=2, bits=1, blocks=(2,), missing=(-1, -1))
climb = jax.jit(ladder.climb)


def walk(accuracies):
    """(whether the generator was updated, rung after the round) of every round."""
    state, due, rungs = ladder.start(), [], []
    for accuracy in accuracies:
        state, now = climb(state, jnp.float32(accuracy))
        due.append(bool(now))
        rungs.append(int(state.rung))
    return np.array(due), np.array(rungs)


def test_a_blind_discriminator_gets_more_rounds_after_the_grace_period():
    due, rungs = walk([0.5] * 600)
    # ten updates on each rung, at 1, 2, 5, 10, 20 rounds each; on the last for good
    ends = np.cumsum([10 * rung for rung in ladder.RUNGS[:-1]])
    assert [int(np.argmax(rungs == k)) + 1 for k in range(1, 6)] == ends.tolist() and rungs[-1] == 5
    start = 0
    for end, rung in zip(ends, ladder.RUNGS, strict=False):
        np.testing.assert_array_equal(np.flatnonzero(due[start:end]) + 1, rung * np.arange(1, 11))
        start = end
    np.testing.assert_array_equal(np.flatnonzero(due[start:]) + 1, [50, 100, 150, 200])


@pytest.mark.parametrize(("accuracy", "rung"), [(0.6, 1), (0.601, 0), (0.95, 0)])
def test_the_line_is_at_six_tenths_and_a_good_discriminator_stays(accuracy, rung):
    due, rungs = walk([accuracy] * 11)
    assert rungs[-1] == rung and due[:10].all() and (rungs[:9] == 0).all()


def test_the_average_forgets_and_is_of_this_rung_alone():
    # a plain mean of 30 good and 20 blind updates is still .74: the average must have forgotten by then
    due, rungs = walk([0.9] * 30 + [0.5] * 20)
    first = int(np.argmax(rungs > 0))
    expected = 0.9 * 0.9 ** np.arange(1, 21) + 0.5 * (1 - 0.9 ** np.arange(1, 21))
    assert rungs.any() and due[:first].all() and first == 30 + int(np.argmax(expected <= 0.6))
    _, rungs = walk([0.5] * 10 + [0.9] * 60)
    assert rungs[9:].tolist() == [1] * 61  # what it was on the lower rung does not push it on


def section(name: str, discriminator_steps: str) -> GanConfig:
    make = MedganConfig if name == "medgan" else GanConfig
    return make((6,), "auto", 2, "split", 10.0, 2, 64, 0.02, zoo.TRAIN, discriminator_steps)


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize("name", checks.GANS)
def test_the_generator_waits_for_the_rungs_rounds(name):
    model = build.MODELS[name](LAYOUT, 2, section(name, "adaptive"))
    refine = jax.jit(model.refine)
    params = jax.jit(model.init)(jax.random.key(0))
    third = params.server["ladder"]._replace(rung=jnp.int32(2))
    params = params._replace(server={**params.server, "ladder": third})
    moved, told = [], []
    for t in range(11):
        after, metrics = refine(params, zoo.HYPER, jax.random.fold_in(jax.random.key(1), t))
        assert same(after.client, params.client)
        assert same(after.server["generator"], params.server["generator"]) == same(
            after.server["optimizer"], params.server["optimizer"]
        )
        moved.append(not same(after.server["generator"], params.server["generator"]))
        told.append(metrics)
        params = after
    assert np.flatnonzero(moved).tolist() == [4, 9]
    assert all(float(m["public/discriminator_steps"]) == 5.0 for m in told)
    assert all(0.0 <= float(m["public/fake_accuracy"]) <= 1.0 for m in told)
    assert all(bool(jnp.isfinite(m["public/generator_loss"])) for m in told)


@pytest.mark.parametrize("name", checks.GANS)
def test_accuracy_is_the_share_of_fakes_below_zero(name):
    model = build.MODELS[name](LAYOUT, 2, section(name, "adaptive"))
    params, refine = jax.jit(model.init)(jax.random.key(0)), jax.jit(model.refine)
    last = params.client["critic"]["params"]["Dense_1"]
    for offset, share in ((50.0, 0.0), (-50.0, 1.0)):
        layer = {**last, "bias": last["bias"].at[0].set(offset)}
        critic = {"params": {**params.client["critic"]["params"], "Dense_1": layer}}
        sure = params._replace(client={**params.client, "critic": critic})
        assert float(refine(sure, zoo.HYPER, jax.random.key(2))[1]["public/fake_accuracy"]) == share


def batch(seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    x = np.concatenate(
        [rng.standard_normal((8, 2)) + 1.0, rng.integers(0, 2, (8, 1)), np.eye(2)[rng.integers(0, 2, 8)]], 1
    )
    mask = np.array([True] * 6 + [False] * 2)
    return Batch(jnp.asarray(x, jnp.float32), jnp.asarray(rng.integers(0, 2, 8), jnp.int32), jnp.asarray(mask))


@pytest.mark.parametrize("name", checks.GANS)
def test_without_the_ladder_nothing_of_it_is_there_and_clients_do_the_same(name):
    models = [build.MODELS[name](LAYOUT, 2, section(name, steps)) for steps in ("fixed", "adaptive")]
    fixed, adaptive = (jax.jit(model.init)(jax.random.key(0)) for model in models)
    assert set(fixed.server) == {"generator", "optimizer"} and set(adaptive.server) == set(fixed.server) | {"ladder"}
    assert same(fixed.client, adaptive.client)
    metrics = jax.jit(models[0].refine)(fixed, zoo.HYPER, jax.random.key(1))[1]
    assert set(metrics) == {"public/generator_loss"}
    updates = [
        jax.jit(model.field)(params, batch(0), zoo.HYPER, jax.random.key(2))[0]
        for model, params in zip(models, (fixed, adaptive), strict=True)
    ]
    offsets = [update["critic"]["params"]["Dense_1"].pop("bias")[0] for update in updates]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *updates)
    if name == "wgan_gp":  # a Wasserstein loss leaves the offset open, which the ladder's threshold needs
        assert offsets[0] == 0.0 != offsets[1]
    else:
        assert offsets[0] == offsets[1] != 0.0


def test_a_wasserstein_critics_zero_goes_between_real_and_fake_and_its_gap_stays():
    model = build.MODELS["wgan_gp"](LAYOUT, 2, section("wgan_gp", "adaptive"))
    params, field = jax.jit(model.init)(jax.random.key(0)), jax.jit(model.field)
    update, metrics = field(params, batch(0), zoo.HYPER, jax.random.key(2))
    layers = params.client["critic"]["params"]
    last, slope = layers["Dense_1"], update["critic"]["params"]["Dense_1"]["bias"]
    critic = {"params": {**layers, "Dense_1": {**last, "bias": last["bias"] - slope}}}
    again, after = field(params._replace(client={"critic": critic}), batch(0), zoo.HYPER, jax.random.key(2))
    # the middle itself is the offset's direction: a step of size 1 leaves nothing to do
    assert abs(float(slope[0])) > 1e-3 > 1e-5 > abs(float(again["critic"]["params"]["Dense_1"]["bias"][0]))
    np.testing.assert_allclose(after["sim/critic_gap"], metrics["sim/critic_gap"], rtol=1e-4)


def test_seeds_side_by_side_climb_on_their_own():
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[ladder.start()] * 2)
    both = jax.jit(jax.vmap(ladder.climb))
    for _ in range(15):
        states, due = both(states, jnp.array([0.5, 0.9], jnp.float32))
    assert states.rung.tolist() == [1, 0] and due.tolist() == [False, True]
