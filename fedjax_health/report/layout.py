"""Which figures of a domain stand in which grid of the page, and how each is written."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from fedjax_health.evaluation import alerts, collapse, copying
from fedjax_health.report import labels, tables
from fedjax_health.report.paper import paper_line, with_paper
from fedjax_health.types import Row

FEATURE_METRICS = ("real_mean", "synthetic_mean", "welch_p", "tost_p", "ks_complement", "wasserstein_sd", "js_distance")
SPREAD = {"real_mean": "real_sd", "synthetic_mean": "synthetic_sd"}
MISSING = "missing_rate_difference"
ALONE = "single_feature_auroc"
CHOICE = ("added_rows", "chosen")
UNITS = (("byte", "B"), ("peak memory", "B"), ("flop", "FLOP"), ("energy", "J"), ("second", "s"), ("(s)", "s"))
Columns = Mapping[str, Mapping[str, Any]]  # name -> column of synthetic/schema.json


def is_feature(row: Row, columns: Columns) -> bool:
    """Whether a similarity row is about a feature, and not about the table as a whole."""
    return row.row in columns if columns else row.row not in labels.ROWS


def overall(rows: Sequence[Row], columns: Columns) -> tables.Grid:
    """Table 1 for the table as a whole, with its floors and its ceiling."""
    apart = ("collapsed", *collapse.FIGURES, *copying.FIGURES)
    return plain([r for r in rows if not is_feature(r, columns) and "[" not in r.metric and r.metric not in apart])


def collapse_signs(rows: Sequence[Row]) -> tables.Grid:
    """What the verdict on collapse is read from, beside the coverage, for every generator, the floors and the ceiling."""
    return plain([r for r in rows if r.row in labels.ROWS and r.metric in collapse.FIGURES])


def copying_signs(rows: Sequence[Row]) -> tables.Grid:
    """Whether rows lie nearer to the training records than to others, for every generator, the floors and the ceiling."""
    return plain([r for r in rows if r.row in labels.ROWS and r.metric in copying.FIGURES])


def trained(rows: Sequence[Row]) -> tables.Grid:
    """Table 2 or 4: quality of classifiers, without what stands in grids of its own (by type, gains, rows added, columns)."""
    apart = (ALONE, *alerts.FIGURES)
    return plain([r for r in rows if not ("[" in r.metric or r.metric.endswith("_gain") or r.metric in apart)])


def stream_alerts(rows: Sequence[Row]) -> tables.Grid:
    """What an operator would see: alerts a day, and how long a campaign goes on unseen."""
    return plain([r for r in rows if r.metric in alerts.FIGURES])


def single_features(rows: Sequence[Row]) -> tables.Grid:
    """How far each column gives attacks away by itself, the most telling first."""
    mine = sorted((r for r in rows if r.metric == ALONE), key=lambda r: -r.value if r.value == r.value else 0.0)
    return tables.grid(mine, lambda r: (r.row, "-"), lambda r: r.metric)


def gained(rows: Sequence[Row]) -> tables.Grid:
    """What synthetic rows added to the same real ones, paired by seed."""
    return plain([r for r in rows if r.metric.endswith("_gain")])


def added(rows: Sequence[Row]) -> tables.Grid:
    """Rows of each class that were added where the amount was chosen, and how often each amount was: a line each."""
    mine = [r for r in rows if _group(r.metric)[0] in CHOICE]

    def name(r: Row) -> tuple[str, str]:
        metric, group = _group(r.metric)
        return (f"rows added: {group}" if metric == "added_rows" else f"share of seeds that chose: {group}"), "-"

    return tables.grid(mine, name, lambda r: f"\n{r.model}", by_line=True)


def further(table: str, rows: Sequence[Row]) -> tables.Grid:
    """What no other grid of a table shows: metrics by group that it has no place for, a line each, under their own names.

    Args:
      table: its name.
      rows: of the domain.
    """
    placed = {"similarity": ("collapsed",), "utility": CHOICE, "detection": (*CHOICE, "detection_rate")}.get(table, ())
    rest = [r for r in rows if "[" in r.metric and _group(r.metric)[0] not in placed]
    return crossed(rest, lambda r: f"{labels.short_heading(r.metric)}: {_group(r.metric)[1].replace('=', ' ')}")


def plain(rows: Sequence[Row]) -> tables.Grid:
    """Rows against metrics."""
    return tables.grid(tables.in_order(rows), lambda r: (r.row, r.model), lambda r: r.metric, list(labels.METRICS))


def features(rows: Sequence[Row], columns: Columns) -> tables.Grid:
    """Table 1 by feature: SD beside its mean, TV of categories in the column of KS, small p as "<0.001".

    A p-value has no interval, and the mean of the same held-out records none over seeds.

    Args:
      rows: similarity rows of the domain.
      columns: public ranges, to which intervals of means are cut.
    """
    rows = [r for r in rows if is_feature(r, columns) and r.metric != MISSING and "[" not in r.metric]
    rows = tables.in_order(rows)
    place = {(r.row, r.model, r.metric): r for r in rows}
    shown = [r._replace(metric="ks_complement") if r.metric == "tv_complement" else r for r in rows]
    shown = [r for r in shown if r.metric not in SPREAD.values()]

    def show(r: Row, digits: int | None) -> tables.Cell:
        if r.metric.endswith("_p"):
            small = r.value < 0.001
            return tables.Cell("<0.001" if small else tables.number(r.value, 2 if r.value >= 0.1 else 3))
        if r.metric not in SPREAD:
            return tables.cell(r, digits)
        sd, real = (place.get((r.row, r.model, m)) for m in (SPREAD[r.metric], "real_sd"))
        if real is not None and real.value > 0:
            digits = 1 - math.floor(math.log10(real.value / 2))  # a fiftieth of an SD or so is the least that shows
            mean = place.get((r.row, r.model, "real_mean"), r).value
            if digits < 0 and mean:  # with tails so heavy that the SD hides the mean, two digits of the mean
                digits = min(0, max(digits, 1 - math.floor(math.log10(abs(mean)))))
        column = columns.get(r.row, {})
        low, high = (float(column.get(end, limit)) for end, limit in (("low", -math.inf), ("high", math.inf)))
        cell = tables.cell(r._replace(low=max(r.low, low), high=min(r.high, high)), digits)
        fixed = r.metric == "real_mean" and r.low == r.high
        spread = "" if sd is None else f" ± {tables.number(sd.value, digits)}"
        return tables.Cell(cell.value + spread, "" if fixed else cell.interval)

    grid = tables.grid(shown, lambda r: (r.row, r.model), lambda r: r.metric, FEATURE_METRICS, show=show)
    return with_paper(grid, "similarity")


def missing(rows: Sequence[Row]) -> tables.Grid:
    """How much more often a value is missing in synthetic records than in real ones, by feature and model."""
    mine = [r for r in rows if r.metric == MISSING and r.row not in labels.ROWS]
    return tables.grid(mine, lambda r: (r.row, "-"), lambda r: f"\n{r.model}", by_line=True)


def membership(rows: Sequence[Row]) -> tables.Grid:
    """Table 3: a heading for each thing attacked, with the paper's figure for it, and below it the attacks."""
    settings = list(dict.fromkeys(r.row.split(":")[0] for r in rows))
    rows = sorted(tables.in_order(rows), key=lambda r: settings.index(r.row.split(":")[0]))
    rows = [r for r in rows if "[" not in r.metric]
    bounds = [r for r in rows if r.row in labels.BOUNDS]
    # success is balanced accuracy in the paper's unit; one of the two is enough
    succeeded = {(r.row, r.model) for r in rows if r.metric == "success (%)"}
    twice = [r for r in rows if r.metric == "balanced_accuracy" and (r.row, r.model) in succeeded]
    attacks = [r for r in rows if r.row not in labels.BOUNDS and r not in twice]
    kept = {r.metric for r in attacks if not math.isnan(r.value)}
    both = [r for r in (*attacks, *bounds) if r.metric in kept]  # `unresolved` tells of the others

    def show(r: Row, digits: int | None) -> tables.Cell:
        top = 100.0 if "%" in r.metric else 1.0
        if r.row == "dp-ceiling" and 0.99 * top < r.value < top:
            return tables.Cell(f">{0.99 * top:g}")  # it would round to the top, which it does not reach
        return tables.cell(r, digits)

    order = list(labels.METRICS)
    grid = tables.grid(both, lambda r: (r.row, r.model), lambda r: r.metric, order, show=show)
    lines: list[tables.Line] = []
    above = ""
    for line in grid.lines:
        setting, attack = labels.attack_parts(line.row)
        if setting and setting != above:
            reference = paper_line("membership", line.row.split(":")[0], grid.columns)
            empty = [tables.Cell("")] * len(grid.columns)
            cells = reference.cells if reference else empty
            lines.append(tables.Line(setting, "paper" if reference else "", cells, "", "group"))
        above = setting
        lines.append(line if line.kind else line._replace(row=attack))
    return grid._replace(lines=lines)


def unresolved(rows: Sequence[Row]) -> list[tuple[str, int, int]]:
    """Rates of an attack that no row could resolve: (false-positive rate as text, non-members needed, targets there were).

    Ten false alarms must be possible before a rate is read, so 1 % needs 1,000 non-members and 0.1 % needs 10,000.
    """
    result = []
    for metric, text, needed in (("tpr_at_1pct_fpr", "1 %", 1_000), ("tpr_at_0p1pct_fpr", "0.1 %", 10_000)):
        mine = [r for r in rows if r.metric == metric and r.row not in labels.BOUNDS]
        if mine and all(math.isnan(r.value) for r in mine):
            result.append((text, needed, max(r.n for r in mine)))
    return result


def types(rows: Sequence[Row]) -> tables.Grid:
    """Detection rate by type of attack, a line each."""
    mine = [r for r in rows if r.metric.startswith("detection_rate[")]
    return crossed(mine, lambda r: _group(r.metric)[1])


def crossed(rows: Sequence[Row], line: Callable[[Row], str]) -> tables.Grid:
    """Metrics (named by `line`) against what a classifier was trained on."""
    return tables.grid(tables.in_order(rows), lambda r: (line(r), "-"), lambda r: f"{r.row}\n{r.model}", by_line=True)


class Fairness(NamedTuple):
    """Gaps between subgroups, a compact line for each subgroup (its share first, then recalls), and everything."""

    gaps: tables.Grid
    groups: tables.Grid
    shares: int
    whole: tables.Grid


def fairness(rows: Sequence[Row]) -> Fairness:
    """The three grids on subgroups.

    Args:
      rows: fairness rows; a metric is "name[column]" for a gap, "name[column=category]" for a subgroup.

    Returns:
      Fairness; `shares` is how many of the columns of `groups` are about shares.
    """
    rows = [r for r in rows if not _is_risk(r)]
    gaps = [r for r in rows if "=" not in _group(r.metric)[1]]

    def name(r: Row) -> str:
        metric, group = _group(r.metric)
        return f"{group.replace('=', ' ')} · {labels.short_heading(metric).lower()}"

    share = [r._replace(row="share", model="-") for r in rows if r.metric.startswith("share[") and r.row == "real"]
    change = [r._replace(row="share_difference") for r in rows if r.metric.startswith("share_difference[")]
    recall = tables.in_order([r for r in rows if r.metric.startswith("recall[")])
    groups = tables.grid(
        [*share, *change, *recall],
        lambda r: (_group(r.metric)[1].replace("=", " "), "-"),
        lambda r: f"{r.row}\n{r.model}",
        show=lambda r, digits: tables.Cell(tables.number(r.value, 2)),
    )
    shares = sum(c.startswith("share") for c in groups.columns)
    return Fairness(crossed(gaps, name), groups, shares, crossed(rows, name))


def _is_risk(row: Row) -> bool:
    return ":" in row.row and _group(row.metric)[0] in ("membership_auc", "membership_auc_gap", "targets")


def subgroup_risk(rows: Sequence[Row]) -> tables.Grid:
    """How well each attack finds the members of each subgroup: a line an attack, a column a subgroup."""
    mine = [r for r in rows if _is_risk(r) and r.metric.startswith("membership_auc[")]
    named = [r._replace(metric=_group(r.metric)[1].replace("=", " ")) for r in mine]
    return plain(named)


def _group(metric: str) -> tuple[str, str]:
    """Halves of "recall[sex=male]"."""
    name, _, group = metric.partition("[")
    return name, group.removesuffix("]")


def costs(rows: Sequence[Row]) -> tables.Grid:
    """What a training costs, a line a figure, each with the unit that suits its size."""

    def name(r: Row) -> tuple[str, str]:
        text = re.sub(r" \((s|J|MB)\)$", "", r.metric).replace("seconds", "time").replace("_", " ")
        return (text if r.row == "-" else f"{r.row} · {text}"), "-"

    def show(r: Row, digits: int | None) -> tables.Cell:
        unit = next((u for part, u in UNITS if part in r.metric.lower()), "")
        bare = r._replace(**{k: getattr(r, k) * 1e6 for k in ("value", "low", "high")}) if "(MB)" in r.metric else r
        value, prefixed = tables.scaled(bare.value, unit)
        factor = value / bare.value if bare.value else 1.0
        cell = tables.cell(bare._replace(value=value, low=bare.low * factor, high=bare.high * factor), None)
        return tables.Cell(f"{cell.value} {prefixed}".strip(), cell.interval)

    return tables.grid(rows, name, lambda r: f"\n{r.model}", by_line=True, show=show)


def privacy(rows: Sequence[Row], ledger: Mapping[str, Any]) -> tables.Grid:
    """What the table holds beside the ledger's figures, which have their own place; such as an audit's estimate."""
    known = {key for entry in (ledger, *ledger.get("events", ())) for key in entry}
    rest = [r for r in rows if r.metric not in known]
    return tables.grid(rest, lambda r: (f"{r.domain} {r.row}".strip("- "), r.model), lambda r: r.metric)
