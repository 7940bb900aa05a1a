"""What it costs to choose: the privacy of a sweep of which one point is published."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dp_accounting import GaussianDpEvent

from fedjax_health.privacy import accounting
from fedjax_health.privacy.event_fields import event_fields, event_of
from fedjax_health.privacy.tuning import tuned_epsilon
from fedjax_health.types import UserError

GEOMETRIC = 1.0  # shape of the law of the number of trials


def account(points: Sequence[dict[str, Any]], scores: int, noise: float, mean_trials: float) -> dict[str, Any]:
    """The ledger of a selection.

    Each client either trains or validates, in all trials alike, so that it is in one of two releases and the epsilon is the
    larger one (parallel composition): the trainings of all trials, of which a score is post-processing; or the noisy scores,
    whose sensitivity is the influence of one client. Trials draw noise of their own (`privacy.trial`). With a fixed number
    every one of them is composed, as if all were published. With a geometric number, which nobody knows, the cost is that of
    repeated selection (Papernot & Steinke 2022, arXiv 2110.03620), which needs every trial to be as private as any other.

    Args:
      points: every trial of every rung, as `run_piece` describes it; failed ones too, since they touched their clients.
      scores: how many were looked at; at least 1.
      noise: multiplier of the noise on each, in units of its sensitivity.
      mean_trials: 0 = a fixed number, else the mean of the geometric law.

    Returns:
      JSON-ready: "epsilon_total", "delta", "method", "unit", "relation", "trials", "epsilon_training", "epsilon_validation",
      "events"; epsilon_total is None where no run has a guarantee.

    Raises:
      UserError: what cannot be accounted for; nothing may then be chosen.
    """
    private = {point["private"] for point in points}
    if private == {False}:
        return {"epsilon_total": None, "method": "none: no run has a guarantee", "trials": len(points)}
    if private == {True, False}:
        raise UserError(
            "a choice between runs with and without privacy has no epsilon; leave privacy.mechanism='none' out of the axes, or "
            "select out"
        )
    if noise <= 0.0:
        raise UserError(
            f"select.noise_multiplier={noise}: a score without noise tells about validation clients what no epsilon bounds; "
            "give one above 0, such as 5"
        )
    common = {(point["unit"], point["relation"], point["ledger"]["delta"]) for point in points}
    if len(common) > 1:
        raise UserError(
            f"the runs promise different things (unit, relation, delta): {sorted(common)}; their epsilons do not add up, so "
            "give all the same mechanism and delta"
        )
    ((unit, relation, delta),) = common
    trials = [_events(point) for point in points]
    gaussian = GaussianDpEvent(noise)
    if mean_trials:
        if any(trial != trials[0] for trial in trials):
            raise UserError(
                "select.mean_trials needs runs that are all as private as one another, and these differ in noise, cohort or "
                "rounds; keep these keys out of the axes, or set mean_trials=0"
            )
        training = tuned_epsilon(trials[0], mean_trials, GEOMETRIC, delta)
        validation = tuned_epsilon([(gaussian, 1)], mean_trials, GEOMETRIC, delta)
        method = "repeated selection, geometric number of trials"
    else:
        training = accounting.epsilon_of([event for trial in trials for event in trial], delta)
        validation = accounting.epsilon_of([(gaussian, scores)], delta)
        method = "composition of all trials"
    total = max(training, validation)
    if not math.isfinite(total):
        raise UserError(
            f"nothing finite bounds a choice among {len(points)} such runs; lower their number or raise their noise"
        )
    return {
        "epsilon_total": total,
        "delta": delta,
        "method": method,
        "unit": unit,
        "relation": relation,
        "trials": None if mean_trials else len(points),
        "mean_trials": mean_trials or None,
        "epsilon_training": training,
        "epsilon_validation": validation,
        "events": [
            *({"name": f"trial {p['point']}", **event} for p in points for event in p["ledger"]["events"]),
            {"name": "validation scores", "event_fields": event_fields(gaussian), "times": scores},
        ],
        "not_covered": [
            "All of the sweep but what the chosen run publishes: pieces/, sweep.parquet, hparams/, frontier.html.",
            *points[0]["ledger"]["not_covered"],
        ],
    }


def _events(point: dict[str, Any]) -> list[tuple[Any, int]]:
    return [(event_of(e["event_fields"]), e["times"]) for e in point["ledger"]["events"]]
