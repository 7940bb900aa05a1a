"""A stage from a file system: resumed = uninterrupted, and each reason to stop."""

from __future__ import annotations

import os
from typing import Any

import jax
import numpy as np
import pytest
import toy

from fedjax_health.config import PrivacyConfig
from fedjax_health.privacy.plan import Release, make_plan
from fedjax_health.train import stage
from fedjax_health.train.checkpoint import Checkpoints
from fedjax_health.train.metrics import Writer
from fedjax_health.types import UserError

STAGE = "toy/linear"


def train(path, *, seeds=2, devices=1, writer: Any = Writer, epsilon=None, budget=np.inf, hyper=None, **changes):
    config = toy.train_config(**changes)
    parts = toy.make_parts(toy.linear(), config, devices=devices)
    table = np.full(config.rounds + 1, np.nan) if epsilon is None else epsilon(parts.sampler, config)
    with writer(str(path)) as out:
        return stage.train_stage(
            STAGE, parts, config, stage.federation_keys(0, seeds), toy.hyper(seeds, **(hyper or {})),
            toy.make_data(parts, seeds), table, budget, str(path), out,
        )  # fmt: skip


class Crash(Exception):
    """Stands for a kill between the metrics and the checkpoint."""


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
    with open(os.path.join(path, "metrics.jsonl"), "rb") as file:
        return file.read()


@pytest.mark.parametrize(("after", "devices"), [(0, 1), (1, 1), (2, 1), (1, 4)])
def test_interrupted_equals_uninterrupted_bit_for_bit(tmp_path, monkeypatch, after, devices):
    monkeypatch.setattr(stage, "SAVE_SECONDS", 0.0)
    whole = train(tmp_path / "whole", devices=devices, server_optimizer="adam")
    with pytest.raises(Crash):
        train(tmp_path / "parts", devices=devices, server_optimizer="adam", writer=crashing(after))
    resumed = train(tmp_path / "parts", devices=devices, server_optimizer="adam")
    assert (resumed.rounds, resumed.reason) == (whole.rounds, whole.reason) == (6, "round limit")
    for a, b in zip(jax.tree.leaves(whole.state), jax.tree.leaves(resumed.state), strict=True):
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    assert files(tmp_path / "whole").count(b"\n") == 12  # six rounds, two seeds
    assert len(resumed.chunk_seconds) == 3


def test_a_finished_stage_is_not_trained_again(tmp_path):
    first = train(tmp_path)
    before = files(tmp_path)
    again = train(tmp_path)
    np.testing.assert_array_equal(toy.flat(first.state.params), toy.flat(again.state.params))
    assert files(tmp_path) == before
    assert again.rounds == 6 and again.compile_seconds == first.compile_seconds > 0


def budgeted(noise, target):
    def table(sampler, config):
        release = Release(STAGE, "toy", sampler, config.rounds, config.l2_clip_norm)
        table.plan = make_plan(PrivacyConfig("central_gaussian", target, 0.01, noise, 20.0), 24, [release])
        return table.plan.epsilon_table(release, {})

    return table


def test_too_little_noise_stops_at_the_budget(tmp_path):
    table = budgeted(noise=0.7, target=4.0)
    result = train(tmp_path, epsilon=table, budget=4.0)
    assert result.reason == "privacy budget" and 0 < result.rounds < 6
    assert table.plan.ledger({STAGE: result.rounds})["epsilon_total"] <= 4.0
    assert table.plan.ledger({STAGE: result.rounds + 2})["epsilon_total"] > 4.0  # one chunk more would pass it
    assert int(result.state.round[0]) == result.rounds
    assert files(tmp_path).count(b"privacy/epsilon") == 2 * result.rounds


def test_a_budget_that_the_first_round_passes_trains_nothing(tmp_path):
    result = train(tmp_path, epsilon=budgeted(noise=0.5, target=1.0), budget=1.0)
    assert (result.rounds, result.reason) == (0, "privacy budget")


def test_convergence_stops_and_stays_stopped(tmp_path):
    changes = {"convergence_window": 1, "convergence_tolerance": 1e9}
    first = train(tmp_path, **changes)
    assert (first.rounds, first.reason) == (2, "converged")
    again = train(tmp_path, **changes)
    assert (again.rounds, again.reason) == (2, "converged")


def test_a_diverging_run_names_the_round_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "SAVE_SECONDS", 0.0)
    with pytest.raises(Crash):
        train(tmp_path, writer=crashing(1))
    before = files(tmp_path)
    absurd = {"client_learning_rate": 1e38, "server_learning_rate": 1e38, "l2_clip_norm": 1e38, "noise_multiplier": 0.0}
    with pytest.raises(UserError, match=rf"stage '{STAGE}' round [34]: .*last good checkpoint is kept"):
        train(tmp_path, hyper=absurd)
    with Checkpoints(str(tmp_path / "checkpoints" / "toy_linear")) as checkpoints:
        assert checkpoints.latest() == 2
    assert train(tmp_path).rounds == 6  # with sane numbers it goes on
    assert files(tmp_path).startswith(before[: before.index(b'"round": 3')].rsplit(b"\n", 1)[0])


def test_keys_of_the_federations_differ_and_the_first_does_not_depend_on_how_many():
    one, three = (np.asarray(jax.random.key_data(stage.federation_keys(5, n))) for n in (1, 3))
    np.testing.assert_array_equal(one[0], three[0])
    assert len(np.unique(three, axis=0)) == 3
    assert not np.array_equal(one, np.asarray(jax.random.key_data(stage.federation_keys(6, 1))))
