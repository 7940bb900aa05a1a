"""A stage whose keys are a secret: no checkpoint holds one, the last no noise, and without it nothing goes on."""

from __future__ import annotations

import os
import shutil
from typing import Any

import jax
import numpy as np
import pytest
import toy

from fedjax_health import rng
from fedjax_health.chacha import key_of
from fedjax_health.federated.federation import State
from fedjax_health.train import stage
from fedjax_health.train.checkpoint import Checkpoints, has_ended
from fedjax_health.train.metrics import Writer
from fedjax_health.types import UserError

pytestmark = pytest.mark.quick_compile

STAGE = "toy/linear"
WORDS = np.random.default_rng(0).integers(0, 2**32, 8, np.uint32)
GONE = key_of(np.zeros((2, 8), np.uint32))


class Crash(Exception):
    """Stands for a kill."""


def crashing(after):
    class Crashing(Writer):
        chunks = 0

        def write_rounds(self, *args, **kwargs):
            super().write_rounds(*args, **kwargs)
            self.chunks += 1
            if self.chunks > after:
                raise Crash

    return Crashing


def files(path):
    return (path / "metrics.jsonl").read_bytes()


def secret_keys(words=WORDS):
    return rng.numbered_keys(key_of(words), 2)


def train(path, keys=None, *, bands=0, writer: Any = Writer, **changes):
    config = toy.train_config(**changes)
    parts = toy.make_parts(toy.linear(), config, bands=bands)
    keys = secret_keys() if keys is None else keys
    with writer(str(path)) as out:
        return stage.train_stage(
            STAGE, parts, config, keys, toy.hyper(2), toy.make_data(parts, 2),
            np.full(config.rounds + 1, np.nan), np.inf, str(path), out, True,
        )  # fmt: skip


def folder(path):
    return path / "checkpoints" / "toy_linear"


def steps(path):
    return sorted(int(name) for name in os.listdir(folder(path)) if name.isdigit())


def found(path, needle):
    """Files below a folder that hold a run of bytes."""
    every = [p for p in path.rglob("*") if p.is_file()]
    assert every
    return [p for p in every if needle in p.read_bytes()]


def restored(path, bands=0) -> State:
    config = toy.train_config()
    init = stage.make_train(toy.make_parts(toy.linear(), config, bands=bands), config).init
    with Checkpoints(str(folder(path)), withhold=True) as checkpoints:
        return checkpoints.restore(jax.eval_shape(init, secret_keys()))


def assert_same(a, b):
    for x, y in zip(
        jax.tree.leaves((a.params, a.average, a.server)), jax.tree.leaves((b.params, b.average, b.server)), strict=True
    ):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("bands", [0, 2])
def test_interrupted_equals_uninterrupted_and_another_secret_does_not(tmp_path, monkeypatch, bands):
    monkeypatch.setattr(stage, "SAVE_SECONDS", 0.0)
    changes = {"bands": bands}
    whole = train(tmp_path / "whole", **changes)
    with pytest.raises(Crash):
        train(tmp_path / "parts", writer=crashing(1), **changes)
    assert not has_ended(str(folder(tmp_path / "parts"))) and steps(tmp_path / "parts") == [0, 2]
    resumed = train(tmp_path / "parts", **changes)
    assert_same(whole.state, resumed.state)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    other = train(tmp_path / "other", secret_keys(WORDS[::-1].copy()), **changes)
    assert not np.array_equal(toy.flat(whole.state.params), toy.flat(other.state.params))


def test_no_checkpoint_ever_holds_a_key(tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "SAVE_SECONDS", 0.0)
    looked = []

    class Looking(Writer):
        def write_rounds(self, *args, **kwargs):
            super().write_rounds(*args, **kwargs)
            assert not np.asarray(jax.random.key_data(restored(tmp_path).key)).any()
            for row in np.asarray(jax.random.key_data(secret_keys())):
                assert found(tmp_path, row.tobytes()) == []
            looked.append(steps(tmp_path))

    train(tmp_path, writer=Looking)
    assert looked == [[0], [0, 2], [2, 4]]


def test_of_a_finished_stage_one_checkpoint_without_noise_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "SAVE_SECONDS", 0.0)
    result = train(tmp_path, bands=2)
    assert np.asarray(result.state.noise).any()  # so there was some
    assert steps(tmp_path) == [6] and has_ended(str(folder(tmp_path)))
    left = restored(tmp_path, bands=2)
    assert not np.asarray(left.noise).any() and left.noise.shape == result.state.noise.shape
    assert_same(left, result.state)


@pytest.mark.parametrize("bands", [0, 2])
def test_a_finished_stage_is_shown_again_without_its_secret(tmp_path, bands):
    first = train(tmp_path, bands=bands)
    before = files(tmp_path)
    again = train(tmp_path, GONE, bands=bands)
    assert_same(first.state, again.state)
    assert (again.rounds, again.reason) == (first.rounds, first.reason) == (6, "round limit")
    assert files(tmp_path) == before and again.compile_seconds == first.compile_seconds


def test_it_does_not_go_on_even_when_its_history_is_gone(tmp_path):
    changes = {"convergence_window": 1, "convergence_tolerance": 1e9}
    first = train(tmp_path, **changes)
    assert (first.rounds, first.reason) == (2, "converged")
    (tmp_path / "metrics.jsonl").unlink()
    for keys in (secret_keys(), GONE):
        again = train(tmp_path, keys, **changes)
        assert (again.rounds, again.reason) == (2, "converged")
        assert_same(first.state, again.state)


def test_an_end_cut_short_is_done_again_and_not_passed(tmp_path, monkeypatch):
    """Killed after the end was written down, before the last state was: it lacks the noise that more rounds would need."""
    monkeypatch.setattr(stage, "SAVE_SECONDS", 0.0)
    whole = train(tmp_path / "whole", bands=2)

    save, end = Checkpoints.save, folder(tmp_path / "cut") / "end.json"

    def killed(self, rounds, state):
        if end.exists():
            raise Crash
        save(self, rounds, state)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", killed)
        with pytest.raises(Crash):
            train(tmp_path / "cut", bands=2)
    assert not has_ended(str(folder(tmp_path / "cut"))) and steps(tmp_path / "cut") == [4]
    with pytest.raises(UserError, match="the secret that its training drew from is gone"):
        train(tmp_path / "cut", GONE, bands=2)
    assert_same(train(tmp_path / "cut", bands=2).state, whole.state)
    assert has_ended(str(folder(tmp_path / "cut"))) and steps(tmp_path / "cut") == [6]


def test_without_secret_and_final_checkpoint_nothing_is_trained(tmp_path):
    for path in (tmp_path / "new", tmp_path / "done"):
        if path.name == "done":
            train(path)
            shutil.rmtree(folder(path) / "6")
        with pytest.raises(UserError, match=r"holds no final checkpoint, and the secret .* start in a new workdir"):
            train(path, GONE)


def test_a_damaged_final_checkpoint_has_none_before_it(tmp_path):
    train(tmp_path)
    for d, _, names in os.walk(folder(tmp_path) / "6"):
        for name in names:
            os.truncate(os.path.join(d, name), 0)
    with pytest.raises(UserError, match=r"cannot be read.*start in a new workdir"):
        train(tmp_path, GONE)
