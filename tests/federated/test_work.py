"""The work of a cohort: the same for any chunks and devices; memory and who leaves a trace."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from fedjax_health.data.population import Store, stored_population
from fedjax_health.federated.federation import Data
from fedjax_health.federated.work import live_first
from fedjax_health.train.loop import make_train

ALL = 1000  # clients a chunk: as many as there are slots on a device


@functools.cache
def trained(case: str, clients_per_chunk: int, devices: int):
    """(slots, clients a chunk, whole final state without keys, metrics) of a training of four rounds."""
    config = toy.train_config(clients_per_chunk=clients_per_chunk, rounds_per_chunk=4, **CASES[case])
    parts = toy.make_parts(toy.linear(), config, private=case == "private", devices=devices)
    train = make_train(parts, config)
    state, metrics = train.run_chunk(train.init(toy.keys(7)), toy.hyper(), toy.make_data(parts))
    host = jax.device_get(state._replace(key=jax.random.key_data(state.key)))
    return parts.sampler.slots, parts.clients_per_chunk, host, jax.device_get(metrics)


CASES = {
    "private": {"local": "steps"},  # random batches: keys must not follow the slots
    "ragged": {"local": "epochs", "batch_size": 2, "local_epochs": 2, "sampler": "fixed"},
    "memory": {
        "algorithm": "scaffold",
        "compression": {"sparsify": "rand_k", "keep_fraction": 0.3, "error_feedback": True},
    },
    "fixed_point": {
        "local": "epochs",
        "batch_size": 2,
        "aggregation": {"rule": "fixed_point"},
        "compression": {"sparsify": "top_k", "keep_fraction": 0.3, "error_feedback": True},
    },
}


LAYOUTS = {  # (clients a chunk, devices), each against (1, 1)
    "private": [(8, 1), (ALL, 1), (5, 2), (1, 4)],
    "ragged": [(8, 1), (ALL, 2), (1, 4)],
    "memory": [(ALL, 1), (8, 2), (1, 4)],
}


@pytest.mark.parametrize(("case", "layout"), [(case, layout) for case in LAYOUTS for layout in LAYOUTS[case]])
def test_results_do_not_depend_on_chunks_or_devices(case, layout):
    slots, chunk, state, metrics = trained(case, *layout)
    assert slots % (chunk * layout[1]) == 0
    assert chunk == layout[0] or (layout[0] == ALL and chunk * layout[1] == slots)
    _, _, wanted, expected = trained(case, 1, 1)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6), state, wanted)
    for name in expected:
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("layout", [(8, 1), (ALL, 1), (1, 2), (8, 4)])
def test_fixed_point_training_is_equal_to_the_last_bit(layout):
    """Several rounds of clients of different sizes that remember: integers do not mind the order."""
    _, _, state, _ = trained("fixed_point", *layout)
    _, _, wanted, _ = trained("fixed_point", 1, 1)
    assert np.abs(toy.flat(wanted.params)).max() > 0.05
    jax.tree.map(np.testing.assert_array_equal, state, wanted)


def test_the_living_are_trained_wherever_they_stand():
    """Clients of one size are not sorted by size: those that take part must be moved to the chunks that run all the same."""
    x = jax.random.normal(toy.keys(5)[0], (48, toy.encoder().layout.dim))
    store = Store(x, jnp.arange(48) % 2, jnp.arange(24) * 2, jnp.full((24,), 2, jnp.int32))
    include = jnp.asarray(np.arange(24) >= 15)[None]  # the last slots
    config = toy.train_config(sampler="full", batch_size=2, rounds_per_chunk=1)
    states = []
    for clients_per_chunk, devices in ((1, 1), (4, 1), (2, 4)):
        settings = dataclasses.replace(config, clients_per_chunk=clients_per_chunk)
        population = stored_population(24, 2, 2)
        parts = toy.make_parts(toy.linear(), settings, private=False, devices=devices, population=population)
        train = make_train(parts, settings)
        state, metrics = train.run_chunk(train.init(toy.keys(7)), toy.hyper(), Data(store, include))
        assert metrics["sim/cohort"].item() == 9.0
        states.append(toy.flat(state.params))
    assert np.abs(states[0] - toy.flat(train.init(toy.keys(7)).params)).max() > 1e-3
    for other in states[1:]:
        np.testing.assert_allclose(other, states[0], atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_living_come_first_in_their_order(share):
    live = np.random.default_rng(0).random(37) < share
    order = jax.jit(live_first)(jnp.asarray(live))
    np.testing.assert_array_equal(order, np.argsort(~live, stable=True))
