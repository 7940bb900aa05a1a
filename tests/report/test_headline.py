"""The three figures say what their intervals allow and no more; each sentence is said in one case and not in another."""

from __future__ import annotations

import math

import pytest

from fedjax_health.report import headline, readings, summary, tables, verdicts
from fedjax_health.types import Row

NAN = math.nan


def row(name, metric, value, half=0.01, model="vae", n=3):
    return Row("d", model, name, metric, value, value - half, value + half, n)


def similar(auc, half=0.01, ceiling=0.5, copula=0.7, p=()):
    rows = [row("synthetic", "c2st_auc", auc, half), row("real-vs-real", "c2st_auc", ceiling, 0.02, "-")]
    rows += [
        row("gaussian-copula", "c2st_auc", copula, model="-"),
        row("independent-marginals", "c2st_auc", 0.95, model="-"),
    ]
    return [*rows, *(row(f"x{k}", "tost_p", value, NAN) for k, value in enumerate(p))]


@pytest.mark.parametrize(
    ("auc", "half", "words", "verdict"),
    [
        (0.51, 0.02, "no better than real ones from each other", 1),
        (0.6, 0.2, "too wide to say that it cannot", 0),
        (0.6, 0.03, "but less easily than those of a plain Gaussian copula", 0),
        (0.7, 0.03, "but not clearly more easily than those of", 0),
        (0.9, 0.03, "Bad news: more easily than those of", -1),
        (0.3, 0.05, "a hint at copies", -1),
        (0.99, NAN, "Without an interval it is open", 0),
    ],
)
def test_fidelity_is_judged_by_intervals(auc, half, words, verdict):
    found = headline.fidelity(similar(auc, half), "vae", 3)
    assert words in found.said.text and found.said.verdict == verdict
    assert len(found.span) == 3 and all(0 <= a <= b <= 100 for a, b in zip(found.span, found.span[1:], strict=False))
    assert [m.place for m in found.marks] == pytest.approx([100, 60, 10])  # 0.5, 0.7 and 0.95 from 1 to 0.5
    assert found.n == "n\u00a0=\u00a03 seeds"


def test_means_that_are_not_equivalent_are_named():
    text = headline.fidelity(similar(0.6, p=(0.01, 0.2, NAN, 0.04, 0.5, 0.9)), "vae", 3).said.text
    assert "2 of 6 means are shown to agree within 0.2\u00a0SD; not equivalent: x1, x2, x4 and 1 more." in text
    assert "All 2 means" in headline.fidelity(similar(0.6, p=(0.01, 0.02)), "vae", 3).said.text
    assert "means" not in headline.fidelity(similar(0.6), "vae", 3).said.text


def test_fidelity_falls_back_on_coverage():
    rows = [
        row("synthetic", "coverage", 0.6),
        row("real-vs-real", "coverage", 0.9, model="-"),
        row("synthetic", "c2st_auc", NAN),
    ]
    found = headline.fidelity(rows, "vae", 3)
    assert found.metric == "Coverage" and "60\u00a0% of real records" in found.said.text and found.span[1] == 60
    assert "fewer than real records of other clients" in found.said.text and found.said.verdict == 0
    assert headline.fidelity([], "vae", 3) is None


@pytest.mark.parametrize(
    ("auc", "half", "gain", "words", "verdict"),
    [
        (0.93, 0.01, 0.02, "As good as real records to within 0.05, or better", 1),
        (0.85, 0.2, 0.02, "too wide to say that it is as good", 0),
        (0.80, 0.01, 0.02, "Clearly below what real records give; keeps 67\u00a0% of", 0),
        (0.70, 0.01, 0.02, "Bad news: clearly below a plain Gaussian copula", -1),
        (0.45, 0.01, 0.02, "keeps nothing of", -1),
        (0.93, 0.01, -0.02, "Bad news: added to real records they do harm (−0.020 [−0.029, −0.011])", -1),
        (0.93, 0.01, 0.005, "no clear difference (+0.005", 1),
        (0.93, NAN, 0.02, "Below what real records give, without an interval", 0),
    ],
)
def test_utility_is_judged_by_intervals(auc, half, gain, words, verdict):
    rows = [
        row("synthetic", "auroc", auc, half),
        row("real", "auroc", 0.95, model="-"),
        row("real+synthetic", "auroc_gain", gain, 0.009),
    ]
    rows[1] = rows[1]._replace(value=0.95, low=0.91, high=0.96)
    rows.append(row("gaussian-copula", "auroc", 0.79, 0.03, "-"))
    found = headline.utility(rows, "vae", 3)
    assert words in found.said.text and found.said.verdict == verdict, found.said
    assert headline.utility(rows, "gan", 3) is None
    useless = [r._replace(low=0.4, value=0.5, high=0.97) if r.row == "real" else r for r in rows]
    found = headline.utility(useless, "vae", 3)
    assert "Real records themselves are not clearly better than chance" in found.said.text and found.ends == (
        "chance",
        "1",
    )


def test_what_is_below_real_records_does_not_keep_all():
    rows = [row("synthetic", "auroc", 0.949, 0.0002), row("real", "auroc", 0.95, 0.0002, model="-")]
    found = headline.utility(rows, "vae", 3)
    assert "Clearly below what real records give; keeps 99.8\u00a0% of" in found.said.text


def attack(value, half, above, limit=None, sharp=False, broken=""):
    figure = row("federated+synthetic:lira", "tpr_at_1pct_fpr" if sharp else "auc", value, half, n=400)
    cell = tables.Cell(f"{100 * value if sharp else value:.2f}", "")
    risk = summary.Risk(figure, "LiRA", 3, sharp, cell, None, above, limit, broken)
    return summary.Summary("d", "vae", risk)


def test_risk_stands_between_guessing_and_the_promise():
    safe = headline.risk(attack(0.01, 0.002, False, 0.3, True), (1.0, 1e-5))
    assert safe.span[1] == 100 and safe.said.verdict == 1 and "is not clearly better than guessing" in safe.said.text
    assert [m.text for m in safe.marks] == ["1\u00a0%", "30.0\u00a0%"] and [m.place for m in safe.marks] == [100, 0]
    leaky = headline.risk(attack(0.1, 0.02, True, None, True), None)
    assert leaky.span[1] == pytest.approx(50, abs=0.1)  # in logarithms 10 % is half way from 1 % to 100 %
    assert leaky.said.verdict == -1 and "Nothing proven bounds a better attack." in leaky.said.text
    broken = headline.risk(attack(0.6, 0.02, True, 0.3, True, "LiRA (TPR)"), (1.0, 1e-5))
    assert "above what the promise allows" in broken.said.text and broken.span[1] == 0
    unknown = headline.risk(attack(0.6, NAN, None), None)
    assert "is open" in unknown.said.text and unknown.said.verdict == 0
    assert headline.risk(summary.Summary("d", "vae", None), None) is None


def test_the_lead_counts_good_and_bad_news():
    cards = [
        headline.Card(
            attack(0, 0, None),
            {"Fidelity": headline.fidelity(similar(auc, 0.02), "vae", 3), "Utility": None, "Privacy risk": None},
        )
        for auc in (0.51, 0.6, 0.9, 0.95)
    ]
    ((title, text),) = headline.lead(cards)
    assert (
        title == "Fidelity"
        and text.startswith("of 4 generators 1 is as hard to tell")
        and "2 are clearly further" in text
    )
    assert headline.lead([]) == []


def test_readings_name_the_worst_and_what_chance_does():
    attacks = [row(f"model-on-synthetic:a{k}", "auc", 0.5 + 0.02 * k, 0.015, n=3) for k in range(-1, 3)]
    ceiling = Row("d", "-", "dp-ceiling", "tpr_at_1pct_fpr", 0.9, NAN, NAN, 1)
    text = readings.membership([*attacks, ceiling])
    assert text.startswith(
        "2 of 4 attacks beat guessing (AUC 0.5) with the whole interval: a1 on VAE, a2 on VAE; by chance about 0.1"
    )
    assert text.endswith("A figure below guessing is noise, not protection.")
    assert "noise" not in readings.membership(attacks[2:])
    assert "No attack has an interval" in readings.membership([row("x:y", "auc", 0.6, NAN)])
    assert readings.membership([]) == ""
    kept = [
        row("hr", "tost_p", 0.01),
        row("hr", "ks_complement", 0.9),
        row("age", "tv_complement", 0.8),
        row("bp", "tost_p", 0.3),
    ]
    assert "1 of 2 means" in readings.features(kept) and "furthest distribution age (TV 0.80" in readings.features(kept)
    gains = [row("real+synthetic", "auroc_gain", v, 0.01, m) for v, m in ((0.02, "a"), (-0.02, "b"), (0.0, "c"))]
    assert "they help: a (" in readings.gained(gains) and "they do harm: b (" in readings.gained(gains)
    assert "no clear difference: c (" in readings.gained(gains)
    gaps = [row("real", "accuracy_gap[sex]", 0.05, 0.01, "-"), row("synthetic", "accuracy_gap[sex]", 0.2, 0.01)]
    assert "by sex, 0.20 [0.19, 0.21] (synthetic VAE); clearly larger than the 0.05" in readings.gaps(gaps)
    risks = [row("linkability", "risk", 0.1, 0.05, "vae"), row("inference", "risk", 0.01, 0.05, "vae")]
    assert readings.disclosure(risks).startswith(
        "1 of 2 risks lie above 0 with the whole interval: linkability (VAE) 0.10"
    )
    copied = row("linkability", "risk", 1.0, 0.01, "real")  # the ceiling, no generator's risk
    assert readings.disclosure([*risks, copied]) == readings.disclosure(risks)


def test_intervals_are_compared_and_values_where_there_are_none():
    a, b = row("a", "auroc", 0.8, 0.05), row("b", "auroc", 0.9, 0.04)
    assert verdicts.compare(a, b) == -1 and verdicts.compare(b, a) == 1
    assert verdicts.compare(a, b._replace(low=0.84)) == 0 and verdicts.compare(a, b._replace(low=NAN)) == -1
