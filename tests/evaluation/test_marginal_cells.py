"""Codes of records: public, reversible up to a cell, in range, at the schema's resolution."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_health.data.cells import variables
from fedjax_health.data.schema import Column, Schema
from fedjax_health.evaluation.marginal_cells import coarse_edges, decode_cells, encode_cells, grids_of
from fedjax_health.types import Table, UserError

SCHEMA = Schema(
    "toy",
    (
        Column(name="sys", low=20, high=300, center=120, scale=25, decimals=0),
        Column(name="dia", low=5, high=300, center=65, scale=15, decimals=0, at_most="sys", nullable=True),
        Column(name="glucose", low=10, high=1000, center=4.8, scale=0.4, decimals=1, transform="log1p", nullable=True),
        Column(name="free", low=-1, high=1),
        Column(name="c", kind="categorical", categories=("x", "y", "z"), nullable=True),
        Column(name="t", kind="binary", role="label"),
    ),
)


def draw(m: int = 3000) -> Table:
    r = np.random.default_rng(0)
    sys = np.clip(np.round(r.normal(120, 25, m)), 20, 300)
    dia = np.minimum(np.clip(np.round(sys - np.abs(r.normal(50, 10, m))), 5, 300), sys)
    glucose = np.round(np.clip(np.expm1(r.normal(4.8, 0.4, m)), 10, 1000), 1)
    values = np.column_stack([sys, dia, glucose, r.uniform(-1, 1, m), r.integers(0, 3, m)])
    for j in (1, 2, 4):
        values[r.random(m) < 0.2, j] = np.nan
    return Table(values.astype(np.float32), r.integers(0, 2, m).astype(np.int32), np.arange(m, dtype=np.int32))


@pytest.mark.parametrize("cells", [1, 4, 16, 32, 10_000])
def test_edges_span_the_range_and_are_narrowest_at_the_public_centre(cells):
    for v in variables(SCHEMA):
        edges = coarse_edges(v, cells)
        assert 1 <= len(edges) - 1 <= max(cells, 1)
        assert (np.diff(edges) > 0).all() and edges[0] <= v.low and edges[-1] >= v.high
        if v.step:  # no published value lies on an edge
            off = np.abs((edges - v.low) / v.step - np.round((edges - v.low) / v.step))
            assert off == pytest.approx(0.5, abs=1e-6)
    if cells == 16:
        width = np.diff(coarse_edges(variables(SCHEMA)[0], cells))
        at = np.searchsorted(coarse_edges(variables(SCHEMA)[0], cells), 120) - 1
        assert width[at] == width.min() < 0.5 * width[-1]


def test_a_code_gives_a_record_of_the_same_code_in_range_and_at_its_resolution():
    table, grids = draw(), grids_of(SCHEMA)
    codes = encode_cells(table, SCHEMA, grids)
    assert ((codes >= 0) & (codes < [g.size for g in grids])).all()
    made = decode_cells(codes, SCHEMA, grids, np.random.default_rng(1))
    np.testing.assert_array_equal(np.isnan(made.values), np.isnan(table.values))
    np.testing.assert_array_equal(made.label, table.label)
    np.testing.assert_array_equal(made.values[:, 4], table.values[:, 4])
    assert made.values.dtype == np.float32 and made.client.tolist() == list(range(len(codes)))
    for j, column in enumerate(SCHEMA.inputs[:4]):
        x = made.values[:, j][~np.isnan(made.values[:, j])]
        assert x.min() >= column.low and x.max() <= column.high
        if column.decimals is not None:
            np.testing.assert_allclose(x, np.round(x, column.decimals), atol=1e-4)
    both = ~np.isnan(made.values[:, 1])
    assert (made.values[both, 1] <= made.values[both, 0]).all()
    again = encode_cells(made, SCHEMA, grids)
    np.testing.assert_array_equal(again[:, [0, 2, 3, 4, 5]], codes[:, [0, 2, 3, 4, 5]])
    assert np.mean(again[:, 1] == codes[:, 1]) > 0.99  # the range of a bounded column may cut into a cell
    assert np.mean(made.values[:, 0] != table.values[:, 0]) > 0.5  # drawn inside the cell, not copied


def test_more_cells_lose_less():
    table, lost = draw(), []
    for cells in (4, 16, 64):
        grids = grids_of(SCHEMA, cells)
        made = decode_cells(encode_cells(table, SCHEMA, grids), SCHEMA, grids, np.random.default_rng(0))
        lost.append(np.mean((made.values[:, 0] - table.values[:, 0]) ** 2))
    assert lost[0] > 4 * lost[1] > 16 * lost[2]


def test_what_cannot_be_coded_is_refused():
    with pytest.raises(UserError, match="cells=0 of a numeric column must be at least 1"):
        grids_of(SCHEMA, 0)
    table = draw(10)
    table.values[3, 0] = np.nan
    with pytest.raises(UserError, match="1 cells of 'toy' column 'sys' are missing; mark it nullable"):
        encode_cells(table, SCHEMA, grids_of(SCHEMA))
