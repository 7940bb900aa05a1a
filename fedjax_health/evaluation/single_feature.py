"""Does one column alone give attacks away? A column that does so on held-out clients may be a leak, and is worth a look."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.tree import DecisionTreeClassifier

from fedjax_health import rng
from fedjax_health.evaluation.bootstrap import REPLICATES, percentiles
from fedjax_health.evaluation.setting import Setting
from fedjax_health.types import Row, Table

METRIC = "single_feature_auroc"
LEAVES = 16
LEAF_ROWS = 20  # of training, at least: a leaf of a few records says nothing
NAN = float("nan")


def single_feature_rows(setting: Setting) -> list[Row]:
    """AUROC of each input column alone at telling attacks from benign records; none where the task is no detection.

    A tree of at most 16 leaves on the one column learns from the training clients which of its values are of attacks, in
    whatever order, missing ones among them; it is judged on the test clients. Identity columns and counters that follow the
    attacks reach 1 here, or near it.

    Args:
      setting: the domain.

    Returns:
      A row for each column: model "real", the interval by a bootstrap over test clients, n = their number. NaN where the test
      records are of one kind.
    """
    domain = setting.domain
    if domain.task != "detection":
        return []
    generator = setting.generator(rng.Stream.EVALUATE, "bootstrap", METRIC)
    _, client = np.unique(domain.test.client, return_inverse=True)
    count = int(client.max()) + 1
    drawn = generator.multinomial(count, np.full(count, 1 / count), size=REPLICATES).astype(np.float64)
    return [
        Row(domain.name, "real", column.name, METRIC, *alone(domain.train, domain.test, j, client, drawn), count)
        for j, column in enumerate(domain.schema.inputs)
    ]


def alone(train: Table, test: Table, column: int, client: np.ndarray, drawn: np.ndarray) -> tuple[float, float, float]:
    """(AUROC, low, high) of one column.

    Args:
      train, test: records; both kinds of them in `train`.
      column: place on the F axis.
      client: i[M_test], dense client of each test record.
      drawn: f64[B, K], how often each client is in each replicate.
    """
    positive = test.label > 0
    if len(np.unique(positive)) < 2:
        return NAN, NAN, NAN
    tree = DecisionTreeClassifier(max_leaf_nodes=LEAVES, min_samples_leaf=LEAF_ROWS, random_state=0)
    tree.fit(train.values[:, [column]], train.label > 0)
    score = np.asarray(tree.predict_proba(test.values[:, [column]]))[:, 1]
    _, step = np.unique(score, return_inverse=True)
    low, high = percentiles(stepped_auroc(step, positive, client, drawn)) if drawn.shape[1] > 1 else (NAN, NAN)
    return float(roc_auc_score(positive, score)), low, high


def stepped_auroc(step: np.ndarray, positive: np.ndarray, client: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """AUROC of a score of few values in each replicate: sum_s p_s (n_{<s} + n_s / 2) / (p n), p_s and n_s records of step s.

    Args:
      step: i[M] >= 0, rank of the score's value.
      positive: bool[M].
      client: i[M], dense.
      drawn: f64[B, K], how often each client is in each replicate.

    Returns:
      f64[B]; NaN where a replicate holds one kind only.
    """
    counts = np.zeros((2, drawn.shape[1], int(step.max()) + 1))
    np.add.at(counts, (positive.astype(int), client, step), 1.0)
    negatives, positives = drawn @ counts[0], drawn @ counts[1]
    below = np.cumsum(negatives, 1) - negatives / 2
    pairs = positives.sum(1) * negatives.sum(1)
    return np.divide((positives * below).sum(1), pairs, out=np.full(len(drawn), NAN), where=pairs > 0)
