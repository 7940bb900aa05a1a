"""What the page of a sweep shows of each generator of each point: its figures, and the marks that they are judged by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fedjax_health.sweep.results import Results
from fedjax_health.sweep.run_piece import EVERY

# settings that say where a point lies on an axis, or what its generator is, and not to which line it belongs
OF_THE_AXIS = ("privacy.mechanism", "privacy.epsilon", "privacy.noise_multiplier", "privacy.trial", "models")
Figure = tuple[float, float, float, int]  # value, low, high, n
NOTHING: Figure = (math.nan, math.nan, math.nan, 0)


class Measure(NamedTuple):
    """A quantity of the plots.

    Attributes:
      key: its name in the code.
      axis: "ε", "bytes", ...
      log: whether its axis is logarithmic.
      better: +1 where more is better, -1 where less is.
      most: end of its range, at which intervals are cut.
      marks: what it is judged by: (row of the table or "", name, value where the table has none).
    """

    key: str
    axis: str
    log: bool
    better: int
    most: float = math.inf
    marks: tuple[tuple[str, str, float], ...] = ()


MEASURES = {
    m.key: m
    for m in (
        Measure("epsilon", "ε of the run", True, -1),
        Measure(
            "auroc",
            "TSTR AUROC",
            False,
            1,
            1.0,
            (("real", "real records", math.nan), ("gaussian-copula", "Gaussian copula", math.nan)),
        ),
        Measure("tpr", "TPR at 1 % FPR", False, -1, 1.0, (("", "guessing", 0.01),)),
        Measure("auc", "attack AUC", False, -1, 1.0, (("", "guessing", 0.5),)),
        Measure("bytes", "bytes up and down", True, -1),
        Measure("seconds", "simulated seconds", True, -1),
    )
}


class Shown(NamedTuple):
    """A point of a domain and model as the page shows it.

    Attributes:
      point: its name.
      domain, model: which generator.
      series: colour and name of the line that it belongs to.
      config: its settings, in words.
      command: that runs it alone.
      figures: measure -> figure over its seeds.
      seeds: N.
    """

    point: str
    domain: str
    model: str
    series: str
    config: str
    command: str
    figures: dict[str, Figure]
    seeds: int


def strongest_attack(results: Results, domain: str, model: str) -> str | None:
    """The attack on a generator's published table that succeeds most on average over all points, chosen once for all of
    them: the best of each point would be too high by chance.

    Args:
      results: of the sweep.
      domain, model: the generator.
    """
    found = results.lines
    mine = found[
        (found["seed"] == EVERY)
        & (found["domain"] == domain)
        & (found["model"] == model)
        & (found["metric"] == "auc")
        & found["row"].str.startswith("federated+synthetic:")
        & ~found["row"].str.endswith(":white-box")
    ]
    rates: dict[str, list[float]] = {}
    for row, value in zip(mine["row"], mine["value"], strict=True):
        rates.setdefault(row, []).append(value)
    means = {row: float(np.mean(values)) for row, values in rates.items() if not np.isnan(values).any()}
    return max(means, key=lambda row: means[row]) if means else None


def shown(results: Results, settings: Sequence[dict[str, Any]], commands: Sequence[str]) -> list[Shown]:
    """Every generator of every point that did not fail.

    Args:
      results: of the sweep.
      settings: of each point, as `results.settings_of` gives them.
      commands: of each point.
    """
    lines = results.lines
    pairs = lines[(lines["row"] == "synthetic") & (lines["metric"] == "auroc")][["domain", "model"]].drop_duplicates()
    varied = [key for key in (settings[0] if settings else {}) if len({str(s[key]) for s in settings}) > 1]
    found = []
    for domain, model in pairs.itertuples(index=False):
        attack = strongest_attack(results, domain, model)
        for point, own, line in zip(results.points, settings, commands, strict=True):
            figures = _figures(results, point, domain, model, attack)
            if figures["auroc"][3]:
                rest = [f"{key}={own[key]}" for key in varied if key not in OF_THE_AXIS]
                series = ", ".join([f"{domain} {model}" if len(set(pairs["domain"])) > 1 else model, *rest])
                text = ", ".join(f"{key}={value}" for key, value in own.items() if value != "")
                found.append(Shown(point["point"], domain, model, series, text, line, figures, point["seeds"]))
    return found


def _figures(results: Results, point: dict[str, Any], domain: str, model: str, attack: str | None) -> dict[str, Figure]:
    name = point["point"]
    spent = point["ledger"]["epsilon_total"]
    epsilon = math.inf if spent is None else float(spent)
    both = [results.figure(name, domain, model, "federation", f"bytes {way} in all") for way in ("up", "down")]
    low = high = math.nan  # the ends of a sum are not the sum of ends
    traffic = sum(value for value, *_ in both)
    found = {
        "epsilon": (epsilon, epsilon, epsilon, 1),
        "auroc": results.figure(name, domain, model, "synthetic", "auroc"),
        "bytes": (traffic, low, high, both[0][3]),
        "seconds": results.figure(name, domain, model, "devices", "simulated time in all (s)"),
    }
    for key, metric in (("tpr", "tpr_at_1pct_fpr"), ("auc", "auc")):
        found[key] = results.figure(name, domain, model, attack, metric) if attack else NOTHING
    return {key: _cut(figure, MEASURES[key].most) for key, figure in found.items()}


def _cut(figure: Figure, most: float) -> Figure:
    """A figure whose interval ends where its range does; Student's t knows no range."""
    value, low, high, n = figure
    return value, max(low, 0.0) if low == low else low, min(high, most) if high == high else high, n


def references(results: Results, every: Sequence[Shown], measure: Measure) -> list[tuple[str, float]]:
    """Lines to judge a plot by, such as a classifier trained on real records: (name, mean over all points).

    Args:
      results: of the sweep.
      every: points of the plot.
      measure: of its y axis.
    """
    found = []
    for domain in dict.fromkeys(p.domain for p in every):
        for row, name, value in measure.marks:
            if row:
                mine = [results.figure(p.point, domain, "-", row, measure.key)[0] for p in every if p.domain == domain]
                value = float(np.mean(mine))
            if not math.isnan(value) and (name, value) not in found:
                found.append((name, value))
    return found


def number(value: float) -> str:
    """A figure with three digits that count; ∞, and – for what is not known."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def interval(figure: Figure) -> str:
    """A figure with its 95 % interval where it has one."""
    value, low, high, _ = figure
    if math.isnan(low) or math.isnan(high) or low == high:
        return number(value)
    return f"{number(value)} [{number(low)}, {number(high)}]"
