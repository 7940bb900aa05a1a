"""Floors: tables a generator must beat. Both read the pooled real records without any privacy; never publish them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from fedjax_health.data.schema import Schema
from fedjax_health.types import Table, UserError


def _labels(table: Table, n: int, rng: np.random.Generator) -> np.ndarray:
    """n labels in the table's proportions (largest remainders), in random order."""
    if not len(table.label):
        raise UserError("a baseline needs real records, and the table has no rows; give it at least one")
    classes, counts = np.unique(table.label, return_counts=True)
    share = counts / counts.sum() * n
    whole = np.floor(share).astype(np.int64)
    most = np.argsort(whole - share, kind="stable")[: n - int(whole.sum())]
    whole[most] += 1
    return rng.permutation(np.repeat(classes, whole)).astype(np.int32)


def _finish(values: np.ndarray, label: np.ndarray) -> Table:
    return Table(values.astype(np.float32), label, np.arange(len(label), dtype=np.int32))


def independent_marginals(table: Table, schema: Schema, n: int, rng: np.random.Generator) -> Table:
    """Floor without any joint structure: within each class every column is bootstrapped by itself.

    Reads the pooled real records without differential privacy: a yardstick, not a release.

    Args:
      table: real records.
      schema: their columns.
      n: rows to make.
      rng: host generator.

    Returns:
      Table of n rows with the real class shares (largest remainders) and a running client index.

    Raises:
      UserError: the table has no rows.
    """
    label = _labels(table, n, rng)
    values = np.empty((n, len(schema.inputs)), np.float64)
    for c in np.unique(label):
        real, rows = table.values[table.label == c], np.flatnonzero(label == c)
        picks = rng.integers(len(real), size=(len(rows), real.shape[1]))
        values[rows] = np.take_along_axis(real, picks, axis=0)
    return _finish(values, label)


def _latent(values: np.ndarray) -> np.ndarray:
    """Normal scores Φ^{-1}((rank - ½) / m) of f64[m], NaN kept; tied rows (a category's) get their mean score."""
    out = np.full(len(values), np.nan)
    present = ~np.isnan(values)
    _, tie, counts = np.unique(values[present], return_inverse=True, return_counts=True)
    m = int(present.sum())
    if m:
        score = ndtri((np.arange(m) + 0.5) / m)
        out[present] = (np.add.reduceat(score, np.cumsum(counts) - counts) / counts)[tie]
    return out


def _correlation(latent: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """Correlation of the normal variables behind f64[m, J] scores, pairwise complete, positive definite.

    A score that is the mean over its step has E[s_i s_j] = ρ_ij var s_i var s_j, so ρ_ij = corr(s_i, s_j) over
    √(var s_i var s_j), which is about 1 without ties. Shrunk by 1/(rows of the pair): two records always agree.
    A column in `gaps` and its missingness (the last columns, in that order) are never seen together; they are taken as
    independent given the rest, ρ_ab = R_ar R_rr^+ R_rb.
    """
    present = (~np.isnan(latent)).astype(np.float64)
    s = np.nan_to_num(latent)
    variance = (s**2).sum(0) / np.maximum(present.sum(0), 1.0)
    scale = np.sqrt(np.outer(variance, variance))
    rho = np.nan_to_num(pd.DataFrame(latent).corr(min_periods=2).to_numpy(copy=True))
    rho = np.clip(np.divide(rho, scale, out=np.zeros_like(rho), where=scale > 1e-6), -1, 1)
    rho *= 1 - 1 / np.maximum(present.T @ present, 1.0)
    np.fill_diagonal(rho, 1.0)
    for a, b in zip(gaps, range(len(rho) - len(gaps), len(rho)), strict=True):
        rest = np.setdiff1d(np.arange(len(rho)), [a, b])
        implied = rho[a, rest] @ np.linalg.pinv(rho[np.ix_(rest, rest)], rcond=1e-6, hermitian=True) @ rho[rest, b]
        rho[a, b] = rho[b, a] = np.clip(implied, -1, 1)
    eigenvalues, vectors = np.linalg.eigh(rho)
    rho = (vectors * np.maximum(eigenvalues, 1e-9)) @ vectors.T
    scale = np.sqrt(np.diag(rho))
    return rho / scale[:, None] / scale[None, :]


def _quantile(sorted_values: np.ndarray, u: np.ndarray) -> np.ndarray:
    m = len(sorted_values)
    if not m:
        return np.full(len(u), np.nan)
    return sorted_values[np.minimum((u * m).astype(np.int64), m - 1)]


def _copula_class(real: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """n rows from one class's copula: f64[m, F], f64[n, F]."""
    missing = np.isnan(real)
    gaps = np.flatnonzero(missing.any(0))
    columns = np.concatenate([real, missing[:, gaps]], axis=1)
    latent = np.stack([_latent(column) for column in columns.T], axis=1)
    factor = np.linalg.cholesky(_correlation(latent, gaps))
    u = ndtr(rng.standard_normal((n, latent.shape[1])) @ factor.T)
    out = np.empty((n, real.shape[1]))
    for j in range(real.shape[1]):
        out[:, j] = _quantile(np.sort(real[~missing[:, j], j]), u[:, j])
    for i, j in enumerate(gaps):
        gone = _quantile(np.sort(missing[:, j].astype(np.float64)), u[:, real.shape[1] + i])
        out[gone > 0, j] = np.nan
    return out


def gaussian_copula(table: Table, schema: Schema, n: int, rng: np.random.Generator) -> Table:
    """Floor with exact marginals and pairwise structure: a Gaussian copula for each class.

    x_j = F_j^{-1}(Φ(z_j)), z ~ N(0, Σ_class), Σ the correlation of the normal scores and F_j^{-1} the empirical
    quantile function, so that every value made occurs in the real column. Categories are steps of the distribution
    function (their correlation is corrected for the width of the step); missingness is a variable of its own,
    correlated with the rest. Reads the pooled real records without differential privacy: a yardstick, not a release.

    Args:
      table: real records.
      schema: their columns.
      n: rows to make.
      rng: host generator.

    Returns:
      Table of n rows with the real class shares (largest remainders) and a running client index. A class with one
      record repeats it; correlations over m records are shrunk by 1/m.

    Raises:
      UserError: the table has no rows.

    Source: Patki, Wedge, Veeramachaneni (2016), The Synthetic Data Vault; correction: Olsson, Drasgow, Dorans (1982).
    """
    label = _labels(table, n, rng)
    values = np.empty((n, len(schema.inputs)), np.float64)
    for c in np.unique(label):
        rows = np.flatnonzero(label == c)
        values[rows] = _copula_class(table.values[table.label == c].astype(np.float64), len(rows), rng)
    return _finish(values, label)
