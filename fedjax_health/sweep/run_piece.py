"""One piece of a sweep, from its configs to its result file."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fedjax_health.config import to_json
from fedjax_health.evaluation.downstream import Programs
from fedjax_health.evaluation.efficiency import run_rows
from fedjax_health.federated import sharding
from fedjax_health.files import replacing
from fedjax_health.sweep.judging import judge_score, judge_tables, of_seed
from fedjax_health.sweep.pieces import FORMAT, Piece, config_of, is_done, load_file, result_path
from fedjax_health.sweep.training import Ran, train_points
from fedjax_health.sweep.world import Point, make_points
from fedjax_health.types import Row

LOG = logging.getLogger("fedjax_health")
EVERY = -1  # in the place of a seed: the figure over all of them, with its interval
FIELDS = ("point", "seed", *Row._fields)


def point_name(text: str) -> str:
    """Name of a run: eight hexadecimal digits of the SHA-256 of its whole config.

    Args:
      text: of `config.to_json`.
    """
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def run_piece(piece: Piece, folder: str) -> str:
    """Runs a piece, unless its result is there already.

    Args:
      piece: of `pieces.make_pieces`.
      folder: of the sweep.

    Returns:
      Path of its result: a Parquet file of (point, seed, domain, model, row, metric, value, low, high, n), seed -1 for the
      figure over all seeds, with what each point is in its metadata. A training that fails leaves its point without figures.

    Raises:
      UserError: something in a config or the data that the user can mend; no file is then written.
    """
    path = result_path(piece, folder)
    if is_done(piece, folder):
        return path
    base, mesh = load_file(piece.config), sharding.make_local_mesh()
    began = time.perf_counter()
    points = make_points([config_of(piece.config, settings, base) for settings in piece.points])
    LOG.info("%s: %d points loaded and planned in %.0f s", piece.name, len(points), time.perf_counter() - began)
    ran = train_points(points, piece.batching)
    judge = judge_tables if piece.judged == "tables" else judge_score
    made: dict[str, Programs] = {}
    lines: list[tuple[Any, ...]] = []
    about: list[dict[str, Any]] = []
    for point, mine, settings in zip(points, ran, piece.points, strict=True):
        began = time.perf_counter()
        rows = [] if mine.failed else judge(point, mine, mesh, made)
        seconds = time.perf_counter() - began
        rows += _machine_rows(point, mine, seconds)
        name = point_name(to_json(point.config))
        lines += [(name, EVERY, *row) for row in rows]
        n = point.config.seeds
        lines += [(name, s, *row[:4], of_seed(row, s, n), *_NOTHING, 1) for s in range(n) for row in rows]
        about.append(_about(name, settings, point, mine))
        LOG.info("%s: point %d of %d judged in %.0f s", piece.name, len(about), len(points), seconds)
    _write(path, lines, {"format": FORMAT, "piece": piece._asdict(), "points": about})
    return path


_NOTHING = (float("nan"), float("nan"))


def _machine_rows(point: Point, ran: Ran, judged: float) -> list[Row]:
    seeds, (nan, _) = point.config.seeds, _NOTHING
    figures = {"training a run (s)": ran.seconds / seeds, "evaluation a run (s)": judged / seeds}
    figures["compile of the piece (s)"] = ran.compile_seconds
    return [
        *(Row("-", "-", "machine", name, value, nan, nan, 1) for name, value in figures.items()),
        *run_rows(nan)[1:],
    ]


def _about(name: str, settings: Any, point: Point, ran: Ran) -> dict[str, Any]:
    """What a point is, JSON-ready; a training that failed has spent what it was going to."""
    done = {r.stage: r.rounds for r in point.plan.releases} if ran.failed else ran.done
    return {
        "point": name,
        "settings": settings,
        "seeds": point.config.seeds,
        "failed": ran.failed,
        "rounds": done,
        "noise_multiplier": point.plan.noise_multiplier,
        "private": point.plan.formal,
        "unit": point.plan.unit,
        "relation": point.plan.relation,
        "ledger": point.plan.ledger(done),
        "traces": ran.traces,
    }


def _write(path: str, lines: Sequence[tuple[Any, ...]], about: dict[str, Any]) -> None:
    columns = dict(zip(FIELDS, zip(*lines, strict=True), strict=True))
    table = pa.table({name: list(values) for name, values in columns.items()})
    table = table.replace_schema_metadata({"sweep": json.dumps(about)})
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with replacing(path) as temporary:
        pq.write_table(table, temporary)
