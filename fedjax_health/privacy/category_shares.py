"""Shares of categories by class, summed over clients with noise: bits (missing cells among them) and one-hot blocks.

A bit is a block of two. Each client sends, for every block, the shares of its records in each (class, category); nothing is
pooled, and without noise the sums are exact, and promise nothing.
"""

from __future__ import annotations

import numpy as np

from fedjax_health.data.encode import Layout
from fedjax_health.types import Normals


def asks(layout: Layout) -> bool:
    """Whether a table has anything to be asked: a bit or a block.

    Args:
      layout: meaning of the D axis.
    """
    return layout.bits + len(layout.blocks) > 0


def category_sums(
    codes: np.ndarray, label: np.ndarray, weight: np.ndarray, layout: Layout, num_classes: int
) -> list[np.ndarray]:
    """Weight of each class's records in each category of each of V blocks, sum_i w_i 1[y_i = l, c_i = c]: f64[L, C] each.

    A record is in one category of every block, so a client whose weights sum to 1 moves each block's sums by 1 in the 1-norm
    at most, and all V together by sqrt(V) at most in the Euclidean one.

    Args:
      codes: f32[M, D - numeric], bits and one-hot blocks, 0 or 1.
      label: i32[M], classes.
      weight: f64[M], of records; 1 over the client's number of records under a guarantee.
      layout: meaning of the D axis.
      num_classes: L.
    """
    of_class = weight[:, None] * (label[:, None] == np.arange(num_classes))
    sums = of_class.T @ codes.astype(np.float64)
    whole = of_class.sum(0)
    ends = np.cumsum((layout.bits, *layout.blocks))
    bits, *blocks = np.split(sums, ends[:-1], axis=1)
    return [*(np.stack([whole - bit, bit], 1) for bit in bits.T), *blocks]


def noisy_category_shares(
    codes: np.ndarray,
    label: np.ndarray,
    weight: np.ndarray,
    layout: Layout,
    num_classes: int,
    noise_multiplier: float,
    normals: Normals,
) -> np.ndarray:
    """Shares of categories within each class: the sums + N(0, z^2 V I), each class's block made a distribution.

    Post-processing: the nearest distribution (`nearest_shares`), then closer to that of all classes the less is known of it.

    Args:
      codes, label, weight, layout, num_classes: of `category_sums`, V > 0.
      noise_multiplier: z, in units of the sensitivity sqrt(V); 0 = exact (no guarantee).
      normals: source of the noise; one draw is taken, none without noise.

    Returns:
      f32[L, D - numeric]: P(bit = 1 | class), then P(category | class); a class without a record has all classes' shares.
    """
    sums = category_sums(codes, label, weight, layout, num_classes)
    deviation = noise_multiplier * float(np.sqrt(len(sums)))
    if noise_multiplier:
        drawn = deviation * normals.standard_normal(sum(block.size for block in sums))
        cuts = np.cumsum([block.size for block in sums])[:-1]
        sums = [b + noise.reshape(b.shape) for b, noise in zip(sums, np.split(drawn, cuts), strict=True)]
    shares = [_by_class(block, deviation) for block in sums]
    bits, blocks = shares[: layout.bits], shares[layout.bits :]
    return np.concatenate([*(bit[:, 1:] for bit in bits), *blocks], 1).astype(np.float32)


def nearest_shares(masses: np.ndarray) -> np.ndarray:
    """The distribution nearest to m / sum m in the Euclidean norm, max(m / sum m + t, 0), t such that it sums to 1: f64[C].

    Negative cells are noise; cutting them off alone would give what is rare too much.

    Args:
      masses: f64[C], noisy; where their sum is not positive all categories are equally likely.

    Source: Wang et al. 2020 ("Norm-Sub"), arXiv 1905.08320.
    """
    if masses.sum() <= 0:
        return np.full(len(masses), 1.0 / len(masses))
    point = masses / masses.sum()
    falling = np.sort(point)[::-1]
    shift = (1.0 - np.cumsum(falling)) / np.arange(1, len(point) + 1)
    last = np.flatnonzero(falling + shift > 0)[-1]
    return np.maximum(point + shift[last], 0.0)


def _by_class(masses: np.ndarray, deviation: float) -> np.ndarray:
    """Distribution of each class f64[L, C], shrunk towards that of all by what noise explains of their distance.

    Source: James & Stein 1961, "Estimation with quadratic loss".
    """
    shared = nearest_shares(masses.sum(0))
    found = np.tile(shared, (len(masses), 1))
    for c, mine in enumerate(masses):
        total = mine.sum()
        if total > 0:
            excess = nearest_shares(mine) - shared
            explained = (len(mine) - 1) * (deviation / total) ** 2
            keep = max(0.0, 1.0 - explained / max(float(np.sum(excess**2)), 1e-12)) if deviation else 1.0
            found[c] = shared + keep * excess
    return found
