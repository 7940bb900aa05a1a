"""What the benchmark of the four tables reads from a finished run."""

from __future__ import annotations

import json
import math

from benchmarks import cost_of_privacy, report
from fedjax_health.evaluation.rows import exact_row, seed_rows, write_rows


def test_figures_of_a_run_keep_their_interval_and_their_number_of_seeds(tmp_path):
    (tmp_path / "tables").mkdir()
    seeds = [{("real", "auroc"): v, ("synthetic", "auroc"): v - 0.1, ("real", "brier"): v} for v in (0.8, 0.9, 1.0)]
    rows = [*seed_rows("vitals", "vae", seeds), exact_row("vitals", "vae", "copula", "auroc", 0.7)]
    rows.append(rows[0]._replace(row="one seed", low=math.nan, high=math.nan, n=1))
    rows.append(rows[0]._replace(row="nothing", value=math.nan))
    write_rows(rows, str(tmp_path / "tables" / "utility.csv"))
    (tmp_path / "privacy_ledger.json").write_text(json.dumps({"epsilon_total": 2.5}))
    found = cost_of_privacy.results_of(str(tmp_path), 3.0)
    report.make_report("b", "d", {}, found)
    by_name = {result["name"]: result for result in found}
    synthetic = by_name["tables/epsilon 3/utility/vitals/vae/synthetic/auroc"]
    assert abs(synthetic["value"] - 0.8) < 1e-9 and synthetic["low"] < 0.6 and synthetic["n"] == 3
    assert by_name["tables/epsilon 3/utility/vitals/vae/one seed/auroc"]["low"] == rows[0].value
    assert by_name["tables/epsilon 3/epsilon accounted"]["value"] == 2.5
    assert not [name for name in by_name if "nothing" in name or "brier" in name]
