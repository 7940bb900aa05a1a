"""Whether a classifier's probabilities are the frequencies that they say: Brier score, calibration error, slope, intercept."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit

from fedjax_health.evaluation.rows import Figures
from fedjax_health.evaluation.utility import NAN, positive_score

BINS = 10  # of equally many records
CLIP = 1e-6  # of probabilities, whose log odds may not be infinite
STEPS, SETTLED = 25, 1e-8  # of Newton's method
FLAT = 1e-9  # spread of log odds below which no slope can be read
FIGURES = ("brier", "ece", "calibration[slope]", "calibration[intercept]")


def calibration_error(positive: np.ndarray, p: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: Σ_b n_b / n |share of positives in b - mean p in b|, b ten bins of equally many records by p.

    Bins of equal width would put nearly all records of a rare disease into one.

    Args:
      positive: bool[M], M >= 1.
      p: f64[M], probabilities.
      bins: how many; records with equal p are kept together, in the bin of their middle.

    Returns:
      In [0, 1]. Above 0 by chance alone, by some √(bins · p (1 - p) / M).

    Source: Naeini, Cooper, Hauskrecht (2015), with bins of equal mass.
    """
    _, tie, count = np.unique(p, return_inverse=True, return_counts=True)
    middle = (np.cumsum(count) - count / 2) / len(p)
    index = np.minimum((middle * bins).astype(np.int64), bins - 1)[tie]
    apart = np.bincount(index, weights=positive.astype(np.float64) - p, minlength=bins)
    return float(np.abs(apart).sum() / len(p))


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    """Slope of the logistic regression of y on x by Newton's method, which a bootstrap of two numbers wants fast; NaN where it
    does not settle, as where x separates the classes.
    """
    at = np.array([logit(y.mean()), 0.0])
    for _ in range(STEPS):
        mean = expit(at[0] + at[1] * x)
        weight, rest = mean * (1 - mean), y - mean
        a, b, d = weight.sum(), (weight * x).sum(), (weight * x * x).sum()
        determinant = a * d - b * b
        if determinant <= 0:
            return NAN
        down = np.array([rest.sum(), (rest * x).sum()])
        move = np.array([d * down[0] - b * down[1], a * down[1] - b * down[0]]) / determinant
        at = at + move
        if np.abs(move).max() < SETTLED:
            return float(at[1])
    return NAN


def calibration_line(positive: np.ndarray, p: np.ndarray) -> tuple[float, float]:
    """Slope b of logit Pr[positive] = c + b logit p, and intercept a in the large: mean σ(a + logit p) = positive share.

    Slope below 1: too extreme, as an overfitted model is; above 1: too timid. Intercept above 0: risk is underestimated on the
    whole, as by a model of records with too few positives.

    Args:
      positive: bool[M].
      p: f64[M], probabilities, cut to [1e-6, 1 - 1e-6].

    Returns:
      (slope, intercept); NaN where a class is absent, and the slope where all p are the same or separate the classes.

    Source: Cox (1958); Van Calster et al. (2019), Calibration: the Achilles heel of predictive analytics.
    """
    if len(np.unique(positive)) < 2:
        return NAN, NAN
    odds = logit(np.clip(p, CLIP, 1 - CLIP))
    rate = float(np.mean(positive))
    intercept = float(brentq(lambda a: float(np.mean(expit(a + odds))) - rate, -40.0, 40.0))  # pyright: ignore[reportArgumentType]
    spread = float(np.std(odds))
    if spread < FLAT:
        return NAN, intercept
    return _slope((odds - odds.mean()) / spread, positive.astype(np.float64)) / spread, intercept


def calibration_figures(row: str, label: np.ndarray, score: np.ndarray) -> Figures:
    """Calibration of the probability of any class but 0.

    Args:
      row: where they stand.
      label: i32[M], true classes.
      score: f64[M, L], class probabilities.

    Returns:
      brier, mean (p - y)²; ece (`calibration_error`); calibration[slope] and calibration[intercept] (`calibration_line`). All
      NaN without records or for scores that are not finite.
    """
    p, positive = positive_score(score), np.asarray(label) != 0
    if not len(p) or not np.isfinite(p).all():
        return {(row, name): NAN for name in FIGURES}
    figures = (float(np.mean(np.square(p - positive))), calibration_error(positive, p), *calibration_line(positive, p))
    return {(row, name): value for name, value in zip(FIGURES, figures, strict=True)}
