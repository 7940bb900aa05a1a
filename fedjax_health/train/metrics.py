"""Writes a run's metrics (metrics.jsonl and TensorBoard) and shows its progress on the terminal."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import time
from collections.abc import Mapping
from typing import Self

import matplotlib.image
import numpy as np
from rich import progress as rich_progress
from rich.console import Console
from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams as hparams_summary

from fedjax_health.types import UserError

LOG = logging.getLogger("fedjax_health")  # not absl's: libraries write pages of detail there
FILE_NAME = "metrics.jsonl"
QUIET_SECONDS = 5.0  # least time between two lines of a run whose output is a file
FLUSH_SECONDS = 5  # most that TensorBoard's files lag behind
HEAD = ("stage", "round", "seed")


class Writer:
    """Metrics of one run, as a context manager.

    metrics.jsonl holds what a rerun must repeat byte for byte; what depends on the machine (timings) goes to
    TensorBoard only. TensorBoard has one run for each stage (mean over the seeds), one below it for each seed, and the
    top one for hyper-parameters, images and histograms. Separate directories let a resumed stage purge its own steps
    and no others.

    Args:
      workdir: directory of the run; made if absent.
    """

    def __init__(self, workdir: str):
        os.makedirs(workdir, exist_ok=True)
        self._path = os.path.join(workdir, FILE_NAME)
        self._board = os.path.join(workdir, "tensorboard")
        self._writers: dict[str, SummaryWriter] = {}
        self._purge: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused) -> None:
        self.close()

    def close(self) -> None:
        """Writes out and closes every TensorBoard file; the next write opens new ones."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
        self._purge.clear()  # done; once more would purge what was written since

    def write_rounds(self, stage: str, first_round: int, metrics: Mapping[str, np.ndarray], seconds: float) -> None:
        """Appends one chunk: a JSON line for each (round, seed), keys sorted, and the TensorBoard scalars.

        A value that is not finite is `null` in the file (JSON has no NaN) and left out of TensorBoard.

        Args:
          stage: such as "vitals/vae".
          first_round: round number of metrics[..., 0].
          metrics: name -> number[N, R], N seeds by R rounds; "seed" in the file is the position on the N axis.
          seconds: wall time of the chunk, s (to TensorBoard only).

        Raises:
          ValueError: arrays of different shapes, not two axes, or a name that the file uses itself.
        """
        names = sorted(metrics)
        values = {name: np.asarray(metrics[name], np.float64) for name in names}
        shapes = {v.shape for v in values.values()}
        if len(shapes) != 1 or len(next(iter(shapes))) != 2:
            raise ValueError(f"metrics of {stage!r} must share one shape [N, R], got {sorted(shapes)}")
        if set(names) & set(HEAD):
            raise ValueError(f"metrics of {stage!r} must not be named {' or '.join(HEAD)}")
        num_seeds, num_rounds = shapes.pop()
        with open(self._path, "a", encoding="utf-8") as file:
            for r in range(num_rounds):
                for s in range(num_seeds):
                    line = {"stage": stage, "round": first_round + r, "seed": s}
                    line.update({name: _finite(values[name][s, r]) for name in names})
                    file.write(json.dumps(line, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())  # a checkpoint written after this call must never be ahead of the file
        self._scalars(stage, first_round, values, num_seeds, num_rounds)
        self._writer(stage).add_scalar(
            "time/seconds_per_round", seconds / max(num_rounds, 1), first_round + num_rounds - 1
        )
        self.flush()

    def _scalars(
        self, stage: str, first_round: int, values: dict[str, np.ndarray], num_seeds: int, num_rounds: int
    ) -> None:
        for name, grid in values.items():
            for r in range(num_rounds):
                live = grid[np.isfinite(grid[:, r]), r]
                if live.size:
                    self._writer(stage).add_scalar(_tag(name), float(live.mean()), first_round + r)
                for s in range(num_seeds):
                    if math.isfinite(grid[s, r]):
                        self._writer(stage, f"seed_{s}").add_scalar(_tag(name), float(grid[s, r]), first_round + r)

    def truncate(self, stage: str, round: int) -> None:
        """Forgets rounds >= `round` of a stage, so that a resumed run's file equals an uninterrupted one's.

        A last line cut off by a crash is dropped too. The file is replaced in one step, never left half written.

        Args:
          stage: the stage that resumes.
          round: first round that will be written again.

        Raises:
          UserError: a line before the last is not one of ours.
        """
        self._purge[stage] = round
        for name in [n for n in self._writers if n == stage or n.startswith(stage + "/seed_")]:
            self._writers.pop(name).close()
        if not os.path.exists(self._path):
            return
        with open(self._path, encoding="utf-8") as file:
            lines = file.readlines()
        kept = []
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                drop = entry["stage"] == stage and entry["round"] >= round
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                if number == len(lines):
                    break
                raise UserError(
                    f"{self._path} line {number} is not a metrics line: {line.strip()[:80]!r}; "
                    "remove it, or start afresh in another --workdir"
                ) from error
            if not drop and line.endswith("\n"):
                kept.append(line)
        with open(self._path + ".tmp", "w", encoding="utf-8") as file:
            file.writelines(kept)
            file.flush()
            os.fsync(file.fileno())
        os.replace(self._path + ".tmp", self._path)

    def history(self, stage: str, name: str, seeds: int) -> np.ndarray:
        """A metric of a stage so far, read back from the file.

        Args:
          stage: such as "vitals/vae".
          name: of the metric.
          seeds: N.

        Returns:
          f64[N, rounds written], [N, 0] where there are none; NaN where the file holds null.
        """
        values: list[list[float]] = [[] for _ in range(seeds)]
        if os.path.exists(self._path):
            with open(self._path, encoding="utf-8") as file:
                for line in file:
                    entry = json.loads(line)
                    if entry["stage"] == stage:
                        values[entry["seed"]].append(math.nan if entry[name] is None else entry[name])
        return np.asarray(values, np.float64).reshape(seeds, -1)

    def histograms(self, tag: str, real: np.ndarray, synthetic: Mapping[str, np.ndarray]) -> None:
        """Histograms of one column, "tag/real" and "tag/<model>", so that TensorBoard shows them side by side.

        Args:
          tag: such as "vitals/heart_rate".
          real: number[M], real values in the column's unit; NaN (missing) is left out.
          synthetic: model -> number[M'], published values.
        """
        for name, column in {"real": real, **synthetic}.items():
            column = np.asarray(column, np.float64)
            if np.isfinite(column).any():
                self._writer("").add_histogram(_tag(f"{tag}/{name}"), column[np.isfinite(column)], 0)
        self.flush()

    def image(self, tag: str, png_path: str) -> None:
        """Shows a figure in TensorBoard.

        Args:
          tag: such as "vitals/roc".
          png_path: a PNG file, grey, RGB or RGBA.
        """
        pixels = matplotlib.image.imread(png_path)
        layout = "HW" if pixels.ndim == 2 else "HWC"
        self._writer("").add_image(_tag(tag), np.round(pixels * 255).astype(np.uint8), 0, dataformats=layout)
        self.flush()

    def hparams(self, config_flat: Mapping[str, object], final: Mapping[str, float]) -> None:
        """Registers the run with TensorBoard's HPARAMS tab, in the run's top directory and in no new one.

        Args:
          config_flat: flattened config; values other than bool, int, finite float and str are shown as text.
          final: name -> final figure; one that is not finite is left out.
        """
        settings = {name: _setting(value) for name, value in sorted(config_flat.items())}
        # the tab finds a figure by its scalar's tag, so both must be spelled alike
        figures = {_tag(name): float(value) for name, value in sorted(final.items()) if math.isfinite(value)}
        writer = self._writer("")
        assert writer.file_writer is not None  # it is open
        for summary in hparams_summary(settings, figures):
            # add_hparams() of the library would open a second directory named by the time of day
            writer.file_writer.add_summary(summary)
        for name, value in figures.items():
            writer.add_scalar(name, value, 0)
        self.flush()

    def flush(self) -> None:
        """Writes TensorBoard's files out; what its queue still holds follows within FLUSH_SECONDS."""
        for writer in self._writers.values():
            writer.flush()

    def _writer(self, stage: str, seed: str = "") -> SummaryWriter:
        name = f"{stage}/{seed}" if seed else stage
        if name not in self._writers:
            path = os.path.join(self._board, *name.split("/"))
            # the library names a file by the second, so a quick restart would write over the file before it
            suffix = f".{len(os.listdir(path)) if os.path.isdir(path) else 0:04d}"
            self._writers[name] = SummaryWriter(
                path, purge_step=self._purge.get(stage), flush_secs=FLUSH_SECONDS, filename_suffix=suffix
            )
        return self._writers[name]


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _tag(name: str) -> str:
    """A name that TensorBoard takes as it is: "real+synthetic" -> "real_plus_synthetic", other odd signs -> "_"."""
    return re.sub(r"[^-/\w.]", "_", name.replace("+", "_plus_"), flags=re.ASCII).lstrip("/")


def _setting(value: object) -> bool | int | float | str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # the HPARAMS tab is JSON, which has no infinity
    return value if isinstance(value, (bool, int, float, str)) else str(value)


class Progress:
    """Progress of one stage, as a context manager: a bar on a terminal, else now and then a log line.

    Args:
      stage: shown before the bar.
      total: T, rounds of the stage.
      start: first round of this call, > 0 where a run resumes.
      console: where to draw; stderr by default.
    """

    def __init__(self, stage: str, total: int, start: int = 0, console: Console | None = None):
        self._stage, self._total, self._start = stage, total, start
        screen = Console(stderr=True) if console is None else console
        self._live = screen.is_terminal
        self._bar = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TextColumn("{task.fields[figures]}"),
            rich_progress.TimeRemainingColumn(),
            console=screen,
            disable=not self._live,
        )

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._last_line = -math.inf
        self._task = self._bar.add_task(self._stage, total=self._total, completed=self._start, figures="")
        self._bar.start()
        return self

    def __exit__(self, *unused) -> None:
        self._bar.stop()

    def update(self, done: int, loss: float = math.nan, epsilon: float = math.nan) -> None:
        """Shows a state of the run.

        Args:
          done: rounds finished so far, counted from round 0.
          loss: latest loss; left out when NaN.
          epsilon: privacy loss spent so far; left out when NaN.
        """
        figures = "  ".join(
            f"{name} {value:.3g}" for name, value in (("loss", loss), ("ε", epsilon)) if not math.isnan(value)
        )
        self._bar.update(self._task, completed=done, figures=figures)
        now = time.monotonic()
        if self._live or (now - self._last_line < QUIET_SECONDS and done < self._total):
            return
        self._last_line = now
        left = (now - self._began) / max(done - self._start, 1) * (self._total - done)
        LOG.info("%s  round %d/%d  %s  %.0f s left", self._stage, done, self._total, figures, left)
