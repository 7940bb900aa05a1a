"""Figures of a run's report, drawn from tidy rows; the same rows give the same PNG bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Rows = Sequence[dict[str, Any]]

REAL = "#4a4a4a"
CEILING = "#b3003c"
SOFT = "#5f6368"
MODEL_COLOURS = {"real": REAL, "-": REAL, "vae": "#0072b2", "wgan_gp": "#d55e00", "gan": "#009e73"}
SPARE_COLOURS = ("#8a5fa8", "#56b4e9", "#a6761d", "#cc79a7")  # models not named above, in alphabetic order
MODEL_LABELS = {"real": "Real", "-": "–", "vae": "VAE", "wgan_gp": "WGAN-GP", "gan": "GAN"}
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (2.5, 2.5)), (0, (9, 2, 1, 2, 1, 2)))
WIDTH = 10.6  # inches, the page's 1060 px at 100 dpi
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 8.5, "axes.titlesize": 9, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#9aa0a6",
    "axes.linewidth": 0.7, "axes.labelcolor": "#3c4043", "xtick.color": SOFT, "ytick.color": SOFT,
    "legend.frameon": False, "lines.linewidth": 1.6, "axes.grid": True, "grid.color": "#e8eaed", "grid.linewidth": 0.6,
    "axes.axisbelow": True,
}  # fmt: skip


def model_label(model: str) -> str:
    """Name of a model for readers, such as "WGAN-GP"."""
    return MODEL_LABELS.get(model, model)


def model_colour(model: str) -> str:
    """The one colour of a model on the whole page; a model without one of its own gets it from its name's letters."""
    return MODEL_COLOURS.get(model) or SPARE_COLOURS[sum(model.encode()) % len(SPARE_COLOURS)]


def ceiling_tpr(fpr: np.ndarray, epsilon: float, delta: float) -> np.ndarray:
    """Highest true-positive rate that (ε, δ) allows any attack: min(e^ε·FPR + δ, 1 − e^−ε·(1 − δ − FPR)).

    Args:
      fpr: number[P], false-positive rates in [0, 1].
      epsilon: >= 0; above about 700 the bound is 1 everywhere.
      delta: in [0, 1].

    Returns:
      f64[P] in [0, 1].

    Source: Kairouz, Oh, Viswanath 2015, arXiv:1311.0776, theorem 2.1.
    """
    grow = np.exp(min(epsilon, 700.0))
    fpr = np.asarray(fpr, np.float64)
    return np.clip(np.minimum(grow * fpr + delta, 1.0 - (1.0 - delta - fpr) / grow), 0.0, 1.0)


def _names(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _models(rows: Rows) -> list[str]:
    return sorted(_names(r["model"] for r in rows), key=lambda m: (m != "real", m))


def _save(path: str, height: float, draw: Callable[[Figure], None], width: float = WIDTH) -> str:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        # no date and no version in the file, so that equal runs give equal bytes
        figure.savefig(path, dpi=170, metadata={"Software": None})
    return path


def _panels(figure: Figure, count: int, columns: int) -> list[Axes]:
    rows = -(-count // columns)
    axes = [ax for line in figure.subplots(rows, columns, squeeze=False) for ax in line]
    for ax in axes[count:]:
        ax.set_visible(False)
    return axes[:count]


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    entries: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(entries.values(), entries.keys(), loc="outside upper left", ncols=6)


def distributions(rows: Rows, path: str) -> str:
    """Small multiples: each feature's density, real against each model.

    Args:
      rows: model ("real" included), feature, left, right, density. left = right marks a category, its index.
      path: PNG to write.

    Returns:
      path.
    """
    features, models = _names(r["feature"] for r in rows), _models(rows)

    def draw(figure: Figure) -> None:
        axes = _panels(figure, len(features), 4)
        for ax, feature in zip(axes, features, strict=True):
            ax.set_title(feature)
            ax.yaxis.set_visible(False)
            ax.spines["left"].set_visible(False)
            ax.grid(False)
            for place, model in enumerate(models):
                mine = [r for r in rows if r["feature"] == feature and r["model"] == model]
                if mine:
                    _density(ax, mine, model, (place + 0.5) / len(models) - 0.5, 0.8 / len(models))
        _legend(figure, axes)

    return _save(path, 0.5 + 1.55 * -(-len(features) // 4), draw)


def _density(ax: Axes, rows: Rows, model: str, shift: float, width: float) -> None:
    left, right, density = (np.array([r[key] for r in rows], np.float64) for key in ("left", "right", "density"))
    style: dict[str, Any] = {"color": model_colour(model), "label": model_label(model)}
    if (left == right).all():
        ax.bar(left + 0.8 * shift, density, width, alpha=0.45 if model == "real" else 1.0, **style)
        ax.set_xticks(np.unique(left) if len(left) <= 12 else [])
        return
    order = np.argsort(left)
    edges = np.append(left[order], right[order][-1])
    if model == "real":
        ax.stairs(density[order], edges, fill=True, alpha=0.28, **style)
    else:
        ax.stairs(density[order], edges, linewidth=1.4, **style)


def correlations(rows: Rows, path: str) -> str:
    """Heat maps of Spearman or Pearson ρ: real, each model, and below each model its difference from real.

    Args:
      rows: model ("real" included), feature_a, feature_b, rho; a pair that is absent or NaN is left white.
      path: PNG to write.

    Returns:
      path.
    """
    names = _names(n for r in rows for n in (r["feature_a"], r["feature_b"]))
    models = _models(rows)
    place = {name: i for i, name in enumerate(names)}
    grids = {m: np.full((len(names), len(names)), np.nan) for m in models}
    for grid in grids.values():
        np.fill_diagonal(grid, 1.0)
    for r in rows:
        a, b = place[r["feature_a"]], place[r["feature_b"]]
        grids[r["model"]][a, b] = grids[r["model"]][b, a] = r["rho"]
    fakes = [m for m in models if m != "real"] if "real" in grids else []
    small = {m: grids[m] - grids["real"] for m in fakes}
    names = [n if len(n) <= 16 else n[:15] + "…" for n in names]
    side = WIDTH / (len(models) + 0.6)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(2 if fakes else 1, len(models), squeeze=False)
        whole = _heat(axes[0], [grids[m] for m in models], [model_label(m) for m in models], names, "RdBu_r", 1.0)
        figure.colorbar(whole, ax=list(axes[0]), label="ρ", shrink=0.8, aspect=18)
        if fakes:
            top = max(0.1, *(float(np.nanmax(np.abs(g))) for g in small.values()))
            for ax in axes[0, 1:]:
                ax.tick_params(labelbottom=False)  # the map below has the same names
            titles = [f"{model_label(m)} minus real" for m in fakes]
            part = _heat(axes[1][1:], list(small.values()), titles, names, "PuOr_r", top)
            figure.colorbar(part, ax=list(axes[1]), label="difference in ρ", shrink=0.8, aspect=18)
            axes[1, 0].set(xlim=(0, 1), ylim=axes[1, 1].get_ylim(), box_aspect=1)
            axes[1, 0].axis("off")
            style = {"ha": "right", "va": "center", "size": _name_size(names), "color": SOFT, "in_layout": False}
            for i, name in enumerate(names):
                axes[1, 0].text(1.16, i, name, **style)

    return _save(path, (2 if fakes else 1) * side + 0.8, draw)


def _name_size(names: list[str]) -> int:
    return 7 if len(names) <= 14 else 5  # points, to fit beside a cell


def _heat(axes: Any, grids: Sequence[np.ndarray], titles: Sequence[str], names: list[str], cmap: str, top: float):
    images = []
    for ax, grid, title in zip(axes, grids, titles, strict=True):
        images.append(ax.imshow(grid, cmap=cmap, vmin=-top, vmax=top, interpolation="nearest"))
        ax.set_title(title)
        ax.grid(False)
        ax.tick_params(length=0, labelsize=_name_size(names))
        ax.set_xticks(range(len(names)), names, rotation=90)
        ax.set_yticks(range(len(names)), names if title == "Real" else [""] * len(names))
    return images[0]


def roc(rows: Rows, path: str, promise: tuple[float, float] | None) -> str:
    """Log-log ROC of the membership attacks, the chance diagonal, and the curve that no attack may cross.

    Args:
      rows: model, row (the attack), fpr, tpr. A row "dp-ceiling" is drawn as the ceiling, in place of the computed one.
      path: PNG to write.
      promise: (ε, δ); None where there is none, then no ceiling is drawn.

    Returns:
      path.
    """
    curves = _names(f"{r['model']}\n{r['row']}" for r in rows if r["row"] != "dp-ceiling")
    positive = [r["fpr"] for r in rows if r["fpr"] > 0]
    low = float(np.clip(10.0 ** np.floor(np.log10(min(positive, default=0.01))), 1e-4, 1e-2))

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        grid = np.geomspace(low, 1.0, 200)
        ax.plot(grid, grid, color="#9aa0a6", linewidth=1, label="guessing")
        given = [r for r in rows if r["row"] == "dp-ceiling"]
        for model in _names(r["model"] for r in given):
            line = sorted((r["fpr"], r["tpr"]) for r in given if r["model"] == model)
            ax.plot(*zip(*line, strict=True), color=CEILING, linewidth=2, label=f"DP ceiling  {model_label(model)}")
        if not given and promise is not None:
            bound = ceiling_tpr(grid, *promise)
            ax.plot(grid, bound, color=CEILING, linewidth=2, label="DP ceiling")
            ax.fill_between(grid, bound, 1.0, color=CEILING, alpha=0.07, linewidth=0)
        used: dict[str, int] = {}
        for curve in curves:
            model, row = curve.split("\n")
            line = sorted((r["fpr"], r["tpr"]) for r in rows if r["model"] == model and r["row"] == row)
            fpr, tpr = np.clip(np.array(line).T, low, 1.0)
            dashes = DASHES[used.get(model, 0) % len(DASHES)]
            used[model] = used.get(model, 0) + 1
            label = row if model == "-" else f"{model_label(model)}  {row}"
            ax.plot(fpr, tpr, drawstyle="steps-post", color=model_colour(model), linestyle=dashes, label=label)
        ax.set(xscale="log", yscale="log", xlim=(low, 1), ylim=(low, 1))
        ax.set(xlabel="false-positive rate (non-members called members)", ylabel="true-positive rate (members found)")
        ax.set_box_aspect(0.8)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:g}")
        figure.legend(loc="outside right upper")

    return _save(path, 3.9, draw, 8.4)


def training(rows: Rows, metrics: Sequence[str], path: str) -> str:
    """Metrics over rounds: the mean over seeds as a line, lowest to highest seed as a band.

    Metrics of unlike scale share no axis: a name ending in "loss" gets one panel a stage, any other one panel in all.

    Args:
      rows: lines of metrics.jsonl: stage, round, seed and values by name (None = not finite).
      metrics: names to draw, one or more, each present in some row.
      path: PNG to write.

    Returns:
      path.
    """
    stages = _names(r["stage"] for r in rows)
    panels: list[tuple[str, str, list[str]]] = []
    for metric in metrics:
        having = _names(r["stage"] for r in rows if r.get(metric) is not None)
        if metric.endswith("loss"):
            panels += [(metric, f"{metric}  {stage}", [stage]) for stage in having]
        elif having:
            panels.append((metric, metric, having))
    alike = {s: [t for t in stages if _stage_colour(t) == _stage_colour(s)].index(s) for s in stages}
    dash = {stage: DASHES[number % len(DASHES)] for stage, number in alike.items()}

    def draw(figure: Figure) -> None:
        axes = _panels(figure, len(panels), 3)
        for ax, (metric, title, shown) in zip(axes, panels, strict=True):
            ax.set_title(title)
            ax.set_xlabel("round")
            for stage in shown:
                _curve(ax, [r for r in rows if r["stage"] == stage], metric, stage, dash[stage])
        _legend(figure, axes)

    return _save(path, 0.5 + 2.1 * -(-len(panels) // 3), draw)


def _stage_colour(stage: str) -> str:
    known = [m for m in MODEL_COLOURS if m not in ("-", "real") and m in stage.lower()]
    return model_colour(max(known, key=len)) if known else REAL


def _curve(ax: Axes, rows: Rows, metric: str, stage: str, dashes: Any) -> None:
    by_round: dict[int, list[float]] = {}
    for r in rows:
        if r.get(metric) is not None:
            by_round.setdefault(r["round"], []).append(r[metric])
    rounds = sorted(by_round)
    values = [by_round[t] for t in rounds]
    style: dict[str, Any] = {
        "color": _stage_colour(stage),
        "linestyle": dashes,
        "marker": "o" if len(rounds) == 1 else "",
    }
    ax.plot(rounds, [float(np.mean(v)) for v in values], label=stage, **style)
    band = [min(v) for v in values], [max(v) for v in values]
    ax.fill_between(rounds, *band, color=_stage_colour(stage), alpha=0.15, linewidth=0)
