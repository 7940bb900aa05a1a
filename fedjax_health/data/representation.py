"""Model space made of the data's own distribution: normal scores of every numeric column, uncorrelated if asked.

    score = Phi^-1(F_y(value)), F piecewise linear over the column's public cells
    x = L_y^-1 score, L L^T = correlation of the scores of class y

A value is spread evenly over its resolution before F is applied, so that scores are normal whatever plateaus and spikes a
column has, and each published value comes back in its own share. Decoding is exact: a score in a value's interval gives that
value; so do spikes between values of no resolution. With "copula" F and L are those of each class, and standard normal x is a
Gaussian copula by class: a generator that has learnt nothing starts there. With "scores" all classes have one F, and L = 1.
Both come from `privacy.fit`, noise included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtr, ndtri

from fedjax_health.data.cells import Variable, kept, spike_edges, spread_out, variables
from fedjax_health.data.encode import Layout, make_encoder
from fedjax_health.data.schema import Schema
from fedjax_health.types import Array

QUERIES = {"public": 0, "scores": 1, "copula": 2}  # noisy sums over clients that fitting takes
TAIL = 1e-6  # probabilities are kept this far from 0 and 1
KNOTS = 141  # of the calibration, from -3.5 to 3.5 deviations
MOST = 2.0  # by which a generator's spread in any direction is corrected


class Fitted(NamedTuple):
    """What a representation has learnt; arrays, so that one compiled decoder serves many.

    Attributes:
      edges: f32[J, n], edges of the cells, in the unit; rows repeat their last edge.
      below: f32[L, J, n], F of each class at the edges, 0 to 1.
      factor: f32[L, J, J], L, lower triangular; the identity for "scores".
      own: f32[L, J, KNOTS], a generator's own scores at the fixed quantiles; the normal ones without calibration.
    """

    edges: Any
    below: Any
    factor: Any
    own: Any


def normal_knots() -> np.ndarray:
    """f64[KNOTS], normal scores of the calibration's quantiles."""
    return np.linspace(-3.5, 3.5, KNOTS)


def layout_of(schema: Schema, kind: str) -> Layout:
    """Where things are on the D axis, as `make_encoder` has it; with "copula" no numeric dimension is ever empty.

    Args:
      schema: the columns.
      kind: of `schema.REPRESENTATIONS`.
    """
    layout = make_encoder(schema).layout
    return layout._replace(missing=(-1,) * layout.numeric) if kind == "copula" else layout


def scores_of(
    own: np.ndarray,
    label: np.ndarray,
    parts: tuple[Variable, ...],
    fitted: Fitted,
    spread: np.random.Generator | None,
) -> np.ndarray:
    """Normal scores of what is kept: f64[M, J], NaN = missing.

    Args:
      own: f64[M, J], of `cells.kept`.
      label: i32[M].
      parts: of `cells.variables`.
      fitted: distribution functions.
      spread: spreads published values over their resolution; None = the middle of it, the same every time.
    """
    out = np.empty_like(own)
    for j, v in enumerate(parts):
        value = spread_out(own[:, j], v, np.full(len(own), 0.5) if spread is None else spread.random(len(own)))
        edges = np.asarray(fitted.edges[j], np.float64)
        for c, below in enumerate(np.asarray(fitted.below, np.float64)[:, j]):
            mine = label == c
            out[mine, j] = ndtri(np.clip(np.interp(value[mine], edges, below), TAIL, 1.0 - TAIL))
    return out


def encode_table(
    values: np.ndarray,
    label: np.ndarray,
    schema: Schema,
    kind: str,
    fitted: Fitted,
    spread: np.random.Generator | None,
) -> np.ndarray:
    """Records to model space: f32[M, F] in units -> f32[M, D].

    With "copula" a missing score is drawn from the Gaussian copula given those that are there (each client does so for its own
    records; its bit says that it was missing), with "scores" it is 0.

    Args:
      values, label: as in `Table`.
      schema: the columns.
      kind: "scores" or "copula".
      fitted: of `fit_representation`.
      spread: source of chance; None = middles of cells and conditional means, the same every time.
    """
    parts = variables(schema)
    encoder = make_encoder(schema)
    x = np.array(jax.jit(encoder.encode)(jnp.asarray(values, jnp.float32)))
    scores = scores_of(kept(values, parts), label, parts, fitted, spread)
    if kind == "copula":
        for c, factor in enumerate(np.asarray(fitted.factor, np.float64)):
            mine = label == c
            scores[mine] = np.linalg.solve(factor, _filled(scores[mine], factor @ factor.T, spread).T).T
    x[:, : len(parts)] = np.nan_to_num(scores, nan=0.0)
    return x


def _filled(scores: np.ndarray, rho: np.ndarray, spread: np.random.Generator | None) -> np.ndarray:
    """Missing scores drawn given the others, pattern by pattern."""
    out, gone = scores.copy(), np.isnan(scores)
    patterns, which = np.unique(gone, axis=0, return_inverse=True)
    for p, absent in enumerate(patterns):
        if not absent.any():
            continue
        rows = np.flatnonzero(which.ravel() == p)
        given = rho[np.ix_(absent, ~absent)] @ np.linalg.pinv(rho[np.ix_(~absent, ~absent)], hermitian=True)
        drawn = scores[np.ix_(rows, np.flatnonzero(~absent))] @ given.T
        if spread is not None:
            left = rho[np.ix_(absent, absent)] - given @ rho[np.ix_(~absent, absent)]
            values, vectors = np.linalg.eigh(left)
            noise = spread.standard_normal(drawn.shape)
            drawn = drawn + noise @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
        out[np.ix_(rows, np.flatnonzero(absent))] = drawn
    return out


def make_decode(schema: Schema) -> Callable[[Array, Array, Fitted], Array]:
    """Model space back to units, for any `Fitted` of the schema: (x f32[M, D], label i32[M], Fitted) -> f32[M, F].

    Args:
      schema: ranges, resolutions, bounds and equations, all of which hold by construction.
    """
    parts, encoder = variables(schema), make_encoder(schema)
    knots = jnp.asarray(normal_knots(), jnp.float32)
    dimension = {v.column: j for j, v in enumerate(parts)}

    def depth(j: int) -> int:
        return 0 if parts[j].other < 0 else 1 + depth(dimension[parts[j].other])

    order = sorted(range(len(parts)), key=depth)  # what bounds a column comes before it

    def of_class(x: Array, fitted: Fitted) -> Array:
        normal = jax.vmap(lambda s, own: _line(s, own, knots), (1, 0), 1)(x @ fitted.factor.T, fitted.own)
        return jax.vmap(jnp.interp, (1, 0, 0), 1)(jax.scipy.stats.norm.cdf(normal), fitted.below, fitted.edges)

    def decode(x: Array, label: Array, fitted: Fitted) -> Array:
        count = len(parts)
        rest = encoder.decode(jnp.concatenate([jnp.zeros_like(x[:, :count]), x[:, count:]], -1))
        value = jnp.zeros_like(x[:, :count])
        for c in range(schema.num_classes):  # every class's way for every row: L times the work, and no table a row
            mine = Fitted(fitted.edges, *(leaf[c] for leaf in fitted[1:]))
            value = jnp.where((label == c)[:, None], of_class(x[:, :count], mine), value)
        for j, v in enumerate(parts):
            if v.spikes:
                value = value.at[:, j].set(_snapped(value[:, j], v))
        for j in order:
            if (v := parts[j]).other >= 0:
                above = encoder.settle(value)[:, dimension[v.other]]
                gone = jnp.isnan(rest[:, v.other])
                value = value.at[:, j].set(
                    jnp.where(gone, v.stand_in - value[:, j], above - jnp.maximum(value[:, j], 0.0))
                )
        # a missing bound bounds nothing
        high = jnp.asarray([v.high for v in parts], jnp.float32)
        gone = jnp.isnan(rest[:, np.array([v.column for v in parts])])
        settled = encoder.settle(jnp.where(gone, high[None], value))
        for j, v in enumerate(parts):
            rest = rest.at[:, v.column].set(jnp.where(jnp.isnan(rest[:, v.column]), jnp.nan, settled[:, j]))
        return encoder.complete(rest)

    return decode


def _snapped(value: Array, variable: Variable) -> Array:
    """Spikes in place of what lies in their cells, which do not overlap."""
    low, high = (jnp.asarray(edge, jnp.float32) for edge in spike_edges(variable).T)
    place = jnp.clip(jnp.searchsorted(low, value, side="right") - 1, 0)
    return jnp.where(
        (low[place] <= value) & (value <= high[place]), jnp.asarray(variable.spikes, jnp.float32)[place], value
    )


def _line(score: Array, own: Array, knots: Array) -> Array:
    """Piecewise linear through (own, knots), and on with slope 1 beyond."""
    inside = jnp.interp(score, own, knots)
    beyond = jnp.where(score < own[0], score - own[0], jnp.where(score > own[-1], score - own[-1], 0.0))
    return inside + beyond


def uncorrelated(covariance: Array) -> Array:
    """The symmetric W = C^(-1/2) that takes a generator's own correlations out of its rows, f32[J, J].

    A spread is changed by a factor of `MOST` at most: where a generator has collapsed in a direction nothing is made up.

    Args:
      covariance: f32[J, J], C, of its rows in model space.
    """
    values, vectors = jnp.linalg.eigh(covariance)
    return vectors / jnp.sqrt(jnp.clip(values, MOST**-2, MOST**2))[None, :] @ vectors.T


def calibrated(fitted: Fitted, kind: str, x: np.ndarray, label: np.ndarray, missing: tuple[int, ...]) -> Fitted:
    """The representation with what a generator has of its own taken out: correlations, and then marginal scores.

    Model space with "copula" has L^-1 score, which no records of a class have correlated; rows of a generator are, a little:
    L becomes L C^(-1/2), C their covariance. Then quantiles of its scores are mapped to normal ones. Generated rows alone are
    read, so it costs no privacy budget. The marginals of what is decoded are then those of F and linear relations of scores
    those of L, whatever the generator; what else cells have to do with one another is the generator's.

    Args:
      fitted: before.
      kind: "scores", where all classes have one F and no L, or "copula", where each has its own.
      x: f32[M, D], many rows of the generator in model space, of every class.
      label: i32[M], their classes, in their own shares for "scores".
      missing: of the layout: where a column's missing bit is, whose scores say nothing; -1 = it has none.
    """
    own, factors = np.empty(np.shape(fitted.own)), np.array(fitted.factor, np.float64)
    for c in range(len(factors)):
        rows = x if kind == "scores" else x[label == c]
        numeric = rows[:, : factors.shape[1]].astype(np.float64)
        if kind == "copula":
            centred = numeric - numeric.mean(0)
            own_covariance = jnp.asarray(centred.T @ centred / len(centred), jnp.float32)
            factors[c] = factors[c] @ np.asarray(uncorrelated(own_covariance), np.float64)
        scores = numeric @ factors[c].T
        for j, score in enumerate(scores.T):
            there = rows[:, missing[j]] < 0.5 if missing[j] >= 0 else np.ones(len(rows), bool)
            # of a column that is always missing nothing is decoded
            own[c, j] = np.quantile(score[there], ndtr(normal_knots())) if there.any() else normal_knots()
    rising = own + 1e-6 * np.arange(KNOTS)  # a generator that has collapsed has equal quantiles
    return fitted._replace(own=rising.astype(np.float32), factor=factors.astype(np.float32))
