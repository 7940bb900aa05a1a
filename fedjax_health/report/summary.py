"""The generators of a run, and the strongest membership attack on each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import scipy.stats

from fedjax_health.evaluation.rows import proportion_interval
from fedjax_health.report import figures, labels, tables
from fedjax_health.types import Row

Promise: TypeAlias = tuple[float, float] | None  # (ε, δ)
TPR = "tpr_at_1pct_fpr"
COPULA = "gaussian-copula"


class Risk(NamedTuple):
    """The strongest attack on a generator.

    Attributes:
      row: its figure.
      attack: for readers.
      attacks: how many it is the strongest of.
      sharp: its figure is the TPR at 1 % FPR, in %; else the AUC, because no attack's TPR could be resolved.
      value, auc: as text.
      above: whether it beats guessing when its interval is widened for having been picked; None without an interval.
      limit: what the promise allows for the same figure, None without a promise.
      broken: attack and figure that lie above what the promise allows with their whole interval, or "".
    """

    row: Row
    attack: str
    attacks: int
    sharp: bool
    value: tables.Cell
    auc: tables.Cell | None
    above: bool | None
    limit: float | None
    broken: str


class Summary(NamedTuple):
    """One generator in one domain; `risk` is None where no attack was run on it."""

    domain: str
    model: str
    risk: Risk | None


def summarise(domain: str, tidy: Mapping[str, Sequence[Row]], promise: Promise) -> list[Summary]:
    """Every generator of a domain.

    Args:
      domain: its name.
      tidy: rows by table.
      promise: (ε, δ) of the run, None where nothing is proven.
    """
    mine = {name: [r for r in rows if r.domain == domain] for name, rows in tidy.items()}
    scored = [r for name in ("utility", "detection", "membership", "similarity") for r in mine[name]]
    models = [m for m in dict.fromkeys(r.model for r in scored) if m not in ("-", "real")]
    return [Summary(domain, m, _risk(mine["membership"], m, promise)) for m in models]


def find(rows: Sequence[Row], row: str, metric: str, models: Sequence[str]) -> Row | None:
    """The figure of the first of the models that has it, None where none has."""
    return next((r for m in models for r in rows if (r.row, r.metric, r.model) == (row, metric, m)), None)


def _risk(rows: Sequence[Row], model: str, promise: Promise) -> Risk | None:
    # the paper's first row attacks a model that never saw the generator, so it says nothing about the release
    attacks = [r for r in rows if r.model == model and r.row not in labels.BOUNDS and not math.isnan(r.value)]
    attacks = [r for r in attacks if not r.row.startswith("model-on-real")]
    sharp = any(r.metric == TPR for r in attacks)  # else too few non-members to resolve so small a rate
    metric, chance = (TPR, 0.01) if sharp else ("auc", 0.5)
    rivals = [r for r in attacks if r.metric == metric]
    if not rivals:
        return None
    worst = max(rivals, key=lambda r: r.value)
    limits = _limits(rows, model, promise)
    beyond = [r for r in attacks if r.low > limits.get(r.metric, math.inf)]
    auc = find(rows, worst.row, "auc", (model,)) if sharp else None
    shown = worst._replace(value=100 * worst.value, low=100 * worst.low, high=100 * worst.high) if sharp else worst
    return Risk(
        row=worst,
        attack=labels.attack_parts(worst.row)[1],
        attacks=len(rivals),
        sharp=sharp,
        value=tables.cell(shown, 1 if sharp else 2),
        auc=None if auc is None else tables.cell(auc, 2),
        above=beats_guessing(worst, len(rivals), chance),
        limit=limits.get(metric),
        broken=f"{labels.attack_parts(beyond[0].row)[1]} ({labels.short_heading(beyond[0].metric)})" if beyond else "",
    )


def _limits(rows: Sequence[Row], model: str, promise: Promise) -> dict[str, float]:
    if promise is None:
        return {}
    given = {r.metric: r.value for r in rows if r.row == "dp-ceiling" and r.model in (model, "-")}
    return {TPR: float(figures.ceiling_tpr(np.array(0.01), *promise)), **given}


def beats_guessing(worst: Row, attacks: int, chance: float) -> bool | None:
    """Whether the strongest of several attacks is better than guessing: its interval at level 1 - 0.05 / attacks.

    Bonferroni's correction, since the largest of several figures lies above chance more often than one does.
    Student-t for an AUC, whose n counts seeds. For a TPR, whose n counts members, the lower end of Clopper-Pearson and of the
    row's own interval widened as a normal one: that of attacks by shadow federations knows that members are no trials of
    their own.

    Args:
      worst: the strongest attack's figure with its 95 % interval.
      attacks: how many it was picked from, >= 1.
      chance: what guessing scores.

    Returns:
      None where there is no interval.
    """
    if math.isnan(worst.low) or worst.n < 2:
        return None
    level = 1 - 0.05 / attacks
    if worst.metric == TPR:
        exact = proportion_interval(round(worst.value * worst.n), worst.n, level)[0]
        wider = float(scipy.stats.norm.ppf((1 + level) / 2) / scipy.stats.norm.ppf(0.975))
        return min(exact, worst.value - (worst.value - worst.low) * wider) > chance
    usual, wide = (float(scipy.stats.t.ppf((1 + p) / 2, worst.n - 1)) for p in (0.95, level))
    return worst.value - (worst.value - worst.low) * wide / usual > chance
