"""Judges a trained point: the tables that its run alone would write, or the validation score alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from fedjax_health import classifying, results
from fedjax_health.drawing import synthesise
from fedjax_health.evaluation.downstream import VIEWS, Programs
from fedjax_health.evaluation.rows import SeedRow
from fedjax_health.shadow_table import shadow_tables
from fedjax_health.sweep.score import Score, mean_score, score
from fedjax_health.sweep.training import Ran
from fedjax_health.sweep.world import Point
from fedjax_health.types import Row

SCORE = ("-", "-", "validation", "score")
INFLUENCE = ("-", "-", "validation", "influence of one client")


class Recorded(NamedTuple):
    """Metrics of a training that no file holds; draws nothing (a `types.Board`)."""

    metrics: dict[str, dict[str, np.ndarray]]

    def history(self, stage: str, name: str, seeds: int) -> np.ndarray:
        """f64[N, rounds], a metric of a stage."""
        found = self.metrics[stage][name]
        assert len(found) == seeds
        return found

    def histograms(self, tag: str, real: np.ndarray, synthetic: Mapping[str, np.ndarray]) -> None:
        """Nothing: a sweep shows figures."""


def judge_tables(point: Point, ran: Ran, mesh: Mesh, made: dict[str, Programs]) -> list[Row]:
    """Every row of every table of the run, and its validation score.

    Args:
      point: the run.
      ran: its trainings, none failed.
      mesh: all devices, over which classifiers are trained.
      made: programs that train them, which all points of a piece share; {} for the first.
    """
    config, plan, recorded = point.config, point.plan, Recorded(ran.metrics)
    rows: dict[str, list[Row]] = {name: [] for name in results.TABLES}
    ledger = plan.ledger(ran.done)
    hidden = plan.formal and plan.relation == "add_or_remove_one"
    budget = (ledger["epsilon_total"], ledger["delta"]) if plan.formal else None
    scores: list[list[Score]] = [[] for _ in range(config.seeds)]
    for release in plan.releases:
        rows["privacy"] += results.audit(config, plan, release, point.of(release.domain), ran.trained[release.stage])
    for p in point.prepared:
        subjects = synthesise(config, p, ran.trained, None)
        promise, curves = budget if hidden else None, results.Pictures([], [], [])
        fits = results.evaluate(config, p, subjects, mesh, promise, budget, rows, curves, recorded, made)
        if config.attacks.shadows:
            rows["membership"] += shadow_tables(config, plan, p, ran.done)
        rows["efficiency"] += results.cost_rows(config, p, ran.trained, recorded)
        for s in range(config.seeds):
            scores[s] += [score(p.domain, fits.by_row[g.name, VIEWS[1]], s) for g in subjects]
    rows["privacy"] += results.privacy_rows(ledger)
    return [*(row for table in rows.values() for row in table), *_score_rows(scores)]


def judge_score(point: Point, ran: Ran, mesh: Mesh, made: dict[str, Programs]) -> list[Row]:
    """The validation score alone, and what the run spent.

    Args:
      point, ran, mesh, made: as for `judge_tables`.
    """
    config, scores = point.config, [[] for _ in range(point.config.seeds)]
    for p in point.prepared:
        subjects = synthesise(config, p, ran.trained, None)
        setting = classifying.make_setting(config, p, None)
        downstream = classifying.make_downstream_of(config, p, setting, mesh, made)
        for g in subjects:
            fitted = downstream.fit(VIEWS[1], g.tables, f"{p.domain.name}/classifier/{g.name}")
            for s in range(config.seeds):
                scores[s].append(score(p.domain, fitted, s))
    return [*results.privacy_rows(point.plan.ledger(ran.done)), *_score_rows(scores)]


def _score_rows(scores: list[list[Score]]) -> list[Row]:
    means: Any = [mean_score(of_seed) for of_seed in scores]
    return [
        SeedRow.of(*SCORE, [s.value for s in means]),
        SeedRow.of(*INFLUENCE, [s.influence for s in means]),
    ]


def of_seed(row: Row, seed: int, seeds: int) -> float:
    """A row's figure of one seed; where not every seed has one, that of all of them.

    Args:
      row: of a table.
      seed: number of the federation.
      seeds: N.
    """
    each = row.each if isinstance(row, SeedRow) else ()
    return each[seed] if len(each) == seeds else row.value
