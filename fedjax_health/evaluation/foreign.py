"""What is judged of a table from anywhere, and how close it is to held-out rows: floors, ceiling, copies, misfits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fedjax_health import rng
from fedjax_health.data.foreign import Tables
from fedjax_health.data.schema import Schema
from fedjax_health.data.split import take_clients
from fedjax_health.evaluation import baselines, collapse, copies
from fedjax_health.evaluation.columns import client_values
from fedjax_health.evaluation.half_samples import HALVES, half, half_rows
from fedjax_health.evaluation.rows import Figures, mean_interval, proportion_interval
from fedjax_health.evaluation.similarity import ROW, overall, similarity
from fedjax_health.types import Row, Table, UserError

CEILING = "real-vs-real"
COPULA = "gaussian-copula"
MARGINALS = "independent-marginals"
MOST_ROWS = 5_000  # of a table that are compared with another's
COPIED, OUTSIDE = "copied_rows", "outside_rows"
MORE_COPIES = 0.01  # of all rows, beyond those that coincidence copies


class Case(NamedTuple):
    """What every part of the judgement needs.

    Attributes:
      domain: name for the tables.
      tables: real, held-out and synthetic records.
      seed: of every choice by chance.
    """

    domain: str
    tables: Tables
    seed: int

    @property
    def schema(self) -> Schema:
        """Columns of all tables."""
        return self.tables.schema

    def generator(self, *names: str) -> np.random.Generator:
        """Randomness of a part, by its address."""
        return rng.host_rng(self.seed, rng.Stream.EVALUATE, self.domain, *names)


def some_rows(table: Table, most: int, generator: np.random.Generator) -> Table:
    """At most so many records, of whole clients chosen at random; of one client where even that has more.

    Args:
      table: client-major, dense ids.
      most: rows.
      generator: chooses.
    """
    if len(table.label) <= most:
        return table
    count = np.bincount(table.client)
    order = generator.permutation(len(count))
    enough = max(1, int(np.searchsorted(np.cumsum(count[order]), most, side="right")))
    return take_clients(table, np.sort(order[:enough]))


def similarity_rows(case: Case) -> tuple[list[Row], int]:
    """Table 1 against held-out rows; ceiling: the real rows; floors: made of the real rows.

    Every figure is of the same at most 5,000 held-out rows and at most 5,000 of the table judged; intervals by halves of both
    (`half_samples`), n = held-out clients among them.

    Args:
      case: the tables.

    Returns:
      (rows, n).
    """
    schema, real = case.schema, case.tables.real
    holdout = some_rows(case.tables.holdout, MOST_ROWS, case.generator("holdout"))
    trained = some_rows(real, MOST_ROWS, case.generator("real"))
    judged = {
        ("-", CEILING): trained,
        ("-", COPULA): baselines.gaussian_copula(trained, schema, MOST_ROWS, case.generator(COPULA)),
        ("-", MARGINALS): baselines.independent_marginals(trained, schema, MOST_ROWS, case.generator(MARGINALS)),
    }
    for name, table in case.tables.synthetic.items():
        judged[name, ROW] = some_rows(table, MOST_ROWS, case.generator("synthetic", name))

    def against(key: tuple[str, str], number: int) -> Figures:
        """Of everything (0), or of a half."""
        generator, pair, most = case.generator("similarity", *key, str(number)), (holdout, judged[key]), MOST_ROWS
        if number:
            pair, most = (half(holdout, generator), half(judged[key], generator)), MOST_ROWS // 2
        if not all(len(t.label) for t in pair):
            return {}
        figures = similarity(*pair, schema, generator, max_rows=most)
        figures |= collapse.collapse_figures(*pair, real, schema, most)
        return figures if key[1] == ROW else overall(figures, key[1])

    # one after the other: scikit-learn's trees change the process's warning filters, which threads may not do at once
    found = {key: [against(key, i) for i in range(HALVES + 1)] for key in judged}
    n = len(np.unique(holdout.client))
    marks = [(row, [found["-", row][0]]) for row in (CEILING, COPULA)]
    rows: list[Row] = []
    for (model, row), (whole, *halves) in found.items():
        rows += half_rows(case.domain, model, whole, halves, n)
        if row == ROW:
            rows += collapse.verdict_rows(case.domain, model, [whole], *marks)
    return rows + _fault_rows(case), n


def _fault_rows(case: Case) -> list[Row]:
    """Shares of all rows that copy a real row (ceiling: of held-out rows), or hold a cell outside the schema."""
    held = case.tables.holdout
    units = client_values(copies.copied_rows(held, case.tables.real).astype(np.float64), held.client)
    rows = [Row(case.domain, "-", CEILING, COPIED, *mean_interval(units), len(units))]
    for name, table in case.tables.synthetic.items():
        n = len(table.label)
        shares = ((COPIED, copies.copied_rows(table, case.tables.real)), (OUTSIDE, case.tables.outside[name]))
        for metric, hit in shares:
            interval = proportion_interval(int(hit.sum()), n)
            rows.append(Row(case.domain, name, ROW, metric, float(hit.mean()), *interval, n))
    return rows


def check_apart(case: Case, files: Mapping[str, str]) -> None:
    """Refuses files that were mixed up: the held-out table is the real one, or one of those to judge.

    Args:
      case: the tables.
      files: "real", "holdout" and names of synthetic tables -> file.

    Raises:
      UserError: the same rows in two of them.
    """
    for name, table in {"real": case.tables.real, **case.tables.synthetic}.items():
        if copies.same_rows(case.tables.holdout, table):
            raise UserError(
                f"--holdout={files['holdout']} holds the same rows as {files[name]}, so nothing is held out; give real rows "
                "that no generator saw"
            )


def drawn_alike(rows: list[Row]) -> str:
    """What the attacks on membership rest on, and how far it holds.

    Args:
      rows: of `similarity_rows`.
    """
    auc = next(r for r in rows if (r.row, r.metric) == (CEILING, "c2st_auc"))
    return (
        "Attacks compare training with held-out rows, which says something about membership only if both were drawn alike: a "
        f"classifier tells them apart with AUC {auc.value:.2f} [{auc.low:.2f}, {auc.high:.2f}] (0.5: not at all)."
    )


def warnings(case: Case, rows: list[Row]) -> list[str]:
    """What a reader must know before any figure: copies, tables that overlap or were mixed up, held-out rows of another kind.

    Args:
      case: the tables.
      rows: of `similarity_rows`.
    """
    place = {(r.model, r.row, r.metric): r for r in rows}
    said = []
    held = place["-", CEILING, COPIED]
    usual = copies.repeated_elsewhere(case.tables.real)
    if held.value > usual + 0.1:
        said.append(
            f"{_share(held.value)} of the held-out rows also stand in the training table, of whose own rows {_share(usual)} "
            "are repeated by chance: the two overlap, so that little was held out, and utility and membership say too little."
        )
    ceiling = place["-", CEILING, "c2st_auc"]
    if ceiling.low > 0.5:
        said.append(
            f"Held-out and training rows can be told apart (AUC {ceiling.value:.2f} [{ceiling.low:.2f}, {ceiling.high:.2f}]): "
            "attacks on membership see that difference too, so that their figures mislead."
        )
    for name, table in case.tables.synthetic.items():
        c2st = place[name, ROW, "c2st_auc"]
        seen, control, (low, _) = copies.copy_shares(
            table, case.tables.real, case.tables.holdout, case.generator("copies", name)
        )
        if low > 0 and seen - control > MORE_COPIES:
            whole = place[name, ROW, COPIED].value
            itself = ": it seems to be the training table itself" if whole > 0.99 else ""
            said.append(
                f"{_share(whole)} of the rows of {name} are exact copies of training rows{itself}. Of equally many training "
                f"and held-out rows it copies {_share(seen)} and {_share(control)}; chance copies both alike. Do not publish."
            )
        if c2st.high < ceiling.low:
            said.append(
                f"Held-out rows are closer to {name} (C2ST AUC {c2st.value:.2f}) than to the training rows "
                f"({ceiling.value:.2f}): were the files given as real and synthetic swapped?"
            )
    return said


def _share(value: float) -> str:
    return f"{100 * value:.3g} %"
