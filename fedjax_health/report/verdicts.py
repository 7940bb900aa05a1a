"""Sentences on a generator's three figures, computed from the figures and their intervals, the bad news among them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fedjax_health.report import tables
from fedjax_health.report.summary import COPULA, Risk, find
from fedjax_health.types import Row

EQUIVALENT = 0.05  # TOST p below which two means are shown to agree
NEAR = 0.05  # of an AUC: with the whole interval this near to real records, or better, a figure is as good as theirs
MOST_NAMED = 3  # features named in a sentence
BAD = "Bad news: "


class Said(NamedTuple):
    """A sentence, and whether it is good news (1), bad news (−1) or neither (0)."""

    text: str = ""
    verdict: int = 0


def together(parts: Sequence[Said]) -> Said:
    """Sentences as one; bad news outweighs good."""
    verdicts = [p.verdict for p in parts]
    return Said(" ".join(p.text for p in parts if p.text), -1 if -1 in verdicts else max(verdicts, default=0))


def compare(a: Row, b: Row) -> int:
    """1 where a's interval lies above b's, −1 where it lies below, 0 where they overlap; values where either has none."""
    if not (sure(a) and sure(b)):
        return (a.value > b.value) - (a.value < b.value)
    return (a.low > b.high) - (a.high < b.low)


def sure(*rows: Row) -> bool:
    """Whether all have intervals."""
    return all(math.isfinite(r.low) and math.isfinite(r.high) for r in rows)


def shown(row: Row | None) -> bool:
    """Whether there is a figure at all."""
    return row is not None and not math.isnan(row.value)


def figure(row: Row) -> str:
    """Value and interval as text."""
    cell = tables.cell(row, tables.decimals([row]))
    return f"{cell.value} {cell.interval}".strip()


def told_apart(row: Row, bounds: Mapping[str, Row | None]) -> Said:
    """On the AUC of a classifier that tells synthetic records from real ones.

    Args:
      row: the AUC.
      bounds: that of real records and of the copula, where there are.
    """
    ceiling, copula = bounds["real-vs-real"], bounds[COPULA]
    if not sure(row):
        return Said("Without an interval it is open how far a classifier can tell its records from real ones.")
    if row.high < 0.5 and (ceiling is None or compare(row, ceiling) < 0):
        return Said(f"{BAD}a classifier takes its records for real more often than real ones, a hint at copies.", -1)
    if ceiling is not None and compare(row, ceiling) <= 0:
        if row.high <= max(ceiling.value, 0.5) + NEAR:
            return Said("A classifier tells its records from real ones no better than real ones from each other.", 1)
        wide = "but the interval is too wide to say that it cannot"
        return Said(f"A classifier does not clearly tell its records from real ones, {wide}.")
    start = "A classifier can tell its records from real ones"
    if copula is None or not shown(copula):
        return Said(start + ".")
    how = {-1: "less easily than", 0: "not clearly more easily than"}.get(compare(row, copula))
    if how is None:
        return Said(f"{start}. {BAD}more easily than those of a plain Gaussian copula.", -1)
    return Said(f"{start}, but {how} those of a plain Gaussian copula.")


def covered(row: Row, bounds: Mapping[str, Row | None]) -> Said:
    """On the share of real records with a synthetic one nearby; arguments as in `told_apart`."""
    ceiling = bounds["real-vs-real"]
    start = f"{tables.number(100 * row.value, 0)}\u00a0% of real records have one of its records nearby"
    if ceiling is None or not shown(ceiling):
        return Said(start + ".")
    if compare(row, ceiling) >= 0:
        return Said(f"{start}, as many as real records of other clients have.", 1 if sure(row) else 0)
    return Said(f"{start}, fewer than real records of other clients have.")


def means(rows: Sequence[Row], model: str) -> Said:
    """On how many means are shown to agree with the real ones, and which are not.

    Args:
      rows: similarity rows of the domain.
      model: the generator.
    """
    tested = {r.row: r.value for r in rows if r.model == model and r.metric == "tost_p"}
    if not tested:
        return Said()
    apart = [name for name, p in tested.items() if not p < EQUIVALENT]
    if not apart:
        return Said(f"All {len(tested)} means are shown to agree with the real ones within 0.2\u00a0SD.")
    kept = len(tested) - len(apart)
    more = f" and {len(apart) - MOST_NAMED} more" if len(apart) > MOST_NAMED else ""
    start = f"{kept or 'None'} of {len(tested)} means {'is' if kept == 1 else 'are'} shown to agree within 0.2\u00a0SD"
    return Said(f"{start}; not equivalent: {', '.join(apart[:MOST_NAMED])}{more}.")


def against_real(row: Row, real: Row | None, chance: float | None) -> Said:
    """On a classifier of synthetic records beside the same classifier of real ones.

    Args:
      row: its figure.
      real: that of real records.
      chance: what guessing scores, None where that depends on the records.
    """
    if real is None or not shown(real):
        return Said()
    order, clearly = compare(row, real), sure(row, real)
    near = clearly and row.low >= real.value - NEAR
    if not clearly:
        start = f"{('Level with', 'Above', 'Below')[order]} what real records give, without an interval"
    elif order < 0:
        start = "Clearly below what real records give"
    elif near:
        start = f"As good as real records to within {NEAR}, or better"
    else:
        start = "Not clearly below what real records give, but the interval is too wide to say that it is as good"
    verdict = int(near and order >= 0)
    if chance is not None and (real.low <= chance or real.value <= chance):
        return Said(f"Real records themselves are not clearly better than chance here, so this says little. {start}.")
    if chance is None:
        return Said(start + ".", verdict)
    kept = (row.value - chance) / (real.value - chance)
    digits = 1 if 0.99 <= kept < 1 else 0  # "below it; keeps 100 %" would contradict itself
    share = f"{tables.number(100 * kept, digits)}\u00a0%" if kept > 0 else "nothing"
    return Said(f"{start}; keeps {share} of their advantage over chance.", verdict)


def against_copula(row: Row, copula: Row | None) -> Said:
    """On a classifier of synthetic records beside one of a Gaussian copula's; arguments as in `against_real`."""
    if copula is None or not shown(copula):
        return Said()
    order = compare(row, copula)
    if not sure(row, copula):
        return Said(f"{('Level with', 'Above', 'Below')[order]} a plain Gaussian copula, without an interval.")
    if order < 0:
        return Said(f"{BAD}clearly below a plain Gaussian copula fitted without any privacy.", -1)
    if order == 0:
        return Said("Not clearly different from a plain Gaussian copula fitted without any privacy.")
    return Said("Clearly above a plain Gaussian copula.")


def gain(rows: Sequence[Row], model: str, metric: str) -> Said:
    """On what a generator's rows add to the same real ones.

    Args:
      rows: utility and detection rows of the domain.
      model: the generator.
      metric: whose gain.
    """
    row = find(rows, "real+synthetic", f"{metric}_gain", (model,))
    if row is None or not shown(row):
        return Said()
    text = f"({'+' if row.value > 0 else ''}{figure(row)})"
    if not sure(row) or row.low <= 0 <= row.high:
        return Said(f"Added to real records they make no clear difference {text}.")
    if row.low > 0:
        return Said(f"Added to real records they help {text}.")
    return Said(f"{BAD}added to real records they do harm {text}.", -1)


def attacked(risk: Risk) -> Said:
    """On the strongest attack, and on what the promise allows."""
    which = f"“{risk.attack}”, " + (
        f"the strongest of {risk.attacks} attacks" if risk.attacks > 1 else "the one attack tried"
    )
    guess = "1\u00a0%" if risk.sharp else "0.5"
    allowed = ", its being the strongest allowed for" if risk.attacks > 1 else ""
    reach = tables.number(100 * risk.row.high, 1) + "\u00a0%" if risk.sharp else tables.number(risk.row.high, 2)
    said = [
        {
            True: Said(f"{BAD}{which}, finds more than guessing ({guess}){allowed}.", -1),
            False: Said(
                f"{which}, is not clearly better than guessing ({guess}){allowed}; its interval reaches {reach}.", 1
            ),
            None: Said(f"{which}; without an interval, whether it beats guessing ({guess}) is open."),
        }[risk.above]
    ]
    if risk.broken:
        said.append(Said(f"{BAD}an attack lies above what the promise allows, see the warning.", -1))
    if risk.limit is None:
        said.append(Said("Nothing proven bounds a better attack."))
    elif risk.limit > 0.99:
        said.append(Said(f"The promise alone would allow almost everything ({limit_text(risk.limit, risk.sharp)})."))
    else:
        said.append(Said(f"The promise allows no attack more than {limit_text(risk.limit, risk.sharp)}."))
    if not risk.sharp:
        said.append(Said("There were too few non-members to read rarer false alarms."))
    return together(said)


def limit_text(limit: float, sharp: bool) -> str:
    """What a promise allows an attack; what would round to certainty is "over 99 %".

    Args:
      limit: in [0, 1].
      sharp: a share of members, else an AUC.
    """
    if limit > 0.99:
        return "over\u00a099\u00a0%" if sharp else "over\u00a00.99"
    return f"{tables.number(100 * limit, 1)}\u00a0%" if sharp else tables.number(limit, 2)
