"""Statistics of the contracts: what should be independent standard normal numbers, and the error of a broken promise."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.stats

REJECT = 1e-6  # a contract is broken below this p-value; a clean build has some ten of them


class ContractError(AssertionError):
    """A broken promise; `contract` is its name."""

    def __init__(self, contract: str, message: str) -> None:
        super().__init__(f"{contract}: {message}")
        self.contract = contract


def require(ok: Any, contract: str, message: str) -> None:
    if not ok:
        raise ContractError(contract, message)


def lowest_p(correlation: Any, samples: int) -> float:
    """Bonferroni p-value of correlations that should be 0, by Fisher's transformation."""
    z = np.abs(np.arctanh(np.clip(np.atleast_1d(correlation), -1, 1))) * np.sqrt(samples - 3)
    return min(1.0, z.size * 2 * float(scipy.stats.norm.sf(z.max())))


def correlation_p(a: np.ndarray, b: np.ndarray) -> float:
    return lowest_p(np.corrcoef(a.ravel(), b.ravel())[:1, 1:], a.size)


def standard_normal(z: np.ndarray, there: np.ndarray, sampled: np.ndarray) -> dict[str, float]:
    """Holds for numbers that are N(0, 1), of their own in every federation, round and coordinate, and not the sampler's chance.

    Args:
      z: f64[N, T, P].
      there: bool[N, T], which rounds hold a draw.
      sampled: f64[N, T], clients asked.

    Returns:
      Measured over stated scale, p-values of the right law, and the greatest p-value of a scale that is wrong by half.
    """
    rows, asked = z[there], sampled[there]
    require(np.std(rows) > 1e-3, "noise", "the published change has none")
    repeats = len(rows) - len(np.unique(np.round(rows, 3), axis=0))
    require(repeats == 0, "noise", f"{repeats} of {len(rows)} rounds have the noise of another round")
    pairs = np.atleast_2d(np.corrcoef(rows.T))[np.triu_indices(rows.shape[1], 1)]
    luck = np.atleast_2d(np.corrcoef(rows.T, asked))[-1, :-1] if np.std(asked) else 0.0
    lags, seeds = range(1, z.shape[1]), there[:-1] & there[1:]
    apart = [
        correlation_p(z[:, :-lag][both], z[:, lag:][both])
        for lag in lags
        for both in [there[:, :-lag] & there[:, lag:]]
    ]
    p = {
        "scale": float(scipy.stats.kstest(rows.ravel(), "norm").pvalue),
        "rounds": min(1.0, len(apart) * min(apart)),
        "seeds": correlation_p(z[:-1][seeds], z[1:][seeds]),
        "coordinates": lowest_p(pairs, len(rows)),
        "sampler": lowest_p(luck, len(rows)),
    }
    for name, value in p.items():
        require(value > REJECT, "noise", f"p = {value:.2g} of {name}; measured over stated scale = {np.std(rows):.3f}")
    wrong = max(float(scipy.stats.kstest(factor * rows.ravel(), "norm").pvalue) for factor in (2 / 3, 3 / 2))
    require(wrong < REJECT, "noise", f"p = {wrong:.2g} of a scale that is wrong by half: too few samples")
    return {"ratio": float(np.std(rows)), "p of a wrong scale": wrong, **{f"p of {k}": v for k, v in p.items()}}
