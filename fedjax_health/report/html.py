"""Makes report.html, one self-contained page, from the files of a run and from nothing else."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
from collections.abc import Mapping
from typing import Any

import jinja2

from fedjax_health.evaluation import collapse
from fedjax_health.report import absent, curves, labels, layout, read, sheet, tables
from fedjax_health.report.domain import domain_view
from fedjax_health.report.headline import Card, headlines, lead
from fedjax_health.report.statement import make_statement
from fedjax_health.report.summary import Promise, summarise
from fedjax_health.types import UserError

HERE = os.path.dirname(os.path.abspath(__file__))
TABLES = ("similarity", "utility", "membership", "detection", "efficiency", "privacy", "fairness")
OWN = ("efficiency", "privacy")  # tables whose lines of no one domain have a place of their own
CURVES = {
    "distributions": (("domain", "model", "feature"), ("left", "right", "density")),
    "correlations": (("domain", "model", "feature_a", "feature_b"), ("rho",)),
    "roc": (("domain", "model", "row"), ("fpr", "tpr")),
}


def render_report(workdir: str) -> str:
    """Draws the figures of a run and writes its report.html; equal run files give equal bytes.

    Args:
      workdir: directory of a run; needs manifest.json, and every other file may be absent.

    Returns:
      Path of report.html.

    Raises:
      UserError: no run there, or a file that cannot be read; names the file, the row and the column.
    """
    manifest = read.read_json(workdir, "manifest.json")
    if manifest is None:
        raise UserError(f"{workdir!r} has no manifest.json, so it is not a run's directory; give --workdir of a run")
    ledger = read.read_json(workdir, "privacy_ledger.json")
    promise = _promise(ledger or {})
    # what is attacked is the membership of clients, which a promise to records, or to a client's data alone, does not bound
    ceiling = promise if (ledger or {}).get("relation", "add_or_remove_one") == "add_or_remove_one" else None
    others = absent.others(workdir, (*TABLES, *CURVES))
    tidy = {name: [labels.within_range(r) for r in read.read_tidy(workdir, name)] for name in (*TABLES, *others)}
    lines = {name: read.read_csv(workdir, name, *columns) for name, columns in CURVES.items()}
    schemas = (read.read_json(workdir, os.path.join("synthetic", "schema.json")) or {}).get("schemas", {})
    every = [r.domain for rows in tidy.values() for r in rows] + [r["domain"] for rows in lines.values() for r in rows]
    domains = [d for d in dict.fromkeys(every) if d != "-"]
    models = [r.model for rows in tidy.values() for r in rows] + [r["model"] for rows in lines.values() for r in rows]
    looks = sheet.looks_of([m for m in models if m != "paper"])
    os.makedirs(os.path.join(workdir, "figures"), exist_ok=True)
    synthetic = os.path.join(workdir, "synthetic")
    files = sorted(os.listdir(synthetic)) if os.path.isdir(synthetic) else []
    seeds = len(manifest.get("seeds", ()))
    summary = [s for d in domains for s in summarise(d, tidy, ceiling)]
    cards = [Card(s, headlines(s, tidy, ceiling, seeds)) for s in summary]
    shown = [domain_view(workdir, d, tidy, lines, schemas.get(d, {}), ceiling, others, looks) for d in domains]
    training = _training(workdir, read.read_rounds(workdir))
    page = _template(seeds, looks).render(
        name=os.path.basename(os.path.abspath(workdir)),
        manifest=manifest,
        config=json.dumps(read.read_json(workdir, "config.json") or {}, indent=2, sort_keys=True),
        known=ledger is not None,
        ledger=ledger or {},
        formal=promise is not None,
        ceiling=ceiling is not None,
        factor=None if promise is None else math.exp(min(promise[0], 700.0)),
        collapsed=[
            sentence for d in domains for sentence in collapse.warnings(tidy["similarity"], d, labels.model_label)
        ],
        cards=cards,
        lead=lead(cards),
        absent=absent.absent(workdir, tidy),
        statement=make_statement(workdir, ledger or {}, schemas, files, summary),
        domains=shown,
        training=training,
        privacy=layout.privacy(tidy["privacy"], ledger or {}),
        shared_costs=layout.costs([r for r in tidy["efficiency"] if r.domain == "-"]),
        shared=layout.plain([r for name in tidy if name not in OWN for r in tidy[name] if r.domain == "-"]),
        files=[(f, os.path.getsize(os.path.join(synthetic, f))) for f in files],
    )
    path = os.path.join(workdir, "report.html")
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        file.write(page)
    os.replace(path + ".tmp", path)
    return path


def _promise(ledger: Mapping[str, Any]) -> Promise:
    epsilon, delta = ledger.get("epsilon_total"), ledger.get("delta")
    if ledger.get("mechanism", "none") == "none" or epsilon is None or delta is None or not math.isfinite(epsilon):
        return None
    return float(epsilon), float(delta)


def _template(seeds: int, looks: Mapping[str, sheet.Look]) -> jinja2.Template:
    numbers = itertools.count(1)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        model_label=labels.model_label,
        looks=looks,
        stroke=_stroke,
        fresh=lambda: f"t{next(numbers)}",
        table_title=labels.table_title,
        number=tables.number,
        setting=tables.setting,
        epsilon_text=tables.epsilon_text,
        power=tables.power,
        quantity=tables.quantity,
        row_label=labels.row_label,
        event_label=lambda name: labels.EVENTS.get(name, name),
        metric_label=labels.heading,
        stage_label=labels.stage_label,
        feature_label=labels.feature_label,
        behind=lambda grid: _behind(grid, seeds),
        odds=_even_odds_after,
        moment=_moment,
    )
    return environment.get_template("report.html.j2")


def _behind(grid: tables.Grid, seeds: int) -> str:
    """What is behind the intervals of a grid, such as "n = 3 seeds (AUC, Success), 1 500 members (TPR at 1 % FPR)"."""
    if grid.lines and all(line.n in ("", "1", tables.DASH) for line in grid.lines):
        return "n = 1, hence no intervals."
    groups: dict[str, list[str]] = {}
    for column, n in grid.n.items():
        noun = "members" if column.startswith("tpr_") else "seeds" if n == seeds else ""
        groups.setdefault(f"{tables.number(n)} {noun}".strip(), []).append(labels.short_heading(column))
    if len(groups) == 1:
        return f"n = {next(iter(groups))}."
    return "n = " + "; ".join(f"{n} ({', '.join(columns)})" for n, columns in groups.items()) + "." if groups else ""


def _moment(text: str) -> str:
    """A moment to the minute: "2026-01-05T09:12:44+00:00" -> "2026-01-05 09:12 UTC"; another form stays as it is."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)[\d:.]*(?:\+00:00|Z)", text)
    return f"{match[1]} {match[2]} UTC" if match else text


def _even_odds_after(factor: float) -> str:
    """What probability 0.5 can become when odds change by a factor: f / (1 + f), rounded up."""
    percent = math.ceil(1e4 * factor / (1 + factor)) / 100
    return f"{tables.number(percent, 2)}\u00a0%" if percent < 100 else "certainty, or nearly"


def _training(workdir: str, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Pictures of the training curves: what the server may publish, apart from what only a simulator sees."""
    names = sorted({k for r in rounds for k, v in r.items() if k not in ("stage", "round", "seed") and v is not None})
    parts = {
        "published": [n for n in names if not n.startswith("sim/")],
        "simulated": [n for n in names if n.startswith("sim/")],
    }
    result: dict[str, Any] = {}
    for part, shown in parts.items():
        still = curves.constants(rounds, shown)
        moving = [n for n in shown if n not in still]
        path = os.path.join(workdir, "figures", f"training_{part}.png")
        pieces, keys = curves.training(rounds, moving, path) if moving else ([], {})
        if shown:
            result[part] = {"pieces": pieces, "keys": keys, "still": still}
    return result


def _stroke(look: sheet.Look) -> str:
    """The dashes of a line as SVG has them, in units of its width."""
    return "" if look.dashes == "-" else " ".join(f"{2 * length:g}" for length in look.dashes[1])
