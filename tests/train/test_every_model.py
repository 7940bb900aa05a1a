"""Every generative model through the whole federated stack: private rounds of two seeds on two devices."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
import toy

from fedjax_health import build, checks
from fedjax_health.train.loop import make_train

pytestmark = pytest.mark.quick_compile

CASES = (*checks.MODELS, "gan-adaptive", "medgan-joint")


def run(case: str, mechanism: str):
    """(parts, state before, state after two rounds, metrics)."""
    name, _, variant = case.partition("-")
    local = "epochs" if mechanism == "record_gaussian" else "steps"
    section = toy.model_config(name, "joint" if variant == "joint" else "split", local=local, server_learning_rate=0.1)
    if variant == "adaptive":
        section = dataclasses.replace(section, discriminator_steps="adaptive")
    model = build.MODELS[name](toy.encoder().layout, 2, section)
    parts = toy.make_parts(model, section.train, mechanism=mechanism, devices=2)
    train = make_train(parts, section.train)
    start = train.init(toy.keys(0, 1))
    before = jax.tree.map(np.asarray, start.params), jax.tree.map(np.asarray, start.average)
    hyper = toy.hyper(2, reconstruction_weight=0.5)
    state, metrics = train.run_chunk(start, hyper, toy.make_data(parts, 2))
    return before, state, jax.device_get(metrics)


def leaves(tree) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize(
    ("case", "mechanism"),
    # record by record where that is another path: two losses, and one with norms from a single pass
    [*((case, "central_gaussian") for case in CASES), ("medgan", "record_gaussian"), ("diffusion", "record_gaussian")],
)
def test_private_rounds_move_what_clients_train_and_what_is_released(case, mechanism):
    (params, average), state, metrics = run(case, mechanism)
    for before, after in zip(leaves(params.client), leaves(state.params.client), strict=True):
        assert (before != after).any() and np.isfinite(after).all()
    moved = [(a != b).any() for a, b in zip(leaves(average), leaves(state.average), strict=True)]
    assert all(moved)
    assert all(np.isfinite(value).all() for value in metrics.values())
    assert metrics["sim/loss"].shape == (2, 2) and (metrics["sim/loss"][0] != metrics["sim/loss"][1]).all()
    if case == "gan-adaptive":
        assert (metrics["public/discriminator_steps"] == 1.0).all()
        assert np.asarray(state.params.server["ladder"].updates).tolist() == [2, 2]
