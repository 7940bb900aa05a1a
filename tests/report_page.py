"""What a reader sees of a page, for the tests of the report."""

from __future__ import annotations

import re


def text_of(page):
    """Text without markup, spaces collapsed."""
    body = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page.replace("&nbsp;", " "), flags=re.S)
    return re.sub(r"\s+", " ", body.replace("\u2011", "-"))
