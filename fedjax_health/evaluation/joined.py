"""Known and unknown attacks: a classifier and an anomaly detector joined through their tail probabilities on benign records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedjax_health.evaluation.controls import Predict
from fedjax_health.evaluation.utility import positive_score
from fedjax_health.types import Table, UserError

STEP = 0.5 * np.log(2)  # nats between two cuts: the share of benign records above falls by √2
FEWEST = 10  # benign scores that the last cut leaves above itself; what is beyond them is extrapolated
LEAST = 1e-300  # stands for a probability of 0, so that log-odds stay finite


class Tail(NamedTuple):
    """How rare a score is among benign records: -log P(benign score >= s), in nats.

    Attributes:
      cut: f64[Q], strictly rising scores; all that devices tell of a detector beside `scale`.
      depth: f64[Q], -log of the share of benign scores at or above each cut, in nats; depth[0] = 0.
      scale: mean excess of the benign scores above the last cut; by so much more a score is one nat rarer.
    """

    cut: np.ndarray
    depth: np.ndarray
    scale: float


def benign_tail(score: np.ndarray) -> Tail:
    """Cuts that leave shares 1, 2^-½, 2^-1, … of the benign scores above them, down to the share of ten scores.

    depth(c) = -log((1 + #{score >= c}) / (1 + n)).

    Args:
      score: f64[n], of benign validation records, n >= 1; higher = more of an alarm.

    Returns:
      Equal scores make one cut, whose share counts all of them. Cuts and depths are NaN where a score is not finite.
    """
    score = np.sort(np.asarray(score, np.float64))
    n = len(score)
    if not np.isfinite(score).all():
        return Tail(np.zeros(1), np.full(1, np.nan), 1.0)
    levels = np.exp(-STEP * np.arange(1 + int(max(np.log(n / FEWEST), 0) / STEP)))
    cut = np.unique(score[n - np.maximum(np.round(levels * n).astype(int), 1)])
    above = n - np.searchsorted(score, cut)
    excess = score[score > cut[-1]] - cut[-1]
    # scores that end in one value have no excess; then a nat of the score is a nat
    return Tail(cut, -np.log((1 + above) / (1 + n)), float(excess.mean()) if len(excess) else 1.0)


def depth(tail: Tail, score: np.ndarray) -> np.ndarray:
    """-log P(benign score >= s): linear between cuts, and beyond the last one rising on, so that no two alarms are tied there.

    Args:
      tail: of the detector.
      score: f64[M].

    Returns:
      f64[M] in nats, 0 below the first cut; NaN of a tail that is.
    """
    beyond = np.maximum(score - tail.cut[-1], 0) / tail.scale
    return np.interp(score, tail.cut, tail.depth) + beyond


def log_odds(score: np.ndarray) -> np.ndarray:
    """log P(any attack) - log P(benign): unlike the probability it does not end in ties at 1.

    Args:
      score: f64[M, L], class probabilities.

    Returns:
      f64[M] in nats.
    """
    attack, benign = positive_score(score), np.asarray(score, np.float64)[:, 0]
    return np.log(np.maximum(attack, LEAST)) - np.log(np.maximum(benign, LEAST))


def joined(known: Predict, unknown: Predict, benign: Sequence[Table], share: float) -> Predict:
    """Alarm -log min(p_known / (1 - w), p_unknown / w): whichever of two detectors finds a record rarer among benign ones.

    p is the share of benign records that score as high (`depth`). At a small threshold on the joint p, detectors that erred
    apart from one another would split the false alarms as 1 - w to w: by so much each of the two is stricter than alone.

    Args:
      known: a classifier, (records, seed) -> f64[M, L] probabilities.
      unknown: an anomaly detector, (records, seed) -> f64[M, 2], whose second column is the alarm in nats.
      benign: of each seed, benign records of validation clients, which neither was trained on.
      share: w, of the anomaly detector, in (0, 1).

    Returns:
      (records, seed) -> f64[M, 2], (1 - alarm, alarm) in nats: not probabilities, and no types are named.

    Raises:
      UserError: a seed without benign records.

    Source: Tippett (1931), the smallest of several p-values; Genovese, Roeder and Wasserman (2006), weights of them.
    """
    if not all(len(table.label) for table in benign):
        raise UserError(
            "a joined detector is calibrated on benign records of validation clients, and there are none; raise "
            "data.validation_fraction, or leave 'anomaly' out of evaluation.controls"
        )

    def scores(table: Table, seed: int) -> tuple[np.ndarray, np.ndarray]:
        return log_odds(known(table, seed)), positive_score(unknown(table, seed))

    tails = [[benign_tail(score) for score in scores(table, s)] for s, table in enumerate(benign)]

    def alarm(table: Table, seed: int) -> np.ndarray:
        mine = zip(tails[seed], scores(table, seed), (1 - share, share), strict=True)
        joint = np.max([depth(tail, score) + np.log(weight) for tail, score, weight in mine], 0)
        return np.stack([1 - joint, joint], 1)

    return alarm
