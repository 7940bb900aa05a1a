"""Windows as a long table, and the figures that are drawn from it and from the curves."""

from __future__ import annotations

import pathlib

import numpy as np
import pandas as pd

from fedjax_health.data.schema import Column
from fedjax_health.data.stream_schema import stream_schema
from fedjax_health.report.stream_figures import stream_figures
from fedjax_health.synthesis.publish_windows import frame_from_windows, publish_windows
from fedjax_health.types import Table

CHANNELS = (Column(name="pulse", low=0, high=200, decimals=0), Column(name="sugar", low=0, high=400, decimals=1))
SCHEMA = stream_schema("s", CHANNELS, Column(name="ill", kind="binary", role="label", categories=("no", "yes")), 4, 30)
VALUES = np.arange(16, dtype=np.float32).reshape(2, 8) + np.float32(0.04)
WINDOWS = Table(VALUES, np.asarray([1, 0], np.int32), np.arange(2, dtype=np.int32))


def test_a_row_is_a_step():
    frame = frame_from_windows(WINDOWS, SCHEMA)
    assert list(frame.columns) == ["window", "step", "seconds", "pulse", "sugar", "ill"]  # and no client
    assert frame["window"].tolist() == [0] * 4 + [1] * 4 and frame["step"].tolist() == [0, 1, 2, 3] * 2
    assert frame["seconds"].tolist() == [0, 30, 60, 90] * 2
    assert (
        frame["pulse"].tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
        and frame["sugar"].tolist() == frame.pulse.add(1).tolist()
    )
    assert frame["ill"].tolist() == ["yes"] * 4 + ["no"] * 4


def test_figures_come_from_a_runs_files_and_equal_files_give_equal_bytes(tmp_path):
    publish_windows(str(tmp_path / "synthetic"), "s_vae", WINDOWS, SCHEMA)
    again = pd.read_parquet(tmp_path / "synthetic" / "s_vae.parquet")
    pd.testing.assert_frame_equal(again, frame_from_windows(WINDOWS, SCHEMA), check_dtype=False)
    rows = [
        (domain, model, channel, curve, 30 * x, 0.1 * x)
        for domain in ("s", "other")
        for model in ("real", "vae")
        for channel in ("pulse", "sugar")
        for curve, xs in {"acf": (1, 2), **dict.fromkeys(("q05", "q50", "q95"), range(4))}.items()
        for x in xs
    ]
    (tmp_path / "tables").mkdir()
    points = pd.DataFrame(rows, columns=["domain", "model", "channel", "curve", "x", "value"])
    points.to_csv(tmp_path / "tables" / "stream_curves.csv", index=False)

    def draw() -> list[bytes]:
        paths = [pathlib.Path(path) for path in stream_figures(str(tmp_path), "s", ("vae",))]
        assert [path.name for path in paths] == ["s_acf.png", "s_windows.png"]
        return [path.read_bytes() for path in paths]

    drawn = [draw(), draw()]
    assert drawn[0] == drawn[1] and all(png.startswith(b"\x89PNG") for png in drawn[0])
    other = points.assign(value=points["value"] * 2)
    other.to_csv(tmp_path / "tables" / "stream_curves.csv", index=False)
    assert all(a != b for a, b in zip(draw(), drawn[0], strict=True))
