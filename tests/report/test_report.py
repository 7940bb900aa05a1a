"""The report holds what the run's files say, stands alone, and says plainly what was not proven."""

from __future__ import annotations

import math
import os
import re

import pytest
from report_page import text_of

from fedjax_health.report import html
from fedjax_health.types import Row, UserError

NAN = math.nan


def test_page_is_self_contained(full):
    _, page = full
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:)?//""", page)
    assert "@import" not in page
    assert "url(" not in page
    assert "<script" not in page
    sources = re.findall(r'<img src="([^"]*)"', page)
    assert len(sources) == 13 + 10 + 4 + 8  # a feature each; five maps a domain; an ROC a model and domain; training
    assert all(s.startswith("data:image/png;base64,iVBOR") for s in sources)


def test_page_shows_the_figures_of_every_table_with_interval_and_n(full):
    workdir, page = full
    text = text_of(page)
    for shown in (
        "heart_rate (bpm) VAE 72.4 ± 10.5 [72.1, 72.7] 72.2 ± 10.3 [71.9, 72.5] 0.43 &lt;0.001 0.95 [0.94, 0.96]",
        "the paper 72.4 ± 10.5 71.8 ± 10.2 0.43",
        "n = 240 (Real, Synthetic, Welch p, TOST p); 5 seeds (KS, W₁, JS). Feature Model",
        "0.53 [0.52, 0.54]",  # C2ST of the VAE
        "Independent marginals (floor) 0.95 [0.94, 0.96]",
        "Synthetic VAE 0.88 [0.86, 0.90] 0.86 [0.84, 0.88]",  # utility
        "the paper 0.901 0.895 0.907 0.901",
        "A classifier trained on real records the paper: 65 loss threshold 0.64 [0.62, 0.66] 63.4 [61.0, 65.8]",
        "400 members (TPR at 1 % FPR, TPR at 0.1 % FPR)",
        "0.298 0.030",  # the ceiling at ε = 3.3951, δ = 1e-5
        "Real 0.89 [0.87, 0.91] 0.060 [0.052, 0.068]",  # detection
        "the paper 0.91 0.05",
        "replay 0.71 [0.68, 0.74]",  # by type
        "1.94 GB [1.89, 2.00]",
        "sex female 0.50 0.86 0.86",  # share and recalls, compact
        "sex female · recall 0.86 [0.83, 0.89]",
        "client · bytes up a round 380 kB 912 kB",  # known, hence no interval
        "machine · wall time 98.7 s",
        "0.41 [0.00, 0.93]",  # the audit
    ):
        assert shown in text, shown
    assert all(name in text for name in ("glucose (mg/dL)", "temperature", "payload_bytes (B)", "inter_arrival"))
    assert "8 features; outcome to be predicted: well, ill" in text
    assert "vitals_vae.parquet" in text
    assert 'href="synthetic/vitals_vae.parquet"' in page
    assert "packet_rate.</li>" in page
    assert "Started 2026-01-05 09:12 UTC" in text
    assert os.path.exists(f"{workdir}/figures/vitals_roc.png")


def test_long_tables_are_folded_away(full):
    folded = re.findall(r"<details><summary>(.*?)</summary>", full[1])
    safe_harbor = "Identifiers of HIPAA Safe Harbor (45 CFR 164.514(b)(2))"
    simulated = "Curves that a real server must not have"
    assert folded == [safe_harbor, "All fairness figures with their intervals", simulated, "Configuration"]


def test_the_officer_finds_who_sees_what_and_what_was_not_assessed(full):
    text = text_of(full[1])
    assert "recipients of synthetic/ synthetic tables, schemas and generators the promise above" in text
    assert text.count("not assessed") >= 4 and "singling out: is a person isolated? not assessed" in text
    assert "membership: who was in the training data? VAE on" in text


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
    for shown in (
        "Fidelity C2ST AUC 0.53 [0.52, 0.54] n = 5 seeds",
        "Real against real (ceiling): 0.51 [0.50, 0.52] Gaussian copula (floor): 0.61 [0.60, 0.62]",
        "All 7 means are shown to agree with the real ones within 0.2 SD.",
        "Utility AUROC 0.91 [0.89, 0.93] n = 5 seeds",
        "Real records (ceiling): 0.93 [0.91, 0.95] Gaussian copula (floor): 0.87 [0.85, 0.89]",
        "As good as real records to within 0.05, or better; keeps 95 % of their advantage over chance.",  # .41 / .43
        "Privacy risk Members found at 1 % false alarms 1.7 % [0.8, 2.6] n = 400 members",
        "Guessing (floor): 1 % The promise allows (ceiling): 29.8 %",
        "“DOMIAS density ratio”, the strongest of 4 attacks, is not clearly better than guessing (1 %)",
        "allowed for; its interval reaches 2.6 %. The promise allows",
        "The promise allows no attack more than 29.8 %.",
        "Utility: of 4 generators 2 are as useful alone as real records",
        "Privacy risk: of 4 generators 4 are not attacked clearly better than by guessing; none is attacked clearly better",
    ):
        assert shown in text, shown


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
    assert "lies above what the promise allows with its whole interval: DOMIAS density ratio (TPR at 1 % FPR)" in text
    assert "60.0 % [50.0, 70.0] n = 400 members" in text
    assert "Bad news: “DOMIAS density ratio”, the one attack tried, finds more than guessing (1 %)." in text
    assert "Bad news: an attack lies above what the promise allows" in text


def test_rates_that_cannot_be_resolved_are_explained(light, fake):
    rows = [
        Row("vitals", "vae", attack, metric, *figure)
        for attack, auc in (("nearest", 0.52), ("domias", 0.56))
        for metric, figure in (("tpr_at_1pct_fpr", (NAN, NAN, NAN, 240)), ("auc", (auc, auc - 0.02, auc + 0.02, 5)))
    ]
    rows.append(Row("vitals", "vae", "dp-ceiling", "auc", 0.97, NAN, NAN, 1))
    rows.append(Row("vitals", "vae", "dp-ceiling", "tpr_at_1pct_fpr", 0.3, NAN, NAN, 1))
    fake.save(f"{light}/tables/membership.csv", Row._fields, rows)
    text = text_of(fake.render(light))
    assert "AUC of the attack 0.56 [0.54, 0.58] n = 5 seeds" in text
    assert "“DOMIAS density ratio”, the strongest of 2 attacks, finds more than guessing (0.5)" in text
    assert "The promise allows no attack more than 0.97." in text
    assert "There were too few non-members to read rarer false alarms." in text
    assert "takes 1 000 non-members, and there were 240." in text
    assert "TPR at 1 % FPR (guessing" not in text  # no column of dashes


def test_almost_any_success_is_called_so(light, fake):
    fake.edit_json(f"{light}/privacy_ledger.json", epsilon_total=8.0, delta_replace_one=0.116)
    rows = [Row("vitals", "vae", "generator:domias", "tpr_at_1pct_fpr", 0.02, 0.01, 0.03, 400)]
    rows.append(Row("vitals", "-", "dp-ceiling", "tpr_at_1pct_fpr", 0.99967, NAN, NAN, 1))
    fake.save(f"{light}/tables/membership.csv", Row._fields, rows)
    text = text_of(fake.render(light))
    assert "The promise alone would allow almost everything (over 99 %)." in text
    assert "Most that the promise allows &gt;0.99" in text
    assert "= 2 981, except" in text
    assert "at most 99.97 % after" in text  # e^8 / (1 + e^8) = 0.99966
    assert "ε = 6.51 at δ = 0.116; so large a δ promises little." in text


def test_one_seed_has_no_intervals_and_says_so(light, fake):
    rows = [Row("vitals", m, r, "auroc", 0.8, NAN, NAN, 1) for m, r in (("-", "real"), ("vae", "synthetic"))]
    fake.save(f"{light}/tables/utility.csv", Row._fields, rows)
    text = text_of(fake.render(light))
    assert "n = 1, hence no intervals. Trained on Model AUROC ↑ Real 0.80 Synthetic VAE 0.80 The same" in text
    assert "Utility AUROC 0.80 n = 1 seed" in text and "Level with what real records give, without an interval" in text


def test_absent_tables_are_left_out(light, fake):
    for name in ("detection", "fairness", "efficiency"):
        os.remove(f"{light}/tables/{name}.csv")
    text = text_of(fake.render(light))
    assert "Table 4 · Detection:" not in text and "Table 4 (detection): no domain of this folder is traffic" in text
    assert "Fairness: is every" not in text and "Fairness: no column names subgroups" in text
    assert "What the trainings cost" not in text and "Cost: nothing was trained here" in text
    assert "Table 1 · Similarity: do synthetic" in text and "Not measured for threats: tables/utility.csv" in text


def test_a_run_with_only_a_manifest_has_a_page(tmp_path, fake):
    fake.write_json(f"{tmp_path}/manifest.json", {"status": "failed"})
    text = text_of(fake.render(str(tmp_path)))
    assert "status is “failed”" in text
    assert "No generator was measured in this folder." in text
    assert "There is no privacy ledger in this folder" in text and "No calibrated noise was added" not in text


def test_without_a_mechanism_the_page_says_so(light, fake):
    fake.edit_json(
        f"{light}/privacy_ledger.json", mechanism="none", epsilon_total=None, epsilon_replace_one=None, events=[]
    )
    text = text_of(fake.render(light))
    assert "There is no formal privacy guarantee for this run." in text
    assert "No formal guarantee" in text
    assert "ε = 3.40" not in text
    assert "promise allows" not in text  # nor a line of the table
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
    assert re.search(r"&lt;synthetic&gt;</th>.*?<td class=\"none\">–</td></tr>", page, re.S)
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


def test_a_promise_to_records_is_no_ceiling_for_attacks_on_clients(fake, light):
    whole = text_of(fake.render(light))
    assert "promise allows no attack" in whole and "with all of its records," in whole
    fake.edit_json(f"{light}/privacy_ledger.json", unit="record", relation="zero_out_one")
    text = text_of(fake.render(light))
    assert "unit: one record; relation: zero out one" in text
    assert "promise allows no attack" not in text and "with all of its records," not in text


def test_a_promise_that_does_not_hide_who_takes_part_is_no_ceiling_either(fake, light):
    fake.edit_json(f"{light}/privacy_ledger.json", mechanism="local_gaussian", relation="zero_out_one")
    text = text_of(fake.render(light))
    assert "unit: one client; relation: zero out one" in text and "what the records of one client say" in text
    assert "promise allows no attack" not in text and "took part: the odds" not in text
