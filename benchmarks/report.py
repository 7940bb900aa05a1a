"""What a benchmark says: one JSON object, printed as its last line and saved with --out (DESIGN, section 5)."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
from collections.abc import Sequence
from typing import Any

from fedjax_health.files import write_text

_KEYS = ("name", "value", "low", "high", "n", "unit")


def make_result(
    name: str, values: Sequence[float], unit: str, against: str | None = None, baseline: Sequence[float] = ()
) -> dict[str, Any]:
    """One measured figure: the median, with the least and the greatest of the repeats.

    The range is chosen over a bootstrap interval since repeats are few: of five independent ones it holds the true median with
    probability 1 - 2/2^5 = 94 %, of six 97 %, and a bootstrap of so few claims more than it has.

    Args:
      name: what was measured.
      values: repeats, at least one, finite.
      unit: such as "updates/s".
      against: name of what it is compared with; None compares with nothing.
      baseline: that one's repeats, taken in turn with these. The ratio is the median of value / baseline, pass by pass
        where there are as many of each (so that a slow minute of the machine hits both), else the ratio of the medians.

    Returns:
      {"name", "value", "low", "high", "n", "unit"}, and {"against", "ratio"} where it compares.

    Raises:
      ValueError: no values, or one that is not finite.
    """
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"the values of {name} are {list(values)}: give at least one, all finite")
    value = statistics.median(values)
    result = {"name": name, "value": value, "low": min(values), "high": max(values), "n": len(values), "unit": unit}
    if against is not None:
        paired = len(values) == len(baseline)
        ratios = (
            [a / b for a, b in zip(values, baseline, strict=True)] if paired else [value / statistics.median(baseline)]
        )
        result |= {"against": against, "ratio": statistics.median(ratios)}
    return result


def host() -> str:
    """The CPU in words: its model where Linux tells, and the number of cores."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), model)
    return f"{model}, {os.cpu_count()} cores"


def make_report(
    benchmark: str, device: str, found: dict[str, str], results: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The object of a whole benchmark.

    Args:
      benchmark: its name.
      device: what it ran on, in words.
      found: versions of the packages that matter.
      results: of `make_result`.

    Raises:
      ValueError: the object breaks the schema (see `check`).
    """
    report = {"benchmark": benchmark, "device": device, "versions": found, "results": list(results)}
    check(report)
    return report


def check(report: dict[str, Any]) -> None:
    """Checks a report against the schema.

    Args:
      report: as read from JSON.

    Raises:
      ValueError: a key is missing or unknown, a range does not hold its value, `against` stands without `ratio`, or two
        results have one name.
    """
    if set(report) != {"benchmark", "device", "versions", "results"} or not report["results"]:
        raise ValueError(f"a report has benchmark, device, versions and at least one of results, not {sorted(report)}")
    names = [result.get("name") for result in report["results"]]
    if len(set(names)) < len(names):
        raise ValueError(f"two results have one name among {names}")
    for result in report["results"]:
        extra = set(result) - set(_KEYS)
        if not set(_KEYS) <= set(result) or extra not in (set(), {"against", "ratio"}):
            raise ValueError(f"a result has {_KEYS}, and against with ratio, not {sorted(result)}")
        if not result["low"] <= result["value"] <= result["high"] or result["n"] < 1:
            raise ValueError(
                f"{result['name']} is {result['value']} in [{result['low']}, {result['high']}], n = {result['n']}"
            )


def finish(report: dict[str, Any], out: str | None) -> None:
    """Prints the report as the last line, after saving the same.

    Args:
      report: of `make_report`.
      out: path of the file, which appears whole or not at all; None saves nothing.
    """
    line = json.dumps(report, allow_nan=False)
    if out is not None:
        write_text(out, line + "\n")
    print(line, flush=True)
