"""Distances between two sets of points, a block at a time: memory grows with one block, never with both sets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BLOCK = 512  # points a product
PAIRS = 1 << 20  # pairs whose exact distance is computed at once
ROUNDING = (
    1e-5  # of a float32 square distance, relative to the squares of the points; an excess of candidates does no harm
)


def _blocks(points: np.ndarray, to: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(first point, f32[<= BLOCK, m]: |y|^2 - 2 x.y, as one product [x, 1] [-2 y, |y|^2]^T) for each block of points."""
    candidates = np.concatenate([-2.0 * to, np.sum(np.square(to), 1, keepdims=True)], 1).astype(np.float32).T
    for start in range(0, len(points), BLOCK):
        block = points[start : start + BLOCK]
        yield start, np.concatenate([block, np.ones((len(block), 1))], 1).astype(np.float32) @ candidates


def nearest_index(points: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Index of the nearest of `to` for every point, i64[n]; of equally near ones (to float32) any.

    Args:
      points: f64[n, D].
      to: f64[m, D], m > 0.
    """
    winner = np.empty(len(points), np.int64)
    for start, ranked in _blocks(points, to):
        winner[start : start + len(ranked)] = np.argmin(ranked, 1)
    return winner


def nearest(points: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Distance of every point to the nearest of `to`, f64[n]: ranked in float32, the winner's computed exactly (a copy: 0).

    Args:
      points: f64[n, D].
      to: f64[m, D], m > 0.
    """
    return np.linalg.norm(points - to[nearest_index(points, to)], axis=1)


def nearest_sets(points: np.ndarray, to: np.ndarray, k: int) -> np.ndarray:
    """Indices of the k nearest of `to` for every point, i64[n, min(k, m)], in no order.

    Args:
      points: f64[n, D].
      to: f64[m, D], m > 0.
      k: neighbours, > 0.
    """
    k = min(k, len(to))
    found = np.empty((len(points), k), np.int64)
    for start, ranked in _blocks(points, to):
        found[start : start + len(ranked)] = np.argpartition(ranked, k - 1, 1)[:, :k]
    return found


def closeness(points: np.ndarray, to: np.ndarray, radius: float, least: float) -> np.ndarray:
    """Sum over the y of `to` within the radius of log((radius + least) / (|x - y| + least)), f64[n], for every point x.

    Args:
      points: f64[n, D].
      to: f64[m, D].
      radius: > 0, in the unit of the points.
      least: > 0: distances far below it count the same.
    """
    total = np.zeros(len(points))
    square = np.sum(np.square(to), 1)
    for start, ranked in _blocks(points, to):
        block = points[start : start + len(ranked)]
        own = np.sum(np.square(block), 1)
        slack = ROUNDING * (float(square.max(initial=0.0)) + own)
        at = np.flatnonzero(ranked <= (radius**2 - own + slack)[:, None].astype(np.float32))
        for first in range(0, len(at), PAIRS):
            row, column = np.divmod(at[first : first + PAIRS], len(to))
            distance = np.linalg.norm(block[row] - to[column], axis=1)
            inside = distance <= radius
            weight = np.log((radius + least) / (distance[inside] + least))
            total[start : start + len(block)] += np.bincount(row[inside], weight, len(block))
    return total
