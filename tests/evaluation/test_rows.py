"""Intervals against known answers, and the CSV round trip."""

from __future__ import annotations

import os

import numpy as np
import pytest

from fedjax_health.evaluation import rows
from fedjax_health.types import Row, UserError


def test_seed_rows_mean_and_student_interval():
    out = rows.seed_rows("vitals", "vae", [{("synthetic", "m"): x} for x in (1.0, 2.0, 3.0)])
    # t_{0.975, 2} = 4.302653, sd = 1, n = 3
    assert out == [Row("vitals", "vae", "synthetic", "m", 2.0, pytest.approx(2 - 2.484138), pytest.approx(4.484138), 3)]


def test_seed_rows_keep_order_and_do_not_hide_missing_figures():
    out = rows.seed_rows(
        "d", "-", [{("b", "x"): 1.0, ("a", "x"): 1.0}, {("b", "x"): 3.0, ("a", "x"): float("nan")}, {}]
    )
    assert [(r.row, r.n) for r in out] == [("b", 3), ("a", 3)]
    assert all(np.isnan(r.value) and np.isnan(r.low) for r in out)
    assert rows.seed_rows("d", "-", []) == []


def test_one_seed_has_a_value_and_no_interval():
    (row,) = rows.seed_rows("d", "-", [{("a", "x"): 0.25}])
    assert row.value == 0.25
    assert np.isnan(row.low)
    assert np.isnan(row.high)
    assert row.n == 1


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(0, 10, 0.0, 0.3084971), (5, 10, 0.1870860, 0.8129140), (10, 10, 0.6915029, 1.0), (0, 0, 0.0, 1.0)],
)
def test_clopper_pearson_known_values(k, n, low, high):
    assert rows.proportion_interval(k, n) == pytest.approx((low, high), abs=1e-6)


def test_csv_round_trip(tmp_path):
    path = str(tmp_path / "tables" / "similarity.csv")
    table = [
        Row("v", "vae", "heart_rate", "real, mean", 72.5, 70.0, 75.0, 5),
        Row("v", "-", "x", "y", 1 / 3, *[np.nan] * 2, 1),
    ]
    rows.write_rows(table, path)
    with open(path, encoding="utf-8") as file:
        assert file.read() == (
            "domain,model,row,metric,value,low,high,n\n"
            'v,vae,heart_rate,"real, mean",72.5,70,75,5\n'
            "v,-,x,y,0.333333,nan,nan,1\n"
        )
    back = rows.read_rows(path)
    assert back[0] == table[0]
    assert back[1].value == pytest.approx(1 / 3, rel=1e-5)
    assert np.isnan(back[1].low)
    assert os.listdir(tmp_path / "tables") == ["similarity.csv"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "does not exist"),
        ("a,b\n1,2\n", "columns"),
        ("domain,model,row,metric,value,low,high,n\nd,m,r,x,high,0,1,2\n", "line 2"),
        ("domain,model,row,metric,value,low,high,n\nd,m,r,x,1\n", "line 2"),
    ],
)
def test_read_rows_says_what_is_wrong(tmp_path, text, says):
    path = tmp_path / "t.csv"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=says) as error:
        rows.read_rows(str(path))
    assert str(path) in str(error.value)
