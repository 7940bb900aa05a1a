"""Intervals where there is one seed: clients are drawn again, with all their records, since these depend on one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fedjax_health.evaluation.rows import Figures, seed_rows
from fedjax_health.types import Row

REPLICATES = 200
NAN = float("nan")


class Interval(NamedTuple):
    """95 % interval of a figure, and the number of clients behind it."""

    low: float
    high: float
    n: int


def percentiles(replicates: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of a bootstrap: the (1 - level) / 2 and (1 + level) / 2 quantiles of the replicates.

    Args:
      replicates: f64[B]; a NaN (a figure that a draw leaves undefined) is left out, more than a tenth make the interval NaN.
      level: coverage aimed at; with few clients it is less.

    Returns:
      (low, high).

    Source: Efron (1979); clusters: Davison and Hinkley (1997), section 3.8.
    """
    known = replicates[~np.isnan(replicates)]
    if len(known) < 0.9 * len(replicates) or not len(known):
        return NAN, NAN
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_replicates(
    values: np.ndarray, client: np.ndarray, rng: np.random.Generator, count: int = REPLICATES
) -> np.ndarray:
    """Means over records of bootstrap draws of clients: Σ_c w_c s_c / Σ_c w_c m_c, w multinomial, s a client's sum of values.

    Args:
      values: f64[M], M >= 1.
      client: i[M].
      rng: host generator.
      count: B.

    Returns:
      f64[B].
    """
    _, index = np.unique(client, return_inverse=True)
    size = np.bincount(index)
    total = np.bincount(index, weights=values)
    weights = rng.multinomial(len(size), np.full(len(size), 1 / len(size)), size=count)
    return weights @ total / (weights @ size)


def client_intervals(
    statistic: Callable[[np.ndarray], Figures], client: np.ndarray, rng: np.random.Generator, count: int = REPLICATES
) -> dict[tuple[str, str], Interval]:
    """Intervals of any figures of some records, by drawing their clients again with replacement.

    Args:
      statistic: rows i64[R] of the records (repeats allowed) -> figures. A difference on the same rows is paired.
      client: i[M], client of each record.
      rng: host generator.
      count: draws.

    Returns:
      Interval of each figure; NaN with fewer than two clients.
    """
    ids, index = np.unique(client, return_inverse=True)
    rows_of = np.split(np.argsort(index, kind="stable"), np.cumsum(np.bincount(index))[:-1])
    if len(ids) < 2:
        return {key: Interval(NAN, NAN, len(ids)) for key in statistic(np.arange(len(client)))}
    draws = [
        statistic(np.concatenate([rows_of[c] for c in rng.integers(len(ids), size=len(ids))])) for _ in range(count)
    ]
    keys = dict.fromkeys(key for draw in draws for key in draw)
    values = {key: np.array([draw.get(key, NAN) for draw in draws]) for key in keys}
    return {key: Interval(*percentiles(v), len(ids)) for key, v in values.items()}


def rows_with_intervals(
    domain: str,
    model: str,
    per_seed: Sequence[Figures],
    alone: Callable[[], dict[tuple[str, str], Interval]],
) -> list[Row]:
    """`seed_rows`, and where there is one seed the bootstrap's intervals, n = clients.

    Args:
      domain, model: as in `Row`.
      per_seed: figures, one a seed.
      alone: makes the intervals; called only where there is one seed. A figure that it lacks keeps none.
    """
    rows = seed_rows(domain, model, per_seed)
    if len(per_seed) != 1:
        return rows
    found = alone()
    return [
        r._replace(low=at.low, high=at.high, n=at.n) if (at := found.get((r.row, r.metric))) is not None else r
        for r in rows
    ]
