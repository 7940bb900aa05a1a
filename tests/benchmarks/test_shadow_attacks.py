"""What the benchmark of shadow federations reports of what its processes measured; nothing is trained here."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import compare, report, shadow_attacks, work_d

ROWS = [
    ["generator:lira", "auc", 0.5, 0.4, 0.6, 64],
    ["generator:lira", "success (%)", 50.0, 49.0, 51.0, 64],
    ["generator:lira", "tpr_at_1pct_fpr", 0.06, 0.05, 0.07, 3000],
    ["generator:lira", "tpr_at_0p1pct_fpr", math.nan, math.nan, math.nan, 3000],
    ["generator: LiRA less threshold", "tpr_at_1pct_fpr", 0.2, 0.1, 0.3, 3000],
]


def test_attacks_above_the_ceiling_are_counted_by_their_intervals(monkeypatch):
    ceiling = {"auc": 0.7, "success (%)": 70.0, "tpr_at_1pct_fpr": 0.03, "tpr_at_0p1pct_fpr": 0.003, "epsilon": 1.0}
    monkeypatch.setattr(shadow_attacks, "child", lambda *_: {"rows": ROWS, "ceiling": ceiling})
    found = {r["name"]: r for r in report.make_report("b", "d", {}, shadow_attacks.lira_part(False))["results"]}
    assert found["lira/private/intervals above the ceiling"]["value"] == 1  # .05 > .03; what compares attacks is none
    assert found["lira/private/intervals"]["value"] == 3  # one is not known
    assert found["lira/overfitted/generator:lira, success (%)"]["unit"] == "%"
    assert (found["lira/overfitted/generator:lira, auc"]["low"], found["lira/private/generator:lira, auc"]["n"]) == (
        0.4,
        64,
    )
    assert not any("0p1pct" in name and "ceiling" not in name for name in found)


def test_ratios_are_of_the_same_work(monkeypatch):
    def child(module, *arguments, environment="", cache=None):
        assert (environment == "torch") == (module == "benchmarks.peers.torch_shadows")
        if arguments[0] == "many":
            return {"traces": 1, "seconds": [20.0, 10.0], "memory_mb": 900.0, "total_s": 40.0}
        if arguments[0] == "one":
            assert cache is not None
            return {"total_s": 10.0}
        ours = module == "benchmarks.shadow_world"
        return {"rates": [50.0 if ours else 2.5], "cpu": [0.02 if ours else 0.2], "loss": 0.1}

    monkeypatch.setattr(shadow_attacks, "child", child)
    monkeypatch.setattr(compare, "installed", lambda _: True)
    found = {r["name"]: r for r in shadow_attacks.results(False, ["shadows"])}
    assert found["shadows/64 as processes, estimated from 4"]["ratio"] == pytest.approx(16.0)
    assert found["shadows/work D"]["ratio"] == pytest.approx(20.0)
    assert found["shadows/work D, loop in PyTorch: CPU"]["ratio"] == pytest.approx(10.0)


def test_work_d_is_the_same_rows_everywhere_and_needs_numpy_alone():
    x, y = work_d.make_pool()
    rows = work_d.halves()
    assert x.shape == (4000, 16) and set(np.unique(y)) == {0.0, 1.0} and rows.shape == (64, 2000)
    assert all(len(set(mine)) == 2000 and min(mine) >= 0 and max(mine) < 4000 for mine in rows[:3])
    code = (
        "import sys; from benchmarks import work_d; print(sorted({'jax', 'torch', 'fedjax_health'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=compare.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
