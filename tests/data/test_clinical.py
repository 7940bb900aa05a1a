"""The columns that the clinical data sets share are one object each, and ages fall into the right bands."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fedjax_health.data import clinical, physionet2019


def test_adapters_use_the_shared_columns():
    columns = {c.name: c for c in physionet2019.SCHEMA.columns}
    assert set(columns) == {*clinical.VITALS, "age_band", "sex", "sepsis"}
    assert all(columns[name] is c for name, c in clinical.VITALS.items())
    assert columns["diastolic_bp"].at_most == "systolic_bp"
    assert [c.name for c in clinical.vital_columns(("glucose", "spo2"))] == ["glucose", "spo2"]
    with pytest.raises(KeyError):
        clinical.vital_columns(("pulse",))


def test_a_band_holds_its_lower_edge():
    bands = clinical.age_bands(pd.Series([0, 49.9, 50, 64.9, 65, 79.5, 80, 300, np.nan]))
    expected = ["under 50", "under 50", "50-64", "50-64", "65-79", "65-79", "80+", "80+"]
    assert bands[:-1].tolist() == expected
    assert pd.isna(bands[-1])
