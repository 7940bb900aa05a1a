"""The page in a browser: silent, still, no wider than its window, without serious findings of axe, and whole on paper."""

from __future__ import annotations

import pytest
import report_browser as browser

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(browser.missing() is not None, reason=f"no browser check: {browser.missing()}"),
]


@pytest.fixture(scope="module")
def chromium():
    with browser.opened() as opened:
        yield opened


def test_a_run_and_a_folder_without_one(full, chromium, tmp_path, fake):
    assert browser.problems(chromium, f"{full[0]}/report.html") == []
    fake.write_json(f"{tmp_path}/manifest.json", {"status": "failed"})
    fake.render(str(tmp_path))
    assert browser.problems(chromium, f"{tmp_path}/report.html") == []


BROKEN = {
    "console error": ("</body>", "<script>console.error('broken')</script></body>"),
    "request": ("</body>", '<img alt="outside" src="http://127.0.0.1:9/x.png"></body>'),
    "wider than the window": ("<main", '<div style="width:2000px">wide</div><main'),
    "color-contrast": ("--soft: #5a5e63", "--soft: #b0b4b9"),
    "no visible focus": ("outline: 3px", "outline: 0px"),
    "not a link to the content": ('<a class="skip"', '<a href="#reading">x</a><a class="skip"'),
    "not with the keyboard": ('role="group" tabindex="0"', 'role="group" tabindex="-1"'),
    "not printed": ("content-visibility: visible", "content-visibility: hidden"),
    "wider than the paper": ("@media print {", "@media print { table { min-width: 900px !important; }"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_found(full, chromium, tmp_path, what):
    old, new = BROKEN[what]
    assert old in full[1]
    path = tmp_path / "report.html"
    path.write_text(full[1].replace(old, new), encoding="utf-8")
    assert any(what in problem for problem in browser.problems(chromium, str(path))), what
