"""Figures of streams, from a run's files: how long channels remember, and synthetic windows beside the range of real ones."""

# pandas' own annotations are unions that a chained expression does not narrow
# pyright: reportAssignmentType=false, reportArgumentType=false
from __future__ import annotations

import os
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from fedjax_health.report.labels import feature_label, model_label
from fedjax_health.report.sheet import legend, model_colour, names_of, save

SHOWN = 4  # synthetic windows a panel


def _span(seconds: pd.Series) -> tuple[pd.Series, str]:
    return (seconds / 60.0, "minutes") if seconds.max() > 300 else (seconds, "seconds")


def autocorrelations(points: pd.DataFrame, path: str) -> str:
    """Autocorrelation within windows by lag, a panel a channel, real against each model.

    Args:
      points: rows of tables/stream_curves.csv of one domain.
      path: PNG to write.

    Returns:
      path.
    """
    points = points[points["curve"] == "acf"]
    channels = names_of(points["channel"])

    def draw(figure: Figure) -> None:
        across = min(len(channels), 4)
        axes = figure.subplots(-(-len(channels) // across), across, squeeze=False).ravel().tolist()
        for ax in axes[len(channels) :]:
            ax.set_visible(False)
        for ax, channel in zip(axes, channels, strict=False):
            for model in names_of(points["model"]):
                line = points[(points["channel"] == channel) & (points["model"] == model)]
                lag, unit = _span(line["x"])
                ax.plot(lag, line["value"], color=model_colour(model), label=model_label(model))
            ax.axhline(0.0, color="#9aa0a6", linewidth=0.7)
            ax.set(title=feature_label(channel, {}), xlabel=f"lag, {unit}", ylim=(-1, 1))
        legend(figure, axes[: len(channels)])

    return save(path, 0.4 + 2.4 * -(-len(channels) // 4), draw)


def examples(points: pd.DataFrame, windows: dict[str, pd.DataFrame], path: str) -> str:
    """Synthetic windows over the 5-95 % range of real ones at each step, a line a model and a panel a channel.

    No single real window is drawn: it would be a person's record.

    Args:
      points: rows of tables/stream_curves.csv of one domain.
      windows: model to its published windows, one row a step.
      path: PNG to write.

    Returns:
      path.
    """
    real = points[points["model"] == "real"]
    channels = names_of(real["channel"])

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(windows), len(channels), squeeze=False, sharex=True, sharey="col")
        for line, (model, frame) in zip(grid, windows.items(), strict=True):
            for ax, channel in zip(line, channels, strict=True):
                own = real[real["channel"] == channel]
                low, middle, high = (own[own["curve"] == q] for q in ("q05", "q50", "q95"))
                time, unit = _span(low["x"])
                ax.fill_between(time, low["value"], high["value"], color="#d5d7da", label="Real, 5-95 % at a step")
                ax.plot(time, middle["value"], color=model_colour("real"), linestyle=":", label="Real, median")
                for number in range(min(SHOWN, int(frame["window"].max()) + 1)):
                    one = frame[frame["window"] == number]
                    colour, name = model_colour(model), f"{model_label(model)}, a window"
                    ax.plot(time, one[channel], color=colour, linewidth=0.9, alpha=0.9, label=name)
                ax.set(title=f"{feature_label(channel, {})}, {model_label(model)}")
                if ax in grid[-1]:
                    ax.set_xlabel(unit)
        legend(figure, [ax for line in grid for ax in line])

    return save(path, 0.5 + 2.2 * len(windows), draw)


def stream_figures(workdir: str, domain: str, models: Sequence[str]) -> list[str]:
    """Draws the figures of a domain from tables/stream_curves.csv and the published windows.

    Args:
      workdir: the run's folder.
      domain: a stream.
      models: whose windows were published.

    Returns:
      Paths of figures/<domain>_acf.png and <domain>_windows.png.
    """
    points = pd.read_csv(os.path.join(workdir, "tables", "stream_curves.csv"))
    points = points[points["domain"] == domain]
    windows = {m: pd.read_parquet(os.path.join(workdir, "synthetic", f"{domain}_{m}.parquet")) for m in models}
    folder = os.path.join(workdir, "figures")
    os.makedirs(folder, exist_ok=True)
    return [
        autocorrelations(points, os.path.join(folder, f"{domain}_acf.png")),
        examples(points, windows, os.path.join(folder, f"{domain}_windows.png")),
    ]
