"""How close one synthetic column is to the real one: means, distances, and tests whose sampling unit is the client."""

from __future__ import annotations

import numpy as np
import scipy.stats
from scipy.special import rel_entr
from statsmodels.stats.weightstats import ttest_ind, ttost_ind

from fedjax_health.types import Table

MARGIN_SD = 0.2  # equivalence margin, declared beforehand
BINS = 20
SMOOTHING = 0.5  # added to counts, never to probabilities
NAN = float("nan")


def js_distance(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Jensen-Shannon distance, base 2: √(½ KL(p‖m) + ½ KL(q‖m)), m = (p + q) / 2, after adding ½ to every count.

    Args:
      real, synthetic: i64[bins], counts.

    Returns:
      0 for equal shares, near 1 for disjoint columns with many rows.

    Source: Endres and Schindelin (2003).
    """
    p, q = real + SMOOTHING, synthetic + SMOOTHING
    p, q = p / p.sum(), q / q.sum()
    m = (p + q) / 2
    # scipy's jensenshannon takes the root of a rounding error below zero when p is almost q.
    return float(np.sqrt(max(0.0, (rel_entr(p, m).sum() + rel_entr(q, m).sum()) / 2 / np.log(2))))


def quantile_counts(real: np.ndarray, synthetic: np.ndarray, bins: int = BINS) -> tuple[np.ndarray, np.ndarray]:
    """Counts in bins between quantiles of the real column, with one bin below its minimum and one above its maximum.

    Args:
      real, synthetic: f64[n], f64[m], no NaN, not empty.
      bins: quantile bins; fewer where values tie.

    Returns:
      Two i64[<= bins + 2].
    """
    edges = np.unique(np.quantile(real, np.linspace(0, 1, bins + 1)))
    edges = np.append(edges[:-1] if len(edges) > 1 else edges, np.nextafter(edges[-1], np.inf))
    size = len(edges) + 1

    def count(values: np.ndarray) -> np.ndarray:
        return np.bincount(np.searchsorted(edges, values, side="right"), minlength=size)

    return count(real), count(synthetic)


def client_values(values: np.ndarray, client: np.ndarray) -> np.ndarray:
    """One value a client whose mean is the mean of the records: z_k = x̄ + (m_k / m̄) (x̄_k - x̄).

    With equally many records m_k a client this is the client's mean; otherwise it is the linearised ratio estimator,
    whose variance over clients is that of the record mean under sampling of whole clients.

    Args:
      values: f64[M], no NaN, M >= 1.
      client: i32[M].

    Returns:
      f64[number of clients].

    Source: Cochran (1977), Sampling Techniques, section 2.11 and 9A.
    """
    _, index = np.unique(client, return_inverse=True)
    size = np.bincount(index).astype(np.float64)
    mean = values.mean()
    return mean + np.bincount(index, weights=values - mean) / size.mean()


def equivalence(
    real: np.ndarray, real_client: np.ndarray, synthetic: np.ndarray, client: np.ndarray, rng: np.random.Generator
) -> tuple[float, float]:
    """Welch's p of "the means are equal", and the TOST p of "they differ by 0.2 SD or more"; sampling unit = client.

    p_TOST = max(P[T >= (x̄_S - x̄_R + Δ) / se], P[T <= (x̄_S - x̄_R - Δ) / se]); small = equivalent. A large Welch p is no
    evidence of similarity. Any p against synthetic data depends on how many rows one chooses to sample, hence as many
    rows and units as the real table has: synthetic rows that belong to no one (each has its own index) are dealt at
    random into that many groups; a second real table keeps its own clients, at most as many of them.

    Args:
      real, synthetic: f64[n], f64[m], no NaN, in the column's unit.
      real_client, client: i32[n], i32[m].
      rng: host generator.

    Returns:
      (welch_p, tost_p); NaN with fewer than two units on a side, or where no client mean varies.

    Source: Schuirmann (1987); statsmodels `ttost_ind`.
    """
    units = len(np.unique(real_client))
    own = np.unique(client)
    if len(own) == len(client):
        synthetic = rng.permutation(synthetic)[: len(real)]
        client = np.arange(len(synthetic)) % max(units, 1)
    elif len(own) > units:
        kept = np.isin(client, rng.choice(own, units, replace=False))
        synthetic, client = synthetic[kept], client[kept]
    if not (len(real) and len(synthetic)):
        return NAN, NAN
    a, b = client_values(synthetic, client), client_values(real, real_client)
    margin = MARGIN_SD * float(np.std(real))
    if min(len(a), len(b)) < 2 or max(np.ptp(a), np.ptp(b)) <= 1e-12 * max(1.0, abs(float(b.mean()))) or margin == 0:
        return NAN, NAN
    welch = ttest_ind(a, b, usevar="unequal")[1]
    return float(welch), float(ttost_ind(a, b, -margin, margin, usevar="unequal")[0])


def numeric_figures(real: Table, synthetic: Table, j: int, rng: np.random.Generator) -> dict[str, float]:
    """Figures of one numeric column, over the records where it is present (see `similarity.similarity`).

    Args:
      real, synthetic: records.
      j: the column.
      rng: host generator, for grouping.
    """
    r, s = real.values[:, j].astype(np.float64), synthetic.values[:, j].astype(np.float64)
    here, there = ~np.isnan(r), ~np.isnan(s)
    r, s = r[here], s[there]
    welch, tost = equivalence(r, real.client[here], s, synthetic.client[there], rng)
    sd, both = (float(np.std(r)) if len(r) else NAN), bool(len(r) and len(s))
    return {
        "real_mean": float(np.mean(r)) if len(r) else NAN,
        "real_sd": sd,
        "synthetic_mean": float(np.mean(s)) if len(s) else NAN,
        "synthetic_sd": float(np.std(s)) if len(s) else NAN,
        "welch_p": welch,
        "tost_p": tost,
        "ks_complement": 1 - float(np.asarray(scipy.stats.ks_2samp(r, s, method="asymp"))[0]) if both else NAN,
        "wasserstein_sd": float(scipy.stats.wasserstein_distance(r, s)) / sd if both and sd > 0 else NAN,
        "js_distance": js_distance(*quantile_counts(r, s)) if both else NAN,
    }


def category_figures(real: np.ndarray, synthetic: np.ndarray, size: int) -> dict[str, float]:
    """tv_complement and js_distance of one column of categories; NaN where a side is missing throughout.

    Args:
      real, synthetic: f32[n], f32[m], codes, NaN = missing.
      size: number of categories.
    """
    p, q = (np.bincount(v[~np.isnan(v)].astype(np.int64), minlength=size) for v in (real, synthetic))
    if not (p.sum() and q.sum()):
        return {"tv_complement": NAN, "js_distance": NAN}
    return {"tv_complement": float(1 - np.abs(p / p.sum() - q / q.sum()).sum() / 2), "js_distance": js_distance(p, q)}
