"""Runs of a sweep are those that `launch.main` would make, whatever else is in the program; files are never made twice."""

from __future__ import annotations

import json
import math
import os

import jax
import numpy as np
import pandas as pd
import pytest

from fedjax_health import experiment, prepare
from fedjax_health.federated import sharding
from fedjax_health.federated.federation import Data
from fedjax_health.randomness import BY_SEED
from fedjax_health.sweep import run_piece as running
from fedjax_health.sweep.engines.local import run_local
from fedjax_health.sweep.pieces import Piece, config_of, is_done, make_pieces, result_path
from fedjax_health.sweep.results import read_results, settings_of, write_hparams, write_sweep
from fedjax_health.sweep.training import Ran, runs_of, train_points
from fedjax_health.sweep.world import Point, make_points
from fedjax_health.train.loop import make_train
from fedjax_health.train.metrics import Writer
from fedjax_health.types import UserError

pytestmark = pytest.mark.quick_compile
FILE = "configs/iot.py:smoke"
TINY = (
    ("data.domains", ("vitals",)),
    ("models", ("vae",)),
    ("data.num_clients", 60),
    ("data.test_fraction", 0.4),
    ("data.validation_fraction", 0.4),
    ("vae.hidden", (8,)),
    ("vae.latent", 2),
    ("vae.train.cohort", 10),
    ("vae.train.batch_size", 8),
    ("classifier.train.rounds", 4),
    ("classifier.train.rounds_per_chunk", 2),
    ("classifier.train.cohort", 10),
    ("classifier.train.batch_size", 8),
    ("vae.train.rounds", 6),
    ("vae.train.rounds_per_chunk", 2),
    ("privacy.epsilon", 1000.0),
    ("seeds", 2),
)


def point(**changes: object) -> tuple[tuple[str, object], ...]:
    given = {key.replace("__", "."): value for key, value in changes.items()}
    return tuple(item for item in TINY if item[0] not in given) + tuple(given.items())


POINTS = (
    point(privacy__noise_multiplier=0.5),
    point(
        privacy__noise_multiplier=2.0,
        vae__train__client_learning_rate=0.2,
        vae__train__l2_clip_norm=0.1,
        vae__train__rounds=4,
        data__audit_fraction=0.4,
    ),
    point(privacy__noise_multiplier=0.5, privacy__trial=1),
)


def largest_difference(a: object, b: object) -> float:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.max(np.abs(np.asarray(x, np.float64) - np.asarray(y, np.float64)))) for x, y in pairs)


@pytest.fixture(scope="module")
def threaded() -> tuple[list[Point], list[Ran]]:
    """Three points x two seeds, one piece, by one program."""
    (piece,) = make_pieces(FILE, POINTS)
    made = make_points([config_of(FILE, settings) for settings in piece.points])
    return made, train_points(made)


def test_every_run_is_that_of_launch_main(threaded, tmp_path):
    """Against `experiment.train` over the clients of all four devices."""
    made, ran = threaded
    assert [r.traces for r in ran] == [1] * 3 and not any(r.failed for r in ran)
    averages = [r.trained["vitals/vae"].state.average for r in ran]
    config, path, trained = made[1].config, str(tmp_path), ran[1].trained["vitals/vae"]
    (p,), plan = prepare.load(config)
    with Writer(path) as writer:
        alone = experiment.train(config, plan, plan.releases[0], p, {}, path, writer, BY_SEED)
        losses = writer.history("vitals/vae", "sim/loss", 2)
    assert trained.rounds == alone.rounds == 4 and ran[0].done == {"vitals/vae": 6}
    assert largest_difference(averages[1], jax.device_get(alone.state.average)) <= 1e-6
    np.testing.assert_allclose(ran[1].metrics["vitals/vae"]["sim/loss"], losses, rtol=1e-5)
    assert largest_difference(averages[0], averages[2]) > 1e-3  # another trial draws other noise
    assert largest_difference(averages[0], averages[1]) > 1e-3


def trained_alone(made: Point, seed: int) -> object:
    """What a run publishes that is trained by itself on one device."""
    config, p = made.config, made.of("vitals")
    parts = prepare.with_federations(p.domain, p.include, config, sharding.make_mesh(1)).parts["vae"]
    train, own = make_train(parts, config.vae.train), runs_of([made], "vitals", "vae", [seed])
    state = train.init(own.key)
    for _ in range(config.vae.train.rounds // config.vae.train.rounds_per_chunk):
        state, _ = train.run_chunk(state, own.hyper, Data(p.data, own.include))
    return jax.device_get(jax.tree.map(lambda leaf: leaf[0], state.average))


def test_one_program_for_all_runs_is_to_the_last_bit_that_of_each_alone(threaded):
    """Threads give the very numbers of one device; side by side in one call they differ in last digits, as sums are ordered."""
    made, threads = threaded
    mapped = train_points(made, "vmap")
    assert [r.traces for r in threads] == [r.traces for r in mapped] == [1, 1, 1]
    assert [r.done["vitals/vae"] for r in threads] == [r.done["vitals/vae"] for r in mapped] == [6, 4, 6]
    for i, s in ((0, 1), (1, 0)):
        by_itself = trained_alone(made[i], s)
        one, other = (
            jax.tree.map(lambda leaf, s=s: leaf[s], ran[i].trained["vitals/vae"].state.average)
            for ran in (threads, mapped)
        )
        assert largest_difference(one, by_itself) == 0.0
        assert largest_difference(other, by_itself) <= 1e-6
    assert largest_difference(trained_alone(made[0], 0), trained_alone(made[0], 1)) > 1e-3


@pytest.mark.long
def test_representations_of_the_data_are_each_runs_own(tmp_path):
    """With distribution functions under noise every run reads records of its own; blocks of points change nothing."""
    several = [
        point(data__representation="scores", privacy__noise_multiplier=0.5, privacy__epsilon=e) for e in (20.0, 900.0)
    ]
    configs = [config_of(FILE, settings) for settings in several]
    ran = train_points(make_points(configs))
    for config, mine in zip(configs, ran, strict=True):
        alone = train_points(make_points([config]))[0]
        assert (
            largest_difference(mine.trained["vitals/vae"].state.average, alone.trained["vitals/vae"].state.average)
            <= 1e-6
        )
    both = [r.trained["vitals/vae"].state.average for r in ran]
    assert largest_difference(*both) > 1e-4  # the noise of the questions differs, that of the training does not


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> tuple[Piece, str]:
    folder = str(tmp_path_factory.mktemp("sweep"))
    good, bad = (
        point(privacy__noise_multiplier=0.5),
        point(privacy__noise_multiplier=0.5, vae__train__server_learning_rate=1e38),
    )
    (piece,) = make_pieces(FILE, [good, bad], judged="score")
    run_local([piece], folder)
    return piece, folder


def test_a_piece_is_done_once_and_its_file_is_whole(scored, monkeypatch):
    piece, folder = scored
    assert is_done(piece, folder) and os.listdir(os.path.join(folder, "pieces")) == [piece.name + ".parquet"]
    before = os.stat(result_path(piece, folder)).st_mtime_ns
    monkeypatch.setattr(running, "make_points", None)  # would fail if it were called
    assert running.run_piece(piece, folder) == result_path(piece, folder)
    assert os.stat(result_path(piece, folder)).st_mtime_ns == before


def test_results_name_what_failed_and_hold_a_row_a_run(scored, tmp_path):
    piece, folder = scored
    results = read_results([piece], folder)
    good, bad = results.points
    assert not good["failed"] and "server_learning_rate" in json.dumps(bad["settings"])
    assert "vitals/vae" in bad["failed"] and "public/parameter_norm" in bad["failed"]
    assert bad["ledger"]["epsilon_total"] == good["ledger"]["epsilon_total"]  # it has touched its clients all the same
    value, low, high, n = results.figure(good["point"], "-", "-", "validation", "score")
    assert 0 < value < 1 and low <= value <= high and n == 2
    assert math.isnan(results.figure(bad["point"], "-", "-", "validation", "score")[0])
    seeds = results.lines[(results.lines["metric"] == "score") & (results.lines["seed"] >= 0)]["value"]
    assert seeds.mean() == pytest.approx(value) and seeds.nunique() == 2
    write_sweep(results, ["first", "second"], str(tmp_path / "sweep.parquet"))
    table = pd.read_parquet(tmp_path / "sweep.parquet")
    assert len(table) == 4 and sorted(table["command"]) == ["first", "first", "second", "second"]
    assert table.loc[table["command"] == "second", "failed"].str.contains("stage").all()
    assert table["-/-/validation/score"].notna().sum() == 2
    assert {key for row in settings_of(results) for key in row} >= {"privacy.noise_multiplier", "vae.hidden"}
    write_hparams(results, str(tmp_path))
    runs = sorted(os.listdir(tmp_path / "hparams"))
    assert runs == sorted(
        f"{p['point']}_none_{s}" for p in results.points for s in (0, 1)
    )  # scores alone: no generator's rows


def test_a_damaged_result_is_named(scored, tmp_path):
    piece, _ = scored
    os.makedirs(tmp_path / "pieces")
    (tmp_path / "pieces" / f"{piece.name}.parquet").write_text("no table")
    with pytest.raises(UserError, match=f"{piece.name}.parquet is not the result"):
        read_results([piece], str(tmp_path))
