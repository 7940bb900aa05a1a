"""The three figures of a generator that come first: fidelity, utility and privacy risk, each between its floor and ceiling."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from fedjax_health.report import labels, tables, verdicts
from fedjax_health.report.summary import COPULA, Promise, Summary, find
from fedjax_health.types import Row


class Mark(NamedTuple):
    """A figure to judge another by: its name, its text, and where on the scale it is, in percent from the worse end."""

    name: str
    text: str
    place: float


class Headline(NamedTuple):
    """One figure of a generator.

    Attributes:
      metric: what was measured, for readers.
      cell: value and interval as text.
      n: what is behind the interval, as text.
      ends: what the worse and the better end of the scale mean.
      span: lower end, value and upper end of the interval on that scale, in percent from the worse end.
      marks: floors and ceilings.
      said: sentences computed from the figures.
    """

    metric: str
    cell: tables.Cell
    n: str
    ends: tuple[str, str]
    span: tuple[float, ...]
    marks: list[Mark]
    said: verdicts.Said


class Card(NamedTuple):
    """A generator with its three figures by title; None for one that was not measured."""

    summary: Summary
    figures: dict[str, Headline | None]


LEAD = {  # title -> what good and bad verdicts on it mean, after "of 4 generators 1"
    "Fidelity": (
        "as hard to tell from real records as real ones are from each other",
        "clearly further from real records than a plain Gaussian copula, or like copies",
    ),
    "Utility": (
        f"as useful alone as real records (to within {verdicts.NEAR} with the whole interval)",
        "clearly less useful than a plain Gaussian copula, or harmful when added to real records",
    ),
    "Privacy risk": (
        "not attacked clearly better than by guessing",
        "attacked clearly better than by guessing, or better than promised",
    ),
}


def headlines(
    summary: Summary, tidy: Mapping[str, Sequence[Row]], promise: Promise, seeds: int
) -> dict[str, Headline | None]:
    """The three figures of a generator by title.

    Args:
      summary: the generator.
      tidy: rows by table.
      promise: (ε, δ) that bounds attacks on membership, or None.
      seeds: of the run, to name what n counts.
    """
    mine = {name: [r for r in rows if r.domain == summary.domain] for name, rows in tidy.items()}
    learnt = [*mine["utility"], *mine["detection"]]
    titles = list(LEAD)
    return {
        titles[0]: fidelity(mine["similarity"], summary.model, seeds),
        titles[1]: utility(learnt, summary.model, seeds),
        titles[2]: risk(summary, promise),
    }


def lead(cards: Sequence[Card]) -> list[tuple[str, str]]:
    """(title, sentence): of how many generators the figure is good news, and of how many bad."""
    said = []
    for title, (good, bad) in LEAD.items():
        found = [h.said.verdict for card in cards if (h := card.figures[title]) is not None]
        if found:
            start, then = (f"{found.count(v) or 'none'} {'are' if found.count(v) > 1 else 'is'}" for v in (1, -1))
            of = f"of {len(found)} generators " if len(found) > 1 else "of 1 generator "
            said.append((title, f"{of}{start} {good}; {then} {bad}."))
    return said


def fidelity(rows: Sequence[Row], model: str, seeds: int) -> Headline | None:
    """How close its records are to real ones: the AUC of a classifier that tells them apart, else the coverage.

    Args:
      rows: similarity rows of the domain.
      model: the generator.
      seeds: of the run, to name what n counts.

    Returns:
      None where neither was measured.
    """
    told, near = (find(rows, "synthetic", metric, (model,)) for metric in ("c2st_auc", "coverage"))
    row = told if told is not None and verdicts.shown(told) else near
    if row is None or not verdicts.shown(row):
        return None
    marks = ("real-vs-real", COPULA, "independent-marginals")
    bounds = {name: find(rows, name, row.metric, (model, "-", "real")) for name in marks}
    parts = [(verdicts.told_apart if row is told else verdicts.covered)(row, bounds), verdicts.means(rows, model)]
    said = verdicts.together(parts)
    if row is told:
        return _headline(row, seeds, ("always told apart", "never told apart"), lambda v: 2 * (1 - v), bounds, said)
    return _headline(row, seeds, ("none nearby", "all nearby"), lambda v: v, bounds, said)


def utility(rows: Sequence[Row], model: str, seeds: int) -> Headline | None:
    """What a classifier trained only on its records is worth on real ones, and whether they add to real ones.

    Args:
      rows: utility and detection rows of the domain.
      model, seeds: as in `fidelity`.
    """
    ranked, found = (find(rows, "synthetic", metric, (model,)) for metric in ("auroc", "pr_auc"))
    row = ranked if ranked is not None and verdicts.shown(ranked) else found
    if row is None or not verdicts.shown(row):
        return None
    metric = row.metric
    chance = 0.5 if metric == "auroc" else None  # of PR-AUC it is the share of positives, which no row tells
    real, copula = find(rows, "real", metric, (model, "-", "real")), find(rows, COPULA, metric, (model, "-"))
    parts = (
        verdicts.against_real(row, real, chance),
        verdicts.against_copula(row, copula),
        verdicts.gain(rows, model, metric),
    )
    low = chance or 0.0
    usable = real is not None and verdicts.shown(real) and real.value > low + verdicts.NEAR
    high = max(row.value, real.value) if usable and real is not None else 1.0
    ends = "chance" if chance else "0", "real records" if usable else "1"
    bounds = {"real": real, COPULA: copula}
    return _headline(row, seeds, ends, lambda v: (v - low) / (high - low), bounds, verdicts.together(parts))


def risk(summary: Summary, promise: Promise) -> Headline | None:
    """What the strongest membership attack on it achieves, between guessing and what the promise allows.

    Args:
      summary: the generator's.
      promise: (ε, δ) that bounds attacks on membership, None where nothing does.
    """
    found = summary.risk
    if found is None:
        return None
    row, chance = found.row, 0.01 if found.sharp else 0.5
    top = 1.0 if found.limit is None else max(found.limit, row.value, chance * 1.01)

    def place(value: float) -> float:
        above = max(value, chance)
        if found.sharp:  # in logarithms: what matters is small
            return 1.0 - math.log(above / chance) / math.log(top / chance)
        return 1.0 - (above - chance) / (top - chance)

    marks = [Mark("Guessing (floor)", "1\u00a0%" if found.sharp else "0.5", 100.0)]
    if found.limit is not None and promise is not None:
        marks.append(
            Mark(
                "The promise allows (ceiling)",
                verdicts.limit_text(found.limit, found.sharp),
                _percent(place(found.limit)),
            )
        )
    cell = found.value._replace(value=found.value.value + "\u00a0%") if found.sharp else found.value
    name = "Members found at 1\u00a0% false alarms" if found.sharp else "AUC of the attack"
    ends = "everyone found" if found.limit is None else "all that is allowed", "guessing"
    n = f"n\u00a0=\u00a0{tables.number(row.n)} {'members' if found.sharp else 'seeds'}"
    return Headline(name, cell, n, ends, _span(row, place), marks, verdicts.attacked(found))


def _percent(share: float) -> float:
    return round(100 * min(max(share, 0.0), 1.0), 1)


def _span(row: Row, place: Callable[[float], float]) -> tuple[float, ...]:
    ends = (row.low, row.value, row.high) if verdicts.sure(row) else (row.value,) * 3
    return tuple(sorted(_percent(place(v)) for v in ends))


def _headline(
    row: Row,
    seeds: int,
    ends: tuple[str, str],
    place: Callable[[float], float],
    bounds: Mapping[str, Row | None],
    said: verdicts.Said,
) -> Headline:
    noun = "seed" if row.n == 1 else "seeds" if row.n == seeds else ""
    marks = [
        Mark(
            "Real records (ceiling)" if name == "real" else labels.row_label(name),
            verdicts.figure(b),
            _percent(place(b.value)),
        )
        for name, b in bounds.items()
        if b is not None and verdicts.shown(b)
    ]
    n = f"n\u00a0=\u00a0{tables.number(row.n)} {noun}".strip()
    return Headline(
        labels.short_heading(row.metric),
        tables.cell(row, tables.decimals([row])),
        n,
        ends,
        _span(row, place),
        marks,
        said,
    )
