"""Numbers are written for readers, intervals keep to what a figure can be, and n is told once where lines share it."""

from __future__ import annotations

import math

import pytest

from fedjax_health.report import labels, layout, tables
from fedjax_health.report.paper import with_paper
from fedjax_health.types import Row

NAN = math.nan


def test_numbers_for_readers():
    assert tables.epsilon_text(7.9912) == "8.00"  # never rounded down
    assert tables.epsilon_text(1.1) == "1.10"
    assert tables.epsilon_text(None) == "–"
    assert tables.power(1e-5) == "10⁻⁵"
    assert tables.power(2.5e-6) == "2.5\u00a0×\u00a010⁻⁶"
    assert tables.power(0.1158) == "0.116"
    assert tables.number(NAN) == "–"
    assert tables.number(math.inf) == "∞"
    assert tables.number(-0.1234) == "−0.123"
    assert tables.number(-0.001, 2) == "0.00"
    assert tables.number(1234567.0, 0) == "1\u2009234\u2009567"
    assert tables.number(192_183.0, -3) == "192\u2009000"
    assert tables.setting(0.25) == "0.25"
    assert tables.setting(10_000) == "10\u2009000"
    assert tables.quantity(1.5e9, "B") == "1.50 GB"
    assert tables.quantity(0.00454, "s") == "4.54 ms"
    assert tables.quantity(1200.0, "s") == "1\u2009200 s"


@pytest.mark.parametrize(("half", "digits"), [(0.02, 2), (0.004, 3), (0.00001, 3)])
def test_decimals_follow_the_interval(half, digits):
    assert tables.decimals([Row("d", "m", "real", "auroc", 0.93, 0.93 - half, 0.93 + half, 5)]) == digits


def test_n_is_told_once_where_every_line_shares_it():
    def rows(last):
        return [Row("d", m, "real", metric, 0.5, 0.4, 0.6, n) for m, metric, n in (("a", "f1", 3), ("b", "f1", last))]

    def grid(rows):
        return tables.grid(rows, lambda r: (r.row, r.model), lambda r: r.metric)

    assert grid(rows(3)).n == {"f1": 3}
    assert grid(rows(4)).n == {}
    assert [line.n for line in grid(rows(4)).lines] == ["3", "4"]


def test_intervals_keep_to_the_range_of_the_figure():
    cut = labels.within_range(Row("d", "m", "r", "recall[sex=male]", 0.9, 0.7, 1.1, 3))
    assert (cut.low, cut.high) == (0.7, 1.0)
    assert labels.within_range(cut._replace(metric="real_mean", high=1.1)).high == 1.1
    assert labels.within_range(cut._replace(metric="share_difference[a=b]", low=-0.2)).low == -0.2
    assert math.isnan(labels.within_range(cut._replace(low=NAN)).low)


def test_features_have_units_of_spread_and_no_interval_for_p():
    figures = {"real_mean": (22_838, 22_838, 22_838), "real_sd": (192_183, NAN, NAN), "synthetic_sd": (535_532, NAN, NAN),
               "synthetic_mean": (37_625, -54_460, 129_710), "welch_p": (0.25, -0.7, 1.3), "tost_p": (2e-5, -1, 1)}  # fmt: skip
    rows = [Row("d", "vae", "bytes", metric, *figure, 3) for metric, figure in figures.items()]
    (line,) = layout.features(rows, {"bytes": {"low": 0, "high": 1e9}}).lines
    thin = [(c.value.replace("\u2009", ""), c.interval.replace("\u2009", "")) for c in line.cells]
    assert thin == [
        ("23000 ± 192000", ""),
        ("38000 ± 536000", "[0, 130000]"),  # cut to the public range
        ("0.25", ""),
        ("<0.001", ""),
    ]


def test_the_paper_stands_below_the_lines_that_it_has_too():
    rows = [Row("d", m, row, "accuracy", 0.9, NAN, NAN, 3) for row in ("synthetic", "copula") for m in ("a", "b")]
    lines = with_paper(layout.plain(rows), "utility").lines
    assert [(line.row, line.model) for line in lines] == [
        ("synthetic", "a"), ("synthetic", "b"), ("synthetic", "paper"), ("copula", "a"), ("copula", "b"),
    ]  # fmt: skip
    assert lines[2].cells[0].value == "0.901"
    assert with_paper(layout.plain([]), "utility").lines == []


def test_attacks_stand_below_what_they_attack():
    names = ("model-on-real:x", "federated+synthetic:y", "model-on-real:y")
    rows = [Row("d", "-", name, "success (%)", 51.0, 49.0, 53.0, 3) for name in names]
    lines = layout.membership(rows).lines
    assert [(line.kind, line.row) for line in lines] == [
        ("group", "A classifier trained on real records"), ("", "x"), ("", "y"),
        ("group", "The federated generator and its synthetic records"), ("", "y"),
    ]  # fmt: skip
    assert [line.cells[0].value for line in lines] == ["65", "51.0", "51.0", "48", "51.0"]


def test_costs_have_the_unit_of_what_they_count():
    names = ("clients out of memory in all", "peak memory (MB)", "bytes up a round", "energy in all (J)")
    lines = layout.costs([Row("d", "vae", "devices", name, 3.0, 3.0, 3.0, 3) for name in names]).lines
    assert [line.cells[0].value for line in lines] == ["3", "3 MB", "3 B", "3 J"]


def test_headings_and_names():
    assert labels.short_heading("real_mean") == "Real"
    assert labels.short_heading("success (%)") == "Success"
    assert labels.short_heading("auroc") == "AUROC"
    assert labels.heading("new_metric") == "new metric"
    assert labels.feature_label("glucose", {"glucose": {"unit": "mg/dL"}}) == "glucose (mg/dL)"
    assert labels.stage_label("vitals/wgan_gp") == "WGAN-GP · vitals"
    assert labels.row_label("real@12.5%") == "Real of 12.5\u00a0% of the clients"
    assert labels.row_label("real@5%+synthetic") == "Real of 5\u00a0% of the clients + synthetic"
    assert [labels.row_label(row) for row in ("real", "real@x", "real+smote")] == ["Real", "real@x", "real+smote"]
    assert labels.short_heading("detection_at_1pct_fpr_gain") == "Detection at 1\u00a0% FPR, gain"
