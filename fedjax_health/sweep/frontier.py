"""frontier.html: what privacy, traffic and time buy, as plots that say what each point is, and a table with its command."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import jinja2

from fedjax_health.files import write_text
from fedjax_health.report.sheet import SPARE_COLOURS, model_colour
from fedjax_health.sweep.measures import MEASURES, Measure, Shown, interval, number, references, shown, strongest_attack
from fedjax_health.sweep.plot import Axis, Mark, plot
from fedjax_health.sweep.results import Results
from fedjax_health.types import UserError

HERE = os.path.dirname(os.path.abspath(__file__))
STYLE = os.path.join(os.path.dirname(HERE), "report", "style.css")


def dominating(points: Sequence[tuple[float, float]], better: tuple[int, int]) -> list[bool]:
    """Which points no other is at least as good as in both figures, and better in one (the Pareto front).

    Args:
      points: figures.
      better: +1 or -1 for each.
    """
    signed = [(better[0] * x, better[1] * y) for x, y in points]
    return [not any(o != p and o[0] >= p[0] and o[1] >= p[1] for o in signed) for p in signed]


def panels(results: Results, every: Sequence[Shown]) -> list[dict[str, Any]]:
    """The plots: everything against epsilon where that varies, and utility and membership against what a run costs.

    Args:
      results: of the sweep.
      every: points.
    """
    varies = len({p.figures["epsilon"][0] for p in every}) > 1
    attack = "tpr" if any(p.figures["tpr"][0] == p.figures["tpr"][0] for p in every) else "auc"
    pairs = [("epsilon", other) for other in ("auroc", attack, "bytes", "seconds")] if varies else []
    pairs += [("bytes", "auroc"), ("seconds", "auroc")] + ([] if varies else [("bytes", attack)])
    colours = colours_of(every)
    found = []
    for x, y in pairs:
        alive = [p for p in every if not (math.isnan(p.figures[x][0]) or math.isnan(p.figures[y][0]))]
        first, second = MEASURES[x], MEASURES[y]
        front = dominating([(p.figures[x][0], p.figures[y][0]) for p in alive], (first.better, second.better))
        marks = [
            Mark(p.figures[x], p.figures[y], p.series, colours[p.series], on, f"#p-{p.point}", _words(p, first, second))
            for p, on in zip(alive, front, strict=True)
        ]
        title = f"{second.axis} against {first.axis}"
        lines, axes = references(results, alive, second), (Axis(first.axis, first.log), Axis(second.axis, second.log))
        found.append(
            {
                "title": title,
                "absent": len(every) - len(alive),
                "svg": plot(title, marks, *axes, lines) if marks else "",
                "better": f"better: {'more' if second.better > 0 else 'less'} {second.axis}, "
                f"{'more' if first.better > 0 else 'less'} {first.axis}",
                "lines": "; ".join(f"{name} {number(value)}" for name, value in lines),
            }
        )
    return found


def colours_of(every: Sequence[Shown]) -> dict[str, str]:
    """Colour of each series: its model's own where the model has one series.

    Args:
      every: points.
    """
    models = dict.fromkeys((p.series, p.model) for p in every)
    many = [model for _, model in models]
    return {
        series: model_colour(model) if many.count(model) == 1 else _COLOURS[i % len(_COLOURS)]
        for i, (series, model) in enumerate(models)
    }


_COLOURS = ("#0072b2", "#d55e00", "#008a63", "#b5578c", "#7a4fa0", *SPARE_COLOURS, "#2b8fbf")


def _words(p: Shown, x: Measure, y: Measure) -> str:
    return f"{p.domain} {p.model}: {y.axis} {interval(p.figures[y.key])}, {x.axis} {interval(p.figures[x.key])}; {p.config}"


def write_frontier(
    name: str,
    results: Results,
    settings: Sequence[dict[str, Any]],
    commands: Sequence[str],
    chosen: dict[str, Any] | None,
    path: str,
) -> str:
    """Writes the page, whole and with nothing outside it.

    Args:
      name: of the sweep.
      results, settings, commands: see `shown`.
      chosen: of a selection, None without one.
      path: of the page.

    Returns:
      path.

    Raises:
      UserError: no run has figures.
    """
    every = shown(results, settings, commands)
    failed = [
        {"point": p["point"], "why": p["failed"], "command": c}
        for p, c in zip(results.points, commands, strict=True)
        if p["failed"]
    ]
    if not every and not failed:
        raise UserError(f"sweep {name!r} has no run with figures; see sweep.parquet")
    attacks = {
        f"{d} {m}": (strongest_attack(results, d, m) or "none").split(":")[-1]
        for d, m in dict.fromkeys((p.domain, p.model) for p in every)
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    with open(STYLE, encoding="utf-8") as file:
        style = file.read()
    page = environment.get_template("frontier.html.j2").render(
        name=name,
        style=style,
        panels=panels(results, every),
        colours=colours_of(every),
        points=every,
        failed=failed,
        chosen=chosen,
        attacks=attacks,
        measures=list(MEASURES.values()),
        interval=interval,
        number=number,
        seeds=sorted({p.seeds for p in every}),
    )
    write_text(path, page)
    return path
