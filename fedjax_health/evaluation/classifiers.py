"""Classifiers that a reader of one table would fit to it, with scikit-learn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from fedjax_health.attacks.base import public_space
from fedjax_health.data.schema import Schema
from fedjax_health.evaluation.similarity import one_thread
from fedjax_health.types import Table

LOGISTIC, BOOSTED, BAYES, TREE = "logistic-regression", "boosted-trees", "naive-bayes", "decision-tree"
KINDS = (LOGISTIC, BOOSTED, BAYES, TREE)
MOST_CODES = 255  # categories that boosted trees split as such
Predict = Callable[[Table], np.ndarray]  # records -> f64[M, L], probabilities


def _model(kind: str, schema: Schema, seed: int):
    if kind == LOGISTIC:
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    if kind == BAYES:
        return GaussianNB()
    if kind == TREE:
        return DecisionTreeClassifier(max_depth=6, min_samples_leaf=20, random_state=seed)
    few = [c.kind != "numeric" and len(c.categories) <= MOST_CODES for c in schema.inputs]
    return HistGradientBoostingClassifier(
        early_stopping=False,  # pyright: ignore[reportArgumentType]
        categorical_features=few,  # pyright: ignore[reportArgumentType]
        random_state=seed,
    )


@one_thread
def fit_classifier(kind: str, table: Table, schema: Schema, seed: int) -> Predict:
    """Fits p(label | inputs) to a table.

    Args:
      kind: of `KINDS`: logistic regression on standardised inputs with scikit-learn's penalty, 100 boosted trees, Gaussian
        naive Bayes, one tree of depth 6. Inputs are `public_space` without the label (a missing number at the center, with an
        indicator); of boosted trees raw values and codes, missing ones natively.
      table: M >= 1 training records, real or synthetic.
      schema: their columns, L classes.
      seed: of the trees.

    Returns:
      records -> f64[M, L]; a class that the table lacks has 0, the only one that it has 1.
    """
    empty = np.isnan(table.values).all(0)  # of a column without any value no bins can be made

    def inputs(of: Table) -> np.ndarray:
        if kind == BOOSTED:
            return np.where(empty, 0.0, of.values).astype(np.float64)
        return public_space(of, schema)[:, : -schema.num_classes]  # its last columns are the label

    present = np.unique(table.label)
    fitted = _model(kind, schema, seed).fit(inputs(table), table.label) if len(present) > 1 else None

    def probabilities(of: Table) -> np.ndarray:
        whole = np.zeros((len(of.label), schema.num_classes))
        whole[:, present] = 1.0 if fitted is None else one_thread(fitted.predict_proba)(inputs(of))
        return whole

    return probabilities
