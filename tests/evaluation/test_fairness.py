"""Subgroup rates and gaps by hand; subgroups that are empty, missing or of one class."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_health.data.schema import Column, Schema
from fedjax_health.evaluation.fairness import (
    GAPS,
    fairness_figures,
    gap_changes,
    size_rows,
    small_groups,
    small_sentences,
    subgroup_shift,
)
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


def groups_of(sizes):
    """Clients of one record each: sizes = (positive, negative) records of f, m and other."""
    sex = np.repeat([0, 0, 1, 1, 2, 2], np.ravel(sizes))
    label = np.repeat([1, 0, 1, 0, 1, 0], np.ravel(sizes))
    return table(sex, [30] * len(sex), label)


def test_small_subgroups_are_named_and_left_out_of_gaps():
    t = groups_of([(30, 30), (30, 30), (3, 40)])
    assert small_groups(t, SCHEMA) == ["sex=other", "age=40..60", "age=60..80", "age=80..100"]
    one_client = t._replace(client=np.zeros(len(t.label), np.int32))
    assert {"sex=f", "sex=m"} <= set(small_groups(one_client, SCHEMA))
    score = np.column_stack([np.full(len(t.label), 0.5)] * 2)
    score[t.values[:, 1] == 2] = [0.9, 0.1]
    all_groups = fairness_figures("r", SCHEMA, t, t.label, score, 0.5)
    judged = fairness_figures("r", SCHEMA, t, t.label, score, 0.5, {"sex=other"})
    assert all_groups["r", "equalised_odds_difference[sex]"] == 1 and judged["r", "equalised_odds_difference[sex]"] == 0
    assert judged["r", "accuracy[sex=other]"] == all_groups["r", "accuracy[sex=other]"]
    rows = size_rows("d", t, SCHEMA)
    found = {r.metric: r.value for r in rows}
    assert found["clients[sex=other]"] == found["records[sex=other]"] == 43 and found["too_small[sex=f]"] == 0
    (sentence,) = small_sentences(rows, "d")
    assert "sex=other" in sentence and "sex=f" not in sentence
    assert small_sentences(rows, "another") == []


def test_gaps_change_by_what_the_other_training_did():
    t = groups_of([(50, 50), (50, 50), (0, 0)])
    p = np.where(t.label == 1, 0.875, 0.125)  # exact, so that what is turned round ties
    fair = np.column_stack([1 - p, p])
    worse = np.where((t.values[:, 1] == 1)[:, None] & (np.arange(200) % 2 == 0)[:, None], fair[:, ::-1], fair)
    real = fairness_figures("real", SCHEMA, t, t.label, fair, 0.5)
    mine = fairness_figures("synthetic", SCHEMA, t, t.label, worse, 0.5)
    change = gap_changes("synthetic", mine, real)
    assert set(change) == {("synthetic", f"{g}_change[{c}]") for g in GAPS for c in ("sex", "age")}
    assert change["synthetic", "accuracy_gap_change[sex]"] == pytest.approx(0.5)  # amplified
    assert change["synthetic", "equalised_odds_difference_change[sex]"] == pytest.approx(0.5)
    assert change["synthetic", "auroc_gap_change[sex]"] == pytest.approx(0.5)
    same = gap_changes("synthetic", {("synthetic", m): v for (_, m), v in real.items()}, real)
    assert same["synthetic", "accuracy_gap_change[sex]"] == 0  # carried over
    back = gap_changes(
        "real", {("real", m): v for (_, m), v in real.items()}, {("real", m): v for (_, m), v in mine.items()}
    )
    assert back["real", "accuracy_gap_change[sex]"] == pytest.approx(-0.5)
