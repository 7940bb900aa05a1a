"""Tables 2 and 4 and fairness: every trained classifier on held-out clients, with intervals over seeds or over clients."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from fedjax_health import rng
from fedjax_health.evaluation import alerts, augmentation, detection, fairness, paired, utility
from fedjax_health.evaluation.bootstrap import client_intervals, rows_with_intervals
from fedjax_health.evaluation.calibration import calibration_figures
from fedjax_health.evaluation.controls import BALANCED, SMOTED, Predict
from fedjax_health.evaluation.rows import Figures
from fedjax_health.evaluation.setting import Setting
from fedjax_health.evaluation.suite import Fits
from fedjax_health.types import Row, Table

COMPARED = ("real+synthetic", BALANCED)  # rows of a generator that are also compared with SMOTE, and by device
Key = tuple[str, str]  # (generator or "-", row)
Part = Callable[[np.ndarray], Figures]  # rows of the test records i64[R] -> figures


class Judge(NamedTuple):
    """What one classifier of one seed is worth, on any of the test records; `alarm` and `point` are its own, of a detection."""

    useful: Part
    detected: Part
    fair: Part
    alarm: np.ndarray
    point: float


TABLES = ("useful", "detected", "fair")  # the parts of a judge, a table each


def make_judge(setting: Setting, row: str, predict: Predict, seed: int, small: frozenset[str]) -> Judge:
    """Judges a classifier at thresholds that were chosen on validation clients, once for all test records.

    Args:
      setting: the domain.
      row: where its figures stand.
      predict: (records, seed) -> f64[M, L].
      seed: which of its trainings.
      small: of `fairness.small_groups`.
    """
    domain, schema = setting.domain, setting.domain.schema
    validation, test = domain.validation, domain.test
    p_validation, p_test = predict(validation, seed), predict(test, seed)
    point = 0.5
    if domain.task == "detection":
        point = detection.detection_threshold(validation.label, p_validation, setting.config.max_false_positive_rate)

    @functools.cache
    def threshold() -> float:
        return utility.choose_threshold(validation.label, p_validation)

    def useful(rows: np.ndarray) -> Figures:
        label, p = test.label[rows], p_test[rows]
        return utility.classification_figures(row, label, p, threshold()) | calibration_figures(row, label, p)

    def detected(rows: np.ndarray) -> Figures:
        if domain.task != "detection":
            return {}
        groups = {name: there[rows] for name, there in domain.groups.items()}
        return detection.detection_figures(row, schema, test.label[rows], p_test[rows], point, groups)

    def fair(rows: np.ndarray) -> Figures:
        some = Table(*(column[rows] for column in test))
        return fairness.fairness_figures(row, schema, some, some.label, p_test[rows], threshold(), small)

    return Judge(useful, detected, fair, utility.positive_score(p_test), point)


class Side(NamedTuple):
    """What a classifier is compared with on the same test records.

    Attributes:
      row: of the other side.
      over: its name in "<metric>_gain[over <name>]"; "" for the same real records without what was added.
      judge: judges it.
    """

    row: str
    over: str
    judge: Judge


def beside(row: str, mine: Judge, sides: Sequence[Side], real: Judge | None, about: Figures) -> Judge:
    """A judge that also says what its classifier gains over others, and how its gaps differ from those of all real records.

    Args:
      row: where the figures of `mine` stand.
      mine: judges the classifier.
      sides: what it is compared with.
      real: judges that of all real records, or None.
      about: figures of how the classifier was trained, which stand with its own.
    """

    def gained(name: str) -> Part:
        part: Part = getattr(mine, name)

        def figures(rows: np.ndarray) -> Figures:
            found = part(rows)
            if not found:
                return found
            more: Figures = {}
            for side in (side for side in sides if name == "detected" or not side.over):
                more |= augmentation.gains(row, found, getattr(side.judge, name)(rows), side.row, side.over)
            return found | more | about

        return figures

    def fair(rows: np.ndarray) -> Figures:
        found = mine.fair(rows)
        return found if real is None else found | fairness.gap_changes(row, found, real.fair(rows))

    return mine._replace(useful=gained("useful"), detected=gained("detected"), fair=fair)


def sides_of(key: Key, judges: Mapping[Key, Judge], control: bool) -> list[Side]:
    """What a row is compared with in one seed: row "a+b" with "a", a control with "real", some of a generator with SMOTE, too.

    Args:
      key: the row.
      judges: of all rows of that seed.
      control: whether it stands in the detection table alone.
    """
    model, row = key
    below = row.split("+")[0] if "+" in row else "real" if control else ""
    over = "real" if control and model == "-" else ""
    found = [Side(below, over, judges["-", below])] if ("-", below) in judges else []
    if model != "-" and row in COMPARED and ("-", SMOTED) in judges:
        found.append(Side(SMOTED, SMOTED, judges["-", SMOTED]))
    return found


def device_rows(setting: Setting, judges: Sequence[Mapping[Key, Judge]]) -> list[Row]:
    """Gains of a detection with intervals over the test devices (or blocks), the trainings being those of the run.

    Args:
      setting: the domain.
      judges: of all rows, one mapping a seed.

    Returns:
      Of `COMPARED` rows "<metric>_gain[by device]", over real records alone, and "<metric>_gain[over smote, by device]": the
      mean over seeds on the test records as they are, n = devices.
    """
    test, sides = setting.domain.test, {"": ("-", "real"), SMOTED: ("-", SMOTED)}
    sides = {over: key for over, key in sides.items() if key in judges[0]}
    mine = [key for key in judges[0] if key[0] != "-" and key[1] in COMPARED]
    if not mine or not sides:
        return []
    positive, devices = test.label != 0, len(np.unique(test.client))
    draws = paired.client_draws(test.client, setting.generator(rng.Stream.EVALUATE, "devices"))

    def figures(key: Key) -> dict[str, np.ndarray]:
        each = [of_seed[key] for of_seed in judges]
        return paired.mean_figures([paired.drawn_figures(positive, j.alarm, j.point, draws) for j in each])

    keys = [*mine, *sides.values()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(keys, pool.map(figures, keys), strict=True))
    rows = []
    for key in mine:
        for over, side in sides.items():
            mark = f"over {over}, by device" if over else "by device"
            for metric, difference in paired.differences(found[key], found[side], devices).items():
                rows.append(Row(setting.domain.name, *key, f"{metric}_gain[{mark}]", *difference))
    return rows


def task_rows(setting: Setting, fits: Fits) -> tuple[list[Row], list[Row], list[Row]]:
    """Tables 2 (or 4) and fairness: thresholds from validation clients, figures from test clients.

    Args:
      setting: the domain.
      fits: trained classifiers.

    Returns:
      (utility rows, detection rows, fairness rows); detection is empty for a diagnosis, and alone has `fits.detectors`.
      Intervals are over seeds; with one seed they are those of a bootstrap over test clients, which leaves out that another
      training would end elsewhere. What a generator's rows gain has both.
    """
    domain, seeds = setting.domain, range(setting.include.shape[0])
    every = np.arange(len(domain.test.label))
    small = frozenset(fairness.small_groups(domain.test, domain.schema))
    predicts = {key: fitted.probabilities for key, fitted in fits.by_row.items()} | fits.detectors
    judges = [{key: make_judge(setting, key[1], p, s, small) for key, p in predicts.items()} for s in seeds]
    tables: tuple[list[Row], list[Row], list[Row]] = ([], [], [])
    for key in predicts:
        (model, row), control = key, key in fits.detectors
        about: Sequence[Figures] = fits.about.get(key, [{}] * len(seeds))
        whole = []
        for of_seed, figures in zip(judges, about, strict=True):
            real = of_seed.get(("-", "real")) if row != "real" else None
            whole.append(beside(row, of_seed[key], sides_of(key, of_seed, control), real, figures))
        for table, name in zip(tables, TABLES, strict=True):
            if control and name != "detected":
                continue
            parts: list[Part] = [getattr(judge, name) for judge in whole]
            generator = setting.generator(rng.Stream.EVALUATE, "bootstrap", model, row, name)
            table += rows_with_intervals(
                domain.name, model, [part(every) for part in parts],
                lambda part=parts[0], generator=generator: client_intervals(part, domain.test.client, generator),
            )  # fmt: skip
    if domain.task == "detection":
        tables[1].extend(device_rows(setting, judges))
        first = judges[0].get(("-", "real"))
        if first is not None and alerts.is_stream(domain.schema):
            generator = setting.generator(rng.Stream.EVALUATE, "alerts")
            alarm = first.alarm >= first.point
            tables[1].extend(alerts.alert_rows(domain.name, "real", domain.schema, domain.test, alarm, generator))
    return tables
