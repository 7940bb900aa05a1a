"""Classifiers fitted centrally to one table, as a reader of it would, beside the federated one; and which of them is chosen."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import scipy.stats
from threadpoolctl import threadpool_limits

from fedjax_health import rng
from fedjax_health.data.schema import Schema
from fedjax_health.evaluation import baselines, utility
from fedjax_health.evaluation.bootstrap import client_intervals, rows_with_intervals
from fedjax_health.evaluation.calibration import calibration_figures
from fedjax_health.evaluation.classifiers import BOOSTED, KINDS, LOGISTIC, Predict, fit_classifier
from fedjax_health.evaluation.rows import Figures
from fedjax_health.evaluation.setting import Setting, Subject, included
from fedjax_health.evaluation.suite import COPULA, Fits, rows_of_clients
from fedjax_health.types import Row, Table

SHOWN = (
    LOGISTIC,
    BOOSTED,
)  # in the table; the others, weaker ones, give the choice among models something to choose from
FEDERATED = "federated"
MOST_ROWS = 10_000  # fitted to, which bounds the time; more hardly move these models
NAN = float("nan")


class Choice(NamedTuple):
    """Scores of every model, AUROC: where models are compared, and what they are worth on test clients."""

    compared: dict[str, float]
    worth: dict[str, float]


def fit_central(kind: str, table: Table, schema: Schema, seed: int) -> Predict:
    """Fits one classifier of "any class but 0" to a table; see `classifiers.fit_classifier`.

    Args:
      kind: of `classifiers.KINDS`.
      table: training records, real or synthetic.
      schema: their columns.
      seed: of the trees.

    Returns:
      records -> f64[M, 2], probabilities of class 0 and of any other.
    """
    two = table._replace(label=(table.label != 0).astype(table.label.dtype))
    predict = fit_classifier(kind, two, schema, seed)
    return lambda other: predict(other)[:, :2]


def ranking_figures(row: str, choice: Choice) -> Figures:
    """Whether comparing models that were trained on these records picks the model that is best when trained on real ones.

    Args:
      row: what the compared models were trained on.
      choice: AUROC by model: `compared`, trained on the row's records, on validation clients; `worth`, trained on real
        records, on test clients. The row "real" says how well real records themselves do.

    Returns:
      ranking[kendall] (τ_b, 1 = the same order), ranking[same best] (1 or 0) and ranking[regret], the AUROC lost by taking
      the model that looks best: worth of the best less worth of the chosen one. NaN where an AUROC is not defined; τ_b also
      where all are equal.

    Source: the comparison of orders is that of Jordon et al. (2018), arXiv 1806.11345 (SRA), judged on real records.
    """
    names = list(choice.worth)
    seen, worth = (np.array([part[name] for name in names]) for part in (choice.compared, choice.worth))
    if np.isnan(seen).any() or np.isnan(worth).any():
        return {(row, f"ranking[{m}]"): NAN for m in ("kendall", "same best", "regret")}
    regret = float(worth.max() - worth[np.argmax(seen)])
    flat = np.ptp(seen) == 0 or np.ptp(worth) == 0
    kendall = NAN if flat else float(np.asarray(scipy.stats.kendalltau(seen, worth))[0])
    return {
        (row, "ranking[kendall]"): kendall,
        (row, "ranking[same best]"): float(regret == 0),
        (row, "ranking[regret]"): regret,
    }


def _auroc(table: Table, score: np.ndarray) -> float:
    return utility.ranking_figures(table.label != 0, utility.positive_score(score))[0]


def training_tables(
    setting: Setting, subjects: Sequence[Subject], rivals: Mapping[str, Sequence[Table]]
) -> dict[tuple[str, str], list[Table]]:
    """What the classifiers are fitted to, by (generator or "-", row), one a seed: real, copula, rivals, synthetic.

    Args:
      setting: the domain.
      subjects: generators.
      rivals: of `rivals.rival_tables`.

    Returns:
      Tables of at most 10,000 rows; the real ones of whole clients, which the copula's are fitted to.
    """
    domain, seeds = setting.domain, range(setting.include.shape[0])
    tables: dict[tuple[str, str], list[Table]] = {("-", "real"): [], ("-", COPULA): []}
    for s in seeds:
        generator = setting.generator(rng.Stream.EVALUATE, "central", str(s))
        real = rows_of_clients(domain.train, included(setting, s, True), MOST_ROWS, generator)
        few = Table(*(column[:MOST_ROWS] for column in real))
        tables["-", "real"].append(few)
        tables["-", COPULA].append(baselines.gaussian_copula(few, domain.schema, len(few.label), generator))
    made = {("-", name): list(found) for name, found in rivals.items()}
    made |= {(subject.name, "synthetic"): subject.tables for subject in subjects}
    return tables | {key: [Table(*(c[:MOST_ROWS] for c in t)) for t in found] for key, found in made.items()}


def central_rows(
    setting: Setting, subjects: Sequence[Subject], rivals: Mapping[str, Sequence[Table]], fits: Fits
) -> list[Row]:
    """Utility of central classifiers, and whether each table picks the same best model as real records do.

    Args:
      setting: the domain.
      subjects: generators.
      rivals: of `rivals.rival_tables`.
      fits: the federated classifiers, one of the models to choose among.

    Returns:
      Rows "<row>:<model>" of `SHOWN`: figures of `classification_figures` and `calibration_figures`, thresholds from
      validation clients; and `ranking_figures` under "<row>" itself. Intervals over seeds; with one seed over test clients.
    """
    domain, seeds = setting.domain, range(setting.include.shape[0])
    validation, test, schema = domain.validation, domain.test, domain.schema
    tables = training_tables(setting, subjects, rivals)

    def fit(key: tuple[str, str], kind: str, s: int) -> tuple[np.ndarray, np.ndarray]:
        predict = fit_central(kind, tables[key][s], schema, rng.named_seed(setting.seed, *key, kind, str(s)))
        return predict(validation), predict(test)

    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {
            (key, kind, s): pool.submit(fit, key, kind, s) for key in tables for kind in KINDS for s in seeds
        }  # fmt: skip
        scores = {at: job.result() for at, job in jobs.items()}
    for key in tables:
        for s in seeds:
            fitted = fits.by_row[key]
            scores[key, FEDERATED, s] = fitted.probabilities(validation, s), fitted.probabilities(test, s)
    rows: list[Row] = []
    every = np.arange(len(test.label))

    def judge(row: str, at: tuple[tuple[str, str], str, int]) -> Callable[[np.ndarray], Figures]:
        p_validation, p_test = scores[at]
        threshold = utility.choose_threshold(validation.label, p_validation)

        def figures(some: np.ndarray) -> Figures:
            label, p = test.label[some], p_test[some]
            return utility.classification_figures(row, label, p, threshold) | calibration_figures(row, label, p)

        return figures

    models = (*KINDS, FEDERATED)
    worth = [{m: _auroc(test, scores[("-", "real"), m, s][1]) for m in models} for s in seeds]
    for key in tables:
        model, row = key
        for kind in SHOWN:
            parts = [judge(f"{row}:{kind}", (key, kind, s)) for s in seeds]
            generator = setting.generator(rng.Stream.EVALUATE, "bootstrap", model, row, kind)
            rows += rows_with_intervals(
                domain.name, model, [part(every) for part in parts],
                lambda part=parts[0], generator=generator: client_intervals(part, test.client, generator),
            )  # fmt: skip
        compared = [{m: _auroc(validation, scores[key, m, s][0]) for m in models} for s in seeds]
        chosen = [ranking_figures(row, Choice(c, w)) for c, w in zip(compared, worth, strict=True)]
        rows += rows_with_intervals(domain.name, model, chosen, dict)
    return rows
