"""The benchmark of flows tells broken tables from real ones, and equal ones not."""

from __future__ import annotations

import numpy as np
import toy

from benchmarks.flows import some_rows, told_apart
from fedjax_health.data.simulator import simulate_table
from fedjax_health.types import Table


def test_tables_are_told_apart_where_they_differ():
    whole = simulate_table(toy.SIMULATOR, 700, seed=0)
    half = whole.client % 2 == 0
    one, two = (Table(*(column[rows] for column in whole)) for rows in (half, ~half))
    mixed = two._replace(values=np.random.default_rng(0).permuted(two.values, axis=0))
    assert told_apart(one, two, toy.SCHEMA, 0) < 0.6 < 0.7 < told_apart(one, mixed, toy.SCHEMA, 0)
    few = some_rows(one, 100, np.random.default_rng(0))
    assert len(few.label) == 100 and (np.diff(few.client) >= 0).all()
