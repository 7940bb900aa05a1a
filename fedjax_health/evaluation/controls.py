"""Controls of a detection: other ways to make few attacks count for more, and detectors of another kind, on the same rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import numpy as np
from threadpoolctl import threadpool_limits

from fedjax_health import rng
from fedjax_health.data.schema import Schema
from fedjax_health.data.split import take_clients
from fedjax_health.evaluation.augmentation import enough_rows, raised
from fedjax_health.evaluation.baselines import gaussian_copula
from fedjax_health.evaluation.central import fit_central
from fedjax_health.evaluation.classifiers import BOOSTED
from fedjax_health.evaluation.downstream import Downstream
from fedjax_health.evaluation.mixtures import dealt_mixture, view_mixture
from fedjax_health.evaluation.setting import Setting, Subject, included
from fedjax_health.evaluation.smote import smote
from fedjax_health.models.classifier import balanced_weights
from fedjax_health.types import Table

WEIGHTED, OVERSAMPLED, SMOTED, COPULA = "class-weights", "random-oversampling", "smote", "real+gaussian-copula"
BALANCED = "real+balanced"  # of a generator: as many rows of each attack as the three above add
ANOMALY, TREES = "anomaly (benign only)", "boosted-trees"
JOINED = "real|anomaly"  # the classifier on real records and the anomaly detector, see `evaluation.joined`
MOST_ROWS = 10_000  # that boosted trees are fitted to, of whole clients
# rows of a class that SMOTE or a copula makes, to bound its time; where more are dealt, they come again
MOST_MADE = 10_000
Predict: TypeAlias = Callable[[Table, int], np.ndarray]  # (records, seed) -> f64[M, L], as `detection_figures` takes it


def random_oversampling(table: Table, schema: Schema, amounts: np.ndarray, generator: np.random.Generator) -> Table:
    """Real records again, in random order and as equally often as can be.

    Args:
      table: real records of training.
      schema: not read.
      amounts: i64[L], records of each class; none of a class without real ones.
      generator: chooses.
    """
    del schema
    order = generator.permutation(len(table.label))
    picked = [np.resize(mine, n) for c, n in enumerate(amounts) if len(mine := order[table.label[order] == c])]
    rows = np.concatenate([np.zeros(0, np.int64), *picked])
    return Table(table.values[rows], table.label[rows], np.arange(len(rows), dtype=np.int32))


def copula_rows(table: Table, schema: Schema, amounts: np.ndarray, generator: np.random.Generator) -> Table:
    """Rows of the Gaussian copula of each class; see `baselines.gaussian_copula`.

    Args:
      table: real records of training.
      schema: their columns.
      amounts: i64[L], rows of each class; none of a class without real records.
      generator: draws.
    """
    made = [table._replace(values=table.values[:0], label=table.label[:0])]
    for c, n in enumerate(amounts):
        mine = table.label == c
        if n and mine.any():
            some = Table(*(column[mine] for column in table))
            made.append(gaussian_copula(some, schema, int(n), generator))
    values, label = (np.concatenate([t[i] for t in made]) for i in (0, 1))
    return Table(values, label, np.arange(len(label), dtype=np.int32))


MAKERS = {OVERSAMPLED: random_oversampling, SMOTED: smote, COPULA: copula_rows}  # all of pooled records of training


def fit_controls(
    setting: Setting, subjects: Sequence[Subject], downstream: Downstream, shares: np.ndarray, stage: str
) -> dict[tuple[str, str], Predict]:
    """Federated classifiers of `evaluation.controls`: class weights, and attacks raised to balance by rows of several origins.

    The same numbers of rows (`augmentation.raised`) are dealt to the same clients at the same places, so that only where they
    come from differs: real records again, SMOTE, a Gaussian copula, or a generator. All but the last pool real records of
    training, which a federation would not do.

    Args:
      setting: the domain.
      subjects: generators.
      downstream: federated training of the classifier.
      shares: f32[N, L], class shares as the run may know them.
      stage: name for messages.

    Returns:
      (generator or "-", row) -> classifier.
    """
    domain, include, wanted = setting.domain, setting.include, setting.config.controls
    classes, seeds = domain.schema.num_classes, range(setting.include.shape[0])
    found: dict[tuple[str, str], Predict] = {}
    real = [take_clients(domain.train, included(setting, s, True)) for s in seeds]
    amounts = [raised(np.bincount(t.label, minlength=classes).astype(np.int64)) for t in real]

    def fit(row: str, pools: Sequence[Table], name: str) -> Predict:
        mixtures = []
        for s in seeds:
            generator = setting.generator(rng.Stream.EVALUATE, "controls", str(s))  # the same places for every row
            mixtures.append(dealt_mixture(pools[s], amounts[s], downstream.at, include[s], generator))
        return downstream.fit_mixtures(mixtures, f"{stage}/{name}").probabilities

    if WEIGHTED in wanted:
        alone = [view_mixture("real", t, downstream.at) for t in real]
        found["-", WEIGHTED] = downstream.fit_mixtures(
            alone, f"{stage}/{WEIGHTED}", balanced_weights(shares)
        ).probabilities
    for row, make in MAKERS.items():
        if row in wanted:
            jobs = [
                (real[s], domain.schema, np.minimum(amounts[s], MOST_MADE), setting.generator(rng.Stream.EVALUATE, row, str(s)))
                for s in seeds
            ]  # fmt: skip
            with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
                pools = list(pool.map(lambda job, make=make: make(*job), jobs))
            found["-", row] = fit(row, pools, row)
    if BALANCED in wanted:
        for subject in subjects:
            pools = [enough_rows(subject, s, amounts[s]) for s in seeds]
            found[subject.name, BALANCED] = fit(BALANCED, pools, f"{subject.name}/{BALANCED}")
    return found


def fit_boosted(tables: Sequence[Table], schema: Schema, seeds: Sequence[int]) -> Predict:
    """Gradient boosting of "any attack" on pooled records: the mark from outside, which no federation reaches by itself.

    It names no types: with one it would have a tree for each, which diverges where a type has a few records.

    Args:
      tables: training records, one table a federation.
      schema: their columns.
      seeds: of the trees, one a table.
    """
    fitted = [fit_central(BOOSTED, table, schema, seed) for table, seed in zip(tables, seeds, strict=True)]
    return lambda table, s: fitted[s](table)
