"""Columns that clinical data sets share, defined once: names, units, public ranges, centres, spreads, age bands.

Ranges are what a bedside monitor or a laboratory reports; centres and spreads are rounded adult reference values. All are
public, so scaling by them costs no privacy budget.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fedjax_health.data.schema import Column

AGE_BANDS = ("under 50", "50-64", "65-79", "80+")
AGE_EDGES = (-np.inf, 50, 65, 80, np.inf)  # years; a band holds its lower edge
SEXES = ("female", "male")


def _vital(
    name: str,
    unit: str,
    low: float,
    high: float,
    center: float,
    scale: float,
    *,
    decimals: int = 0,
    transform: str = "identity",
    at_most: str = "",
) -> Column:
    return Column(
        name=name,
        unit=unit,
        low=low,
        high=high,
        center=center,
        scale=scale,
        decimals=decimals,
        transform=transform,
        at_most=at_most,
        nullable=True,
    )


VITALS = {
    column.name: column
    for column in (
        _vital("heart_rate", "bpm", 20, 300, 80, 20),
        _vital("spo2", "%", 50, 100, 97, 3),
        _vital("temperature", "°C", 30, 43, 37, 0.8, decimals=1),
        _vital("systolic_bp", "mmHg", 40, 280, 120, 25),
        _vital("mean_bp", "mmHg", 20, 220, 80, 15),
        _vital("diastolic_bp", "mmHg", 15, 180, 65, 15, at_most="systolic_bp"),
        _vital("resp_rate", "breaths/min", 1, 80, 18, 5),
        _vital("glucose", "mg/dL", 20, 1000, 4.8, 0.4, transform="log1p"),
    )
}
GROUPS = (
    Column(name="age_band", kind="categorical", role="group", unit="years", categories=AGE_BANDS),
    Column(name="sex", kind="binary", role="group", categories=SEXES),
)


def vital_columns(names: Sequence[str]) -> tuple[Column, ...]:
    """Vital signs by name; a schema with `diastolic_bp` must have `systolic_bp` too, which bounds it.

    Args:
      names: keys of `VITALS`.

    Raises:
      KeyError: an unknown name.
    """
    return tuple(VITALS[name] for name in names)


def label_column(condition: str) -> Column:
    """Binary label: class 0 is "no_<condition>", class 1 "<condition>".

    Args:
      condition: such as "sepsis"; also the column's name.
    """
    return Column(name=condition, kind="binary", role="label", categories=(f"no_{condition}", condition))


def age_bands(years: pd.Series) -> np.ndarray:
    """Bands of age: under 50, 50-64, 65-79, 80+.

    Args:
      years: number[M], age, years.

    Returns:
      object[M] of strings, NaN where the age is missing.
    """
    return np.asarray(pd.cut(years, list(AGE_EDGES), right=False, labels=list(AGE_BANDS)), dtype=object)
