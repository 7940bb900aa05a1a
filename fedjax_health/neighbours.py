"""Nearest neighbours by full comparison: what every metric and attack that measures distances between records asks for."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

QUERIES, CENTRES = 512, 2048  # of one block of `ball_counts`: 8 MiB of distances, which stay in the cache
PAIRS = 1 << 20  # pairs whose exact distance `closeness` computes at once
ROUNDING = 1e-5  # of a float32 square distance, of the squares of the points; an excess of candidates does no harm
CLOSED = 1e-12  # of |x|² + |y|²: how far beyond its radius a ball still holds a point


def _exact(points: np.ndarray, to: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances by difference, ascending: products of large numbers cancel, and an exact copy must be at distance 0."""
    distance = np.stack([np.linalg.norm(points - to[column], axis=1) for column in index.T], axis=1)
    order = np.argsort(distance, axis=1, kind="stable")
    return np.take_along_axis(distance, order, 1), np.take_along_axis(index, order, 1)


def nearest(points: np.ndarray, to: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of `to` to every point: min over j of |x_i - y_j|, Euclidean.

    All pairs are compared (|x|² - 2 x·y + |y|² in blocks of a product, float64), so time does not depend on the data, as it
    does with trees; what was found is measured again by difference. 100,000 × 100,000 × 10: see `benchmarks.neighbours`.

    Args:
      points: f64[n, D].
      to: f64[m, D], m >= k.
      k: neighbours.

    Returns:
      (distance f64[n, k], ascending; index into `to` i64[n, k]). Of equally near ones any. Memory O(n k) beside the arguments.

    Raises:
      ValueError: k is more than m (scikit-learn's).
    """
    if not len(points):  # scikit-learn refuses
        return np.zeros((0, k)), np.zeros((0, k), np.int64)
    index = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(to).kneighbors(points, return_distance=False)
    return _exact(points, to, index)


def nearest_distance(points: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Distance of every point to the nearest of `to`, f64[n]; a copy is at 0.

    Args:
      points: f64[n, D].
      to: f64[m, D], m > 0.
    """
    return nearest(points, to)[0][:, 0]


def nearest_others(points: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of the other points to every point; a repeated point has its copy at distance 0.

    Args:
      points: f64[n, D], n > k.
      k: neighbours.

    Returns:
      (distance f64[n, k], ascending; index i64[n, k]).

    Raises:
      ValueError: there are k points or fewer (scikit-learn's).
    """
    index = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(points).kneighbors(return_distance=False)
    return _exact(points, points, index)


@threadpool_limits.wrap(limits=1, user_api="blas")  # on blocks so small its threads wait for one another
def ball_counts(points: np.ndarray, centres: np.ndarray, radius: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many balls hold each point, and how many points each ball holds: 1[|x_i - c_j| <= r_j] summed over j, and over i.

    Args:
      points: f64[n, D].
      centres: f64[m, D].
      radius: f64[m], >= 0; balls are closed, so that one of radius 0 holds the copies of its centre.

    Returns:
      (balls that hold a point i64[n], points in a ball i64[m]). Distances are products of float64: a point that is beyond
      the radius by less than 1e-12 of |x|² + |c|², in square distance, counts as inside.
    """
    middle = centres.mean(0) if len(centres) else 0.0
    x, c = points - middle, centres - middle  # large common offsets would cancel
    x2, c2 = np.square(x).sum(1), np.square(c).sum(1)
    of_point, of_ball = np.zeros(len(x), np.int64), np.zeros(len(c), np.int64)
    for i in range(0, len(x), QUERIES):
        a, a2 = x[i : i + QUERIES], x2[i : i + QUERIES, None]
        for j in range(0, len(c), CENTRES):
            part = slice(j, j + CENTRES)
            # |x - c|² - 1e-12 (|x|² + |c|²) <= r², with what depends on one side only taken out of the block
            block = a @ (-2.0 * c[part].T)
            block += a2 * (1 - CLOSED)
            inside = (block <= np.square(radius[part]) - c2[part] * (1 - CLOSED)).view(np.uint8)
            of_point[i : i + QUERIES] += np.add.reduce(inside, axis=1, dtype=np.uint16)  # a block counts no further
            of_ball[part] += np.add.reduce(inside, axis=0, dtype=np.uint16)
    return of_point, of_ball


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
    candidates = np.concatenate([-2.0 * to, square[:, None]], 1).astype(np.float32).T
    for start in range(0, len(points), QUERIES):
        block = points[start : start + QUERIES]
        ranked = np.concatenate([block, np.ones((len(block), 1))], 1).astype(np.float32) @ candidates  # |y|² - 2 x·y
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
