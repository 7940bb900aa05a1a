"""The results of a sweep: all pieces read back, one row a run in sweep.parquet, and TensorBoard's HPARAMS tab."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd
import pyarrow.parquet as pq

from fedjax_health.evaluation.suite import OVERALL_ROWS
from fedjax_health.files import replacing
from fedjax_health.sweep.pieces import Piece, result_path
from fedjax_health.sweep.run_piece import EVERY
from fedjax_health.train.metrics import Writer
from fedjax_health.types import UserError

SHOWN = (  # metrics of TensorBoard's tab: those that judge a whole table, and what it cost
    "auroc", "ks_complement", "c2st_auc", "detection_at_1pct_fpr", "auc", "tpr_at_1pct_fpr", "score", "epsilon_total",
    "bytes up in all", "simulated time in all (s)", "training a run (s)",
)  # fmt: skip
OTHER_ROWS = ("validation", "run", "federation", "devices", "machine")


class Results(NamedTuple):
    """What all pieces found.

    Attributes:
      lines: a figure a line: point, seed (-1 = over all of them), domain, model, row, metric, value, low, high, n.
      points: what each point is, in the order of the pieces: "point", "settings", "seeds", "failed", "ledger", ...
      index: (point, domain, model, row, metric) -> (value, low, high, n) over its seeds.
    """

    lines: pd.DataFrame
    points: list[dict[str, Any]]
    index: dict[tuple[str, ...], tuple[float, float, float, int]]

    def figure(self, point: str, *address: str) -> tuple[float, float, float, int]:
        """(value, low, high, n) over the seeds of a point; NaN and 0 where there is none.

        Args:
          point: its name.
          *address: domain, model, row, metric.
        """
        return self.index.get((point, *address), (math.nan, math.nan, math.nan, 0))


def make_results(lines: pd.DataFrame, points: list[dict[str, Any]]) -> Results:
    """Results whose figures can be looked up.

    Args:
      lines, points: of Results.
    """
    whole = lines[lines["seed"] == EVERY]
    keys = zip(*(whole[name] for name in ("point", "domain", "model", "row", "metric")), strict=True)
    figures = zip(*(whole[name] for name in ("value", "low", "high", "n")), strict=True)
    return Results(lines, points, dict(zip(keys, figures, strict=True)))


def read_results(pieces: Sequence[Piece], folder: str) -> Results:
    """Reads the result of every piece.

    Args:
      pieces: of the sweep.
      folder: of the sweep.

    Raises:
      UserError: one is not there or cannot be read; names its file.
    """
    frames, points = [], []
    for piece in pieces:
        path = result_path(piece, folder)
        try:
            table = pq.read_table(path)
            about = json.loads((table.schema.metadata or {})[b"sweep"])
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{path} is not the result of a piece ({error}); remove it and run the sweep again"
            ) from error
        frames.append(table.to_pandas())
        points += about["points"]
    return make_results(pd.concat(frames, ignore_index=True), points)


def text_of(value: Any) -> Any:
    """A setting as one cell holds it: lists as text."""
    return ", ".join(str(v) for v in value) if isinstance(value, (list, tuple)) else value


def settings_of(results: Results) -> list[dict[str, Any]]:
    """Every setting of every point, the same keys in all; "" where a point leaves a key as the config has it.

    Args:
      results: of `read_results`.
    """
    keys = dict.fromkeys(key for point in results.points for key, _ in point["settings"])
    return [{key: text_of(dict(point["settings"]).get(key, "")) for key in keys} for point in results.points]


def write_sweep(results: Results, commands: Sequence[str], path: str) -> None:
    """Writes one row a run, that is a seed of a point: settings, noise, epsilon and every figure of its tables.

    A figure's column is "domain/model/row/metric"; one that is of all seeds together (such as a rate over pooled members) is
    the same in each of their rows. A training that failed has no figures, and says why.

    Args:
      results: of `read_results`.
      commands: of each point, which runs it alone.
      path: Parquet file.
    """
    lines = results.lines[results.lines["seed"] != EVERY]
    name = lines["domain"] + "/" + lines["model"] + "/" + lines["row"] + "/" + lines["metric"]
    wide = lines.assign(figure=name).drop_duplicates(["point", "seed", "figure"])
    wide = wide.pivot(index=["point", "seed"], columns="figure", values="value").reset_index()
    about = pd.DataFrame(
        [
            {
                "point": point["point"],
                **{key: str(value) for key, value in settings.items()},
                "noise_multiplier": point["noise_multiplier"],
                "epsilon": _epsilon(point),
                "failed": point["failed"],
                "command": command,
            }
            for point, settings, command in zip(results.points, settings_of(results), commands, strict=True)
        ]
    )
    table = about.merge(wide, on="point", how="right")
    with replacing(path) as temporary:
        table.to_parquet(temporary, index=False)


def _epsilon(point: dict[str, Any]) -> float:
    """What a run spent; inf without a guarantee."""
    spent = point["ledger"]["epsilon_total"]
    return math.inf if spent is None else spent


def write_hparams(results: Results, folder: str) -> None:
    """A TensorBoard session for each generator of each run: `tensorboard --logdir FOLDER/hparams`.

    The tab has the columns of one session for all, so a figure's name leaves out the generator, which is a setting.

    Args:
      results: of `read_results`.
      folder: of the sweep; a session that is there already is left as it is.
    """
    rows = results.lines["row"]
    whole = rows.isin(OTHER_ROWS) | rows.isin(OVERALL_ROWS) | rows.str.startswith("federated+synthetic:")
    lines = results.lines[(results.lines["seed"] != EVERY) & results.lines["metric"].isin(SHOWN) & whole]
    for point, settings in zip(results.points, settings_of(results), strict=True):
        mine = lines[lines["point"] == point["point"]]
        models = [str(m) for m in mine["model"].unique() if m != "-"]
        for model in models or ["none"]:  # a training that failed has no figures, and is shown all the same
            own_lines: Any = mine[mine["model"].isin((model, "-"))]
            for seed, run in own_lines.groupby("seed"):
                path = os.path.join(folder, "hparams", f"{point['point']}_{model}_{seed}")
                if not os.path.isdir(path):
                    own = {**settings, "generator": model, "seed": int(str(seed)), "epsilon": _epsilon(point)}
                    with Writer(path) as writer:
                        writer.hparams(own, _figures(run))


def _figures(run: pd.DataFrame) -> dict[str, float]:
    """Figures of a session; those of marks without a generator have the mark's row in their name, too."""
    columns = zip(*(run[name] for name in ("domain", "row", "metric", "value")), strict=True)
    return {f"{domain}/{row}/{metric}".removeprefix("-/"): value for domain, row, metric, value in columns}
