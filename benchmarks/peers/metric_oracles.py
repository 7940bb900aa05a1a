"""Figures of SDMetrics or SynthEval on small seeded tables, to which `tests/evaluation/test_oracles.py` holds ours.

`python -m benchmarks.peers.metric_oracles sdmetrics` in an environment with it prints them as one line of JSON; NumPy alone
makes the tables. `python -m benchmarks.metric_oracles` runs both and writes the file that the test reads.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np

from benchmarks import work

ROWS = 400


def tables(seed: int = 0) -> dict[str, np.ndarray]:
    """Tables f64[400, 4]: two correlated numbers (the second skewed), a binary and a three-valued code.

    Args:
      seed: of NumPy's generator.

    Returns:
      "real", "other" of the same law, "synthetic" shifted, with weaker relations, "gaps", the same with missing numbers.
    """
    r = np.random.default_rng(seed)

    def draw(shift: float, slope: float) -> np.ndarray:
        a = r.normal(size=ROWS)
        b = np.exp(0.5 * (slope * a + r.normal(size=ROWS)))
        c = (a + r.normal(size=ROWS) > 0.3 + shift).astype(float)
        d = np.minimum(r.poisson(0.5 + 0.5 * c), 2).astype(float)
        return np.column_stack([a + shift, b, c, d])

    found = {"real": draw(0.0, 0.8), "other": draw(0.0, 0.8), "synthetic": draw(0.3, 0.3)}
    gaps = found["synthetic"].copy()
    gaps[r.random(ROWS) < 0.2, 1] = np.nan
    return {**found, "gaps": gaps}


def checksum(made: dict[str, np.ndarray]) -> float:
    """Sum of all cells that are there: other figures are to be expected where it differs."""
    return float(sum(np.nansum(table) for table in made.values()))


def sdmetrics() -> dict[str, float]:
    """KS and TV complements by column, and similarities by pair."""
    import pandas as pd
    from sdmetrics.column_pairs import (  # pyright: ignore[reportMissingImports]
        ContingencySimilarity,
        CorrelationSimilarity,
    )
    from sdmetrics.single_column import KSComplement, TVComplement  # pyright: ignore[reportMissingImports]

    frames = {name: pd.DataFrame(table, columns=list("abcd")) for name, table in tables().items()}
    found: dict[str, float] = {}
    for name in ("other", "synthetic", "gaps"):
        real, synthetic = frames["real"], frames[name]
        for column in "ab":
            found[f"{name}/ks/{column}"] = KSComplement.compute(real[column], synthetic[column])
        for column in "cd":
            found[f"{name}/tv/{column}"] = TVComplement.compute(real[column], synthetic[column])
        for method in ("Pearson", "Spearman"):
            found[f"{name}/correlation/{method.lower()}"] = CorrelationSimilarity.compute(
                real[["a", "b"]], synthetic[["a", "b"]], coefficient=method
            )
        found[f"{name}/contingency"] = ContingencySimilarity.compute(real[["c", "d"]], synthetic[["c", "d"]])
    return found


def syntheval() -> dict[str, float]:
    """Adversarial accuracy, privacy loss and MMD² of the two numbers, Euclidean on the values as they are."""
    import pandas as pd
    from syntheval.metrics.privacy.metric_nn_adversarial_accuracy import (  # pyright: ignore[reportMissingImports]
        NearestNeighbourAdversarialAccuracy,
    )
    from syntheval.metrics.utility.metric_max_mean_discrepancy import (  # pyright: ignore[reportMissingImports]
        MaximumMeanDiscrepancy,
    )

    frames = {name: pd.DataFrame(table[:, :2], columns=list("ab")) for name, table in tables().items()}
    plain: dict[str, Any] = {
        "cat_cols": [], "num_cols": ["a", "b"], "nn_dist": "euclid", "analysis_target": "a", "do_preprocessing": False,
    }  # fmt: skip
    found: dict[str, float] = {}
    for name, synthetic in (("other", frames["other"]), ("synthetic", frames["synthetic"]), ("real", frames["real"])):
        holdout = frames["synthetic" if name == "other" else "other"]
        accuracy = NearestNeighbourAdversarialAccuracy(frames["real"], synthetic, holdout, **plain).evaluate(1)
        found[f"{name}/nnaa"] = accuracy["avg"]
        found[f"{name}/privacy_loss"] = accuracy["priv_loss"]
        for gamma in (0.5, 2.0):
            mmd = MaximumMeanDiscrepancy(frames["real"], synthetic, **plain).evaluate(use_cats=False, gamma=gamma)
            found[f"{name}/mmd/{gamma:g}"] = mmd["u_mmd"]
    return found


ORACLES = {"sdmetrics": sdmetrics, "syntheval": syntheval}


def main() -> None:
    """Prints {"versions", "checksum", "figures"}."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("oracle", choices=ORACLES)
    name = parser.parse_args().oracle
    figures = {key: float(value) for key, value in ORACLES[name]().items()}
    versions = work.versions(name, "numpy", "scipy", "scikit-learn", "pandas")
    print(json.dumps({"versions": versions, "checksum": checksum(tables()), "figures": figures}))


if __name__ == "__main__":
    main()
