"""Density attack: where the synthetic density exceeds the population's, the generator has overfitted."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA

from fedjax_health.attacks.base import Attack, Published, at_most, public_space, require_synthetic
from fedjax_health.data.schema import Schema
from fedjax_health.types import Table

NAME = "domias"
MAX_DIMS = 8  # kernel densities carry little beyond this
MAX_ROWS = 3000
NARROWER = (1 / 4, 1 / 16, 1 / 64)  # bandwidths beside Scott's, as shares of it
BLOCK = 512
SAME = 1e-12  # variance (squared public scales) below which a direction is constant


def _log_density(of: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Log of a kernel density of `of` at `at`, f64[n]: the mean of Gaussian kernel densities of several bandwidths.

    log p_h(x) = logsumexp_i(-|x - c_i|^2 / 2 h^2) - log n - d log(h sqrt(2 pi)), at Scott's h over all n kernels (no tree, no
    tolerance), as one product and a log-sum-exp a block; at narrower ones over the nearest kernel, beside which others vanish.
    """
    n, d = of.shape
    h = n ** (-1.0 / (d + 4))  # Scott's rule: the space is white
    exponents = np.concatenate([of / h**2, -0.5 * np.sum(np.square(of), 1, keepdims=True) / h**2], 1).T
    result = np.empty(len(at))
    for start in range(0, len(at), BLOCK):
        block = at[start : start + BLOCK]
        own = 0.5 * np.sum(np.square(block), 1, keepdims=True) / h**2
        logits = np.concatenate([block, np.ones((len(block), 1))], 1) @ exponents - own
        most = logits.max(1, keepdims=True)
        total = np.exp((logits - most).astype(np.float32)).sum(1, dtype=np.float64)
        nearest = np.minimum(most[:, 0], 0.0)
        densities = [nearest + np.log(total), *(nearest / k**2 - d * np.log(k) for k in NARROWER)]
        result[start : start + BLOCK] = np.logaddexp.reduce(densities, 0)
    return result - np.log(n * (1 + len(NARROWER))) - d * np.log(h * np.sqrt(2.0 * np.pi))


def _score(published: Published, records: Table, schema: Schema, rng: np.random.Generator) -> np.ndarray:
    synthetic = at_most(public_space(require_synthetic(published, NAME), schema), MAX_ROWS, rng)
    reference = at_most(public_space(published.reference, schema), MAX_ROWS, rng)
    own = np.concatenate([synthetic, reference])
    center = own.mean(0)
    pca = PCA(min(MAX_DIMS, *own.shape), svd_solver="full").fit(own)
    assert pca.components_ is not None
    keep = pca.explained_variance_ > SAME
    if not keep.any():
        return np.zeros(len(records.label))
    to_white = (pca.components_[keep] / np.sqrt(pca.explained_variance_[keep])[:, None]).T

    def white(points: np.ndarray) -> np.ndarray:
        return (points - center) @ to_white

    at = white(public_space(records, schema))
    return _log_density(white(synthetic), at) - _log_density(white(reference), at)


def make_domias() -> Attack:
    """Score of a record x: log p_S(x) - log p_ref(x), by Gaussian kernel densities in a whitened space.

    The space is `public_space`, whitened by principal components of what the attacker has (synthetic and reference
    rows), at most 8 of them; each table subsampled to at most 3,000 rows. Bandwidths: Scott's, and 1/4, 1/16 and 1/64 of it in
    equal shares, since at Scott's alone a copied record looks much like one in whose region many were made.

    Returns:
      Attack; needs `Published.synthetic` and a non-empty reference; deterministic in the generator's state. Where all
      known records are the same point every score is 0.

    Source: van Breugel et al. (2023), DOMIAS, arXiv 2302.12580.
    """
    return Attack(NAME, "the synthetic table, and real records of the attacker's own", _score)
