"""metrics.jsonl is the same whether or not a run was interrupted, and TensorBoard shows each step once."""

from __future__ import annotations

import glob
import io
import json
import logging
import os

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from fedjax_health.train.metrics import Progress, Writer
from fedjax_health.types import UserError


def chunk(first, rounds, seeds=2):
    t = np.arange(first, first + rounds, dtype=np.float32)[None, :] + np.zeros((seeds, 1), np.float32)
    return {"sim/loss": t + np.arange(seeds, dtype=np.float32)[:, None], "privacy/epsilon": 0.1 * t}


def content(workdir):
    with open(os.path.join(workdir, "metrics.jsonl"), "rb") as file:
        return file.read()


def board(*path):
    events = EventAccumulator(os.path.join(*map(str, path)), size_guidance={"scalars": 0})
    events.Reload()
    return events


def test_lines_have_the_stated_order_and_null_for_nan(tmp_path):
    with Writer(str(tmp_path)) as writer:
        writer.write_rounds("vitals/vae", 3, {"b": np.array([[1.5, np.nan]]), "a": np.array([[np.inf, 2]])}, 0.1)
    assert content(tmp_path).decode() == (
        '{"stage": "vitals/vae", "round": 3, "seed": 0, "a": null, "b": 1.5}\n'
        '{"stage": "vitals/vae", "round": 4, "seed": 0, "a": 2.0, "b": null}\n'
    )


def test_resumed_equals_uninterrupted(tmp_path):
    whole, broken = str(tmp_path / "whole"), str(tmp_path / "broken")
    with Writer(whole) as writer:
        writer.write_rounds("done", 0, chunk(0, 2), 1.0)
        for first in (0, 3, 6):
            writer.write_rounds("vitals/vae", first, chunk(first, 3), 1.0)
    with Writer(broken) as writer:
        writer.write_rounds("done", 0, chunk(0, 2), 9.0)
        writer.write_rounds("vitals/vae", 0, chunk(0, 3), 7.0)
        writer.write_rounds("vitals/vae", 3, {k: v + 100 for k, v in chunk(3, 3).items()}, 5.0)
    with open(f"{broken}/metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"stage": "vitals/vae", "rou')  # the crash
    with Writer(broken) as writer:
        writer.truncate("vitals/vae", 3)
        for first in (3, 6):
            writer.write_rounds("vitals/vae", first, chunk(first, 3), 2.0)
    assert content(broken) == content(whole)
    assert glob.glob(f"{broken}/*.tmp") == []
    scalars = board(broken, "tensorboard", "vitals", "vae").Scalars("sim/loss")
    assert [(e.step, e.value) for e in scalars] == [(t, t + 0.5) for t in range(9)]
    assert len(board(broken, "tensorboard", "done").Scalars("sim/loss")) == 2  # other stages keep their steps


def test_tensorboard_has_mean_and_seeds_and_time(tmp_path):
    values = np.array([[1.0, 2.0], [3.0, np.nan]])
    with Writer(str(tmp_path)) as writer:
        writer.write_rounds("s", 0, {"sim/loss": values}, 4.0)
    mean = board(tmp_path, "tensorboard", "s")
    assert [(e.step, e.value) for e in mean.Scalars("sim/loss")] == [(0, 2.0), (1, 2.0)]
    assert [(e.step, e.value) for e in mean.Scalars("time/seconds_per_round")] == [(1, 2.0)]
    assert [e.value for e in board(tmp_path, "tensorboard", "s", "seed_1").Scalars("sim/loss")] == [3.0]
    assert b"seconds" not in content(tmp_path)


def test_chunk_is_on_disk_before_the_writer_closes(tmp_path):
    with Writer(str(tmp_path)) as writer:
        writer.write_rounds("s", 0, chunk(0, 2), 1.0)
        assert content(tmp_path).count(b"\n") == 4


def test_history_reads_back_one_stage(tmp_path):
    with Writer(str(tmp_path)) as writer:
        assert writer.history("s", "a", 2).shape == (2, 0)
        writer.write_rounds("other", 0, {"a": np.full((2, 1), 9.0)}, 1.0)
        writer.write_rounds("s", 0, {"a": np.array([[1.0, np.nan], [3.0, 4.0]])}, 1.0)
        np.testing.assert_array_equal(writer.history("s", "a", 2), [[1.0, np.nan], [3.0, 4.0]])


def test_truncate_names_a_foreign_line(tmp_path):
    with open(tmp_path / "metrics.jsonl", "w", encoding="utf-8") as file:
        file.write('hello\n{"stage": "s", "round": 0, "seed": 0}\n')
    with Writer(str(tmp_path)) as writer, pytest.raises(UserError, match=r"line 1 is not a metrics line: 'hello'"):
        writer.truncate("s", 0)
    assert content(tmp_path).startswith(b"hello\n")


@pytest.mark.parametrize(
    "metrics", [{}, {"a": np.zeros(3)}, {"a": np.zeros((1, 2)), "b": np.zeros((2, 1))}, {"seed": np.zeros((1, 1))}]
)
def test_ill_formed_metrics_are_refused(tmp_path, metrics):
    with Writer(str(tmp_path)) as writer, pytest.raises(ValueError, match="metrics of 's'"):
        writer.write_rounds("s", 0, metrics, 1.0)


def test_hparams_images_and_histograms_share_the_top_run(tmp_path):
    figure = Figure(figsize=(0.3, 0.2))
    figure.savefig(tmp_path / "f.png", dpi=100)
    with Writer(str(tmp_path)) as writer:
        writer.hparams({"rounds": 3, "sizes": (8, 8), "dp": True}, {"auroc": 0.9, "gone": float("nan")})
        writer.histograms(
            "vitals/heart_rate", np.array([60.0, np.nan]), {"vae": np.array([61.0, 62.0]), "none": np.array([])}
        )
        writer.image("vitals/roc", str(tmp_path / "f.png"))
    assert [d for d in os.listdir(tmp_path / "tensorboard") if os.path.isdir(tmp_path / "tensorboard" / d)] == []
    top = board(tmp_path, "tensorboard")
    assert set(top.Tags()["histograms"]) == {"vitals/heart_rate/real", "vitals/heart_rate/vae"}
    assert top.Tags()["scalars"] == ["auroc"]
    image = top.Images("vitals/roc")[0]
    assert (image.width, image.height) == (30, 20)
    assert "_hparams_/session_start_info" in top.PluginTagToContent("hparams")


def test_tensorboard_names_are_clean_and_found_again(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with Writer(str(tmp_path)) as writer:
        writer.write_rounds("s", 0, {"sim/a+b (%)": np.ones((1, 1))}, 1.0)
        writer.histograms("vitals/x y", np.ones(3), {})
        writer.hparams({"epsilon": float("inf")}, {"vitals/vae/real+synthetic/auroc": 0.9})
    assert "illegal" not in caplog.text
    assert '"sim/a+b (%)": 1.0' in content(tmp_path).decode()  # the file keeps the name
    assert "sim/a_plus_b____" in board(tmp_path, "tensorboard", "s").Tags()["scalars"]
    top = board(tmp_path, "tensorboard")
    assert top.Tags()["histograms"] == ["vitals/x_y/real"]
    assert top.Tags()["scalars"] == ["vitals/vae/real_plus_synthetic/auroc"]
    declared = HParamsPluginData.FromString(top.PluginTagToContent("hparams")["_hparams_/experiment"])
    assert [m.name.tag for m in declared.experiment.metric_infos] == top.Tags()["scalars"]
    session = HParamsPluginData.FromString(top.PluginTagToContent("hparams")["_hparams_/session_start_info"])
    assert session.session_start_info.hparams["epsilon"].string_value == "inf"


def test_writing_after_close_keeps_what_was_written_since_a_resume(tmp_path):
    with Writer(str(tmp_path)) as writer:
        writer.truncate("s", 0)
        writer.write_rounds("s", 0, chunk(0, 2), 1.0)
        writer.close()
        writer.write_rounds("s", 2, chunk(2, 2), 1.0)
    assert [e.step for e in board(tmp_path, "tensorboard", "s").Scalars("sim/loss")] == [0, 1, 2, 3]


def test_progress_is_a_bar_on_a_terminal_only():
    screen = io.StringIO()
    with Progress("vitals/vae", 10, console=Console(file=screen, force_terminal=True, width=120)) as progress:
        progress.update(10, loss=1.25, epsilon=2.5)
    assert "vitals/vae" in screen.getvalue()
    assert "10/10" in screen.getvalue()
    assert "loss 1.25" in screen.getvalue()
    assert "ε 2.5" in screen.getvalue()


def test_progress_without_a_terminal_logs_first_and_last(caplog):
    caplog.set_level(logging.INFO, "fedjax_health")
    silent = io.StringIO()
    with Progress("vitals/vae", 100, start=50, console=Console(file=silent, force_terminal=False)) as progress:
        for done in range(51, 101):
            progress.update(done, loss=1.0)
    assert silent.getvalue() == ""
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert "round 51/100" in lines[0]
    assert "round 100/100" in lines[1]


def test_metrics_lines_parse(tmp_path):
    with Writer(str(tmp_path)) as writer:
        writer.write_rounds("s", 0, chunk(0, 2), 1.0)
    parsed = [json.loads(line) for line in content(tmp_path).decode().splitlines()]
    assert [(p["round"], p["seed"], p["sim/loss"]) for p in parsed] == [
        (0, 0, 0.0),
        (0, 1, 1.0),
        (1, 0, 1.0),
        (1, 1, 2.0),
    ]
