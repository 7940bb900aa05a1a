"""Everything the page shows of one domain: its grids, a line to read each by, and its pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedjax_health.report import absent, curves, figures, labels, layout, readings
from fedjax_health.report.sheet import Look, Piece
from fedjax_health.report.summary import Promise
from fedjax_health.types import Row

DETECTION = (
    "detection_at_1pct_fpr",
    "pr_auc",
    "detection_rate",
)  # what a reading of Table 4 looks at, the first there is
UTILITY = ("auroc", "pr_auc", "balanced_accuracy", "accuracy")


def domain_view(
    workdir: str,
    domain: str,
    tidy: Mapping[str, Sequence[Row]],
    lines: Mapping[str, list[dict[str, Any]]],
    schema: Mapping[str, Any],
    promise: Promise,
    others: Sequence[str],
    looks: Mapping[str, Look],
) -> dict[str, Any]:
    """The parts of a domain, by the names that the template knows.

    Args:
      workdir: directory of the run; pictures are written to its figures/.
      domain: its name.
      tidy: rows by table.
      lines: points of curves by name.
      schema: of what is published; may be empty.
      promise: (ε, δ) that bounds attacks on membership, or None.
      others: names of tables without a place of their own.
      looks: how models are drawn.
    """
    mine = {name: [r for r in rows if r.domain == domain] for name, rows in tidy.items()}
    if promise is None:  # then nothing bounds an attack, whatever a table says
        mine["membership"] = [r for r in mine["membership"] if r.row != "dp-ceiling"]
    columns = {c["name"]: c for c in schema.get("columns", ())}
    targets = _targets(mine["membership"])
    return {
        "name": domain,
        "id": _safe(domain),
        "columns": columns,
        "inputs": sum(c.get("role", "feature") in ("feature", "group") for c in columns.values()),
        "label": next((c for c in columns.values() if c.get("role") == "label"), None),
        "grids": _grids(mine, columns),
        "readings": _readings(mine),
        "fairness": layout.fairness(mine["fairness"]),
        "unresolved": layout.unresolved(mine["membership"]),
        "targets": targets,
        "pictures": _pictures(workdir, domain, mine, lines, columns, promise, targets, looks),
        "absent": absent.in_domain(domain, mine),
        "further": {
            name: grid for name in tidy if (grid := layout.further(name, mine[name])).lines and name != "fairness"
        },
        "others": {name: layout.plain([r for r in mine[name] if "[" not in r.metric]) for name in others if mine[name]},
        "said": {name: readings.disclosure(mine[name]) for name in others},
    }


def _grids(mine: Mapping[str, Sequence[Row]], columns: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    plain = {name: layout.trained(mine[name]) for name in ("utility", "detection")}
    detects = bool(plain["detection"].lines)
    return {
        "similarity": layout.features(mine["similarity"], columns),
        "overall": layout.overall(mine["similarity"], columns),
        "collapse": layout.collapse_signs(mine["similarity"]),
        "copying": layout.copying_signs(mine["similarity"]),
        "subgroup_risk": layout.subgroup_risk(mine["fairness"]),
        "missing": layout.missing(mine["similarity"]),
        # the paper's Table 2 is of a diagnosis; a detection domain has Table 4 instead
        "utility": plain["utility"] if detects else layout.with_paper(plain["utility"], "utility"),
        "detection": layout.with_paper(plain["detection"], "detection"),
        "gained": layout.gained(mine["detection" if detects else "utility"]),
        "gained_too": layout.gained(mine["utility"] if detects else []),
        "added": layout.added([*mine["utility"], *mine["detection"]]),
        "types": layout.types(mine["detection"]),
        "alone": layout.single_features(mine["detection"]),
        "alerts": layout.stream_alerts(mine["detection"]),
        "membership": layout.membership(mine["membership"]),
        "costs": layout.costs(mine["efficiency"]),
    }


def _readings(mine: Mapping[str, Sequence[Row]]) -> dict[str, str]:
    detects = bool(mine["detection"])
    gained = [r for r in mine["detection" if detects else "utility"] if r.metric.endswith("_gain")]
    return {
        "similarity": readings.features(mine["similarity"]),
        "overall": readings.overall(mine["similarity"]),
        "correlations": readings.correlation(mine["similarity"]),
        "utility": readings.trained(mine["utility"], UTILITY),
        "detection": readings.trained(mine["detection"], DETECTION),
        "types": readings.types(mine["detection"]),
        "gained": readings.gained(gained),
        "membership": readings.membership(mine["membership"]),
        "fairness": readings.gaps(mine["fairness"]),
        "costs": readings.costs(mine["efficiency"]),
    }


def _pictures(
    workdir: str,
    domain: str,
    mine: Mapping[str, Sequence[Row]],
    lines: Mapping[str, list[dict[str, Any]]],
    columns: Mapping[str, Mapping[str, Any]],
    promise: Promise,
    targets: int | None,
    looks: Mapping[str, Look],
) -> dict[str, Any]:
    points = {name: [r for r in rows if r["domain"] == domain] for name, rows in lines.items()}

    def picture(name: str, draw: Callable[[list[dict[str, Any]], str], list[Piece]]) -> list[Piece]:
        path = os.path.join(workdir, "figures", f"{_safe(domain)}_{name}.png")
        return draw(points[name], path) if points[name] else []

    said = {r["feature"]: readings.feature_words(mine["similarity"], r["feature"]) for r in points["distributions"]}
    models = dict.fromkeys(r["model"] for r in points["distributions"])
    return {
        "keys": {m: looks[m] for m in sorted(models, key=lambda m: m != "real")},
        "distributions": picture(
            "distributions", lambda rows, path: figures.distributions(rows, path, columns, looks, said)
        ),
        "correlations": picture("correlations", figures.correlations),
        "roc": picture("roc", lambda rows, path: curves.roc(rows, path, promise, targets)),
    }


def _safe(domain: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in domain)


def _targets(rows: Sequence[Row]) -> int | None:
    """Members (and as many non-members) behind one ROC curve: those pooled over seeds, by seed; None where unknown."""
    pooled = {r.n for r in rows if r.metric.startswith("tpr_") and r.row not in labels.BOUNDS}
    seeds = {r.n for r in rows if r.metric == "auc" and r.row not in labels.BOUNDS}
    if len(pooled) != 1 or len(seeds) != 1 or not min(seeds) or min(pooled) % min(seeds):
        return None
    return min(pooled) // min(seeds)
