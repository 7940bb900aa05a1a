"""Makes report.html, one self-contained page, from the files of a run and from nothing else."""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jinja2
import numpy as np

from fedjax_health.report import figures, tables
from fedjax_health.types import Row, UserError

HERE = os.path.dirname(os.path.abspath(__file__))
TABLES = ("similarity", "utility", "membership", "detection", "efficiency", "privacy", "fairness")
CURVES = {
    "distributions": (("domain", "model", "feature"), ("left", "right", "density")),
    "correlations": (("domain", "model", "feature_a", "feature_b"), ("rho",)),
    "roc": (("domain", "model", "row"), ("fpr", "tpr")),
}
ROWS = {"real": "Real", "synthetic": "Synthetic", "real+synthetic": "Real + synthetic", **tables.BOUNDS}
FEATURE_METRICS = ("real_mean", "synthetic_mean", "welch_p", "tost_p", "ks_complement", "wasserstein_sd", "js_distance")
METRICS = {  # name -> heading, in the order of the columns; the arrow points to the better side
    "real_mean": "Real, mean ± SD", "synthetic_mean": "Synthetic, mean ± SD",
    "welch_p": "Welch p", "tost_p": "TOST p ↓", "ks_complement": "KS ↑", "tv_complement": "TV ↑",
    "wasserstein_sd": "W₁ (SD) ↓", "js_distance": "JS ↓", "correlation_error_mean": "Correlation error, mean ↓",
    "correlation_error_max": "Correlation error, max ↓", "coverage": "Coverage ↑", "c2st_auc": "C2ST AUC (best 0.5)",
    "auc": "AUC", "success (%)": "Success (%)", "accuracy": "Accuracy ↑", "balanced_accuracy": "Balanced accuracy",
    "precision": "Precision ↑", "recall": "Recall ↑", "f1": "F1 ↑", "detection_rate": "Detection rate ↑",
    "false_positive_rate": "False positives ↓", "detection_at_1pct_fpr": "Detection at 1 % FPR ↑", "auroc": "AUROC ↑",
    "pr_auc": "PR-AUC ↑", "macro_f1": "Macro-F1 ↑", "tpr_at_1pct_fpr": "TPR at 1 % FPR",
    "tpr_at_0p1pct_fpr": "TPR at 0.1 % FPR",
}  # fmt: skip
SPREAD = {"real_mean": "real_sd", "synthetic_mean": "synthetic_sd"}
PAPER = {  # figures of the paper's four tables, by row; the headings under ""
    "similarity": {
        "": ("Real", "Synthetic", "p"),
        "heart_rate": ("72.4 ± 10.5", "71.8 ± 10.2", "0.43"),
        "glucose": ("110.3 ± 15.8", "109.7 ± 15.2", "0.51"),
        "spo2": ("97.5 ± 1.6", "97.3 ± 1.5", "0.38"),
    },
    "utility": {
        "": ("Accuracy", "Precision", "Recall", "F1"),
        "real": ("0.925", "0.918", "0.930", "0.924"),
        "synthetic": ("0.901", "0.895", "0.907", "0.901"),
        "real+synthetic": ("0.932", "0.926", "0.938", "0.932"),
    },
    "membership": {
        "": ("Success (%)",),
        "model-on-real": ("65",),
        "model-on-synthetic": ("52",),
        "federated+synthetic": ("48",),
    },
    "detection": {
        "": ("Detection", "False pos."),
        "real": ("0.88", "0.07"),
        "synthetic": ("0.85", "0.06"),
        "real+synthetic": ("0.91", "0.05"),
    },
}
Promise: TypeAlias = tuple[float, float] | None  # (ε, δ)
TPR = "tpr_at_1pct_fpr"


def render_report(workdir: str) -> str:
    """Draws the figures of a run and writes its report.html; equal run files give equal bytes.

    Args:
      workdir: directory of a run; needs manifest.json, and every other file may be absent.

    Returns:
      Path of report.html.

    Raises:
      UserError: no run there, or a file that cannot be read; names the file, the row and the column.
    """
    manifest = tables.read_json(workdir, "manifest.json")
    if manifest is None:
        raise UserError(f"{workdir!r} has no manifest.json, so it is not a run's directory; give --workdir of a run")
    ledger = tables.read_json(workdir, "privacy_ledger.json") or {}
    promise = _promise(ledger)
    tidy = {name: tables.read_tidy(workdir, name) for name in TABLES}
    curves = {name: tables.read_csv(workdir, name, *columns) for name, columns in CURVES.items()}
    every = [r.domain for rows in tidy.values() for r in rows] + [r["domain"] for rows in curves.values() for r in rows]
    domains = [d for d in dict.fromkeys(every) if d != "-"]
    os.makedirs(os.path.join(workdir, "figures"), exist_ok=True)
    synthetic = os.path.join(workdir, "synthetic")
    files = sorted(os.listdir(synthetic)) if os.path.isdir(synthetic) else []
    page = _template().render(
        name=os.path.basename(os.path.abspath(workdir)),
        manifest=manifest,
        config=json.dumps(tables.read_json(workdir, "config.json") or {}, indent=2, sort_keys=True),
        ledger=ledger,
        formal=promise is not None,
        summary=[s for d in domains for s in _summary(d, tidy, promise)],
        domains=[_domain(workdir, d, tidy, curves, promise) for d in domains],
        training=_training(workdir, tables.read_rounds(workdir)),
        privacy=_privacy(tidy["privacy"], ledger),
        shared_costs=_costs([r for r in tidy["efficiency"] if r.domain == "-"]),
        files=[(f, os.path.getsize(os.path.join(synthetic, f))) for f in files],
    )
    path = os.path.join(workdir, "report.html")
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        file.write(page)
    os.replace(path + ".tmp", path)
    return path


def _promise(ledger: dict[str, Any]) -> Promise:
    epsilon, delta = ledger.get("epsilon_total"), ledger.get("delta")
    if ledger.get("mechanism", "none") == "none" or epsilon is None or delta is None or not math.isfinite(epsilon):
        return None
    return float(epsilon), float(delta)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        model_label=figures.model_label,
        model_colour=figures.model_colour,
        number=tables.number,
        epsilon_text=tables.epsilon_text,
        power=tables.power,
        human=tables.human,
        row_label=lambda name: ROWS.get(name, name),
        metric_label=_heading,
        is_bound=lambda name: name in tables.BOUNDS,
    )
    return environment.get_template("report.html.j2")


def _heading(metric: str) -> str:
    text = METRICS.get(metric, metric.replace("_", " "))
    # an arrow or the second half of "PR-AUC" must not stand on a line of its own
    return text.replace(" ↑", "\u00a0↑").replace(" ↓", "\u00a0↓").replace("-", "\u2011")


def _find(rows: Sequence[Row], row: str, metric: str, models: Sequence[str]) -> Row | None:
    return next((r for m in models for r in rows if (r.row, r.metric, r.model) == (row, metric, m)), None)


def _summary(domain: str, tidy: dict[str, list[Row]], promise: Promise) -> list[dict[str, Any]]:
    """For each generator of a domain: the utility kept, and the strongest attack on what was published."""
    mine = {name: [r for r in rows if r.domain == domain] for name, rows in tidy.items()}
    scored = [r for name in ("utility", "detection", "membership", "similarity") for r in mine[name]]
    result = []
    for model in [m for m in dict.fromkeys(r.model for r in scored) if m not in ("-", "real")]:
        either = (model, "-", *dict.fromkeys(r.model for r in scored))
        real = fake = kept = None
        for metric in ("auroc", "pr_auc"):
            rows = mine["utility"] + mine["detection"]
            real, fake = _find(rows, "real", metric, either), _find(rows, "synthetic", metric, (model,))
            if real is not None and fake is not None:
                kept = (fake.value - 0.5) / (real.value - 0.5) if metric == "auroc" and real.value > 0.5 else None
                break
        # the paper's first row attacks a model that never saw the generator, so it says nothing about the release
        attacks = [r for r in mine["membership"] if r.model == model and r.row not in tables.BOUNDS]
        attacks = [r for r in attacks if not r.row.startswith("model-on-real") and not math.isnan(r.value)]
        sharp = any(r.metric == TPR for r in attacks)  # else too few non-members to resolve so small a rate
        attacks = [r for r in attacks if r.metric == (TPR if sharp else "auc")]
        worst = max(attacks, key=lambda r: r.value, default=None)
        area = _find(mine["membership"], worst.row, "auc", (model,)) if worst and sharp else None
        limit, chance = None, 0.01 if sharp else 0.5
        if promise is not None and worst is not None:
            bound = _find(mine["membership"], "dp-ceiling", worst.metric, (model, "-"))
            computed = float(figures.ceiling_tpr(np.array(0.01), *promise)) if sharp else None
            limit = computed if bound is None else bound.value
        result.append(
            {
                "domain": domain, "model": model, "kept": kept, "metric": METRICS[fake.metric][:-2] if fake else "",
                "real": tables.cell(real), "synthetic": tables.cell(fake if real else None), "attacks": len(attacks),
                "attack": worst and worst.row, "risk": tables.cell(worst), "sharp": sharp, "chance": chance,
                "auc": tables.cell(area), "limit": limit,
                "above_chance": None if worst is None or math.isnan(worst.low) else worst.low > chance,
                "broken": worst is not None and limit is not None and worst.low > limit,
            }
        )  # fmt: skip
    return result


def _domain(
    workdir: str, domain: str, tidy: dict[str, list[Row]], curves: dict[str, Any], promise: Promise
) -> dict[str, Any]:
    """Everything the page shows of one domain: grids by name, the paper's figures for them, pictures by name."""
    mine = {name: [r for r in rows if r.domain == domain] for name, rows in tidy.items()}
    lines = {name: [r for r in rows if r["domain"] == domain] for name, rows in curves.items()}
    overall = [r for r in mine["similarity"] if r.row in ROWS]
    typed = [r for r in mine["detection"] if r.metric.startswith("detection_rate[")]
    kinds = {"overall": overall, "detection": [r for r in mine["detection"] if r not in typed]}
    kinds |= {name: mine[name] for name in ("utility", "membership")}
    grids = {
        name: tables.grid(tables.in_order(rows), lambda r: (r.row, r.model), lambda r: r.metric, list(METRICS))
        for name, rows in kinds.items()
    }
    grids["similarity"] = _features(tables.in_order([r for r in mine["similarity"] if r.row not in ROWS]))
    crossed = {"types": typed, "fairness": mine["fairness"]}
    for name, rows in crossed.items():
        grids[name] = tables.grid(tables.in_order(rows), _inside, lambda r: f"{r.row}\n{r.model}", by_line=True)
    grids["costs"] = _costs(mine["efficiency"])
    # the paper's Table 2 is of a diagnosis; a detection domain has Table 4 instead
    paper = {n: None if n == "utility" and mine["detection"] else _paper(n, grids[n]) for n in PAPER}
    safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in domain)

    def picture(name: str, draw: Callable[[str], str]) -> str | None:
        return _picture(draw(os.path.join(workdir, "figures", f"{safe}_{name}.png"))) if lines[name] else None

    pictures = {
        "distributions": picture("distributions", lambda path: figures.distributions(lines["distributions"], path)),
        "correlations": picture("correlations", lambda path: figures.correlations(lines["correlations"], path)),
        "roc": picture("roc", lambda path: figures.roc(lines["roc"], path, promise)),
    }
    return {"name": domain, "id": safe, "grids": grids, "paper": paper, "pictures": pictures}


def _features(rows: list[Row]) -> tables.Grid:
    """Table 1 by feature: SD beside its mean, TV of categorical features in the column of KS, small p as "<0.001"."""
    place = {(r.row, r.model, r.metric): r for r in rows}
    shown = [r._replace(metric="ks_complement") if r.metric == "tv_complement" else r for r in rows]
    shown = [r for r in shown if r.metric not in SPREAD.values()]

    def text(r: Row, digits: int | None) -> str:
        if r.metric.endswith("_p"):
            return "<0.001" if r.value < 0.001 else tables.number(r.value, 2 if r.value >= 0.1 else 3)
        spread = place.get((r.row, r.model, SPREAD.get(r.metric, "")))
        if spread is None:
            return tables.number(r.value, digits)
        # a fiftieth of an SD or so is the least that shows
        digits = max(0, 1 - math.floor(math.log10(spread.value / 2))) if spread.value > 0 else digits
        is_end = place[(r.row, r.model, r.metric)] is not r  # an end of the interval takes no SD
        return tables.number(r.value, digits) + ("" if is_end else f" ± {tables.number(spread.value, digits)}")

    return tables.grid(shown, lambda r: (r.row, r.model), lambda r: r.metric, FEATURE_METRICS, text=text)


def _inside(r: Row) -> tuple[str, str]:
    """Line of a metric that is given by group, such as "recall[sex=male]": "sex=male · recall"."""
    name, group = r.metric.rstrip("]").split("[", 1) if "[" in r.metric else (r.metric, "")
    parts = (group, "" if name == "detection_rate" else name.replace("_", " "))
    return " · ".join(p for p in parts if p), "-"


def _costs(rows: list[Row]) -> tables.Grid:
    return tables.grid(
        rows,
        lambda r: (f"{r.row} · {r.metric.removesuffix(' (J)')}".replace("_", " ").removeprefix("- · "), "-"),
        lambda r: f"\n{r.model}",
        by_line=True,
        text=lambda r, digits: tables.human(r.metric, r.value),
    )


def _privacy(rows: list[Row], ledger: dict[str, Any]) -> tables.Grid:
    """What the table holds beside the ledger's figures, which have their own place; such as an audit's estimate."""
    known = {key for entry in (ledger, *ledger.get("events", ())) for key in entry}
    rest = [r for r in rows if r.metric not in known]
    return tables.grid(rest, lambda r: (f"{r.domain} {r.row}".strip("- "), r.model), lambda r: r.metric)


def _paper(name: str, grid: tables.Grid) -> dict[str, Any] | None:
    """The paper's figures beside each line of a grid, None where no line has any."""
    known = PAPER[name]
    empty = (tables.DASH,) * len(known[""])
    keys = [line.row.split(":")[0].lower() for line in grid.lines]
    cells = [known.get(key, empty) if key else empty for key in keys]
    return {"columns": known[""], "cells": cells} if any(c is not empty for c in cells) else None


def _training(workdir: str, rounds: list[dict[str, Any]]) -> dict[str, str]:
    """Pictures of the training curves: what the server may publish, apart from what only a simulator sees."""
    names = sorted({k for r in rounds for k, v in r.items() if k not in ("stage", "round", "seed") and v is not None})
    parts = {
        "published": [n for n in names if not n.startswith("sim/")],
        "simulated": [n for n in names if n.startswith("sim/")],
    }
    draw = {part: shown for part, shown in parts.items() if shown}
    place = os.path.join(workdir, "figures")
    return {
        p: _picture(figures.training(rounds, shown, os.path.join(place, f"training_{p}.png")))
        for p, shown in draw.items()
    }


def _picture(path: str) -> str:
    with open(path, "rb") as file:
        return "data:image/png;base64," + base64.b64encode(file.read()).decode("ascii")
