"""Figures of what was published, drawn from tidy rows: distributions and correlations. Equal rows give equal PNG bytes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedjax_health.report.labels import feature_label, model_label

Rows: TypeAlias = Sequence[dict[str, Any]]
Columns: TypeAlias = Mapping[str, Mapping[str, Any]]  # name -> column of synthetic/schema.json

Name = TypeVar("Name", bound=Hashable)
REAL = "#4a4a4a"
SOFT = "#5f6368"
MODEL_COLOURS = {
    "real": REAL, "-": REAL, "vae": "#0072b2", "wgan_gp": "#d55e00", "gan": "#009e73", "acgan": "#cc79a7", "medgan": "#56b4e9",
    "diffusion": "#8a5fa8",
}  # fmt: skip
SPARE_COLOURS = ("#a6761d", "#7a9a01", "#b0413e", "#4b5d9e")  # models not named above, by the letters of their names
WIDTH = 10.6  # inches, the page's 1060 px at 100 dpi
LETTERS = 13  # of a category's name that fit beside its bars
MOST_NAMED = 16  # categories; more are left without their names
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 8.5, "axes.titlesize": 9, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#9aa0a6",
    "axes.linewidth": 0.7, "axes.labelcolor": "#3c4043", "xtick.color": SOFT, "ytick.color": SOFT,
    "legend.frameon": False, "lines.linewidth": 1.6, "axes.grid": True, "grid.color": "#e8eaed", "grid.linewidth": 0.6,
    "axes.axisbelow": True,
}  # fmt: skip


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


def names_of(values: Iterable[Name]) -> list[Name]:
    """Distinct values in the order of their first appearance."""
    return list(dict.fromkeys(values))


def models_of(rows: Rows) -> list[str]:
    """Models of rows, "real" first."""
    return sorted(names_of(r["model"] for r in rows), key=lambda m: (m != "real", m))


def save(path: str, height: float, draw: Callable[[Figure], None], width: float = WIDTH) -> str:
    """Draws a figure and writes it as PNG.

    Args:
      path: PNG to write.
      height, width: inches.
      draw: puts everything on the empty figure.

    Returns:
      path.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        # no date and no version in the file, so that equal runs give equal bytes
        figure.savefig(path, dpi=150, metadata={"Software": None})
    return path


def panels(figure: Figure, count: int, columns: int) -> list[Axes]:
    """Axes for so many panels, filled line by line; the rest of the last line stays empty."""
    lines = -(-count // columns)
    axes = [ax for line in figure.subplots(lines, columns, squeeze=False) for ax in line]
    for ax in axes[count:]:
        ax.set_visible(False)
    return axes[:count]


def columns_for(count: int, choices: Sequence[int]) -> int:
    """Panels a line that leave the fewest places empty, the most of those that tie."""
    return min(choices, key=lambda c: (-count % c, -c))


def legend(figure: Figure, axes: Sequence[Axes], columns: int = 6) -> None:
    """One legend above all panels, each name once."""
    entries: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(entries.values(), entries.keys(), loc="outside upper left", ncols=columns)


def distributions(rows: Rows, path: str, columns: Columns) -> str:
    """Small multiples: each feature's density, real against each model.

    Args:
      rows: model ("real" included), feature, left, right, density. left = right marks a category, its index.
      path: PNG to write.
      columns: gives units, names of categories, and which features are heavy-tailed (their density is drawn in
        logarithms, since in plain numbers all but the first bar would vanish); may lack any.

    Returns:
      path.
    """
    features, models = names_of(r["feature"] for r in rows), models_of(rows)
    across = columns_for(len(features), (5, 4))

    def draw(figure: Figure) -> None:
        axes = panels(figure, len(features), across)
        for ax, feature in zip(axes, features, strict=True):
            column = columns.get(feature, {})
            ax.set_title(feature_label(feature, columns), fontsize=8)
            ax.grid(False)
            ax.tick_params(labelsize=7)
            mine = [r for r in rows if r["feature"] == feature]
            if all(r["left"] == r["right"] for r in mine):
                _bars(ax, mine, models, list(column.get("categories", ())))
            else:
                _steps(ax, mine, models, column.get("transform") == "log1p")
        legend(figure, axes)

    return save(path, 0.4 + 1.55 * -(-len(features) // across), draw)


def _steps(ax: Axes, rows: Rows, models: Sequence[str], logarithmic: bool) -> None:
    ax.yaxis.set_visible(False)
    ax.spines["left"].set_visible(False)
    positive = [r["density"] for r in rows if r["density"] > 0]
    floor = min(positive, default=1.0) / 2 if logarithmic else 0.0
    for model in models:
        mine = sorted((r for r in rows if r["model"] == model), key=lambda r: r["left"])
        if not mine:
            continue
        density = np.maximum([r["density"] for r in mine], floor)
        edges = [*(r["left"] for r in mine), mine[-1]["right"]]
        style: dict[str, Any] = {"color": model_colour(model), "label": model_label(model), "baseline": floor}
        if model == "real":
            ax.stairs(density, edges, fill=True, alpha=0.28, **style)
        else:
            ax.stairs(density, edges, linewidth=1.3, **style)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}")
    if logarithmic:
        ax.set_yscale("log")
        ax.set_ylim(bottom=floor)
        ax.text(1, 0.98, "log density", transform=ax.transAxes, ha="right", va="top", fontsize=6.5, color=SOFT)


def _bars(ax: Axes, rows: Rows, models: Sequence[str], categories: list[str]) -> None:
    count = 1 + int(max(r["left"] for r in rows))
    height = 0.8 / len(models)
    for place, model in enumerate(models):
        mine = [r for r in rows if r["model"] == model]
        at = np.array([r["left"] for r in mine]) + (place + 0.5) * height - 0.4
        style: dict[str, Any] = {"color": model_colour(model), "label": model_label(model)}
        ax.barh(at, [r["density"] for r in mine], height, alpha=0.45 if model == "real" else 1.0, **style)
    known = categories if len(categories) == count else [str(k) for k in range(count)]
    short = [c if len(c) <= LETTERS else c[: LETTERS - 1] + "…" for c in known]
    ax.set_yticks(range(count) if count <= MOST_NAMED else [], short if count <= MOST_NAMED else [])
    ax.tick_params(axis="y", length=0, labelsize=6.5)
    ax.invert_yaxis()
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    if count > MOST_NAMED:
        ax.set_ylabel(f"{count} categories")


def correlations(rows: Rows, path: str) -> str:
    """Heat maps of Spearman or Pearson ρ: real, each model, and below each model its difference from real.

    Args:
      rows: model ("real" included), feature_a, feature_b, rho; a pair that is absent or NaN is left white.
      path: PNG to write.

    Returns:
      path.
    """
    names = names_of(n for r in rows for n in (r["feature_a"], r["feature_b"]))
    models = models_of(rows)
    place = {name: i for i, name in enumerate(names)}
    grids = {m: np.full((len(names), len(names)), np.nan) for m in models}
    for grid in grids.values():
        np.fill_diagonal(grid, 1.0)
    for r in rows:
        a, b = place[r["feature_a"]], place[r["feature_b"]]
        grids[r["model"]][a, b] = grids[r["model"]][b, a] = r["rho"]
    fakes = [m for m in models if m != "real"] if "real" in grids else []
    gaps = {m: grids[m] - grids["real"] for m in fakes}
    top = max([0.1, *(float(np.nanmax(np.abs(g))) for g in gaps.values())])
    left, across, below = 1.25, len(models), 2 if fakes else 1  # inches for the names; maps
    side = min((WIDTH - left) / across - 0.2, 2.5)

    def draw(figure: Figure) -> None:
        # by hand: the names of the first map hang into the place below it, which holds the two scales
        figure.set_layout_engine("none")
        wide, high = figure.get_size_inches()

        def add(column: int, line: int) -> Axes:
            at = left + column * (side + 0.2), high - 0.25 - side - line * (side + 0.35)
            return figure.add_axes((at[0] / wide, at[1] / high, side / wide, side / high))

        for column, model in enumerate(models):
            lowest = model == "real" or not fakes
            _heat(add(column, 0), grids[model], model_label(model), names, "RdBu_r", 1.0, column == 0, lowest)
        for column, model in enumerate(fakes, len(models) - len(fakes)):
            _heat(add(column, 1), gaps[model], f"{model_label(model)} minus real", names, "PuOr_r", top, False, True)
        scales = [("RdBu_r", 1.0, "ρ")] + ([("PuOr_r", top, "difference in ρ")] if fakes else [])
        for number, (cmap, limit, label) in enumerate(scales):
            bar = figure.add_axes((left / wide, (0.45 + 0.62 * number) / high, side / wide, 0.12 / high))
            mappable = ScalarMappable(Normalize(-limit, limit), cmap)
            figure.colorbar(mappable, cax=bar, orientation="horizontal").set_label(label, fontsize=7.5)
            bar.tick_params(labelsize=7)
            bar.xaxis.set_major_locator(MaxNLocator(4))

    height = 0.25 + below * side + (below - 1) * 0.35 + (1.15 if fakes else 2.2)
    return save(path, height, draw, left + across * (side + 0.2))


def _heat(
    ax: Axes, grid: np.ndarray, title: str, names: list[str], cmap: str, top: float, rows: bool, columns: bool
) -> None:
    ax.imshow(grid, cmap=cmap, vmin=-top, vmax=top, interpolation="nearest", aspect="auto")
    ax.set_title(title)
    ax.grid(False)
    short = [n if len(n) <= 17 else n[:16] + "…" for n in names]
    ax.tick_params(length=0, labelsize=7 if len(names) <= 16 else 5)
    ax.set_xticks(range(len(names)) if columns else [], short if columns else [], rotation=90)
    ax.set_yticks(range(len(names)) if rows else [], short if rows else [])
