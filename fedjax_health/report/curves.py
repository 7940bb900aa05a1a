"""Figures of curves: what the membership attacks achieve, and how the training went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.stats
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fedjax_health.report.figures import ceiling_tpr
from fedjax_health.report.labels import attack_parts, model_label, stage_label
from fedjax_health.report.sheet import DASHES, DPI, REAL, SOFT, Look, Panel, Piece, Rows, looks_of, names_of, sheet
from fedjax_health.report.tables import number

CEILING = "#b3003c"
ATTACK_COLOURS = ("#7b3294", "#1b7837", "#a87b0c", "#c51b7d", "#01665e", "#67001f")  # none of them a model's
ATTACKED = {
    "model-on-real": " on a classifier of real records",
    "model-on-synthetic": " on a classifier of synthetic records",
}
MOST_POINTS = 150  # of a training curve; more are averaged


def roc(rows: Rows, path: str, promise: tuple[float, float] | None, targets: int | None) -> list[Piece]:
    """Log-log ROC of the membership attacks, a panel a model, with the diagonal and the curve no attack may cross.

    Args:
      rows: model, row (the attack), fpr, tpr. Curves of model "-" are drawn in every panel; a row "dp-ceiling" is drawn
        as the ceiling, in place of the computed one.
      path: PNG to write.
      promise: (ε, δ); None where there is none, then no ceiling is drawn.
      targets: members, and as many non-members, behind a curve: gives the band that 95 % of guesses stay in at each
        rate; None for no band.

    Returns:
      A piece a model; its words tell what each attack finds at 1 % false positives.
    """
    given = [r for r in rows if r["row"] == "dp-ceiling"]
    attacks = [r for r in rows if r["row"] != "dp-ceiling"]
    models = [m for m in names_of(r["model"] for r in attacks) if m != "-"] or ["-"]
    positive = [r["fpr"] for r in attacks if r["fpr"] > 0]
    low = float(np.clip(10.0 ** np.floor(np.log10(min(positive, default=0.01))), 1e-4, 1e-2))
    styles = _attack_styles(attacks)
    shown = []
    most = 0
    for model in models:
        mine = [r for r in attacks if r["model"] in (model, "-")]
        names = names_of((r["model"], r["row"]) for r in mine)
        lines = {row: _line([r for r in mine if (r["model"], r["row"]) == (m, row)]) for m, row in names}
        bound = sorted((r["fpr"], r["tpr"]) for r in given if r["model"] in (model, "-"))
        grid = np.geomspace(low, 1.0, 200)
        ceiling = np.array(bound).T if bound else np.array((grid, ceiling_tpr(grid, *promise))) if promise else None
        most = max(most, len(lines) + (targets is not None) + (ceiling is not None))
        shown.append(Panel(_roc_words(model, lines, ceiling), _roc_drawn(model, lines, styles, ceiling, targets, low)))
    below = 0.5 + 0.175 * most
    return sheet(path, shown, (3.5, 2.9 + below), (0.62, below, 0.12, 0.3))


def _line(rows: Rows) -> np.ndarray:
    """f64[2, P]: FPR and TPR in order."""
    return np.array(sorted((r["fpr"], r["tpr"]) for r in rows)).T


def _attack_styles(rows: Rows) -> dict[str, dict[str, Any]]:
    styles: dict[str, dict[str, Any]] = {}
    for k, row in enumerate(names_of(r["row"] for r in rows if r["model"] != "-")):
        styles[row] = {"color": ATTACK_COLOURS[k % len(ATTACK_COLOURS)], "linestyle": DASHES[k % len(DASHES)]}
    for k, row in enumerate(names_of(r["row"] for r in rows if r["model"] == "-")):
        styles.setdefault(row, {"color": REAL, "linestyle": DASHES[1 + k % (len(DASHES) - 1)]})
    return styles


def _roc_words(model: str, lines: dict[str, np.ndarray], ceiling: np.ndarray | None) -> str:
    def at(line: np.ndarray) -> str:  # steps: the most members found at no more than 1 % false positives
        return f"{number(100 * float(np.max(line[1][line[0] <= 0.01], initial=0.0)), 1)}\u00a0%"

    found = "; ".join(f"{_attack_label(row)} {at(line)}" for row, line in lines.items())
    top = f"; the promise allows {at(ceiling)}" if ceiling is not None else ""
    return f"{'ROC' if model == '-' else model_label(model) + ', ROC'}. Members found at 1\u00a0% false positives: {found}{top}"


def _roc_drawn(
    model: str,
    lines: dict[str, np.ndarray],
    styles: dict[str, dict[str, Any]],
    ceiling: np.ndarray | None,
    targets: int | None,
    low: float,
) -> Callable[[Axes], None]:
    def draw(ax: Axes) -> None:
        if targets is not None:
            _guessing(ax, targets, low)
        ax.plot([low, 1], [low, 1], color="#9aa0a6", linewidth=1)
        if ceiling is not None:
            ax.plot(*ceiling, color=CEILING, linewidth=2.2, label="most that the promise allows")
        for row, line in lines.items():
            fpr, tpr = np.clip(line, low, 1.0)
            ax.plot(fpr, tpr, drawstyle="steps-post", linewidth=1.4, label=_attack_label(row), **styles[row])
        ax.set(xscale="log", yscale="log", xlim=(low, 1), ylim=(low, 1.25))
        ax.set(title="" if model == "-" else model_label(model), xlabel="non-members accused (FPR)")
        ax.set_ylabel("members found (TPR)", labelpad=1)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:g}")
        high = ax.bbox.height / DPI
        ax.legend(loc="upper left", bbox_to_anchor=(-0.12, -0.42 / high), borderaxespad=0, labelspacing=0.3)

    return draw


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


def training(rows: Rows, metrics: Sequence[str], path: str) -> tuple[list[Piece], dict[str, Look]]:
    """Metrics over rounds: the mean over seeds as a line, lowest to highest seed as a band.

    Metrics of unlike scale share no axis: a name ending in "loss" gets one panel a stage, any other one panel in all.
    Of more than 150 rounds, neighbours are averaged; the band still spans their lowest and highest.

    Args:
      rows: lines of metrics.jsonl: stage, round, seed and values by name (None = not finite).
      metrics: names to draw, one or more, each present in some row.
      path: PNG to write.

    Returns:
      (a piece a panel, the look of each stage by its label).
    """
    stages = names_of(r["stage"] for r in rows)
    looks = _stage_looks(stages)
    shown = []
    for metric in metrics:
        having = names_of(r["stage"] for r in rows if r.get(metric) is not None)
        title = metric.partition("/")[2].replace("_", " ") or metric
        if metric.endswith("loss"):
            shown += [
                _training_panel(rows, metric, f"{title}, {stage_label(stage)}", [stage], looks) for stage in having
            ]
        elif having:
            title = "ε spent by the run so far" if metric == "privacy/epsilon" else title
            shown.append(_training_panel(rows, metric, title, having, looks))
    keys = {stage_label(stage): looks[stage] for stage in stages}
    return sheet(path, shown, (2.65, 2.0), (0.52, 0.42, 0.1, 0.28), keys), keys


def _training_panel(rows: Rows, metric: str, title: str, stages: list[str], looks: dict[str, Look]) -> Panel:
    told = []
    for stage in stages:
        at = {r["round"] for r in rows if r["stage"] == stage and r.get(metric) is not None}
        first, last = (
            float(
                np.mean(
                    [r[metric] for r in rows if (r["stage"], r["round"]) == (stage, t) and r.get(metric) is not None]
                )
            )
            for t in (min(at), max(at))
        )
        who = f"{stage_label(stage)} " if len(stages) > 1 else ""
        told.append(f"{who}from {number(first)} in round {min(at)} to {number(last)} in round {max(at)}")

    def draw(ax: Axes) -> None:
        ax.set_title(title, fontsize=8)
        for stage in stages:
            _curve(ax, [r for r in rows if r["stage"] == stage], metric, looks[stage])
        ax.set_xlabel("round", color=SOFT, labelpad=1)
        ax.yaxis.set_major_locator(MaxNLocator(4))
        ax.yaxis.set_major_formatter(lambda value, _: _short(value))

    return Panel(f"{title}: {'; '.join(told)}", draw)


def _short(value: float) -> str:
    """A number beside an axis: 250000 -> "250k"."""
    size = next((k for k in (4, 3, 2, 1) if abs(value) >= 10.0 ** (3 * k)), 0)
    return f"{value / 1000.0**size:g}{('', 'k', 'M', 'G', 'T')[size]}"


def _stage_looks(stages: Sequence[str]) -> dict[str, Look]:
    """A model's colour for its stages; dashes tell the stages of one model apart."""
    looks = looks_of([stage.rpartition("/")[2] for stage in stages])
    seen: dict[str, int] = {}
    result = {}
    for stage in stages:
        model = stage.rpartition("/")[2]
        result[stage] = Look(looks[model].colour, DASHES[seen.get(model, 0) % len(DASHES)])
        seen[model] = seen.get(model, 0) + 1
    return result


def _curve(ax: Axes, rows: Rows, metric: str, look: Look) -> None:
    by_round: dict[int, list[float]] = {}
    for r in rows:
        if r.get(metric) is not None:
            by_round.setdefault(r["round"], []).append(r[metric])
    rounds = sorted(by_round)
    step = -(-len(rounds) // MOST_POINTS)
    groups = [rounds[i : i + step] for i in range(0, len(rounds), step)]
    values = [[v for t in group for v in by_round[t]] for group in groups]
    at = [float(np.mean(group)) for group in groups]
    style: dict[str, Any] = {"color": look.colour, "linestyle": look.dashes, "marker": "o" if len(at) == 1 else ""}
    ax.plot(at, [float(np.mean(v)) for v in values], linewidth=1.2, **style)
    band = [min(v) for v in values], [max(v) for v in values]
    ax.fill_between(at, *band, color=look.colour, alpha=0.15, linewidth=0)
