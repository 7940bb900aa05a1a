"""Checkpoints: the whole state comes back bit for bit, and damage is one clear sentence."""

from __future__ import annotations

import functools
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from fedjax_health.train.checkpoint import Checkpoints
from fedjax_health.train.loop import make_train
from fedjax_health.types import UserError


@functools.cache
def trained(server_optimizer="adam"):
    config = toy.train_config(server_optimizer=server_optimizer, rounds_per_chunk=1)
    parts = toy.make_parts(toy.linear(), config)
    train = make_train(parts, config)
    state, _ = train.run_chunk(train.init(toy.keys(0, 1)), toy.hyper(2), toy.make_data(parts, 2))
    return train, state


def bits(tree):
    def plain(leaf):
        return np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)

    return [plain(leaf) for leaf in jax.tree.leaves(tree)]


def saved(folder, *rounds):
    train, state = trained()
    with Checkpoints(folder) as checkpoints:
        for r in rounds:
            checkpoints.save(r, state._replace(round=state.round * 0 + r))
    return jax.eval_shape(train.init, toy.keys(0, 1)), state


def test_round_trip_is_bit_exact_with_typed_keys(tmp_path):
    abstract, state = saved(tmp_path, 1)
    with Checkpoints(str(tmp_path)) as checkpoints:
        assert checkpoints.latest() == 1
        back = checkpoints.restore(abstract)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    assert [x.dtype for x in jax.tree.leaves(back)] == [x.dtype for x in jax.tree.leaves(state)]
    for a, b in zip(bits(back), bits(state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_newest_two_are_kept(tmp_path):
    abstract, _ = saved(tmp_path, 2, 4, 6)
    assert sorted(name for name in os.listdir(tmp_path) if name.isdigit()) == ["4", "6"]
    with Checkpoints(str(tmp_path)) as checkpoints:
        assert list(checkpoints.restore(abstract).round) == [6, 6]


def test_an_empty_folder_has_no_latest(tmp_path):
    with Checkpoints(str(tmp_path / "new")) as checkpoints:
        assert checkpoints.latest() is None


def truncate(folder):
    files = [os.path.join(d, f) for d, _, names in os.walk(folder) for f in names]
    for path in files:
        os.truncate(path, os.path.getsize(path) // 2)


def test_a_truncated_checkpoint_is_one_sentence_and_the_one_before_still_works(tmp_path):
    abstract, _ = saved(tmp_path, 2, 4)
    truncate(tmp_path / "4")
    with Checkpoints(str(tmp_path)) as checkpoints, pytest.raises(UserError, match="cannot be read") as error:
        checkpoints.restore(abstract)
    assert repr(str(tmp_path / "4")) in str(error.value) and "delete that folder" in str(error.value)
    assert "\n" not in str(error.value)
    shutil.rmtree(tmp_path / "4")  # the remedy it names
    with Checkpoints(str(tmp_path)) as checkpoints:
        assert list(checkpoints.restore(abstract).round) == [2, 2]


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    saved(tmp_path, 2)
    other = jax.eval_shape(trained("sgd")[0].init, toy.keys(0, 1))
    with Checkpoints(str(tmp_path)) as checkpoints, pytest.raises(UserError, match="of another model"):
        checkpoints.restore(other)
