"""The benchmark's quick run: a valid report, equal sums, and bytes that the formula predicts."""

from __future__ import annotations

import pytest

from benchmarks import report, secagg


def test_quick_results():
    found = secagg.results(True)
    report.check(report.make_report("secagg", "test", {}, found))
    assert all(row["name"].startswith("secagg/") for row in found)
    equal = [row for row in found if ": equal" in row["name"]]
    assert len(equal) == 3 and all(row["low"] == row["high"] == 1.0 for row in equal)
    ratios = {row["name"]: row["ratio"] for row in found if row["name"].endswith("mean")}
    assert len(ratios) == 4
    for name, ratio in ratios.items():
        assert ratio == pytest.approx(1.0, abs=0.0 if ", 0 lost" in name else 0.02), name
