"""Ceilings and bands are the known ones, and what never changes is told and not drawn."""

from __future__ import annotations

import base64
import io
import math

import matplotlib.image
import numpy as np
import pytest

from fedjax_health.report import curves, figures, sheet, summary
from fedjax_health.types import Row


def test_ceiling_has_the_known_values():
    # e^ln2 * 0.01 + 0.001 below; 1 - (1 - 0.001 - 0.9) / 2 above
    got = figures.ceiling_tpr(np.array([0.0, 0.01, 0.9, 1.0]), math.log(2.0), 0.001)
    np.testing.assert_allclose(got, [0.001, 0.021, 0.9505, 1.0], rtol=1e-12)
    np.testing.assert_allclose(figures.ceiling_tpr(np.array([0.2]), 0.0, 0.0), [0.2])  # nothing leaks: guessing
    np.testing.assert_allclose(figures.ceiling_tpr(np.array([0.0, 0.2]), 1e6, 0.0), [0.0, 1.0])


def test_guesses_stay_in_their_band():
    rng, targets = np.random.default_rng(0), 100
    above, low, high = curves.guessing_band(targets)
    member, outsider = rng.random((4000, targets)), np.sort(rng.random((4000, targets)), 1)[:, ::-1]
    for k, least, most in zip(above[::7], low[::7], high[::7], strict=True):
        found = (member > outsider[:, k, None]).mean(1)  # the most that k false alarms allow
        share = np.mean((found >= least) & (found <= most))
        assert 0.94 < share <= 1.0
        assert share < 0.99 or k < 3  # not so wide that it holds everything, where counts are not tiny


def test_the_strongest_of_many_must_beat_a_wider_interval():
    row = Row("d", "m", "a", "auc", 0.54, 0.505, 0.575, 5)
    assert summary.beats_guessing(row, 1, 0.5) is True
    assert summary.beats_guessing(row, 4, 0.5) is False
    tpr = Row("d", "m", "a", "tpr_at_1pct_fpr", 0.016, 0.0103, 0.0237, 1500)
    assert summary.beats_guessing(tpr, 1, 0.01) is True
    assert summary.beats_guessing(tpr, 4, 0.01) is False
    assert (
        summary.beats_guessing(tpr._replace(low=0.009), 1, 0.01) is False
    )  # its own interval is wider than its members'
    assert summary.beats_guessing(row._replace(low=math.nan), 1, 0.5) is None


def test_constant_metrics_are_told_by_stage():
    rows = [
        {"stage": stage, "round": t, "noise": 0.3 if stage == "a" else 0.1, "loss": float(t), "gone": None, "own": 1.0}
        for stage in ("a", "b")
        for t in range(3)
    ]
    del rows[0]["own"]
    assert curves.constants(rows, ["noise", "loss", "gone", "own"]) == {
        "noise": {"a": 0.3, "b": 0.1},
        "own": {"a": 1.0, "b": 1.0},
    }
    assert curves.constants(rows[:1], ["noise"]) == {}  # of one round nothing can be said


def test_pictures_take_many_categories_missing_schemas_and_one_model(tmp_path):
    bars = [
        {"model": m, "feature": f"f{n}", "left": k, "right": k, "density": 1 / n}
        for n in (3, 40)
        for m in ("real", "new")
        for k in range(n)
    ]
    empty = [{"model": "real", "feature": "log", "left": k, "right": k + 1, "density": 0.0} for k in range(3)]
    known = {"f3": {"categories": ["a", "b", "a very long category"]}, "log": {"transform": "log1p"}}
    looks = sheet.looks_of(["real", "new"])
    pieces = figures.distributions([*bars, *empty], str(tmp_path / "a.png"), known, looks, {"f3": "new TV 0.9"})
    assert [p.alt for p in pieces][0::2] == ["f3: new TV 0.9", "log: distribution of Real, new"]
    figures.distributions(bars, str(tmp_path / "b.png"), {}, looks, {})
    pairs = [{"model": "vae", "feature_a": "x", "feature_b": "y", "rho": np.nan}]
    assert [p.alt for p in figures.correlations(pairs, str(tmp_path / "c.png"))] == ["VAE: ρ of 2 features"]
    points = [{"model": "-", "row": "a", "fpr": x, "tpr": x} for x in (0.0, 0.5, 1.0)]
    curves.roc(points, str(tmp_path / "d.png"), None, None)
    for name in "abcd":
        assert matplotlib.image.imread(tmp_path / f"{name}.png").std() > 0.01


def test_words_of_a_picture_tell_what_it_shows(tmp_path):
    rho = {("real", "x", "z"): 0.5, ("real", "x", "y"): -0.1, ("vae", "x", "z"): 0.1, ("vae", "x", "y"): -0.2}
    rows = [{"model": m, "feature_a": a, "feature_b": b, "rho": r} for (m, a, b), r in rho.items()]
    real, vae, gap = (p.alt for p in figures.correlations(rows, str(tmp_path / "c.png")))
    assert real == "Real: ρ of 3 features; the largest is 0.50 (x with z), the mean size 0.30"
    assert vae.startswith("VAE: ρ") and gap.startswith(
        "VAE minus real: ρ of 3 features; the largest is −0.40 (x with z)"
    )
    points = [
        {"model": "vae", "row": "model-on-synthetic:domias", "fpr": x, "tpr": y}
        for x, y in ((0, 0.01), (0.01, 0.03), (1, 1))
    ]
    (piece,) = curves.roc(points, str(tmp_path / "r.png"), (0.0, 0.0), 50)
    assert piece.alt.endswith(
        "DOMIAS density ratio on a classifier of synthetic records 3.0\u00a0%; the promise allows 1.0\u00a0%"
    )
    rounds = [{"stage": "d/vae", "round": t, "seed": s, "loss": 4.0 - t + s} for t in (1, 2) for s in (0, 2)]
    pieces, keys = curves.training(rounds, ["loss"], str(tmp_path / "t.png"))
    assert pieces[0].alt == "loss, VAE · d: from 4 in round 1 to 3 in round 2" and list(keys) == ["VAE · d"]


def test_pieces_are_the_sheet_cut_up(tmp_path):
    def draw(shade):
        return lambda ax: ax.set_facecolor(str(shade))

    shades = [0.0, 0.25, 0.5, 0.75]
    panels = [sheet.Panel(str(s), draw(s)) for s in shades]
    pieces = sheet.sheet(str(tmp_path / "s.png"), panels, (4.0, 1.0), (0.0, 0.0, 0.0, 0.0))
    whole = matplotlib.image.imread(tmp_path / "s.png")
    assert whole.shape[:2] == (300, 1200)  # two a line at 150 dpi
    for number, (piece, shade) in enumerate(zip(pieces, shades, strict=True)):
        part = matplotlib.image.imread(io.BytesIO(base64.b64decode(piece.src.partition(",")[2])))
        x, y = 600 * (number % 2), 150 * (number // 2)
        np.testing.assert_array_equal(part, whole[y : y + 150, x : x + 600])
        assert part[60, 250, 0] == pytest.approx(shade, abs=0.01) and piece.alt == str(shade) and piece.width == 400
