"""One scatter plot as SVG: marks with intervals, each a link that says what it is; no script, no picture file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 400, 290
LEFT, RIGHT, TOP, BOTTOM = 60, 12, 12, 44
GAP = 34  # px from the right edge of the finite part to the place of infinity
INK, SOFT, GRID = "#202124", "#5a5e63", "#e8eaed"


class Axis(NamedTuple):
    """Title of an axis, and whether it is logarithmic."""

    title: str
    log: bool


class Mark(NamedTuple):
    """One point of a plot.

    Attributes:
      x, y: (value, low, high, n); x may be infinite.
      series: which line it belongs to.
      colour: of the series.
      front: whether no other point is better.
      href: where its row stands.
      words: what it is.
    """

    x: tuple[float, float, float, int]
    y: tuple[float, float, float, int]
    series: str
    colour: str
    front: bool
    href: str
    words: str


class Scale(NamedTuple):
    """From figures to pixels.

    Attributes:
      low, high: ends of the finite part, in figures (their logarithms where `log`).
      start, end: the same in pixels.
      log: whether it is logarithmic.
      far: pixel of infinity.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool
    far: float

    def place(self, value: float) -> float:
        """Pixel of a figure, inside the ends."""
        if math.isinf(value):
            return self.far
        at = math.log10(max(value, 1e-300)) if self.log else value
        share = (min(max(at, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round figures inside the ends."""
        if self.log and self.high - self.low >= 1.0:
            powers = range(math.floor(self.low), math.ceil(self.high) + 1)
            factors = (1,) if self.high - self.low > 3 else (1, 2, 5)
            every = [f * 10.0**p for p in powers for f in factors]
            return [v for v in every if self.low - 1e-9 <= math.log10(v) <= self.high + 1e-9]
        low, high = (10**self.low, 10**self.high) if self.log else (self.low, self.high)
        rough = (high - low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= rough)
        first = math.ceil(low / step)
        return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def make_scale(values: Sequence[float], log: bool, start: float, end: float) -> Scale:
    """A scale that holds all finite figures with a margin; infinity has a place of its own beyond its end.

    Args:
      values: figures and ends of intervals; NaN is left out.
      log: whether the axis is logarithmic.
      start, end: pixels.
    """
    finite = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
    far, end = (end, end - GAP) if any(math.isinf(v) for v in values) and finite else (end, end)
    at = [math.log10(v) if log else v for v in finite] or [0.0]
    low, high = min(at), max(at)
    room = 0.06 * (high - low) or 0.1 * abs(high) or 0.5
    return Scale(low - room, high + room, start, end, log, far)


def plot(title: str, marks: Sequence[Mark], x: Axis, y: Axis, lines: Sequence[tuple[str, float]] = ()) -> str:
    """The plot, with every mark's words in its title and on its link.

    Args:
      title: what it shows, for whoever does not see it.
      marks: at least one.
      x, y: axes.
      lines: (name, y) to judge the marks by.
    """
    across = make_scale([m.x[0] for m in marks], x.log, LEFT, WIDTH - RIGHT)
    up = make_scale([*(v for m in marks for v in m.y[:3]), *(v for _, v in lines)], y.log, HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="group" aria-label="{escape(title)}; {len(marks)} points, listed below" '
        f'class="plot">'
    ]
    parts += _axes(across, up, x, y, any(math.isinf(m.x[0]) for m in marks))
    named: list[float] = []
    for name, value in lines:
        at = up.place(value)
        # above its line, or below where another name is
        named.append(next((y for y in (at - 4, at + 12) if all(abs(y - other) >= 12 for other in named)), at - 20))
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="{SOFT}" stroke-dasharray="4 3"/>')
        parts.append(f'<text x="{LEFT + 4}" y="{named[-1]:.1f}" fill="{SOFT}" font-size="11">{escape(name)}</text>')
    for series in dict.fromkeys(m.series for m in marks):
        own = sorted((m for m in marks if m.series == series), key=lambda m: m.x[0])
        path = " ".join(f"{across.place(m.x[0]):.1f},{up.place(m.y[0]):.1f}" for m in own)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{own[0].colour}" stroke-width="1" opacity="0.55"/>'
        )
    for m in marks:
        parts.append(_mark(m, across.place(m.x[0]), up))
    return "\n".join([*parts, "</svg>"])


def _mark(m: Mark, left: float, up: Scale) -> str:
    top, bar = up.place(m.y[0]), ""
    if math.isfinite(m.y[1]) and math.isfinite(m.y[2]) and m.y[1] < m.y[2]:
        ends = up.place(m.y[1]), up.place(m.y[2])
        bar = f'<path d="M{left:.1f} {ends[0]:.1f}V{ends[1]:.1f}" stroke="{m.colour}" stroke-width="1.3"/>'
    fill = m.colour if m.front else "#fff"
    words = escape(m.words)
    at = f'cx="{left:.1f}" cy="{top:.1f}"'
    return (
        f'<a href="{m.href}" aria-label="{words}"><title>{words}</title>{bar}<circle {at} r="12" fill="transparent"/>'
        f'<circle {at} r="5" fill="{fill}" stroke="{m.colour}" stroke-width="2"/></a>'
    )


def _axes(across: Scale, up: Scale, x: Axis, y: Axis, endless: bool) -> list[str]:
    base, parts = HEIGHT - BOTTOM, []

    def text(left: float, top: float, words: str, anchor: str, more: str = "") -> str:
        at = f'x="{left:.1f}" y="{top:.1f}" text-anchor="{anchor}"'
        return f'<text {at} fill="{SOFT}" font-size="12"{more}>{escape(words)}</text>'

    for value in up.ticks():
        at = up.place(value)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="{GRID}"/>')
        parts.append(text(LEFT - 7, at + 4, short(value), "end"))
    for value in across.ticks():
        at = across.place(value)
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{base}" y2="{base + 4}" stroke="{SOFT}"/>')
        parts.append(text(at, base + 17, short(value), "middle"))
    if endless:
        parts.append(text(across.far, base + 17, "∞", "middle"))
    parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}" stroke="{INK}"/>')
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x.title, "middle"))
    middle = (TOP + base) / 2
    parts.append(text(14, middle, y.title, "middle", f' transform="rotate(-90 14 {middle:.1f})"'))
    return parts


def short(value: float) -> str:
    """A tick's figure: 0.5, 20, 3 k, 1.5 M, 2 G."""
    for unit, factor in ((" G", 1e9), (" M", 1e6), (" k", 1e3)):
        if abs(value) >= factor:
            return f"{value / factor:g}{unit}"
    return f"{value:.3g}"
