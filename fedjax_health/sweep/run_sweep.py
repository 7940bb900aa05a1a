"""A sweep from its design to its page: points -> pieces -> an engine -> tables; with `select` rungs, a choice and a ledger."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from fedjax_health.config import Config
from fedjax_health.files import write_text
from fedjax_health.sections import first_difference
from fedjax_health.sweep.account import account
from fedjax_health.sweep.design import Settings, Sweep, check, draw_points
from fedjax_health.sweep.frontier import write_frontier
from fedjax_health.sweep.pieces import Engine, Piece, command, config_of, load_file, make_pieces
from fedjax_health.sweep.results import Results, read_results, settings_of, write_hparams, write_sweep
from fedjax_health.sweep.select import best, noisy_scores, number_of_trials, rung_points, rungs
from fedjax_health.types import UserError

LOG = logging.getLogger("fedjax_health")


def open_folder(sweep: Sweep, folder: str) -> None:
    """Makes a sweep's folder, or checks that the sweep in it is this one, so that it can go on.

    Args:
      sweep: checked.
      folder: its folder.

    Raises:
      UserError: another sweep is there, or something else.
    """
    check(sweep)
    identity, path = (
        json.dumps(dataclasses.asdict(sweep), indent=2, default=str) + "\n",
        os.path.join(folder, "sweep.json"),
    )
    if os.path.isfile(path):
        with open(path, encoding="utf-8") as file:
            difference = first_difference(json.load(file), json.loads(identity))
        if difference:
            raise UserError(f"{folder!r} holds another sweep ({difference}); give another --workdir or remove it")
        return
    if os.path.isdir(folder) and os.listdir(folder):
        raise UserError(f"{folder!r} is not empty and holds no sweep; give another --workdir")
    write_text(path, identity)


def points_of(sweep: Sweep, folder: str) -> list[Settings]:
    """The points of a sweep's design; with `mean_trials` as many as were drawn for this folder.

    Args:
      sweep: checked.
      folder: of the sweep, open.
    """
    if sweep.select is not None and sweep.select.mean_trials:
        sweep = dataclasses.replace(sweep, points=number_of_trials(sweep.select.mean_trials, folder))
    base = load_file(sweep.config)

    def whole(key: str) -> bool:
        node: Any = base
        for part in key.split("."):
            node = node.get(part) if isinstance(node, ConfigDict) else None
        return isinstance(node, int) and not isinstance(node, bool)

    return draw_points(sweep, whole)


def first_pieces(sweep: Sweep, folder: str) -> list[Piece]:
    """The pieces of a sweep's first rung, in an order that does not change: number K is a job of its own.

    Args:
      sweep: of a config file.
      folder: of the sweep, open.
    """
    points = points_of(sweep, folder)
    if sweep.select is None:
        return make_pieces(sweep.config, points, sweep.points_per_piece, batching=sweep.batching)
    first = rungs(sweep)[0]
    return _rung(sweep, points, first, 1, len(rungs(sweep)) == 1)


def _rung(sweep: Sweep, points: Sequence[Settings], rounds: int, first_trial: int, last: bool) -> list[Piece]:
    config = config_of(sweep.config, points[0])
    chosen = rung_points(points, config, rounds, first_trial, last)
    judged = "tables" if last else "score"
    return make_pieces(sweep.config, chosen, sweep.points_per_piece, judged, sweep.batching)


def run_sweep(sweep: Sweep, folder: str, engine: Engine) -> str:
    """Runs what is not done yet, and writes tables and page.

    Args:
      sweep: of a config file.
      folder: its folder.
      engine: who runs the pieces.

    Returns:
      Path of frontier.html.

    Raises:
      UserError: something that the user can mend.
    """
    open_folder(sweep, folder)
    chosen = None
    if sweep.select is None:
        pieces = first_pieces(sweep, folder)
        engine(pieces, folder)
        results = read_results(pieces, folder)
    else:
        results, chosen = _select(sweep, folder, engine)
    commands = [
        command(sweep.config, _settings(point), os.path.join("runs", f"{sweep.name}_{point['point']}"))
        for point in results.points
    ]
    write_sweep(results, commands, os.path.join(folder, "sweep.parquet"))
    write_hparams(results, folder)
    return write_frontier(
        sweep.name, results, settings_of(results), commands, chosen, os.path.join(folder, "frontier.html")
    )


def _settings(point: dict[str, Any]) -> Settings:
    return tuple((key, tuple(value) if isinstance(value, list) else value) for key, value in point["settings"])


def _select(sweep: Sweep, folder: str, engine: Engine) -> tuple[Results, dict[str, Any]]:
    """All rungs; the chosen point is written with what choosing it cost, and not written where that cannot be said."""
    assert sweep.select is not None
    select, points, trials = sweep.select, points_of(sweep, folder), 0
    looked_at: list[dict[str, Any]] = []
    ladder = rungs(sweep)
    for rung, rounds in enumerate(ladder):
        last = rung == len(ladder) - 1
        pieces = _rung(sweep, points, rounds, trials + 1, last)
        if rung == 0:
            _fail_early(config_of(sweep.config, points[0]), select.noise_multiplier)
        engine(pieces, folder)
        results = read_results(pieces, folder)
        trials += len(points)
        looked_at += results.points
        ledger = account(looked_at, len(looked_at), select.noise_multiplier, select.mean_trials)
        noise = select.noise_multiplier if ledger["epsilon_total"] is not None else 0.0
        scores = noisy_scores(results, noise, sweep.seed, rung)
        places = best(scores, 0.0 if last else select.keep)
        points = [_settings(results.points[i]) for i in places]
        LOG.info("rung %d: %d of %d points go on", rung + 1, len(points), len(results.points))
        if last:
            point, settings = results.points[places[0]], points[0]
            chosen = {
                "point": point["point"],
                "settings": dict(settings),
                "score": scores[places[0]] if math.isfinite(scores[places[0]]) else None,
                "command": command(sweep.config, settings, os.path.join("runs", f"{sweep.name}_{point['point']}")),
                "epsilon_total": ledger["epsilon_total"],
                "delta": ledger.get("delta"),
                "method": ledger["method"],
            }
            write_text(
                os.path.join(folder, "privacy_ledger.json"), json.dumps(ledger, indent=2, allow_nan=False) + "\n"
            )
            write_text(os.path.join(folder, "chosen.json"), json.dumps(chosen, indent=2, allow_nan=False) + "\n")
            return results, chosen
    raise AssertionError("a sweep has a last rung")


def _fail_early(config: Config, noise: float) -> None:
    if config.privacy.mechanism != "none" and noise <= 0.0:
        raise UserError(
            f"select.noise_multiplier={noise} with privacy.mechanism={config.privacy.mechanism!r}: a choice by scores without "
            "noise has no epsilon; give one above 0, such as 5"
        )
