"""Folders that no training made: what they lack is said, and what others add to their tables is shown under its own name."""

from __future__ import annotations

import csv
import math
import os
import shutil

import pytest
from report_page import text_of

from fedjax_health.report import html, read
from fedjax_health.types import Row

NAN = math.nan


def add(workdir, fake, table, rows):
    fake.save(f"{workdir}/tables/{table}.csv", Row._fields, [*read.read_tidy(workdir, table), *rows])


@pytest.fixture
def judged(tmp_path, fake):
    """What an evaluation of other people's synthetic tables leaves: no ledger, no training, no config, two tables."""
    source = fake.make(tmp_path / "run", pictures=False)
    workdir = str(tmp_path / "judged")
    os.makedirs(f"{workdir}/tables")
    fake.write_json(f"{workdir}/manifest.json", {"status": "done", "seeds": [0, 1, 2, 3, 4]})
    for name in ("similarity", "utility"):
        new = {"vae": "ctgan", "wgan_gp": "syn.csv"}
        rows = [r._replace(model=new.get(r.model, r.model)) for r in read.read_tidy(source, name)]
        fake.save(f"{workdir}/tables/{name}.csv", Row._fields, [r for r in rows if r.domain == "vitals"])
    return workdir


def test_an_evaluation_of_other_peoples_tables_has_a_page(judged, fake):
    page = fake.render(judged)
    text = text_of(page)
    for shown in (
        "2 generators, 1 domain",
        "ctgan · vitals Fidelity C2ST AUC 0.53 [0.52, 0.54]",
        "syn.csv · vitals",
        "Privacy risk Not measured in this run.",
        "There is no privacy ledger in this folder, so nothing is known of how the records were made",
        "Table 3 (membership): no attack was run, which says nothing about whether one would succeed (tables/membership.csv).",
        "Training curves: nothing was trained in this folder (metrics.jsonl).",
        "Not measured for vitals: tables/membership.csv has no line of it.",
        "Synthetic ctgan 0.88 [0.86, 0.90]",
    ):
        assert shown in text, shown
    assert "raw records never leave it" not in text  # who saw what is not known
    assert "No calibrated noise was added" not in text and "<img" not in page
    assert '<section id="training"' not in page and 'href="#training"' not in page


def test_tables_that_the_page_does_not_know_are_shown(judged, fake):
    rows = [
        Row("vitals", "ctgan", "singling-out", "risk", 0.12, 0.08, 0.16, 500),
        Row("vitals", "ctgan", "singling-out", "brand_new", 0.31, 0.3, 0.32, 500),
        Row("vitals", "syn.csv", "linkability", "risk", 0.0, 0.0, 0.02, 500),
    ]
    fake.save(f"{judged}/tables/disclosure.csv", Row._fields, rows)
    fake.save(
        f"{judged}/tables/odd_ones.csv", Row._fields, [Row("vitals", "-", "whatever", "oddity", 0.625, 0.5, 0.75, 9)]
    )
    with open(f"{judged}/tables/walk.csv", "w") as file:
        file.write("x,y\n1,2\n")  # no table of figures
    text = text_of(fake.render(judged))
    assert "Disclosure: singling out, linking and inferring" in text
    assert "1 of 2 risks lie above 0 with the whole interval: singling-out (ctgan) 0.12 [0.08, 0.16]." in text
    assert "singling-out ctgan 0.12 [0.08, 0.16] 0.31 [0.30, 0.32] linkability syn.csv" in text and "brand new" in text
    assert "Odd ones" in text and "whatever" in text and "0.62 [0.50, 0.75]" in text
    assert "Walk" not in text


def test_figures_that_a_known_table_does_not_know_are_shown(light, fake):
    rows = {
        "similarity": [
            ("-", "synthetic", "novel_distance"), ("vae", "heart_rate", "novel_p"), ("vae", "some-bound", "coverage"),
            ("vae", "synthetic", "alpha[rare]"),
        ],
        "utility": [
            ("vae", "synthetic", "brier"), ("vae", "train-on-boosting", "auroc"), ("vae", "synthetic", "reliability[bin 3]"),
            ("vae", "real+synthetic", "brier_gain"),
        ],
        "detection": [("vae", "synthetic", "novel_rate"), ("vae", "synthetic", "novel_rate[slow]")],
        "membership": [
            ("vae", "federated+synthetic+dp:lira", "auc"), ("vae", "federated+synthetic:novel-attack", "balanced_accuracy"),
            ("vae", "record-level", "advantage"), ("vae", "federated+synthetic:lira", "tpr_at_1pct_fpr[sex=male]"),
        ],
        "fairness": [("vae", "synthetic", "novel_gap[sex]"), ("vae", "synthetic", "risk[sex=male]")],
        "efficiency": [("vae", "shadows", "novel cost")],
        "privacy": [("vae", "second audit", "novel_bound")],
    }  # fmt: skip
    value = 0.4112
    for table, entries in rows.items():
        add(light, fake, table, [Row("threats", *e, value, value - 0.1, value + 0.1, 7) for e in entries])
    add(light, fake, "utility", [Row("-", "vae", "all", "novel_total", value, value - 0.1, value + 0.1, 7)])
    text = text_of(fake.render(light))
    for name in (
        "novel distance", "novel p", "some-bound", "alpha: rare", "brier", "train-on-boosting", "reliability: bin 3",
        "brier gain",
        "novel rate", "novel rate: slow", "federated+synthetic+dp", "LiRA", "novel-attack", "record-level", "advantage",
        "sex male",
        "sex · novel gap", "sex male · risk", "shadows · novel cost", "second audit", "novel bound", "novel total",
    ):  # fmt: skip
        assert name in text, name


def test_every_figure_of_every_table_stands_on_the_page(light, fake):
    text = text_of(fake.render(light).replace("\u2009", ""))
    for name in html.TABLES:
        for r in read.read_tidy(light, name):
            if r.metric in ("real_sd", "synthetic_sd", "tost_p", "welch_p") or name == "efficiency":
                continue  # written beside their mean, as "<0.001", or in the unit that suits them
            if (name, r.metric) in (("membership", "balanced_accuracy"), ("privacy", "epsilon")):
                continue  # said as success in %, and in the ledger
            shown = {f"{r.value:.{k}f}" for k in range(4)} | {f"{r.value:.3g}", f"{round(r.value, -1):.0f}"}
            assert any(s in text for s in shown), (name, r)


def test_the_page_of_a_folder_does_not_depend_on_where_it_is(judged, fake, tmp_path):
    first = fake.render(judged)
    moved = shutil.copytree(judged, tmp_path / "elsewhere" / "judged")
    os.remove(f"{moved}/report.html")
    assert fake.render(str(moved)) == first
    with open(f"{judged}/tables/utility.csv", encoding="utf-8") as file:
        assert next(csv.reader(file)) == list(Row._fields)  # the page only reads
