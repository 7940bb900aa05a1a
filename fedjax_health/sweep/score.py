"""What points are chosen by: how well a classifier that saw synthetic records alone predicts those of validation clients."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fedjax_health.data.domain import Domain
from fedjax_health.evaluation.downstream import Fitted


class Score(NamedTuple):
    """The score of one federation.

    Attributes:
      value: mean of the validation clients' scores, each in [0, 1].
      influence: most that one client more or less, or another in its place, can change it, their number being public.
    """

    value: float
    influence: float


def score(domain: Domain, fitted: Fitted, seed: int) -> Score:
    """1 less half the Brier score, by client.

        score = mean over clients of mean over a client's records of 1 - 1/2 sum_l (p_l - 1[y = l])^2

    It is a proper score (Brier 1950) in [0, 1] and a mean over clients, so that one client moves it by 1 / n at most.

    Args:
      domain: gives the validation clients' records.
      fitted: classifiers trained on synthetic records.
      seed: which of them.
    """
    table = domain.validation
    p = fitted.probabilities(table, seed)
    truth = np.arange(p.shape[1])[None, :] == table.label[:, None]
    each = 1.0 - 0.5 * np.square(p - truth).sum(1)
    records = np.bincount(table.client)
    clients = np.bincount(table.client, np.clip(each, 0.0, 1.0))[records > 0] / records[records > 0]
    return Score(float(clients.mean()), 1.0 / len(clients))


def mean_score(scores: list[Score]) -> Score:
    """The score of a run: the mean over its domains and models, whose clients are taken to be the same people.

    Args:
      scores: of one seed.
    """
    return Score(float(np.mean([s.value for s in scores])), float(np.mean([s.influence for s in scores])))
