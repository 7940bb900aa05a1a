"""How much better one detector is than another, with an interval over the devices (or blocks) that both were tested on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fedjax_health.evaluation.bootstrap import REPLICATES, percentiles

NAN = float("nan")
MAX_FPR = 0.01


class Difference(NamedTuple):
    """A difference of figures: of the records as they are, its 95 % interval over devices, and how many there were."""

    value: float
    low: float
    high: float
    n: int


def client_draws(client: np.ndarray, generator: np.random.Generator, count: int = REPLICATES) -> np.ndarray:
    """How often each record counts when its clients are drawn again with replacement; f64[1 + B, M], first as they are.

    Args:
      client: i[M], client of each record.
      generator: host generator.
      count: B.
    """
    _, index = np.unique(client, return_inverse=True)
    size = int(index.max(initial=-1)) + 1
    drawn = generator.multinomial(size, np.full(size, 1 / size), size=count)
    return np.concatenate([np.ones((1, len(client))), drawn[:, index]]).astype(np.float64)


def drawn_figures(
    positive: np.ndarray, alarm: np.ndarray, threshold: float, draws: np.ndarray
) -> dict[str, np.ndarray]:
    """Figures of one detector in every draw of the test clients.

    Args:
      positive: bool[M], attack records.
      alarm: f64[M].
      threshold: for the two rates.
      draws: f64[B, M], of `client_draws`.

    Returns:
      f64[B] each of detection_rate, false_positive_rate, detection_at_1pct_fpr, auroc and pr_auc, as `detection_figures` has
      them; NaN in a draw that lacks a class, and everywhere for scores that are not finite.
    """
    names = ("detection_rate", "false_positive_rate", "detection_at_1pct_fpr", "auroc", "pr_auc")
    if not np.isfinite(alarm).all():
        return {name: np.full(len(draws), NAN) for name in names}
    order = np.argsort(-alarm, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(alarm[order]) != 0, True))  # records with one score are flagged together
    flagged = [np.cumsum(draws[:, order] * side[order], 1)[:, ends] for side in (positive, ~positive)]
    total = [np.where(side[:, -1:] > 0, side[:, -1:], NAN) for side in flagged]
    tpr, fpr = (side / whole for side, whole in zip(flagged, total, strict=True))
    there = np.isfinite(total[0] + total[1])[:, 0]
    before_t, before_f = (np.pad(rate[:, :-1], ((0, 0), (1, 0))) for rate in (tpr, fpr))
    raised = int(np.count_nonzero(alarm[order][ends] >= threshold))
    precision = flagged[0] / np.maximum(flagged[0] + flagged[1], 1e-300)
    found = (
        tpr[:, raised - 1] if raised else 0.0 * total[0][:, 0],
        fpr[:, raised - 1] if raised else 0.0 * total[1][:, 0],
        np.where(fpr <= MAX_FPR + 1e-12, tpr, 0.0).max(1),
        ((fpr - before_f) * (tpr + before_t) / 2).sum(1),
        ((tpr - before_t) * precision).sum(1),
    )
    alone = (np.ones_like(there), np.ones_like(there), there, there, there)
    return {name: np.where(ok, value, NAN) for name, value, ok in zip(names, found, alone, strict=True)}


def mean_figures(each: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Means over trainings of figures f64[B] in the same draws.

    Args:
      each: of `drawn_figures`, one a training.
    """
    return {name: np.mean([figures[name] for figures in each], 0) for name in each[0]}


def differences(
    mine: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray], clients: int
) -> dict[str, Difference]:
    """Differences in the same draws, so that a hard device is hard for both.

    Args:
      mine, others: of `mean_figures`, over the same draws.
      clients: behind the draws.

    Returns:
      The interval is NaN with fewer than two clients.
    """
    found = {}
    for name in mine:
        difference = mine[name] - others[name]
        ends = percentiles(difference[1:]) if clients > 1 else (NAN, NAN)
        found[name] = Difference(float(difference[0]), *ends, clients)
    return found
