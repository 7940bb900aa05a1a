"""Fits a representation of the data inside the federation: each client's bounded statistics, summed, with noise."""

from __future__ import annotations

from collections.abc import Callable

import dp_accounting
import numpy as np

from fedjax_health.data.cells import edges_of, kept, prior_of, variables
from fedjax_health.data.representation import Fitted, normal_knots, scores_of
from fedjax_health.data.schema import Schema
from fedjax_health.privacy.histogram import correlation_of, noisy_cumulative, noisy_products, smooth
from fedjax_health.types import Normals, UserError

MOST_NOISY = 1024  # cells of a column under noise


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
    weight: np.ndarray,
    schema: Schema,
    kind: str,
    noise_multiplier: float,
    normals: Callable[[str], Normals],
    spread: np.random.Generator,
) -> Fitted:
    """Distribution functions and correlation from sums over clients (see `privacy.histogram`).

    Args:
      values: f32[M, F], records of the clients that exist.
      weight: f64[M], of records: 1 / (records of the client) each, or all 1 without privacy.
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
    own, found = kept(values, parts), []
    for j, v in enumerate(parts):
        edges = edges_of(v, MOST_NOISY) if noise_multiplier else edges_of(v)
        here = ~np.isnan(own[:, j])
        place = np.clip(np.searchsorted(edges, own[here, j], side="right") - 1, 0, len(edges) - 2)
        masses = np.bincount(place, weights=weight[here], minlength=len(edges) - 1)
        cumulative, deviation = noisy_cumulative(masses, noise_multiplier, len(parts), normals(f"cells {j}"))
        each = v.step > 0 and np.isclose(edges[1] - edges[0], v.step) and np.isclose(edges[-1] - edges[-2], v.step)
        masses = smooth(cumulative, deviation, prior_of(v, edges), bool(each))
        below = np.concatenate([[0.0], np.cumsum(masses)])
        # a column without a value is spread over its range
        below = below / below[-1] if below[-1] > 0 else np.linspace(0.0, 1.0, len(edges))
        density = masses / np.diff(edges)
        turns = np.flatnonzero(np.diff(density, prepend=-1.0, append=-1.0))  # cells of equal density in a row are one
        found.append((edges[turns], below[turns]))
    most = max(len(e) for e, _ in found)
    edges = np.stack([np.pad(e, (0, most - len(e)), mode="edge") for e, _ in found]).astype(np.float32)
    below = np.stack([np.pad(b, (0, most - len(b)), mode="edge") for _, b in found]).astype(np.float32)
    own_scores = np.tile(normal_knots(), (len(parts), 1)).astype(np.float32)
    fitted = Fitted(edges, below, np.eye(len(parts), dtype=np.float32), own_scores)
    if kind == "scores":
        return fitted
    gaps = any(schema.inputs[v.column].nullable or (v.other >= 0 and schema.inputs[v.other].nullable) for v in parts)
    scores = scores_of(own, parts, fitted, spread)
    rho = correlation_of(*noisy_products(scores, weight, noise_multiplier, gaps, normals("products")))
    return fitted._replace(factor=np.linalg.cholesky(rho).astype(np.float32))
