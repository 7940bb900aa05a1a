"""Figures of curves: what the membership attacks achieve, and how the training went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedjax_health.report.figures import (
    MODEL_COLOURS,
    REAL,
    SOFT,
    Rows,
    ceiling_tpr,
    columns_for,
    legend,
    model_colour,
    names_of,
    panels,
    save,
)
from fedjax_health.report.labels import attack_parts, model_label, stage_label

CEILING = "#b3003c"
ATTACK_COLOURS = ("#7b3294", "#1b7837", "#c2921c", "#c51b7d", "#01665e", "#67001f")  # none of them a model's
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (2.5, 2.5)), (0, (9, 2, 1, 2, 1, 2)))
ATTACKED = {
    "model-on-real": " on a classifier of real records",
    "model-on-synthetic": " on a classifier of synthetic records",
}
MOST_POINTS = 150  # of a training curve; more are averaged


def roc(rows: Rows, path: str, promise: tuple[float, float] | None, targets: int | None) -> str:
    """Log-log ROC of the membership attacks, a panel a model, with the diagonal and the curve no attack may cross.

    Args:
      rows: model, row (the attack), fpr, tpr. Curves of model "-" are drawn in every panel; a row "dp-ceiling" is drawn
        as the ceiling, in place of the computed one.
      path: PNG to write.
      promise: (ε, δ); None where there is none, then no ceiling is drawn.
      targets: members, and as many non-members, behind a curve: gives the band that 95 % of guesses stay in at each
        rate; None for no band.

    Returns:
      path.
    """
    given = [r for r in rows if r["row"] == "dp-ceiling"]
    attacks = [r for r in rows if r["row"] != "dp-ceiling"]
    models = [m for m in names_of(r["model"] for r in attacks) if m != "-"] or ["-"]
    positive = [r["fpr"] for r in attacks if r["fpr"] > 0]
    low = float(np.clip(10.0 ** np.floor(np.log10(min(positive, default=0.01))), 1e-4, 1e-2))
    colours = dict(zip(names_of(r["row"] for r in attacks if r["model"] != "-"), ATTACK_COLOURS * 9, strict=False))
    across = min(len(models), 3)

    def draw(figure: Figure) -> None:
        axes = panels(figure, len(models), across)
        for ax, model in zip(axes, models, strict=True):
            if targets is not None:
                _guessing(ax, targets, low)
            ax.plot([low, 1], [low, 1], color="#9aa0a6", linewidth=1)
            if promise is not None or given:
                bound = sorted((r["fpr"], r["tpr"]) for r in given if r["model"] in (model, "-"))
                grid = np.geomspace(low, 1.0, 200)
                line = np.array(bound).T if bound else (grid, ceiling_tpr(grid, *promise)) if promise else ((), ())
                ax.plot(*line, color=CEILING, linewidth=2, label="most that the promise allows")
            for other, row in names_of((r["model"], r["row"]) for r in attacks):
                if other not in (model, "-"):
                    continue
                points = sorted((r["fpr"], r["tpr"]) for r in attacks if (r["model"], r["row"]) == (other, row))
                fpr, tpr = np.clip(np.array(points).T, low, 1.0)
                style: dict[str, Any] = (
                    {"color": REAL, "linestyle": DASHES[1]} if other == "-" else {"color": colours[row]}
                )
                ax.plot(fpr, tpr, drawstyle="steps-post", linewidth=1.4, label=_attack_label(row), **style)
            ax.set(xscale="log", yscale="log", xlim=(low, 1), ylim=(low, 1.25))
            ax.set(title="" if model == "-" else model_label(model), xlabel="non-members accused (FPR)")
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_formatter(lambda value, _: f"{value:g}")
        axes[0].set_ylabel("members found (TPR)")
        legend(figure, axes, 3)

    lines = -(-len(models) // across)
    return save(path, 0.9 + 3.4 * lines, draw, min(4.6 * across, 10.6))


def _attack_label(row: str) -> str:
    attack = attack_parts(row)[1]
    return attack[:1].upper() + attack[1:] + ATTACKED.get(row.split(":")[0], "")


def guessing_band(targets: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where 95 % of guesses lie: TPR at FPR k / n is beta-binomial(n, k + 1, n − k) / n for exchangeable scores.

    The most members that k false alarms allow are those ranked above the (k + 1)-th non-member.

    Args:
      targets: n, members and as many non-members.

    Returns:
      (k, low, high): i64[P] false alarms in [0, n), f64[P] ends of the band at each.
    """
    above = np.unique(np.geomspace(1, targets, 60).astype(int)) - 1
    low, high = (scipy.stats.betabinom.ppf(q, targets, above + 1, targets - above) / targets for q in (0.025, 0.975))
    return above, low, high


def _guessing(ax: Axes, targets: int, low: float) -> None:
    above, least, most = guessing_band(targets)
    style: dict[str, Any] = {"color": "#9aa0a6", "alpha": 0.25, "linewidth": 0, "label": "95 % of guesses"}
    x, least, most = (np.clip(v, low, 1.0) for v in (above / targets, least, most))
    ax.fill_between(x, least, most, step="post", **style)


def constants(rows: Rows, metrics: Sequence[str]) -> dict[str, dict[str, float]]:
    """Metrics that never change in a stage, which a sentence tells better than a curve.

    Args:
      rows: lines of metrics.jsonl.
      metrics: names to look at.

    Returns:
      metric -> stage -> value, for the metrics that are constant, and finite, in every stage that has them over more
      than one round.
    """
    found: dict[str, dict[str, float]] = {}
    for metric in metrics:
        stages: dict[str, list[Any]] = {}
        for r in rows:
            if metric in r:
                stages.setdefault(r["stage"], []).append(r[metric])
        if all(len(v) > 1 and v[0] is not None and all(x == v[0] for x in v) for v in stages.values()):
            found[metric] = {stage: float(values[0]) for stage, values in stages.items()}
    return found


def training(rows: Rows, metrics: Sequence[str], path: str) -> str:
    """Metrics over rounds: the mean over seeds as a line, lowest to highest seed as a band.

    Metrics of unlike scale share no axis: a name ending in "loss" gets one panel a stage, any other one panel in all.
    Of more than 150 rounds, neighbours are averaged; the band still spans their lowest and highest.

    Args:
      rows: lines of metrics.jsonl: stage, round, seed and values by name (None = not finite).
      metrics: names to draw, one or more, each present in some row.
      path: PNG to write.

    Returns:
      path.
    """
    stages = names_of(r["stage"] for r in rows)
    wanted: list[tuple[str, str, list[str]]] = []
    for metric in metrics:
        having = names_of(r["stage"] for r in rows if r.get(metric) is not None)
        title = metric.partition("/")[2].replace("_", " ") or metric
        if metric.endswith("loss"):
            wanted += [(metric, f"{title}, {stage_label(stage)}", [stage]) for stage in having]
        elif having:
            wanted.append((metric, "ε spent by the run so far" if metric == "privacy/epsilon" else title, having))
    alike = {s: [t for t in stages if _stage_colour(t) == _stage_colour(s)].index(s) for s in stages}
    dash = {stage: DASHES[number % len(DASHES)] for stage, number in alike.items()}
    across = columns_for(len(wanted), (4, 3))

    def draw(figure: Figure) -> None:
        axes = panels(figure, len(wanted), across)
        for ax, (metric, title, shown) in zip(axes, wanted, strict=True):
            ax.set_title(title, fontsize=8)
            ax.tick_params(labelsize=7)
            for stage in shown:
                _curve(ax, [r for r in rows if r["stage"] == stage], metric, stage, dash[stage])
        for ax in axes[-across:]:
            ax.set_xlabel("round", color=SOFT)
        legend(figure, axes)

    return save(path, 0.45 + 1.75 * -(-len(wanted) // across), draw)


def _stage_colour(stage: str) -> str:
    known = [m for m in MODEL_COLOURS if m not in ("-", "real") and m in stage.lower()]
    return model_colour(max(known, key=len)) if known else REAL


def _curve(ax: Axes, rows: Rows, metric: str, stage: str, dashes: Any) -> None:
    by_round: dict[int, list[float]] = {}
    for r in rows:
        if r.get(metric) is not None:
            by_round.setdefault(r["round"], []).append(r[metric])
    rounds = sorted(by_round)
    step = -(-len(rounds) // MOST_POINTS)
    groups = [rounds[i : i + step] for i in range(0, len(rounds), step)]
    values = [[v for t in group for v in by_round[t]] for group in groups]
    at = [float(np.mean(group)) for group in groups]
    style: dict[str, Any] = {"color": _stage_colour(stage), "linestyle": dashes, "marker": "o" if len(at) == 1 else ""}
    ax.plot(at, [float(np.mean(v)) for v in values], label=stage_label(stage), linewidth=1.2, **style)
    band = [min(v) for v in values], [max(v) for v in values]
    ax.fill_between(at, *band, color=_stage_colour(stage), alpha=0.15, linewidth=0)
