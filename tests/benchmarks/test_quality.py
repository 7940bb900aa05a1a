"""Pure parts of the quality benchmark: which rows there are, how records are dealt, how gaps are judged, what is reported."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from benchmarks import compare, quality, quality_cases, quality_data, quality_figures, quality_peers, report
from benchmarks.quality_cases import Case, cases, measure, rows_of, setting_of
from benchmarks.quality_data import DataSet, dealt, make_schema, one_a_patient
from benchmarks.quality_figures import judge, missing_figures, results_of
from fedjax_health.types import Table, UserError


def frame(patients: int = 40, seed: int = 0, gaps: bool = False) -> pd.DataFrame:
    """Correlated vitals, 1 to 8 hours a patient, of which the sick have more."""
    r = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), r.integers(1, 9, patients))
    base = r.normal(size=patients)[patient] + 0.3 * r.normal(size=len(patient))
    columns: dict[str, np.ndarray] = {"patient": patient}
    for name, low, high, center, scale in quality_data.VITALS:
        middle = np.expm1(center + scale * base) if name == "Glucose" else center + scale * base
        columns[name] = np.clip(middle + r.normal(size=len(patient)), low, high)
    if gaps:
        columns["Resp"][(base > 0) & (r.random(len(patient)) < 0.8)] = np.nan
        columns["MAP"][np.isnan(columns["Resp"])] = np.nan
    columns["Gender"] = patient % 2
    columns["SepsisLabel"] = (patient % 5 == 0).astype(int)
    return pd.DataFrame(columns)


def data(gaps: bool = False) -> DataSet:
    schemas = [make_schema(d, gaps=gaps) for d in (2, 0)]
    return DataSet("d", frame(gaps=gaps), frame(seed=1, gaps=gaps), *schemas, (2, 0), ("HR",))


def test_names_of_published_figures_are_kept_and_no_row_has_two():
    quick = [row for case in cases(True) for row in rows_of(case, False, False, True)]
    assert set(quick) == {
        "central/real", "central/independent-marginals", "central/gaussian-copula", "central/vae", "private/real",
        "private/independent-marginals", "private/gaussian-copula", "epsilon 8/vae", "epsilon 8/one-shot",
    }  # fmt: skip
    whole, marked = [], set()
    for case in cases(False):
        whole += rows_of(case, case.marks in marked, True, False)
        marked.add(case.marks)
    assert len(set(whole)) == len(whole) == 12 + 6 * 3 + 9 * 2 + 2
    assert {"federated/vae", "iid/vae", "central epsilon 1/aim", "iid epsilon 3/one-shot", "epsilon 8/aim"} <= set(
        whole
    )
    assert {"central/ctgan", "central/tvae", "iid private/real"} <= set(whole) and "federated/aim" not in whole


def test_rows_are_dealt_evenly_to_as_many_clients_and_each_stays_whole():
    before = frame()
    after = dealt(before, "patient", 0)
    count = after["patient"].value_counts()
    assert len(count) == 40 and count.max() - count.min() <= 1
    values = [name for name in before if name != "patient"]
    pd.testing.assert_frame_equal(after.sort_index()[values], before[values])
    mean = [f.groupby("patient")["HR"].mean().std() for f in (before, after)]
    assert mean[1] < 0.7 * mean[0]  # a client's records no longer resemble one another


def test_each_patient_counts_the_same():
    table = Table(
        np.arange(10, dtype=np.float32)[:, None], np.zeros(10, np.int32), np.repeat([0, 1], [9, 1]).astype(np.int32)
    )
    drawn = one_a_patient(table, 4000, 0)
    assert np.mean(drawn.client == 1) == pytest.approx(0.5, abs=0.03)
    np.testing.assert_array_equal(drawn.client == 1, drawn.values[:, 0] == 9)


@pytest.mark.parametrize("where", quality_cases.WHERE)
def test_a_case_hides_what_it_says_and_is_judged_at_its_resolution(where):
    d = data()
    free, private = setting_of(d, Case(where, math.inf)), setting_of(d, Case(where, 8.0))
    assert (private.schema.client is None) == (where == "central")
    clients = len(d.train) if where == "central" else 40
    assert len(np.unique(private.held.client)) == clients
    assert np.abs(private.real.values - np.round(private.real.values)).max() == 0
    assert np.abs(free.real.values - np.round(free.real.values)).max() > 0
    rows = len(private.real.label)
    assert rows == (quality_cases.ROWS if where == "federated" else len(d.train)) and len(free.real.label) == len(
        d.train
    )


def test_only_what_is_wanted_is_fitted(monkeypatch):
    class Fitted:
        seconds, ledger = 1.5, {"epsilon_total": 7.0}

        def __init__(self, **settings):
            made.append(settings)

        def fit(self, rows):
            return self

        def sample(self, rows):
            return frame(60, 5).drop(columns="patient")

    made: list[dict] = []
    monkeypatch.setattr(quality_cases, "MODELS", {"vae": Fitted, "other": Fitted})
    marks = dict(measure(data(), Case("iid", 8.0), 0, lambda n: n.endswith("real"), False, 0, False))
    assert set(marks) == {"d/iid private/real"} and not made
    rows = dict(measure(data(), Case("iid", 8.0), 3, lambda n: n.endswith("other"), False, 0, False))
    assert set(rows) == {"d/iid epsilon 8/other"} and len(made) == 1
    assert made[0]["epsilon"] == 8.0 and made[0]["seed"] == 3 and made[0]["schema"].client is not None
    assert rows["d/iid epsilon 8/other"].items() >= {"fit_seconds": 1.5, "epsilon": 7.0}.items()
    assert "tost_p[HR]" in rows["d/iid epsilon 8/other"]


def test_a_generator_that_lost_a_class_is_judged_all_the_same():
    d = data()
    lost = frame(30, 2).assign(SepsisLabel=0).drop(columns="patient")
    table = d.coded_rows(lost, False)
    assert len(table.label) == len(lost) and table.label.sum() == 0
    np.testing.assert_allclose(table.values[:, 0], lost["HR"].round(2), rtol=1e-6)
    assert judge(d.coded(d.train, False), table, d.fine, 0)["label_rate"] == 0.0


def test_gaps_are_judged_by_rate_by_one_another_and_by_values():
    d = data(gaps=True)
    real = d.coded(frame(800, 7, gaps=True), False)
    same = missing_figures(real, real, d.fine)
    assert set(same.values()) == {0.0}
    alike = missing_figures(real, d.coded(frame(800, 8, gaps=True), False), d.fine)
    values, r = real.values.copy(), np.random.default_rng(0)
    for j in (3, 5):  # the same rates, at random
        rate, whole = np.isnan(values[:, j]).mean(), r.permutation(values[:, j][~np.isnan(values[:, j])])
        values[:, j] = r.choice(whole, len(values))
        values[r.random(len(values)) < rate, j] = np.nan
    random = missing_figures(real, real._replace(values=values), d.fine)
    assert random["null_rate_difference_max"] < 0.03 and alike["null_rate_difference_max"] < 0.06
    for name in ("null_correlation_error_max", "null_value_correlation_error_max"):
        assert alike[name] < 0.1 < 0.5 < random[name], name
    full = missing_figures(real, real._replace(values=np.nan_to_num(real.values, nan=80.0)), d.fine)
    assert full["null_rate_difference_max"] == pytest.approx(np.isnan(real.values[:, 5]).mean(), abs=1e-6)
    assert full["null_correlation_error_max"] == pytest.approx(1.0)  # two indicators were one
    assert missing_figures(*[data().coded(frame(), False)] * 2, data().fine) == {}


def test_results_hold_means_intervals_and_ratios_and_leave_out_what_is_not_defined():
    found = {
        "d/central/vae": {"fit_seconds": [10.0, 14.0], "ks_complement": [0.9, 0.9]},
        "d/central/ctgan": {"fit_seconds": [120.0, 120.0], "tost_p[HR]": [0.1, math.nan]},
        "e/central/ctgan": {"fit_seconds": [5.0]},
    }
    made = {r["name"]: r for r in results_of(found)}
    report.make_report("quality", "cpu", {}, list(made.values()))
    ours = made["quality/d/central/vae: fit_seconds"]
    assert (ours["value"], ours["unit"], ours["n"]) == (12.0, "s", 2) and ours["high"] > 20
    peer = made["quality/d/central/ctgan: fit_seconds"]
    assert peer["ratio"] == pytest.approx(10.0) and peer["against"] == "quality/d/central/vae: fit_seconds"
    assert "quality/d/central/ctgan: tost_p[HR]" not in made
    assert "ratio" not in made["quality/e/central/ctgan: fit_seconds"]


def test_a_pattern_without_rows_and_an_unknown_data_set_are_refused(monkeypatch):
    with pytest.raises(UserError, match="no row's name matches --only"):
        quality.results(True, "nowhere", 1, lambda name: False)
    with pytest.raises(UserError, match="data set 'physionet' is not one of physionet2019"):
        quality_data.load("physionet", "nowhere")


def test_a_peer_says_its_seconds_or_what_went_wrong(monkeypatch, tmp_path):
    script = tmp_path / "peer.py"
    monkeypatch.setattr(compare, "installed", lambda environment: environment == "ctgan")
    monkeypatch.setattr(compare, "python", lambda environment: str(script))
    script.write_text(
        "#!/bin/sh\nwhile [ $# -gt 0 ]; do case $1 in --train) cp $2 made;; "
        "--out) out=$2;; --epochs) e=$2;; esac; shift; done\n"
        'cp made $out; rm made; echo noise; echo "{\\"seconds\\": $e.5}"\n'
    )
    script.chmod(0o755)
    monkeypatch.setattr(compare, "ROOT", tmp_path)
    rows, seconds = quality_peers.fit_peer("tvae", frame(5), ("Gender", "SepsisLabel"), 10, 0, epochs=2)
    assert seconds == 2.5
    pd.testing.assert_frame_equal(rows, frame(5), check_dtype=False)
    script.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    with pytest.raises(UserError, match="tvae ended with status 3; it said:\nbroken"):
        quality_peers.fit_peer("tvae", frame(5), ("Gender",), 10, 0)


def test_quality_reads_the_same_hours_with_and_without_gaps(tmp_path):
    (tmp_path / "physionet2019").mkdir()
    frame(30, gaps=True).to_csv(tmp_path / quality_data.FILE, sep="|", index=False)
    (train, test), (gapped, others) = (quality_data.read(str(tmp_path), gaps) for gaps in (False, True))
    assert not set(train["patient"]) & set(test["patient"]) and not train.isna().any(axis=None)
    assert len(gapped) + len(others) == len(frame(30, gaps=True)) > len(train) + len(test)
    assert not set(gapped["patient"]) & set(others["patient"]) and gapped.isna().any(axis=None)
    assert quality_figures.judge(*[data(True).coded(gapped, False)] * 2, data(True).fine, 0)["ks_complement"] == 1.0
