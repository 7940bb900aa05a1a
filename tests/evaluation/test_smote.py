"""SMOTE rows lie between records of their class, keep categories and gaps that occur, and cope with very few records."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_health.data.schema import Column, Schema
from fedjax_health.evaluation.smote import smote
from fedjax_health.types import Table

pytestmark = pytest.mark.quick_compile

SCHEMA = Schema(
    "s",
    (
        Column(name="a", low=0, high=1000, center=3, scale=1, transform="log1p", decimals=3),
        Column(name="kind", kind="categorical", categories=("p", "q", "r")),
        Column(name="b", low=-5, high=5, center=0, scale=1, decimals=2, nullable=True),
        Column(name="bit", kind="binary"),
        Column(name="y", kind="categorical", role="label", categories=("no", "x", "y", "z")),
    ),
)


def make(counts=(40, 12, 3, 1)) -> Table:
    r = np.random.default_rng(0)
    label = np.repeat(np.arange(4), counts).astype(np.int32)
    n = len(label)
    b = np.where((label == 1) & (r.random(n) < 0.5), np.nan, np.round(label - 2 + 0.3 * r.normal(size=n), 2))
    values = np.stack([10 * (1 + label) + r.random(n), np.where(label == 1, 2, r.integers(2, size=n)), b, label % 2], 1)
    return Table(values.astype(np.float32), label, np.arange(n, dtype=np.int32))


def test_rows_have_the_amounts_asked_for_and_lie_within_their_class():
    table, amounts = make(), np.array([0, 30, 20, 7])
    made = smote(table, SCHEMA, amounts, np.random.default_rng(1))
    assert np.bincount(made.label, minlength=4).tolist() == amounts.tolist() and len(made.client) == 57
    for c in (1, 2, 3):
        real, mine = table.values[table.label == c], made.values[made.label == c]
        assert (mine[:, 0] >= real[:, 0].min() - 1e-3).all() and (mine[:, 0] <= real[:, 0].max() + 1e-3).all()
        assert set(mine[:, 1]) <= set(real[:, 1]) and set(mine[:, 3]) <= set(real[:, 3])
    ones = made.values[made.label == 1]
    assert 0 < np.isnan(ones[:, 2]).mean() < 1 and not np.isnan(made.values[made.label == 2]).any()
    new = {tuple(v) for v in made.values[made.label == 2]} - {tuple(v) for v in table.values[table.label == 2]}
    assert len(new) > 10  # three records are enough for rows between them
    only = np.repeat(table.values[table.label == 3], 7, 0)  # at the columns' resolution
    np.testing.assert_allclose(made.values[made.label == 3], only, atol=6e-4)


def test_the_same_draws_give_the_same_rows_and_others_do_not():
    amounts = np.array([0, 5, 0, 0])
    a, b, c = (smote(make(), SCHEMA, amounts, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.values, b.values)
    assert (a.values != c.values).any()


def test_nothing_is_made_of_a_class_without_records():
    made = smote(make((20, 2, 0, 0)), SCHEMA, np.array([0, 4, 9, 9]), np.random.default_rng(0))
    assert np.bincount(made.label, minlength=4).tolist() == [0, 4, 0, 0]


@pytest.mark.parametrize("kept", [("a", "b"), ("kind", "bit")])
def test_numbers_alone_and_codes_alone(kept):
    schema = Schema("s", tuple(c for c in SCHEMA.columns if c.name in (*kept, "y")))
    columns = [j for j, c in enumerate(SCHEMA.inputs) if c.name in kept]
    table = make()._replace(values=np.nan_to_num(make().values[:, columns]))
    made = smote(table, schema, np.array([0, 9, 9, 0]), np.random.default_rng(0))
    assert made.values.shape == (18, 2) and np.isfinite(made.values).all()
