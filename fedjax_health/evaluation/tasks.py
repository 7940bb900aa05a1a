"""Tables 2 and 4 and fairness: every trained classifier on held-out clients, with intervals over seeds or over clients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fedjax_health import rng
from fedjax_health.evaluation import augmentation, detection, fairness, utility
from fedjax_health.evaluation.bootstrap import client_intervals, rows_with_intervals
from fedjax_health.evaluation.calibration import calibration_figures
from fedjax_health.evaluation.downstream import Fitted
from fedjax_health.evaluation.rows import Figures
from fedjax_health.evaluation.setting import Setting
from fedjax_health.evaluation.suite import Fits
from fedjax_health.types import Row, Table

Part = Callable[[np.ndarray], Figures]  # rows of the test records i64[R] -> figures


class Judge(NamedTuple):
    """What one classifier of one seed is worth, on any of the test records."""

    useful: Part
    detected: Part
    fair: Part


def make_judge(setting: Setting, row: str, fitted: Fitted, seed: int, small: frozenset[str]) -> Judge:
    """Judges a classifier at thresholds that were chosen on validation clients, once for all test records.

    Args:
      setting: the domain.
      row: where its figures stand.
      fitted: the classifiers.
      seed: which of them.
      small: of `fairness.small_groups`.
    """
    domain, schema = setting.domain, setting.domain.schema
    validation, test = domain.validation, domain.test
    p_validation, p_test = fitted.probabilities(validation, seed), fitted.probabilities(test, seed)
    threshold = utility.choose_threshold(validation.label, p_validation)
    point = 0.5
    if domain.task == "detection":
        point = detection.detection_threshold(validation.label, p_validation, setting.config.max_false_positive_rate)

    def useful(rows: np.ndarray) -> Figures:
        label, p = test.label[rows], p_test[rows]
        return utility.classification_figures(row, label, p, threshold) | calibration_figures(row, label, p)

    def detected(rows: np.ndarray) -> Figures:
        if domain.task != "detection":
            return {}
        return detection.detection_figures(row, schema, test.label[rows], p_test[rows], point)

    def fair(rows: np.ndarray) -> Figures:
        some = Table(*(column[rows] for column in test))
        return fairness.fairness_figures(row, schema, some, some.label, p_test[rows], threshold, small)

    return Judge(useful, detected, fair)


def beside(row: str, mine: Judge, base: Judge | None, real: Judge | None, about: Figures) -> Judge:
    """A judge that also says what its classifier gains over `base`, and how its gaps differ from those of `real`.

    Args:
      row: where the figures of `mine` stand.
      mine: judges the classifier.
      base: judges that of the same real records without synthetic ones, on the same test records, or None.
      real: judges that of all real records, or None.
      about: figures of how the classifier was trained, which stand with its own.
    """

    def gained(part: Part, of_base: Part | None) -> Part:
        def figures(rows: np.ndarray) -> Figures:
            found = part(rows)
            if not found or of_base is None:
                return found | about if found else found
            return found | augmentation.gains(row, found, of_base(rows)) | about

        return figures

    def fair(rows: np.ndarray) -> Figures:
        found = mine.fair(rows)
        return found if real is None else found | fairness.gap_changes(row, found, real.fair(rows))

    return Judge(
        gained(mine.useful, base and base.useful), gained(mine.detected, base and base.detected), fair
    )  # fmt: skip


def task_rows(setting: Setting, fits: Fits) -> tuple[list[Row], list[Row], list[Row]]:
    """Tables 2 (or 4) and fairness: thresholds from validation clients, figures from test clients.

    Args:
      setting: the domain.
      fits: trained classifiers.

    Returns:
      (utility rows, detection rows, fairness rows); detection is empty for a diagnosis. Intervals are over seeds; with one seed
      they are those of a bootstrap over test clients, which leaves out that another training would end elsewhere.
    """
    domain, seeds = setting.domain, range(setting.include.shape[0])
    every = np.arange(len(domain.test.label))
    small = frozenset(fairness.small_groups(domain.test, domain.schema))
    judges = {
        (model, row): [make_judge(setting, row, fitted, s, small) for s in seeds]
        for (model, row), fitted in fits.by_row.items()
    }
    tables: tuple[list[Row], list[Row], list[Row]] = ([], [], [])
    for (model, row), mine in judges.items():
        base = judges.get(("-", row.split("+")[0])) if "+" in row else None
        real = judges.get(("-", "real")) if row != "real" else None
        about: Sequence[Figures] = fits.about.get((model, row), [{}] * len(seeds))
        whole = [beside(row, mine[s], base[s] if base else None, real[s] if real else None, about[s]) for s in seeds]
        for table, name in zip(tables, Judge._fields, strict=True):
            parts: list[Part] = [getattr(judge, name) for judge in whole]
            generator = setting.generator(rng.Stream.EVALUATE, "bootstrap", model, row, name)
            table += rows_with_intervals(
                domain.name, model, [part(every) for part in parts],
                lambda part=parts[0], generator=generator: client_intervals(part, domain.test.client, generator),
            )  # fmt: skip
    return tables
