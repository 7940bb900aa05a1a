"""One line to read each table by, computed from its rows; "" where the rows say nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fedjax_health.report import labels, tables
from fedjax_health.report.summary import COPULA, TPR, find
from fedjax_health.report.verdicts import EQUIVALENT, compare
from fedjax_health.report.verdicts import figure as _figure
from fedjax_health.types import Row

TAIL = 0.025  # of 95 % intervals around guessing lie wholly above it by chance
SHAPES = ("ks_complement", "tv_complement")


def features(rows: Sequence[Row]) -> str:
    """Which generator keeps how many means, and the feature whose distribution is furthest from the real one."""
    said = []
    for model in _models(rows):
        mine = [r for r in rows if r.model == model and r.row not in labels.ROWS]
        tested = [r for r in mine if r.metric == "tost_p" and not math.isnan(r.value)]
        shapes = [r for r in mine if r.metric in SHAPES and not math.isnan(r.value)]
        parts = []
        if tested:
            kept = sum(r.value < EQUIVALENT for r in tested)
            parts.append(f"{kept} of {len(tested)} means shown to agree within 0.2\u00a0SD")
        if shapes:
            worst = min(shapes, key=lambda r: r.value)
            parts.append(f"furthest distribution {worst.row} ({labels.short_heading(worst.metric)} {_figure(worst)})")
        if parts:
            said.append(f"{labels.model_label(model)}: {'; '.join(parts)}.")
    return " ".join(said)


def feature_words(rows: Sequence[Row], feature: str) -> str:
    """A feature's figures in words, for who does not see its picture: "real 72.4 ± 10.5; VAE 72.2 ± 10.3, KS 0.95"."""
    mine = [r for r in rows if r.row == feature and not math.isnan(r.value)]
    said = []
    for model in _models(mine):
        found = {r.metric: r.value for r in mine if r.model == model}
        for who, mean, sd in (
            ("real", "real_mean", "real_sd"),
            (labels.model_label(model), "synthetic_mean", "synthetic_sd"),
        ):
            if mean in found and not (who == "real" and said):
                said.append(
                    f"{who} {tables.number(found[mean])}" + (f" ± {tables.number(found[sd])}" if sd in found else "")
                )
        shape = next((m for m in SHAPES if m in found), None)
        if shape:
            text = f"{labels.short_heading(shape)} {tables.number(found[shape], 2)}"
            told = said and said[-1].startswith(labels.model_label(model))
            said[len(said) - bool(told) :] = [f"{said[-1]}, {text}" if told else f"{labels.model_label(model)} {text}"]
    return "; ".join(said)


def overall(rows: Sequence[Row]) -> str:
    """Which generator a classifier tells least from real ones, and how all stand to the copula."""
    told = [r for r in rows if r.row == "synthetic" and r.metric == "c2st_auc" and not math.isnan(r.value)]
    if not told:
        return ""
    best = min(told, key=lambda r: abs(r.value - 0.5))
    only = "The" if len(told) == 1 else "Hardest to tell from real records is"
    start = f"{only} {labels.model_label(best.model)}{' has' if len(told) == 1 else ','} C2ST AUC {_figure(best)}"
    copula = find(rows, COPULA, "c2st_auc", ("-", best.model))
    if copula is None or math.isnan(copula.value):
        return start + "."
    places = {-1: "clearly closer than", 0: "level with", 1: "clearly further off than"}
    groups = {order: [labels.model_label(r.model) for r in told if compare(r, copula) == order] for order in (-1, 0, 1)}
    against = "; ".join(f"{places[order]} it: {', '.join(names)}" for order, names in groups.items() if names)
    return f"{start}; the copula floor has {_figure(copula)} ({against})."


def correlation(rows: Sequence[Row]) -> str:
    """Mean error of the correlations of each generator, beside the copula's."""
    errors = [
        r for r in rows if r.metric == "correlation_error_mean" and r.row in ("synthetic", COPULA, "real-vs-real")
    ]
    names = [labels.model_label(r.model) if r.row == "synthetic" else labels.row_label(r.row) for r in errors]
    said = "; ".join(f"{name} {_figure(r)}" for name, r in zip(names, errors, strict=True) if not math.isnan(r.value))
    return f"Mean error of a correlation: {said}." if said else ""


def trained(rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """The best classifier without real records, beside the one trained on them.

    Args:
      rows: utility or detection rows of the domain.
      metrics: which to read, the first that is there.
    """
    for metric in metrics:
        mine = [r for r in rows if r.metric == metric and not math.isnan(r.value)]
        fakes = [r for r in mine if r.row == "synthetic"]
        if not fakes:
            continue
        best = max(fakes, key=lambda r: r.value)
        name = labels.short_heading(metric)
        real = next((r for r in mine if r.row == "real"), None)
        stands = "does best" if len(fakes) > 1 else "stands"
        said = (
            f"Trained on synthetic records alone, {labels.model_label(best.model)} {stands} at {name} {_figure(best)}"
        )
        if real is None:
            return said + "."
        order = {-1: "clearly less than", 0: "not clearly different from", 1: "clearly more than"}[compare(best, real)]
        return f"{said}: {order} the {_figure(real)} of real records."
    return ""


def types(rows: Sequence[Row]) -> str:
    """The type of attack that is found least when trained on synthetic records alone."""
    mine = [
        r for r in rows if r.row == "synthetic" and r.metric.startswith("detection_rate[") and not math.isnan(r.value)
    ]
    if not mine:
        return ""
    worst = min(mine, key=lambda r: r.value)
    kind = worst.metric.partition("[")[2].removesuffix("]")
    real = next((r for r in rows if r.row == "real" and r.metric == worst.metric), None)
    beside = f"; trained on real ones {_figure(real)}" if real is not None else ""
    where = f"{_figure(worst)} ({labels.model_label(worst.model)})"
    return f"Least found after training on synthetic records: {kind}, {where}{beside}."


def gained(rows: Sequence[Row]) -> str:
    """What synthetic rows did to the same real ones, by the first of the gains."""
    metric = next(
        (m for m in ("auroc_gain", "pr_auc_gain", *(r.metric for r in rows)) if any(r.metric == m for r in rows)), None
    )
    mine = [r for r in rows if r.metric == metric and not math.isnan(r.value)]
    if metric is None or not mine:
        return ""
    groups: dict[str, list[str]] = {"they help": [], "they do harm": [], "no clear difference": []}
    for r in mine:
        open_ = math.isnan(r.low) or r.low <= 0 <= r.high
        verdict = "no clear difference" if open_ else "they help" if r.low > 0 else "they do harm"
        groups[verdict].append(f"{labels.model_label(r.model)} ({labels.row_label(r.row)})")
    told = "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in groups.items() if names)
    return f"By {labels.short_heading(metric.removesuffix('_gain'))}, {told}."


def membership(rows: Sequence[Row]) -> str:
    """How many attacks beat guessing with their whole interval, how many would by chance, and what figures below it mean."""
    attacks = [r for r in rows if r.row not in labels.BOUNDS and not math.isnan(r.value)]
    metric, chance = (TPR, 0.01) if any(r.metric == TPR for r in attacks) else ("auc", 0.5)
    mine = [r for r in attacks if r.metric == metric]
    known = [r for r in mine if math.isfinite(r.low)]
    if not mine:
        return ""
    name = labels.short_heading(metric)
    if not known:
        return f"No attack has an interval, so none is shown to beat guessing ({name} {chance:g})."
    above = [r for r in known if r.low > chance]
    listed = ", ".join(f"{labels.attack_parts(r.row)[1]} on {_owner(r)}" for r in above[:4])
    more = f" and {len(above) - 4} more" if len(above) > 4 else ""
    chanced = tables.number(TAIL * len(known), 1)
    said = (
        f"{len(above) or 'None'} of {len(known)} attacks {'beats' if len(above) == 1 else 'beat'} guessing ({name} {chance:g}) "
        f"with the whole interval{f': {listed}{more}' if above else ''}; by chance about {chanced} would."
    )
    below = any(r.value < chance for r in mine)
    return said + (" A figure below guessing is noise, not protection." if below else "")


def _owner(row: Row) -> str:
    return labels.model_label(row.model) if row.model != "-" else labels.attack_parts(row.row)[0].lower() or "all"


def gaps(rows: Sequence[Row]) -> str:
    """The largest gap between subgroups, beside the one that real records give."""
    mine = [r for r in rows if "=" not in r.metric and not math.isnan(r.value)]
    if not mine:
        return ""
    worst = max(mine, key=lambda r: r.value)
    group = worst.metric.partition("[")[2].removesuffix("]")
    what = (
        f"{labels.short_heading(worst.metric).lower()} by {group}"
        if group
        else labels.short_heading(worst.metric).lower()
    )
    where = labels.row_label(worst.row).lower() + (f" {labels.model_label(worst.model)}" if worst.model != "-" else "")
    real = next((r for r in mine if r.row == "real" and r.metric == worst.metric), None)
    if real is None or real is worst:
        return f"Largest gap: {what}, {_figure(worst)} ({where})."
    order = "clearly larger than" if compare(worst, real) > 0 else "not clearly larger than"
    return f"Largest gap: {what}, {_figure(worst)} ({where}); {order} the {_figure(real)} with real records."


def costs(rows: Sequence[Row]) -> str:
    """Which training sent most to the server."""
    sent = [r for r in rows if r.metric == "bytes up in all" and r.value > 0]
    if not sent:
        return ""
    most, least = max(sent, key=lambda r: r.value), min(sent, key=lambda r: r.value)
    said = f"{labels.model_label(most.model)} sent {tables.quantity(most.value, 'B')} to the server"
    if most.model == least.model:
        return said + " in all."
    times = tables.number(most.value / least.value, 1)
    return f"{said} in all, {times} times as much as {labels.model_label(least.model)} ({tables.quantity(least.value, 'B')})."


def disclosure(rows: Sequence[Row]) -> str:
    """Which risks of the generators are above 0 with their whole interval; model "real", a copy of members, is the ceiling."""
    risks = [r for r in rows if r.metric == "risk" and r.model != "real" and not math.isnan(r.value)]
    if not risks:
        return ""
    above = [f"{labels.row_label(r.row)} ({_owner(r)}) {_figure(r)}" for r in risks if r.low > 0]
    listed = ": " + "; ".join(above) if above else ""
    count = len(above) or "None"
    return f"{count} of {len(risks)} risks lie above 0 with the whole interval{listed}. By chance 2.5\u00a0% would."


def _models(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(r.model for r in rows if r.model != "-"))
