"""Figures of what was published, drawn from tidy rows: distributions and correlations. Equal rows give equal PNG bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from fedjax_health.report.labels import feature_label, model_label
from fedjax_health.report.sheet import DPI, REAL, SOFT, Look, Panel, Piece, Rows, models_of, names_of, sheet
from fedjax_health.report.tables import number

Columns: TypeAlias = Mapping[str, Mapping[str, Any]]  # name -> column of synthetic/schema.json
Looks: TypeAlias = Mapping[str, Look]

SMALL = (1.76, 1.5)  # inches of a panel of one feature: six a line on a wide page, two on a telephone
LETTERS = 9  # of a category's name that fit beside its bars
TITLE_LETTERS = 21  # of a feature's name and unit that fit above its panel
MOST_NAMED = 10  # categories; more are left without their names
NAME_LETTERS = 17  # of a feature's name beside a map
SIDE = 2.2  # inches of a map of correlations; more where its names need it


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


def distributions(rows: Rows, path: str, columns: Columns, looks: Looks, said: Mapping[str, str]) -> list[Piece]:
    """Small multiples: each feature's density, real against each model.

    Args:
      rows: model ("real" included), feature, left, right, density. left = right marks a category, its index.
      path: PNG to write.
      columns: gives units, names of categories, and which features are heavy-tailed (their density is drawn in
        logarithms, since in plain numbers all but the first bar would vanish); may lack any.
      looks: of every model.
      said: feature -> its figures in words, for the alternative text; may lack any.

    Returns:
      A piece a feature.
    """
    models = models_of(rows)
    shown = []
    for feature in names_of(r["feature"] for r in rows):
        mine = [r for r in rows if r["feature"] == feature]
        bars = all(r["left"] == r["right"] for r in mine)
        title = feature_label(feature, columns)
        alt = f"{title}: " + (said.get(feature) or f"distribution of {', '.join(map(model_label, models))}")
        draw = _drawn(mine, models, columns.get(feature, {}), looks, bars, title)
        shown.append(Panel(alt, draw, (0.72, 0.26, 0.14, 0.28) if bars and _named(mine) else None))
    return sheet(path, shown, SMALL, (0.12, 0.26, 0.14, 0.28), {m: looks[m] for m in models})


def _drawn(rows: Rows, models: Sequence[str], column: Mapping[str, Any], looks: Looks, bars: bool, title: str) -> Any:
    def draw(ax: Axes) -> None:
        # beside the names of categories the title starts at the panel's edge, not at the axes'
        short = title if len(title) <= TITLE_LETTERS else title[: TITLE_LETTERS - 1] + "…"
        ax.set_title(short, fontsize=8, x=-0.66 if bars and _named(rows) else 0.0)
        ax.grid(False)
        if bars:
            _bars(ax, rows, models, list(column.get("categories", ())), looks)
        else:
            _steps(ax, rows, models, column.get("transform") == "log1p", looks)

    return draw


def _steps(ax: Axes, rows: Rows, models: Sequence[str], logarithmic: bool, looks: Looks) -> None:
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
        if model == "real":
            ax.stairs(density, edges, fill=True, alpha=0.28, color=REAL, baseline=floor)
        else:
            look = looks[model]
            ax.stairs(density, edges, linewidth=1.3, color=look.colour, linestyle=look.dashes, baseline=floor)
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}")
    if logarithmic:
        ax.set_yscale("log")
        ax.set_ylim(bottom=floor)
        ax.text(1, 0.98, "log density", transform=ax.transAxes, ha="right", va="top", fontsize=7, color=SOFT)


def _named(rows: Rows) -> bool:
    return max(r["left"] for r in rows) < MOST_NAMED


def _bars(ax: Axes, rows: Rows, models: Sequence[str], categories: list[str], looks: Looks) -> None:
    count = 1 + int(max(r["left"] for r in rows))
    height = 0.8 / len(models)
    for place, model in enumerate(models):
        mine = [r for r in rows if r["model"] == model]
        at = np.array([r["left"] for r in mine]) + (place + 0.5) * height - 0.4
        ax.barh(
            at, [r["density"] for r in mine], height, color=looks[model].colour, alpha=0.45 if model == "real" else 1.0
        )
    known = categories if len(categories) == count else [str(k) for k in range(count)]
    short = [c if len(c) <= LETTERS else c[: LETTERS - 1] + "…" for c in known]
    ax.set_yticks(range(count) if _named(rows) else [], short if _named(rows) else [])
    ax.tick_params(axis="y", length=0, labelsize=7.5 if count <= 8 else 7)
    ax.invert_yaxis()
    ax.xaxis.set_major_locator(MaxNLocator(2))
    ax.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    if not _named(rows):
        ax.text(1, 0.98, f"{count} categories", transform=ax.transAxes, ha="right", va="top", fontsize=7, color=SOFT)


def correlations(rows: Rows, path: str) -> list[Piece]:
    """Heat maps of Spearman or Pearson ρ: real, each model, then for each model its difference from real.

    Args:
      rows: model ("real" included), feature_a, feature_b, rho; a pair that is absent or NaN is left white.
      path: PNG to write.

    Returns:
      A piece a map; each tells its largest figure in words.
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
    shown = [_map(grids[m], f"{model_label(m)}: ρ", names, "RdBu_r", 1.0) for m in models]
    shown += [_map(gaps[m], f"{model_label(m)} minus real: ρ", names, "PuOr_r", top) for m in fakes]
    side = max(SIDE, 0.135 * len(names))
    room = 0.16 + 0.066 * min(NAME_LETTERS, max(map(len, names)))
    margins = (room, room, max(0.16, 3.5 - SIDE - room), 0.62)  # a third of the sheet, whatever the names
    return sheet(path, shown, (side + margins[0] + margins[2], side + margins[1] + margins[3]), margins)


def _map(grid: np.ndarray, title: str, names: list[str], cmap: str, top: float) -> Panel:
    apart = np.where(np.eye(len(names), dtype=bool), np.nan, grid)
    alt = f"{title} of {len(names)} features"
    if np.isfinite(apart).any():
        a, b = np.unravel_index(np.nanargmax(np.abs(apart)), apart.shape)
        mean = number(float(np.nanmean(np.abs(apart))), 2)
        alt += f"; the largest is {number(float(apart[a, b]), 2)} ({names[a]} with {names[b]}), the mean size {mean}"

    def draw(ax: Axes) -> None:
        ax.imshow(grid, cmap=cmap, vmin=-top, vmax=top, interpolation="nearest", aspect="auto")
        ax.grid(False)
        short = [n if len(n) <= NAME_LETTERS else n[: NAME_LETTERS - 1] + "…" for n in names]
        ax.tick_params(length=0, labelsize=8 if len(names) <= 16 else 7)
        ax.set_xticks(range(len(names)), short, rotation=90)
        ax.set_yticks(range(len(names)), short)
        high = ax.bbox.height / DPI
        ax.text(0, 1 + 0.42 / high, title, transform=ax.transAxes, fontweight="bold", va="bottom")
        bar = ax.inset_axes((0.0, 1 + 0.28 / high, 1.0, 0.1 / high))
        colours = ax.figure.colorbar(ScalarMappable(Normalize(-top, top), cmap), cax=bar, orientation="horizontal")
        step = 10.0 ** math.floor(math.log10(top))
        far = step * math.floor(top / step + 1e-9)
        colours.set_ticks([-far, 0.0, far])
        bar.tick_params(labelsize=7.5, length=2, pad=1)

    return Panel(alt, draw)
