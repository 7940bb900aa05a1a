"""Exact distribution functions of a column, where no guarantee asks for noise: what was seen once is spread to its neighbours.

A step at every record would give a generator's rows the cells of real records, one by one. A value that occurs again is a
plateau or a spike, and keeps its own cell; the mass of one that occurs once lies evenly between the middles of the gaps on
either side, which moves the function by no more than that mass.
"""

from __future__ import annotations

import numpy as np

from fedjax_health.data.cells import Variable, edges_of


def exact_functions(
    own: np.ndarray, label: np.ndarray, weight: np.ndarray, variable: Variable, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Distribution function of each class, piecewise linear: (edges f64[n], rising; F there f64[L, n], 0 to 1).

    Args:
      own: f64[M], of `cells.kept`; NaN = missing.
      label: i32[M].
      weight: f64[M], of records.
      variable: what is kept.
      classes: L. A class without a value has the function of all; without any value it is linear over the range.
    """
    grid = edges_of(variable)
    here = ~np.isnan(own)
    if not here.any():
        return grid[[0, -1]], np.tile([0.0, 1.0], (classes, 1))
    place = np.clip(np.searchsorted(grid, own[here], side="right") - 1, 0, len(grid) - 2)
    cells, which, count = np.unique(place, return_inverse=True, return_counts=True)
    masses = np.bincount(label[here] * len(cells) + which, weights=weight[here], minlength=classes * len(cells))
    masses = masses.reshape(classes, len(cells))
    masses = np.where(masses.sum(1, keepdims=True) > 0, masses, masses.sum(0))
    pieces = [_pieces(cells[m > 0], count[m > 0] > 1, m[m > 0], grid) for m in masses]
    edges = np.unique(np.concatenate([at for at, _ in pieces]))
    return edges, np.stack([np.interp(edges, at, below) for at, below in pieces])


def _pieces(cells: np.ndarray, again: np.ndarray, mass: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the interval that each occupied cell's mass is spread over, and F there."""
    low, high = grid[cells], grid[cells + 1]
    middle = (low + high) / 2
    between = (middle[1:] + middle[:-1]) / 2
    # never into a neighbour's own cell
    left = np.clip(between, high[:-1], low[1:])
    first, last = (between[0] - middle[0], middle[-1] - between[-1]) if len(cells) > 1 else (0.0, 0.0)
    start = np.concatenate([[np.clip(middle[0] - first, grid[0], low[0])], left])
    end = np.concatenate([left, [np.clip(middle[-1] + last, high[-1], grid[-1])]])
    start, end = np.where(again, low, start), np.where(again, high, end)
    below = np.concatenate([[0.0], np.cumsum(mass)]) / mass.sum()
    return np.stack([start, end], 1).ravel(), np.stack([below[:-1], below[1:]], 1).ravel()
