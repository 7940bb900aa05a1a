"""Fits a representation of the data inside the federation: each client's bounded statistics, summed, with noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import dp_accounting
import numpy as np
from scipy.special import ndtr, ndtri

from fedjax_health.data.cells import EVERYWHERE, Variable, edges_of, kept, moved, prior_of, variables
from fedjax_health.data.empirical import exact_functions
from fedjax_health.data.representation import Fitted, normal_knots, scores_of
from fedjax_health.data.schema import Schema
from fedjax_health.privacy.histogram import noisy_cumulative, reconciled, smooth
from fedjax_health.privacy.moments import (
    CONSTANT,
    bound_of,
    bounded_weights,
    correlation_of,
    moments_of,
    noisy_products,
    shrunk,
)
from fedjax_health.types import Normals, UserError

MOST_NOISY = 1024  # cells of a column under noise
SPLIT = float(np.sqrt(2.0))  # of two answers of one query, each with so much more noise


def client_weights(client: np.ndarray) -> np.ndarray:
    """1 over the number of records of each record's client, f64[M]: all clients count the same.

    Args:
      client: i32[M].
    """
    _, index, count = np.unique(client, return_inverse=True, return_counts=True)
    return 1.0 / count[index]


def statistics_noise(epsilon: float, delta: float, share: float, queries: int) -> float:
    """Noise multiplier of each of q queries that together take a share of the budget: z = sqrt(q) / (share mu).

    mu is that of the one Gaussian mechanism that spends (epsilon, delta); the rest leaves sqrt(1 - share^2) mu.

    Args:
      epsilon, delta: budget of the whole run.
      share: in (0, 1).
      queries: q, over all domains.

    Returns:
      z > 0; 0 without queries.
    """
    return float(np.sqrt(queries) / share * dp_accounting.get_sigma_gaussian(epsilon, delta))


def fit_representation(
    values: np.ndarray,
    label: np.ndarray,
    weight: np.ndarray,
    client: np.ndarray,
    schema: Schema,
    kind: str,
    noise_multiplier: float,
    normals: Callable[[str], Normals],
    spread: np.random.Generator,
) -> Fitted:
    """Distribution functions and correlations from sums over clients (see `privacy.histogram` and `privacy.moments`).

    With "copula" each query is asked for all records and for those of each class, and both answers are reconciled. A client's
    weights sum to 1 over all its classes, so the answers of the classes together move by no more than the whole's, and with
    sqrt(2) times the noise on each the two are one Gaussian mechanism of multiplier z.

    Args:
      values: f32[M, F], records of the clients that exist.
      label: i32[M], their classes.
      weight: f64[M], of records: 1 / (records of the client) each, or all 1 without privacy.
      client: i32[M], whose they are.
      schema: their columns.
      kind: "scores" or "copula".
      noise_multiplier: z of each query; 0 = exact.
      normals: name of a query -> what draws its noise, once.
      spread: spreads values over their cells.

    Raises:
      UserError: no numeric column, or no record.
    """
    parts = variables(schema)
    if not parts or not len(values):
        raise UserError(
            f"data.representation={kind!r} of {schema.name!r} needs a numeric column and a record; set it to 'public'"
        )
    classes, count = schema.num_classes, len(parts)
    by_class = kind == "copula"
    noise = noise_multiplier * (SPLIT if by_class else 1.0)
    own, found, totals = kept(values, parts), [], []
    for j, v in enumerate(parts):
        if not noise:
            edges, below = exact_functions(
                own[:, j], label if by_class else 0 * label, weight, v, classes if by_class else 1
            )
            found.append((edges, np.broadcast_to(below, (classes, len(edges)))))
            continue
        edges = edges_of(v, MOST_NOISY)
        masses = _masses(own[:, j], label, weight, edges, classes)
        whole, deviation = noisy_cumulative(masses.sum(0), noise, count, normals(f"cells {j}"))
        each = v.step > 0 and np.isclose(edges[1] - edges[0], v.step) and np.isclose(edges[-1] - edges[-2], v.step)
        if not by_class:
            shared = _smooth(whole, deviation, v, edges, bool(each))
            densities = np.tile(shared, (classes, 1))
        else:
            asked = [noisy_cumulative(m, noise, count, normals(f"cells {j} {c}"))[0] for c, m in enumerate(masses)]
            whole, asked, less = reconciled(whole, np.stack(asked))
            totals.append(float(whole[-1]))
            shared = _smooth(whole, deviation * less, v, edges, bool(each))
            # what a class is taken for until it shows
            known = shared + EVERYWHERE * max(shared.sum(), 1e-9) / len(shared)
            densities = np.stack([smooth(a, deviation * less, known / known.sum(), False) for a in asked])
        found.append(_functions(edges, densities, shared))
    most = max(len(e) for e, _ in found)
    edges = np.stack([np.pad(e, (0, most - len(e)), mode="edge") for e, _ in found]).astype(np.float32)
    below = np.stack([np.pad(b, ((0, 0), (0, most - b.shape[1])), mode="edge") for _, b in found], 1)
    factor = np.tile(np.eye(count, dtype=np.float32), (classes, 1, 1))
    own_scores = np.tile(normal_knots(), (classes, count, 1)).astype(np.float32)
    fitted = Fitted(edges, below.astype(np.float32), factor, own_scores)
    if not by_class:
        return fitted
    gaps = any(schema.inputs[v.column].nullable or (v.other >= 0 and schema.inputs[v.other].nullable) for v in parts)
    scores = scores_of(own, label, parts, fitted, spread)
    deviation = 0.0
    if noise:
        bound = bound_of(noise_multiplier, count, max(totals))
        weight, deviation = bounded_weights(scores, label, weight, client, classes, gaps, bound), noise * bound
    moments = _moments(scores, label, weight, classes, deviation, gaps, normals)
    if noise:
        fitted = fitted._replace(below=_shifted(fitted.below, moments.mean, moments.spread).astype(np.float32))
    return fitted._replace(factor=np.linalg.cholesky(moments.rho).astype(np.float32))


def _smooth(whole: np.ndarray, deviation: float, v: Variable, edges: np.ndarray, digits: bool) -> np.ndarray:
    """Masses of all classes: smoothed towards the public prior, and again towards one that lies where the first result does."""
    first = smooth(whole, deviation, prior_of(v, edges), False)
    return smooth(whole, deviation, prior_of(moved(v, edges, first), edges), digits)


def _masses(own: np.ndarray, label: np.ndarray, weight: np.ndarray, edges: np.ndarray, classes: int) -> np.ndarray:
    """Weight of each class's records in each cell, f64[L, n]."""
    here = ~np.isnan(own)
    cells = len(edges) - 1
    place = np.clip(np.searchsorted(edges, own[here], side="right") - 1, 0, cells - 1)
    flat = np.bincount(label[here] * cells + place, weights=weight[here], minlength=classes * cells)
    return flat.reshape(classes, cells)


def _functions(edges: np.ndarray, densities: np.ndarray, shared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges and distribution functions [L, .] there; a class without a value has all classes' function."""
    masses = np.where(densities.sum(1, keepdims=True) > 0, densities, shared)
    below = np.pad(np.cumsum(masses, 1), ((0, 0), (1, 0)))
    if not (below[:, -1] > 0).all():  # a column without a value is spread over its range
        below = np.tile(np.linspace(0.0, 1.0, len(edges)), (len(masses), 1))
    below = below / below[:, -1:]
    density = np.diff(below) / np.diff(edges)
    changes = (np.diff(density, prepend=-1.0, append=-1.0) != 0).any(0)  # cells of equal density in a row are one
    return edges[changes], below[:, changes]


class Moments(NamedTuple):
    """Of each class's scores: mean and spread f64[L, J], correlation f64[L, J, J]."""

    mean: np.ndarray
    spread: np.ndarray
    rho: np.ndarray


def _shifted(below: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Distribution functions under which scores have mean 0 and spread 1: Phi((Phi^-1(F) - mean) / spread), f64[L, J, n]."""
    return ndtr((ndtri(below.astype(np.float64)) - mean[..., None]) / spread[..., None])


def _moments(
    scores: np.ndarray,
    label: np.ndarray,
    weight: np.ndarray,
    classes: int,
    deviation: float,
    gaps: bool,
    normals: Callable[[str], Normals],
) -> Moments:
    """Moments of each class's scores, those of classes the closer to those of all the less is known of them."""
    products, pairs = noisy_products(scores, weight, deviation, gaps, normals("products"))
    asked = [
        noisy_products(scores[label == c], weight[label == c], deviation, gaps, normals(f"products {c}"))
        for c in range(classes)
    ]
    products, of_class, less = reconciled(products, np.stack([a[0] for a in asked]))
    pairs, class_pairs, _ = reconciled(pairs, np.stack([a[1] for a in asked]))
    deviation *= less
    held = max(float(pairs[-1, -1]), 1e-9)
    shared = correlation_of(moments_of(products, pairs)[1], held, deviation)
    found = []
    for p, n in zip(of_class, class_pairs, strict=True):
        mean, covariance = moments_of(p, n)
        held = max(float(n[-1, -1]), 1e-9)
        scale = np.sqrt(np.clip(np.diag(covariance), 0.25, 4.0))
        ratio = deviation / held
        mean = shrunk(mean, ratio / (CONSTANT * np.sqrt(2.0)))
        spread = np.exp(shrunk(np.log(scale), ratio / 2.0))
        found.append((mean, spread, correlation_of(covariance, held, deviation, shared)))
    return Moments(*(np.stack(leaf) for leaf in zip(*found, strict=True)))
