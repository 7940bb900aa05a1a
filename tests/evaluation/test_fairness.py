"""Subgroup rates and gaps by hand; subgroups that are empty, missing or of one class."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_health.data.schema import Column, Schema
from fedjax_health.evaluation.fairness import fairness_figures, subgroup_shift
from fedjax_health.types import Table

SCHEMA = Schema(
    "toy",
    (
        Column(name="x", low=0, high=1),
        Column(name="sex", kind="categorical", role="group", categories=("f", "m", "other")),
        Column(name="age", low=20, high=100, role="group", nullable=True),
        Column(name="y", kind="binary", role="label"),
    ),
)


def table(sex, age, label) -> Table:
    values = np.column_stack([np.zeros(len(sex)), sex, age]).astype(np.float32)
    return Table(values, np.asarray(label, np.int32), np.arange(len(sex), dtype=np.int32))


@pytest.fixture
def figures():
    label = np.array([1, 1, 0, 0, 1, 1, 0, 0])
    p = np.array([0.9, 0.9, 0.1, 0.1, 0.9, 0.1, 0.9, 0.1])
    t = table([0, 0, 0, 0, 1, 1, 1, 1], [20, 39, 40, 100, 150, 0, np.nan, 50], label)
    f = fairness_figures("real", SCHEMA, t, label, np.column_stack([1 - p, p]), 0.5)
    assert {row for row, _ in f} == {"real"}
    return {metric: value for (_, metric), value in f.items()}


def test_rates_and_gaps(figures):
    assert figures["share[sex=f]"] == 0.5
    assert figures["accuracy[sex=f]"] == 1.0
    assert figures["recall[sex=f]"] == 1.0
    assert figures["accuracy[sex=m]"] == 0.5
    assert figures["recall[sex=m]"] == 0.5
    assert figures["accuracy_gap[sex]"] == 0.5
    assert figures["equalised_odds_difference[sex]"] == 0.5


def test_empty_subgroup_is_undefined_and_does_not_spoil_the_gap(figures):
    assert figures["share[sex=other]"] == 0.0
    assert np.isnan([figures["accuracy[sex=other]"], figures["recall[sex=other]"]]).all()


def test_numeric_groups_are_bands_of_the_public_range(figures):
    shares = {k: v for k, v in figures.items() if k.startswith("share[age=")}
    # out-of-range ages fall into the outer bands, the missing one into none
    assert shares == {
        "share[age=20..40]": 3 / 8,
        "share[age=40..60]": 2 / 8,
        "share[age=60..80]": 0.0,
        "share[age=80..100]": 2 / 8,
    }


def test_one_class_and_diverged_scores():
    label = np.zeros(4, int)
    t = table([0, 0, 1, 1], [30] * 4, label)
    score = np.column_stack([np.full(4, 0.8), np.full(4, 0.2)])
    f = fairness_figures("r", SCHEMA, t, label, score, 0.5)
    assert f["r", "accuracy_gap[sex]"] == 0
    assert np.isnan(f["r", "equalised_odds_difference[sex]"])
    f = fairness_figures("r", SCHEMA, t, label, score * np.nan, 0.5)
    assert np.isnan(f["r", "accuracy[sex=f]"])
    assert f["r", "share[sex=f]"] == 0.5


def test_shift_is_synthetic_minus_real():
    real, synthetic = table([0, 0, 1, 2], [30] * 4, [0] * 4), table([0, 0, 0, 0], [30] * 4, [0] * 4)
    f = subgroup_shift(real, synthetic, SCHEMA)
    assert f["synthetic", "share_difference[sex=f]"] == 0.5
    assert f["synthetic", "share_difference[sex=other]"] == -0.25
    assert sum(v for (_, m), v in f.items() if "sex" in m) == pytest.approx(0)
