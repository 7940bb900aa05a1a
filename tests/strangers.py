"""Small frames of invented patients, as a stranger would hand them over."""

from __future__ import annotations

import numpy as np
import pandas as pd


def patients(rows: int, seed: int, first: int = 0) -> pd.DataFrame:
    """Four rows a patient; the sick have a faster pulse, a higher CRP, which may be missing, and oxygen more often."""
    g = np.random.default_rng(seed)
    sick = np.repeat(g.random(-(-rows // 4)) < 0.4, 4)[:rows]
    return pd.DataFrame(
        {
            "person": [f"P{first + i // 4}" for i in range(rows)],
            "pulse": np.round(g.normal(70 + 20 * sick, 9)),
            "crp": np.where(g.random(rows) < 0.2, np.nan, np.round(g.lognormal(1 + sick, 0.8), 1)),
            "oxygen": np.where(g.random(rows) < 0.1 + 0.5 * sick, "yes", "no"),
            "ward": g.choice(["a", "b", "c"], rows),
            "outcome": np.where(sick, "worse", "stable"),
        }
    )


REAL = patients(240, 0)
HOLDOUT = patients(200, 1, 1000)
SYNTHETIC = patients(240, 2, 2000).drop(columns="person")
