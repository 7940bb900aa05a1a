"""A collapse is told before anything else, and what synthetic rows add to real ones stands in tables of its own."""

from __future__ import annotations

from report_page import text_of

from fedjax_health.evaluation import collapse
from fedjax_health.report import read
from fedjax_health.types import Row


def add_rows(workdir, fake, table, rows):
    fake.save(f"{workdir}/tables/{table}.csv", Row._fields, [*read.read_tidy(workdir, table), *rows])


def verdict(model, **held):
    signs = {f"collapsed[{sign}]": float(sign in held) for sign in collapse.SIGNS}
    values = {"collapsed": float(bool(held)), **signs}
    return [Row("vitals", model, "synthetic", metric, value, value, value, 1) for metric, value in values.items()]


def test_a_collapse_is_told_before_anything_else_and_its_absence_is_not(light, fake):
    assert "mode collapse" not in text_of(fake.render(light)).lower()
    figures = [
        Row("vitals", m, row, "lost_classes", v, v, v, 3)
        for m, row, v in (("vae", "synthetic", 0.0), ("wgan_gp", "synthetic", 2.0), ("-", "real-vs-real", 0.0))
    ]
    add_rows(light, fake, "similarity", [*verdict("vae"), *verdict("wgan_gp", classes=1, spread=1), *figures])
    page = fake.render(light)
    text = text_of(page)
    sentence = (
        "Mode collapse: WGAN-GP on vitals collapsed in at least one seed: a class of the label is missing; a column has less "
        "than a fifth of its real spread. Do not use its records as they are."
    )
    assert sentence in text and text.count("Mode collapse:") == 1
    assert text.index(sentence) < text.index("Fidelity")
    assert "VAE on vitals collapsed" not in text
    assert "<summary>Signs of mode collapse, beside the coverage</summary>" in page
    assert "collapsed[" not in text  # the verdict is a sentence, not a column


def test_gains_and_chosen_amounts_stand_in_tables_of_their_own(light, fake):
    rows = [
        Row("vitals", "-", "real@5%", "auroc", 0.8, 0.78, 0.82, 3),
        Row("vitals", "vae", "real@5%+synthetic", "auroc", 0.84, 0.82, 0.86, 3),
        Row("vitals", "vae", "real@5%+synthetic", "auroc_gain", 0.04, 0.035, 0.045, 3),
        Row("vitals", "vae", "real+chosen", "auroc", 0.94, 0.92, 0.96, 3),
        Row("vitals", "vae", "real+chosen", "added_rows[ill]", 120.0, -30.0, 270.0, 3),
        Row("vitals", "vae", "real+chosen", "chosen[25%]", 1.0, 1.0, 1.0, 3),
    ]
    text = text_of(fake.render(light))
    assert "What synthetic records add" not in text and "chose the amount" not in text
    add_rows(light, fake, "utility", rows)
    text = text_of(fake.render(light))
    assert "Real of 5 % of the clients 0.80 [0.78, 0.82]".replace(" ", "") in text.replace("–", "").replace(" ", "")
    assert "AUROC, gain ↑ Real of 5 % of the clients + synthetic VAE 0.040 [0.035, 0.045]" in text
    assert "was still trained on all clients" in text
    assert "rows added: ill 120 [0, 270]" in text  # fewer than none cannot be added
    assert "share of seeds that chose: 25% 1" in text
    assert "Real + synthetic, amount chosen" in text
    table_2 = text[text.index("Table 2") : text.index("What synthetic records add")]
    assert "gain" not in table_2 and "added" not in table_2
