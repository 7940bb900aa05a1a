"""The page's structure serves those who cannot see it or use no mouse, and its colours those who see few of them."""

from __future__ import annotations

import itertools
import pathlib
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from fedjax_health.report import curves, sheet

CSS = (pathlib.Path(sheet.__file__).parent / "style.css").read_text(encoding="utf-8")
VOID = {"meta", "img", "br", "line", "rect"}


class Tree(HTMLParser):
    """Elements as [tag, attributes, children, text], and a complaint for a tag that does not close."""

    def __init__(self, page):
        super().__init__()
        self.root = ["root", {}, [], ""]
        self.open = [self.root]
        self.feed(page)
        assert len(self.open) == 1, [e[0] for e in self.open]

    def handle_starttag(self, tag, attrs):
        element = [tag, dict(attrs), [], ""]
        self.open[-1][2].append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.open[-1][2].append([tag, dict(attrs), [], ""])

    def handle_endtag(self, tag):
        assert self.open[-1][0] == tag, f"</{tag}> closes <{self.open[-1][0]}>"
        self.open.pop()

    def handle_data(self, data):
        for element in self.open:
            element[3] += data


def walk(element):
    yield element
    for child in element[2]:
        yield from walk(child)


@pytest.fixture(scope="module")
def elements(full):
    return list(walk(Tree(full[1]).root))


def of(elements, *tags):
    return [e for e in elements if e[0] in tags]


def test_landmarks_and_headings_are_in_order(elements):
    assert of(elements, "html")[0][1]["lang"] == "en" and of(elements, "title")[0][3]
    assert all(len(of(elements, tag)) == 1 for tag in ("h1", "main", "nav", "header", "footer"))
    levels = [int(e[0][1]) for e in of(elements, "h1", "h2", "h3", "h4", "h5")]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert all(e[3].strip() for e in of(elements, "h1", "h2", "h3", "h4", "summary", "a"))


def test_ids_are_unique_and_links_resolve(elements):
    ids = [e[1]["id"] for e in elements if "id" in e[1]]
    assert len(ids) == len(set(ids))
    named = {e[1]["aria-labelledby"] for e in elements if "aria-labelledby" in e[1]}
    inside = {e[1]["href"][1:] for e in of(elements, "a") if e[1]["href"].startswith("#")}
    assert named | inside <= set(ids)
    first = of(elements, "a")[0]
    assert first[1]["class"] == "skip" and first[1]["href"] == "#main"
    assert {e[1]["id"] for e in of(elements, "section")} <= inside


def test_pictures_say_what_they_show(elements):
    alts = [e[1].get("alt", "") for e in of(elements, "img")]
    assert len(alts) >= 30 and all(len(alt) > 20 for alt in alts)
    assert all(re.search(r"\d", alt) for alt in alts)  # with figures


def test_tables_have_captions_scopes_and_even_lines(elements):
    tables = of(elements, "table")
    assert len(tables) > 10
    for table in tables:
        inner = list(walk(table))
        assert [e[0] for e in table[2]] == ["caption", "thead", "tbody"] and of(inner, "caption")[0][3].strip()
        assert all(e[1].get("scope") in ("row", "col", "colgroup") for e in of(inner, "th"))
        width = {sum(int(c[1].get("colspan", 1)) for c in line[2]) for line in of(inner, "tr")}
        assert len(width) == 1
        for line in of(list(walk(of(inner, "tbody")[0])), "tr"):
            head = line[2][0]
            assert head[0] == "th" and head[1]["scope"] == "row" and head[3].strip()


def test_what_scrolls_takes_the_keyboard_and_has_a_name(elements):
    scrolls = [e for e in elements if "scroll" in e[1].get("class", "").split()]
    assert len(scrolls) >= len(of(elements, "table"))
    for e in scrolls:
        assert e[1]["tabindex"] == "0" and e[1]["role"] == "group" and {"aria-label", "aria-labelledby"} & set(e[1])


def luminance(colour):
    colour = colour if len(colour) == 7 else "#" + "".join(2 * c for c in colour[1:])
    raw = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return float(np.where(raw <= 0.04045, raw / 12.92, ((raw + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])


def contrast(a, b):
    """WCAG 2.2: (L1 + 0.05) / (L2 + 0.05)."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_of_all_text_on_all_grounds():
    assert contrast("#000", "#ffffff") == pytest.approx(21) and contrast("#767676", "#fff") == pytest.approx(
        4.54, abs=0.01
    )
    assert contrast("#80868b", "#fff") < 4.5  # what the test must reject
    named = dict(re.findall(r"--(\w+): (#\w+)", CSS))

    def values(prop, rules):
        found = re.findall(rf"(?<![-\w]){prop}: (#\w+|var\(--\w+\))", rules)
        return {named[v[6:-1]] if v.startswith("var") else v for v in found}

    texts = values("color", CSS)
    grounds = values("background", "".join(line for line in CSS.split("\n") if not line.startswith(".gauge")))
    assert len(texts) >= 5 and len(grounds) >= 4
    assert {(t, g) for t in texts for g in grounds if contrast(t, g) < 4.5} == set()
    drawn = [named["rule"], named["accent"], sheet.REAL, curves.CEILING, *curves.ATTACK_COLOURS]
    drawn += [*sheet.MODEL_COLOURS.values(), *sheet.SPARE_COLOURS]
    assert [c for c in drawn if contrast(c, "#fff") < 3] == []  # of lines and marks


# Machado, Oliveira, Fernandes 2009, severity 1; on linear RGB
BLIND = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def lab(colour, kind):
    raw = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(raw <= 0.04045, raw / 12.92, ((raw + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(BLIND[kind]) @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ seen
    f = np.cbrt(xyz / [0.9505, 1.0, 1.089])
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_models_are_told_apart_without_colour():
    looks = sheet.looks_of(["real", *sheet.MODEL_COLOURS, "ctgan", "tvae"])
    fakes = [looks[m] for m in looks if m not in ("real", "-")]
    for kind in BLIND:
        for a, b in itertools.combinations(fakes, 2):
            assert a.dashes != b.dashes or np.linalg.norm(lab(a.colour, kind) - lab(b.colour, kind)) > 10, (a, b)
        vae, gan = (lab(sheet.MODEL_COLOURS[m], kind) for m in ("vae", "wgan_gp"))  # of the shipped configuration
        assert np.linalg.norm(vae - gan) > 40


def test_strangers_get_looks_of_their_own():
    looks = sheet.looks_of(["real", "ctgan", "syn.csv", "-", "ctgan"])
    assert (
        set(looks) == {"real", "-", "ctgan", "syn.csv"}
        and len({(k.colour, str(k.dashes)) for k in looks.values()}) == 3
    )
