"""Successive halving from end to end, the page and the choice; what a sweep's folder and its command refuse."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import re

import pytest

from fedjax_health.sweep import frontier, plot
from fedjax_health.sweep.design import Axis, Select, Sweep
from fedjax_health.sweep.engines.local import run_local
from fedjax_health.sweep.pieces import load_file
from fedjax_health.sweep.run_sweep import first_pieces, open_folder, run_sweep
from fedjax_health.types import UserError
from launch import sweep as command

pytestmark = pytest.mark.quick_compile
SMOKE = "configs/iot.py:smoke"
HALVED = Sweep(
    "halved",
    SMOKE,
    {"data.domains": ("vitals",), "models": ("vae",), "seeds": 2, "data.num_clients": 100, "privacy.epsilon": 50.0,
     "privacy.noise_multiplier": 1.0, "vae.train.batch_size": 8},
    (Axis("vae.train.server_learning_rate", (1e-6, 0.01, 1e38)),),
    select=Select(rounds=(10, 20), keep=0.7, noise_multiplier=0.01),
)  # fmt: skip


@pytest.mark.long
def test_halving_ends_with_one_point_its_price_and_its_page(tmp_path):
    folder = str(tmp_path / "halved")
    page = run_sweep(HALVED, folder, run_local)
    with open(os.path.join(folder, "chosen.json"), encoding="utf-8") as file:
        chosen = json.load(file)
    with open(os.path.join(folder, "privacy_ledger.json"), encoding="utf-8") as file:
        ledger = json.load(file)
    assert ledger["trials"] == 5 and chosen["settings"]["vae.train.rounds"] == 20  # three, then two
    assert chosen["settings"]["vae.train.server_learning_rate"] != 1e38  # which failed
    assert (
        ledger["epsilon_total"]
        == chosen["epsilon_total"]
        == max(ledger["epsilon_training"], ledger["epsilon_validation"])
    )
    alone = [e["epsilon"] for e in ledger["events"] if e["name"].startswith("train")]
    assert ledger["epsilon_training"] > max(alone)
    with open(page, encoding="utf-8") as file:
        text = file.read()
    assert chosen["point"] in text and "The chosen run" in text and "--config.privacy.trial=" in text
    assert run_sweep(HALVED, folder, lambda pieces, where: None) == page  # all pieces are there: nothing is run again


def test_a_folder_holds_one_sweep(tmp_path):
    folder = str(tmp_path / "s")
    open_folder(HALVED, folder)
    open_folder(HALVED, folder)
    with pytest.raises(UserError, match="another sweep"):
        open_folder(dataclasses.replace(HALVED, seed=1), folder)
    with pytest.raises(UserError, match="holds no sweep"):
        open_folder(HALVED, str(tmp_path))


@pytest.mark.parametrize("name", ["frontier", "communication", "heterogeneity", "devices"])
def test_the_shipped_sweeps_are_dealt_into_pieces(name: str, tmp_path):
    for variant in ("", ":smoke") if name == "frontier" else ("", ":small", ":smoke"):
        sweep, folder = load_file(f"configs/sweeps/{name}.py{variant}"), str(tmp_path / f"s{variant}")
        open_folder(sweep, folder)
        pieces = first_pieces(sweep, folder)
        points = math.prod(len(axis.values) for axis in sweep.axes)
        assert sum(len(p.points) for p in pieces) == points and 1 <= len(pieces) <= points
        assert sweep.name == name + variant.replace(":", "_")
    with pytest.raises(UserError, match="knows no variant"):
        load_file(f"configs/sweeps/{name}.py:smog")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--config is missing"),
        (["--config=configs/nothing.py"], "does not exist"),
        (["--config=configs/iot.py"], "is no sweep"),
        (["--config=configs/sweeps/frontier.py:smoke", "--engine=abacus"], "--engine=abacus is not one of"),
        (["--config=configs/sweeps/frontier.py:smoke", "--piece=9"], "--piece=9 is not one of the 4 pieces"),
        (["--confg=x"], "did you mean --config"),
    ],
)
def test_what_the_command_refuses(arguments, said, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    assert command.main(["sweep", *arguments, f"--workdir={tmp_path / 'w'}"]) == 2
    assert said in capsys.readouterr().err


def test_the_command_lists_pieces(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    assert (
        command.main(["sweep", "--config=configs/sweeps/frontier.py:smoke", "--list", f"--workdir={tmp_path / 'w'}"])
        == 0
    )
    lines = capsys.readouterr().out.strip().split("\n")
    assert len(lines) == 4 and lines[0].startswith("0  ") and "2 points" in lines[0] and "done" not in lines[0]


def test_no_point_of_the_front_is_worse_in_both():
    points = [(1.0, 0.5), (2.0, 0.7), (2.0, 0.6), (math.inf, 0.9), (3.0, 0.7), (1.0, 0.5)]
    assert frontier.dominating(points, (-1, 1)) == [True, True, False, True, False, True]
    assert frontier.dominating(points, (1, 1)) == [False, False, False, True, False, False]


def test_scales_keep_order_and_give_infinity_a_place():
    scale = plot.make_scale([0.5, 8.0, math.inf, math.nan], True, 50.0, 400.0)
    places = [scale.place(v) for v in (0.5, 1.0, 8.0, math.inf)]
    assert places == sorted(places) and places[-1] == 400.0 and places[-2] < 400.0 - plot.GAP
    assert abs(2 * scale.place(2.0) - scale.place(1.0) - scale.place(4.0)) < 1e-9  # logarithmic
    assert all(0.45 <= t <= 9 for t in scale.ticks()) and {1.0, 2.0, 5.0} <= set(scale.ticks())
    flat = plot.make_scale([3.0, 3.0], False, 0.0, 1.0)
    assert 0.0 < flat.place(3.0) < 1.0
    assert [plot.short(v) for v in (0.5, 2000.0, 1.5e6, 2e9)] == ["0.5", "2 k", "1.5 M", "2 G"]


def test_marks_say_what_they_are_and_escape_it():
    mark = plot.Mark((1.0, 1.0, 1.0, 1), (0.5, 0.4, 0.6, 3), "vae", "#0072b2", True, "#p-x", 'a<b & "c"')
    text = plot.plot("y against x", [mark], plot.Axis("x", True), plot.Axis("y", False), [("guessing", 0.5)])
    assert "a&lt;b &amp; &quot;c&quot;" in text and 'href="#p-x"' in text and "guessing" in text
    assert text.count("<a ") == 1 and "<script" not in text


def test_names_of_lines_that_nearly_meet_do_not_lie_on_one_another():
    mark = plot.Mark((1.0, 1.0, 1.0, 1), (0.5, 0.4, 0.6, 3), "vae", "#0072b2", True, "#p-x", "a point")
    lines = [("real", 0.55), ("copula", 0.551), ("guessing", 0.45)]
    text = plot.plot("y against x", [mark], plot.Axis("x", True), plot.Axis("y", False), lines)
    places = {name: float(y) for y, name in re.findall(r'y="([\d.]+)"[^>]*>(real|copula|guessing)<', text)}
    assert len(places) == 3
    ends = sorted(places.values())
    assert min(b - a for a, b in itertools.pairwise(ends)) >= 12
