"""Sheets of panels: one PNG on disk, and each panel a picture of its own, so that a page can set few or many in a line."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import matplotlib
import matplotlib.image
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from fedjax_health.report.labels import model_label

Rows: TypeAlias = Sequence[dict[str, Any]]
Name = TypeVar("Name", bound=Hashable)

REAL = "#4a4a4a"
SOFT = "#5f6368"
RULE = "#80868b"
MODEL_COLOURS = {  # each at least 3 : 1 on white
    "vae": "#0072b2", "wgan_gp": "#d55e00", "gan": "#008a63", "acgan": "#b5578c", "medgan": "#2b8fbf", "diffusion": "#7a4fa0",
}  # fmt: skip
SPARE_COLOURS = ("#8c5a12", "#4b5d9e", "#b0413e", "#5f7a00")  # for models not named above, in turn
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (2.5, 2.5)), (0, (9, 2, 1, 2, 1, 2)))
WIDTH = 10.6  # inches of a sheet, the page's 1060 px at 100 dpi
DPI = 150
SHOWN_DPI = 100  # at which one inch of a panel is that many pixels of a page
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 8.5, "axes.titlesize": 8.5, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": RULE,
    "axes.linewidth": 0.7, "axes.labelcolor": "#3c4043", "xtick.color": SOFT, "ytick.color": SOFT,
    "xtick.labelsize": 8, "ytick.labelsize": 8, "axes.labelsize": 8, "legend.fontsize": 8,
    "legend.frameon": False, "lines.linewidth": 1.6, "axes.grid": True, "grid.color": "#e8eaed", "grid.linewidth": 0.6,
    "axes.axisbelow": True,
}  # fmt: skip


class Look(NamedTuple):
    """How a model is drawn everywhere on a page; the dashes tell it from others where colours do not."""

    colour: str
    dashes: Any


class Panel(NamedTuple):
    """One panel: what a reader who does not see it is told, how it is drawn, and its margins.

    Attributes:
      alt: what it shows, in words and figures.
      draw: draws on empty axes.
      margins: inches left, below, right and above of the axes, of the sheet where None.
    """

    alt: str
    draw: Callable[[Axes], None]
    margins: tuple[float, float, float, float] | None = None


class Piece(NamedTuple):
    """A panel as a page holds it: a data URI, its words, and the width in CSS pixels at which its letters are 11 px high."""

    src: str
    alt: str
    width: int


def names_of(values: Iterable[Name]) -> list[Name]:
    """Distinct values in the order of their first appearance."""
    return list(dict.fromkeys(values))


def models_of(rows: Rows) -> list[str]:
    """Models of rows, "real" first."""
    return sorted(names_of(r["model"] for r in rows), key=lambda m: (m != "real", m))


def model_colour(model: str) -> str:
    """The colour of one model alone; one without a colour of its own gets it from its name's letters."""
    known = {"real": REAL, "-": REAL, **MODEL_COLOURS}
    return known.get(model) or SPARE_COLOURS[sum(model.encode()) % len(SPARE_COLOURS)]


def looks_of(models: Sequence[str]) -> dict[str, Look]:
    """The look of every model of a page: real records grey and solid, the others told apart by colour and by dashes.

    Args:
      models: names, "real" and "-" among them or not.
    """
    fakes = [m for m in names_of(models) if m not in ("real", "-")]
    strangers = [m for m in fakes if m not in MODEL_COLOURS]
    colours = MODEL_COLOURS | {m: SPARE_COLOURS[k % len(SPARE_COLOURS)] for k, m in enumerate(strangers)}
    looks = {m: Look(colours[m], DASHES[k % len(DASHES)]) for k, m in enumerate(fakes)}
    return {"real": Look(REAL, "-"), "-": Look(REAL, "-"), **looks}


def sheet(
    path: str,
    panels: Sequence[Panel],
    size: tuple[float, float],
    margins: tuple[float, float, float, float],
    keys: Mapping[str, Look] | None = None,
) -> list[Piece]:
    """Draws panels side by side, writes the sheet as PNG, and cuts it into its panels. Equal panels give equal bytes.

    Args:
      path: PNG to write.
      panels: one or more.
      size: width and height of each, inches.
      margins: inches left, below, right and above of each panel's axes.
      keys: models to explain above the panels of the sheet; a page explains them itself.

    Returns:
      A piece a panel.
    """
    across = min(len(panels), max(1, int(WIDTH / size[0] + 1e-6)))
    lines = -(-len(panels) // across)
    head = 0.26 * -(-len(keys) // 6) if keys else 0.0
    wide, high = across * size[0], lines * size[1] + head
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(wide, high))
        canvas = FigureCanvasAgg(figure)
        figure.set_dpi(DPI)
        for number, panel in enumerate(panels):
            left, below, right, above = panel.margins or margins
            x, top = (number % across) * size[0], high - head - (number // across) * size[1]
            box = x + left, top - size[1] + below, size[0] - left - right, size[1] - below - above
            panel.draw(figure.add_axes((box[0] / wide, box[1] / high, box[2] / wide, box[3] / high)))
        if keys:
            handles = [Patch(color=k.colour, alpha=0.35) if m == "real" else _stroke(k) for m, k in keys.items()]
            figure.legend(handles, [model_label(m) for m in keys], loc="upper left", ncols=6)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    with open(path, "wb") as file:
        file.write(_png(pixels))
    pieces = []
    for number, panel in enumerate(panels):
        x, top = (number % across) * size[0], head + (number // across) * size[1]
        part = pixels[round(top * DPI) : round((top + size[1]) * DPI), round(x * DPI) : round((x + size[0]) * DPI)]
        src = "data:image/png;base64," + base64.b64encode(_png(part)).decode("ascii")
        pieces.append(Piece(src, panel.alt, round(size[0] * SHOWN_DPI)))
    return pieces


def _stroke(look: Look) -> Line2D:
    return Line2D([], [], color=look.colour, linestyle=look.dashes)


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    unnamed: Any = {"Software": None}  # no date and no version in the file, so that equal runs give equal bytes
    matplotlib.image.imsave(buffer, np.ascontiguousarray(pixels), format="png", metadata=unnamed)
    return buffer.getvalue()


def save(path: str, height: float, draw: Callable[[Figure], None], width: float = WIDTH) -> str:
    """Draws a figure that is not made of panels of one size, and writes it as PNG.

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
        figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return path


def legend(figure: Figure, axes: Sequence[Axes], columns: int = 6) -> None:
    """One legend above all panels, each name once."""
    entries: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(entries.values(), entries.keys(), loc="outside upper left", ncols=columns)
