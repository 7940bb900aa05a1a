"""What central classifiers learn from a table: boosted trees and logistic regression, tested on held-out rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fedjax_health.data.split import take_clients
from fedjax_health.evaluation import baselines, fairness, utility
from fedjax_health.evaluation.classifiers import BOOSTED, LOGISTIC, fit_classifier
from fedjax_health.evaluation.foreign import COPULA, Case, some_rows
from fedjax_health.evaluation.half_samples import half_masks, half_rows
from fedjax_health.evaluation.rows import Figures
from fedjax_health.types import Row, Table

VALIDATION = 0.2  # of the real clients, kept from training
MOST_TRAINED = 50_000  # rows that a classifier learns from
MOST_TESTED = 20_000
LEAST = 1e-12  # probability of a class that a classifier never saw


class Fitted(NamedTuple):
    """A trained classifier.

    Attributes:
      probabilities: table -> f64[M, L].
      trained: what it learned from.
    """

    probabilities: Callable[[Table], np.ndarray]
    trained: Table

    def loss(self, table: Table) -> np.ndarray:
        """Cross-entropy of each record's label in nats, f64[M]."""
        p = self.probabilities(table)[np.arange(len(table.label)), table.label]
        return -np.log(np.maximum(p, LEAST))


CLASSIFIERS = {"": BOOSTED, f":{LOGISTIC}": LOGISTIC}  # by the end of their rows


def joined(a: Table, b: Table) -> Table:
    """Records of two tables, the second one's clients after the first one's."""
    first = int(a.client.max(initial=-1)) + 1
    return Table(*(np.concatenate(c) for c in zip(a[:2], b[:2], strict=True)), np.append(a.client, b.client + first))  # pyright: ignore


class Fits(NamedTuple):
    """Classifiers by (table or "-", row), and the real records on which their thresholds are chosen."""

    by_row: dict[tuple[str, str], Fitted]
    validation: Table


def fit_all(case: Case) -> Fits:
    """Both classifiers on the real records, on a copula of them, on each synthetic table, and on real and synthetic ones.

    A fifth of the real clients chooses thresholds and is not learned from; of synthetic rows as many as real ones are used, or
    all where there are fewer.

    Args:
      case: the tables.
    """
    real, schema = case.tables.real, case.schema
    order = case.generator("validation").permutation(int(real.client.max()) + 1)
    kept = max(1, round(VALIDATION * len(order)))
    validation, train = (take_clients(real, np.sort(part)) for part in (order[:kept], order[kept:]))
    train = some_rows(train, MOST_TRAINED, case.generator("train"))
    n = len(train.label)
    views = {
        ("-", "real"): train,
        ("-", COPULA): baselines.gaussian_copula(train, schema, n, case.generator("fit", COPULA)),
    }
    for name, table in case.tables.synthetic.items():
        part = some_rows(table, n, case.generator("fit", name))
        views |= {(name, "synthetic"): part, (name, "real+synthetic"): joined(train, part)}
    seed = int(case.generator("classifiers").integers(2**31))
    by_row = {
        (model, row + ending): Fitted(fit_classifier(kind, view, schema, seed), view)
        for (model, row), view in views.items()
        for ending, kind in CLASSIFIERS.items()
    }
    return Fits(by_row, validation)


def task_rows(case: Case, fits: Fits) -> tuple[list[Row], list[Row]]:
    """Table 2 and fairness on held-out rows; intervals by halves of the held-out clients, the classifiers as they are.

    Args:
      case: the tables.
      fits: trained classifiers.

    Returns:
      (utility rows, fairness rows), n = held-out clients.
    """
    schema = case.schema
    test = some_rows(case.tables.holdout, MOST_TESTED, case.generator("test"))
    n = len(np.unique(test.client))
    useful, fair = [], []
    for (model, row), fitted in fits.by_row.items():
        threshold = utility.choose_threshold(fits.validation.label, fitted.probabilities(fits.validation))
        score = fitted.probabilities(test)

        def judge(mask: np.ndarray, row=row, score=score, threshold=threshold) -> tuple[Figures, Figures]:
            part = Table(*(column[mask] for column in test))
            plain = utility.classification_figures(row, part.label, score[mask], threshold)
            # by subgroup of the first classifier only
            by_group = {} if row.endswith(LOGISTIC) else fairness.fairness_figures(
                row, schema, part, part.label, score[mask], threshold
            )  # fmt: skip
            return plain, by_group

        whole = judge(np.ones(len(test.label), bool))
        halves = [judge(mask) for mask in half_masks(test, case.generator("test halves"))]
        for target, found, several in zip((useful, fair), whole, zip(*halves, strict=True), strict=True):
            target += half_rows(case.domain, model, found, several, n)
    for name, table in case.tables.synthetic.items():
        figures = fairness.subgroup_shift(test, table, schema)
        halves = [
            fairness.subgroup_shift(Table(*(c[mask] for c in test)), table, schema)
            for mask in half_masks(test, case.generator("test halves"))
        ]
        fair += half_rows(case.domain, name, figures, halves, n)
    return useful, fair
