"""Choosing one point: rungs of successive halving, noisy scores of validation clients, and a geometric number of trials."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from fedjax_health import build, rng
from fedjax_health.config import Config
from fedjax_health.files import write_text
from fedjax_health.sweep.design import Settings, Sweep
from fedjax_health.sweep.judging import INFLUENCE, SCORE
from fedjax_health.sweep.results import Results
from fedjax_health.types import UserError

TRIALS = "trials.json"


def number_of_trials(mean: float, folder: str) -> int:
    """How many trials a sweep makes, drawn once from a geometric law by the operating system's randomness.

    Args:
      mean: of the law on 1, 2, ...; at least 1.
      folder: of the sweep; holds the number, so that an interrupted sweep goes on with it.
    """
    path = os.path.join(folder, TRIALS)
    if not os.path.isfile(path):
        write_text(path, json.dumps(int(np.random.default_rng().geometric(1.0 / mean))) + "\n")
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def rung_points(
    points: Sequence[Settings], config: Config, rounds: int, first_trial: int, last: bool
) -> list[Settings]:
    """The points of a rung: shorter trainings, a trial number each, and but for the last rung one seed.

    Args:
      points: that are still in.
      config: any of their configs; names the models.
      rounds: of every training; 0 = as the points have them.
      first_trial: number of the first.
      last: whether the chosen point is among these.
    """
    lengths = [(f"{model}.train.rounds", rounds) for model in build.trained(config)] if rounds else []
    seeds = [] if last else [("seeds", 1)]
    return [
        (*_without(settings, [*lengths, *seeds]), *lengths, *seeds, ("privacy.trial", first_trial + i))
        for i, settings in enumerate(points)
    ]


def _without(settings: Settings, keys: Sequence[tuple[str, Any]]) -> Settings:
    gone = {key for key, _ in keys} | {"privacy.trial"}
    return tuple(item for item in settings if item[0] not in gone)


def noisy_scores(results: Results, noise: float, seed: int, rung: int) -> np.ndarray:
    """Score of each point's published federation with Gaussian noise, f64[P]; -inf for a training that failed.

        noisy = score + noise influence N(0, 1)

    Args:
      results: of the rung.
      noise: multiplier.
      seed: of the sweep.
      rung: number of the rung; each has noise of its own.
    """
    lines = results.lines[(results.lines["seed"] == 0) & (results.lines["row"] == SCORE[2])]
    first = dict(zip(zip(lines["point"], lines["metric"], strict=True), lines["value"], strict=True))

    normals = rng.host_rng(seed, rng.Stream.EVALUATE, "sweep", str(rung)).standard_normal(len(results.points))
    found = []
    for point, normal in zip(results.points, normals, strict=True):
        value, influence = (first.get((point["point"], address[3]), -math.inf) for address in (SCORE, INFLUENCE))
        found.append(value + noise * influence * normal if math.isfinite(value) else -math.inf)
    return np.asarray(found)


def best(scores: np.ndarray, keep: float) -> np.ndarray:
    """Places of the best, i64[max(1, floor(keep P))], best first.

    Args:
      scores: f64[P].
      keep: share.

    Raises:
      UserError: no training succeeded.
    """
    if not np.isfinite(scores).any():
        raise UserError(
            "every training of the sweep failed, so that there is nothing to choose; see sweep.parquet for why"
        )
    most = max(1, math.floor(keep * len(scores)))
    order = np.argsort(-scores, kind="stable")[:most]
    return order[np.isfinite(scores[order])]


def rungs(sweep: Sweep) -> tuple[int, ...]:
    """Rounds of each rung; (0,) where there is but one, of the points' own rounds.

    Args:
      sweep: with `select`.
    """
    assert sweep.select is not None
    return sweep.select.rounds or (0,)
