"""SMOTE: new records of a class between its real ones and their neighbours; a control, which pools the records."""

from __future__ import annotations

import jax
import numpy as np
from imblearn.over_sampling import SMOTE, SMOTEN, SMOTENC

from fedjax_health.data.encode import Layout, make_encoder
from fedjax_health.data.schema import Schema
from fedjax_health.evaluation.similarity import one_thread
from fedjax_health.types import Table

NEIGHBOURS = 5
MOST = 4_000  # real records of a class among which neighbours are looked for; the search is quadratic


@one_thread
def smote(table: Table, schema: Schema, amounts: np.ndarray, generator: np.random.Generator) -> Table:
    """New records x + u (x' - x) of a class, x' one of the 5 nearest of x, u uniform; categories and gaps by majority.

    Args:
      table: real records, of training alone. They are pooled, which a federation would not do: a mark, not an option.
      schema: their columns; distances are of publicly scaled numbers (a logarithm where the column has one).
      amounts: i64[L], records of each class to make; none is made of a class without real ones.
      generator: chooses at most 4,000 real records a class, and draws.

    Returns:
      Table with a running client index, at the columns' public resolution. A class with one record repeats it; with fewer than
      six, all others are neighbours.

    Source: Chawla et al. (2002), arXiv 1106.1813: SMOTE and SMOTE-NC, as imbalanced-learn has them.
    """
    encoder = make_encoder(schema)
    layout = encoder.layout
    chosen = [generator.permutation(np.flatnonzero(table.label == c))[:MOST] for c in range(len(amounts))]
    bounds = np.cumsum([len(rows) for rows in chosen])[:-1]
    x = jax.jit(encoder.encode)(table.values[np.concatenate(chosen)].astype(np.float32))
    made, labels = [np.zeros((0, layout.numeric + layout.bits + len(layout.blocks)))], [np.zeros(0, np.int32)]
    for c, mine in enumerate(np.split(_folded(np.asarray(x), layout), bounds)):
        wanted, seed = int(amounts[c]), int(generator.integers(2**31))
        if wanted and len(mine):
            made.append(_between(mine, layout.numeric, wanted, seed) if len(mine) > 1 else np.repeat(mine, wanted, 0))
            labels.append(np.full(wanted, c, np.int32))
    values = jax.jit(encoder.decode)(_unfolded(np.concatenate(made), layout).astype(np.float32))
    label = np.concatenate(labels)
    return Table(np.asarray(values), label, np.arange(len(label), dtype=np.int32))


def _folded(x: np.ndarray, layout: Layout) -> np.ndarray:
    """Numbers, bits, and one code a block: f32[n, D] -> f64[n, numeric + bits + blocks]."""
    start, parts = layout.numeric + layout.bits, [x[:, : layout.numeric + layout.bits]]
    for size in layout.blocks:
        parts.append(np.argmax(x[:, start : start + size], 1)[:, None])
        start += size
    return np.concatenate(parts, 1).astype(np.float64)


def _unfolded(codes: np.ndarray, layout: Layout) -> np.ndarray:
    """The way back."""
    start, parts = layout.numeric + layout.bits, [codes[:, : layout.numeric + layout.bits]]
    for j, size in enumerate(layout.blocks):
        parts.append((codes[:, start + j, None] == np.arange(size)).astype(np.float64))
    return np.concatenate(parts, 1)


def _between(codes: np.ndarray, numeric: int, wanted: int, seed: int) -> np.ndarray:
    """New rows f64[wanted, J] of one class; imbalanced-learn wants a second one, of which it makes nothing."""
    n = len(codes)
    keep = {"sampling_strategy": {1: n + wanted}, "k_neighbors": min(NEIGHBOURS, n - 1), "random_state": seed}
    coded = list(range(numeric, codes.shape[1]))
    if not coded:
        sampler = SMOTE(**keep)
    elif not numeric:
        sampler = SMOTEN(**keep)
    else:
        sampler = SMOTENC(categorical_features=coded, **keep)
    both = np.concatenate([codes, codes[:1]])
    made, _ = sampler.fit_resample(both, np.append(np.ones(n, np.int64), 0))  # pyright: ignore[reportGeneralTypeIssues, reportAssignmentType]
    return np.asarray(made)[n + 1 :]
