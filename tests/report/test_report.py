"""The report holds what the run's files say, stands alone, and says plainly what was not proven."""

from __future__ import annotations

import math
import os
import re

import numpy as np
import pytest

from fedjax_health.report import figures, html, tables
from fedjax_health.types import Row, UserError

NAN = math.nan


def text_of(page):
    """What a reader sees, spaces collapsed."""
    body = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.S)
    return re.sub(r"\s+", " ", body)


def test_page_is_self_contained(full):
    _, page = full
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:)?//""", page)
    assert "@import" not in page
    assert "url(" not in page
    assert "<script" not in page
    sources = re.findall(r'<img src="([^"]*)"', page)
    assert len(sources) == 8  # three for each domain, two of training
    assert all(s.startswith("data:image/png;base64,iVBOR") for s in sources)


def test_page_shows_the_figures_of_every_table_with_interval_and_n(full):
    workdir, page = full
    text = text_of(page)
    for shown in (
        "72.2 ± 10.3 [71.9, 72.5]",  # similarity by feature
        "0.53 [0.52, 0.54]",  # C2ST of the VAE
        "Independent marginals (floor) – 0.95 [0.94, 0.96]",
        "Synthetic VAE 0.88 [0.86, 0.90] 0.86 [0.84, 0.88]",  # utility
        "0.91 [0.89, 0.93] 0.79 [0.77, 0.81] 5 0.901 0.895 0.907 0.901",  # AUROC, PR-AUC, n, the paper's
        "model-on-real:loss-threshold – 0.64 [0.62, 0.66] 63.4 [61.0, 65.8]",
        "0.298 0.030",  # the ceiling at ε = 3.3951, δ = 1e-5
        "Real – 0.89 [0.87, 0.91] 0.060 [0.052, 0.068]",  # detection
        "replay 0.71 [0.68, 0.74]",  # by type
        "1.94 GB [1.89 GB, 2.00 GB]",
        "sex=female · recall 0.86 [0.83, 0.89]",
        "client · bytes up a round 380 kB 912 kB 1",  # known, hence no interval
        "machine · wall time (s) 98.7",
        "0.41 [0.00, 0.93] 200",  # the audit
    ):
        assert shown in text, shown
    assert all(name in text for name in ("glucose", "temperature", "payload_bytes", "inter_arrival"))
    assert "vitals_vae.parquet" in text
    assert 'href="synthetic/vitals_vae.parquet"' in page
    assert "packet_rate.</li>" in page
    assert os.path.exists(f"{workdir}/figures/vitals_roc.png")


def test_promise_carries_unit_relation_and_delta(full):
    text = text_of(full[1])
    assert "ε = 3.40 at δ = 10⁻⁵ unit: one client; relation: add or remove one" in text
    assert "ε = 3.40 at δ = 10⁻⁵; unit: one client; relation: add or remove one." in text
    assert "ε = 6.51 at δ = 3.08 × 10⁻⁴ for the stricter relation: replace one client" in text
    assert "no formal privacy guarantee" not in text
    assert "above the ceiling" not in text
    for epsilon in re.findall(r"ε = [\d.]+(.{0,60})", text):
        assert "δ" in epsilon


def test_summary_compares_with_real_and_with_guessing(full):
    text = text_of(full[1])
    assert "reaches AUROC 0.91 [0.89, 0.93] on real held-out records" in text
    assert "keeps 95 % of the advantage over chance" in text  # (0.91 - 0.5) / (0.93 - 0.5)
    assert "the strongest (generator:domias) finds 0.017 [0.008, 0.026]" in text
    assert "cannot be told from guessing" in text


def test_equal_files_give_equal_bytes(full, tmp_path, fake):
    workdir, page = full
    again = fake.make(tmp_path / "iot")
    assert fake.render(again) == page
    for name in sorted(os.listdir(f"{workdir}/figures")):
        with open(f"{workdir}/figures/{name}", "rb") as a, open(f"{again}/figures/{name}", "rb") as b:
            assert a.read() == b.read(), name


def test_an_attack_above_the_ceiling_raises_the_alarm(light, fake):
    rows = [Row("vitals", "vae", "generator:domias", "tpr_at_1pct_fpr", 0.6, 0.5, 0.7, 400)]
    fake.save(f"{light}/tables/membership.csv", Row._fields, rows)
    text = text_of(fake.render(light))
    assert "lies above the ceiling" in text
    assert "which is more than guessing does" in text


def test_without_a_resolvable_rate_the_summary_falls_back_on_the_area(light, fake):
    rows = [
        Row("vitals", "vae", attack, metric, *figure)
        for attack, auc in (("nearest", 0.52), ("domias", 0.56))
        for metric, figure in (("tpr_at_1pct_fpr", (NAN, NAN, NAN, 0)), ("auc", (auc, auc - 0.02, auc + 0.02, 5)))
    ]
    rows.append(Row("vitals", "vae", "dp-ceiling", "auc", 0.97, NAN, NAN, 1))
    fake.save(f"{light}/tables/membership.csv", Row._fields, rows)
    text = text_of(fake.render(light))
    assert "the strongest (domias) reaches AUC 0.56 [0.54, 0.58], which is more than guessing does (0.5)" in text
    assert "the promise allows up to 0.970" in text
    assert "0.56 AUC; ceiling 0.97" in text


def test_absent_tables_are_left_out(light, fake):
    for name in ("detection", "fairness", "efficiency"):
        os.remove(f"{light}/tables/{name}.csv")
    text = text_of(fake.render(light))
    assert "Table 4" not in text
    assert "Fairness" not in text
    assert "Cost" not in text
    assert "Table 1" in text


def test_a_run_with_only_a_manifest_has_a_page(tmp_path, fake):
    fake.write_json(f"{tmp_path}/manifest.json", {"status": "failed"})
    text = text_of(fake.render(str(tmp_path)))
    assert "status is “failed”" in text
    assert "Not measured in this run." in text


def test_without_a_mechanism_the_page_says_so(light, fake):
    fake.edit_json(
        f"{light}/privacy_ledger.json", mechanism="none", epsilon_total=None, epsilon_replace_one=None, events=[]
    )
    text = text_of(fake.render(light))
    assert "There is no formal privacy guarantee for this run." in text
    assert "No formal guarantee" in text
    assert "ε = 3.40" not in text
    assert "the promise allows" not in text
    fake.edit_json(f"{light}/privacy_ledger.json", epsilon_total=3.3951)  # a number without a mechanism is no promise
    assert "There is no formal privacy guarantee for this run." in text_of(fake.render(light))


def test_nan_is_a_dash_and_names_are_escaped(light, fake):
    rows = [Row("vitals", "<i>x</i>", "real & <synthetic>", "auroc", NAN, NAN, NAN, 0)]
    fake.save(f"{light}/tables/utility.csv", Row._fields, rows)
    page = fake.render(light)
    assert "<i>x</i>" not in page
    assert "&lt;i&gt;x&lt;/i&gt;" in page
    assert "real &amp; &lt;synthetic&gt;" in page
    assert "<b>spoof</b>" not in page
    assert re.search(r"&lt;synthetic&gt;</td>.*?<td>–</td><td class=\"n\">–</td>", page, re.S)
    assert ">nan" not in page


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("tables/utility.csv", "domain,model,row,metric,value,low,high\n", r"utility\.csv has no column 'n'"),
        (
            "tables/utility.csv",
            "domain,model,row,metric,value,low,high,n\na,b,c,f1,high,0,1,5\n",
            r"line 2, column value: 'high'",
        ),
        ("privacy_ledger.json", "{\n,", r"privacy_ledger\.json line 2 is not JSON"),
        ("metrics.jsonl", '{"stage": "a", "round": 0, "seed": 0}\n{oops\n', r"metrics\.jsonl line 2 is not JSON"),
    ],
)
def test_broken_files_are_named(light, name, text, match):
    with open(f"{light}/{name}", "w", encoding="utf-8") as file:
        file.write(text)
    with pytest.raises(UserError, match=match):
        html.render_report(light)


def test_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no manifest\.json"):
        html.render_report(str(tmp_path))


def test_ceiling_has_the_known_values():
    # e^ln2 * 0.01 + 0.001 below; 1 - (1 - 0.001 - 0.9) / 2 above
    got = figures.ceiling_tpr(np.array([0.0, 0.01, 0.9, 1.0]), math.log(2.0), 0.001)
    np.testing.assert_allclose(got, [0.001, 0.021, 0.9505, 1.0], rtol=1e-12)
    np.testing.assert_allclose(figures.ceiling_tpr(np.array([0.2]), 0.0, 0.0), [0.2])  # nothing leaks: guessing
    np.testing.assert_allclose(figures.ceiling_tpr(np.array([0.0, 0.2]), 1e6, 0.0), [0.0, 1.0])


def test_numbers_for_readers():
    assert tables.epsilon_text(7.9912) == "8.00"  # never rounded down
    assert tables.epsilon_text(1.1) == "1.10"
    assert tables.epsilon_text(None) == "–"
    assert tables.power(1e-5) == "10⁻⁵"
    assert tables.power(2.5e-6) == "2.5 × 10⁻⁶"
    assert tables.number(NAN) == "–"
    assert tables.number(math.inf) == "∞"
    assert tables.number(-0.1234) == "−0.123"
    assert tables.number(1234567.0, 0) == "1\u2009234\u2009567"
    assert tables.human("bytes_up", 1.5e9) == "1.50 GB"
    assert tables.human("wall_seconds", 41.23) == "41.2"


@pytest.mark.parametrize(("half", "shown"), [(0.02, "0.93 [0.91, 0.95]"), (0.004, "0.932 [0.928, 0.936]")])
def test_decimals_follow_the_interval(half, shown):
    value = 0.93 if half == 0.02 else 0.932
    cell = tables.cell(Row("d", "m", "real", "auroc", value, value - half, value + half, 5))
    assert f"{cell.value} {cell.interval}" == shown
