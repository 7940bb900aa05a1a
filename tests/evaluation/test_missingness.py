"""Which values are missing together: known answers for gaps that are independent, copied, tied to the label or to a value."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_health.data.schema import Column, Schema
from fedjax_health.evaluation.missingness import missing_correlation_errors
from fedjax_health.evaluation.similarity import ROW, similarity
from fedjax_health.types import Table

ROWS = 20_000
SCHEMA = Schema(
    "gaps",
    (
        Column(name="a", low=-9, high=9, nullable=True),
        Column(name="b", low=-9, high=9, nullable=True),
        Column(name="c", low=-9, high=9),
        Column(name="ward", kind="categorical", categories=("x", "y", "z")),
        Column(name="full", low=-9, high=9, nullable=True),
        Column(name="y", kind="binary", role="label"),
    ),
)


def table(
    seed: int, gap_a=lambda r, c, y: r.random(ROWS) < 0.3, gap_b=lambda r, c, y, a: r.random(ROWS) < 0.3
) -> Table:
    r = np.random.default_rng(seed)
    c, y = r.normal(size=ROWS), (r.random(ROWS) < 0.4).astype(np.int32)
    values = np.column_stack([r.normal(size=ROWS), r.normal(size=ROWS), c, r.integers(0, 3, ROWS), r.normal(size=ROWS)])
    a = gap_a(r, c, y)
    values[a, 0], values[gap_b(r, c, y, a), 1] = np.nan, np.nan
    return Table(values.astype(np.float32), y, np.arange(ROWS, dtype=np.int32))


def errors(real: Table, synthetic: Table) -> np.ndarray:
    return missing_correlation_errors(real, synthetic, SCHEMA)


def test_the_same_table_and_an_independent_draw_of_it():
    assert errors(table(0), table(0)).max() == 0
    found = errors(table(0), table(1))
    # two indicators: each other, the label, and of both the other's value, c, three wards and "full": 1 + 2 * (1 + 6)
    assert found.shape == (15,) and found.max() < 0.04


@pytest.mark.parametrize("swap", [False, True])
def test_copied_gaps_against_independent_ones_differ_by_one(swap):
    pair = [table(0), table(1, gap_b=lambda r, c, y, a: a)]
    found = errors(*(pair[::-1] if swap else pair))
    assert found[0] == pytest.approx(1, abs=0.03)  # the pair of indicators
    if swap:  # where b is present a is never missing: undefined in the real table, left out
        assert found.shape == (13,)
    assert np.delete(found, 0).max() < 0.04


def test_gaps_of_the_ill_and_of_high_values_have_the_correlation_of_theory():
    ill = errors(table(0), table(1, gap_a=lambda r, c, y: y == 1))
    assert ill.max() == pytest.approx(1, abs=0.02) and np.sort(ill)[-2] < 0.04
    # corr(1[c > 0], c) = phi(0) / sqrt(1/4) = 0.798
    high = errors(table(0), table(1, gap_a=lambda r, c, y: c > 0))
    assert high.max() == pytest.approx(0.798, abs=0.02) and np.sort(high)[-2] < 0.04


def test_a_generator_that_never_leaves_a_gap_loses_the_real_correlation():
    full = table(1, gap_a=lambda r, c, y: np.zeros(ROWS, bool))
    assert errors(table(0, gap_a=lambda r, c, y: y == 1), full).max() == pytest.approx(1, abs=0.02)
    always = table(1, gap_a=lambda r, c, y: np.ones(ROWS, bool))
    found = errors(table(0, gap_a=lambda r, c, y: y == 1), always)
    assert np.isfinite(found).all() and found.max() == pytest.approx(1, abs=0.02)


def test_columns_never_or_always_missing_are_left_out():
    nothing = lambda r, c, y, a: np.zeros(ROWS, bool)  # noqa: E731
    found = errors(table(0, gap_b=nothing), table(1))
    assert found.shape == (7,)  # the indicator of a: label, b, c, three wards, "full"
    everything = errors(table(0, lambda r, c, y: np.ones(ROWS, bool), nothing), table(1))
    assert everything.shape == (0,)


def test_similarity_reports_mean_and_largest_and_nothing_without_gaps():
    few = [Table(*(column[:800] for column in table(seed, gap_a=lambda r, c, y: y == 1))) for seed in (0, 1)]
    f = similarity(few[0], few[1], SCHEMA, np.random.default_rng(0), max_rows=100)
    found = errors(*few)
    assert (
        f[ROW, "missing_correlation_error_mean"] == found.mean()
        and f[ROW, "missing_correlation_error_max"] == found.max()
    )
    whole = [t._replace(values=np.nan_to_num(t.values)) for t in few]
    g = similarity(*whole, SCHEMA, np.random.default_rng(0), max_rows=100)
    assert not any(metric.startswith("missing_correlation") for _, metric in g)
