"""What a data-protection officer asks of a run: who is trusted with what, and two check lists, each line with its evidence."""

from __future__ import annotations

import csv
import itertools
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fedjax_health.report import labels, read, tables
from fedjax_health.report.summary import Summary
from fedjax_health.types import Row, UserError

NONE, FOUND, OPEN = "none found", "found", "not assessed"
DISCLOSED = {  # question to the attacks that answer it
    "singling out: is a person isolated?": ("singling-out",),
    "linkability: are two records of a person joined?": ("linkability",),
    "inference: is an attribute of a person deduced?": ("inference", "attribute-inference"),
}
OLDEST = 89  # years; Safe Harbor wants one class for 90 and above


class Party(NamedTuple):
    """Someone in the run: what reaches them, and what keeps them from more."""

    who: str
    sees: str
    limit: str


class Check(NamedTuple):
    """A question with its answer.

    Attributes:
      question: as the rule puts it, short.
      verdict: NONE, FOUND or OPEN; for a measurement the figure.
      evidence: what was looked at.
    """

    question: str
    verdict: str
    evidence: str


class Statement(NamedTuple):
    """The parts of the statement; the promise itself stands above it."""

    parties: list[Party]
    safe_harbor: list[Check]
    anonymity: list[Check]


# 45 CFR 164.514(b)(2)(i), with words that a column of such content would have in its name
IDENTIFIERS: tuple[tuple[str, str], ...] = (
    ("A names", r"(sur|fore|first|last|middle|full|patient|family|given)?names?|initials"),
    ("B places smaller than a state", r"address|street|city|town|county|zip(code)?|post(al)?(code)?|latitude|longitude|geo"),
    ("C dates except the year, ages over 89", r"date(time)?|dob|birth(day|date)?|admission|discharge|death|timestamp|month"),
    ("D telephone numbers", r"(tele)?phone|mobile|cell"),
    ("E fax numbers", r"fax"),
    ("F e-mail addresses", r"e?mail"),
    ("G social security numbers", r"ssn|social(security)?"),
    ("H medical record numbers", r"mrn|record(id|number)|hadm|subject(id)?|icustay|stay(id)?|patient(id)?"),
    ("I health plan numbers", r"plan|beneficiary|insurance|policy"),
    ("J account numbers", r"account|iban"),
    ("K certificate or licence numbers", r"licen[cs]e|certificate"),
    ("L vehicle identifiers", r"vehicle|vin|plate"),
    ("M device identifiers and serial numbers", r"serial|imei|mac|(device|sensor)(id)?|[sd](rc|st)mac|macaddr"),
    ("N URLs", r"ur[li]|link|website"),
    ("O IP addresses", r"ip|ipv?[46]|ipaddr|[sd](rc|st)(addr|ip)"),
    ("P biometric identifiers", r"finger(print)?|iris|retina|voice(print)?|biometric"),
    ("Q full-face photographs", r"photo|image|picture"),
)  # fmt: skip


def make_statement(
    workdir: str,
    ledger: Mapping[str, Any],
    schemas: Mapping[str, Mapping[str, Any]],
    files: Sequence[str],
    summary: Sequence[Summary],
) -> Statement:
    """The statement of a run, from its files.

    Args:
      workdir: directory of the run; read for published ages and disclosure.csv.
      ledger: privacy_ledger.json.
      schemas: domain to schema of what is published (synthetic/schema.json).
      files: names in synthetic/.
      summary: strongest membership attack on each generator.

    Returns:
      Statement; what no file answers is OPEN.

    Raises:
      UserError: a published age that is no number.
    """
    columns = [(domain, column) for domain, schema in schemas.items() for column in schema["columns"]]
    return Statement(
        _parties(ledger),
        _safe_harbor(workdir, columns, files),
        _anonymity(ledger, summary, read.read_tidy(workdir, "disclosure")),
    )


def _parties(ledger: Mapping[str, Any]) -> list[Party]:
    formal = ledger.get("mechanism", "none") != "none"
    noise = "; it draws the noise and is trusted to forget it" if formal else ""
    maker = "the seed that makes the noise again"
    if ledger.get("randomness", "seed") == "system":
        maker = "until the last training was done the secret that makes the noise again"
    limit = (
        "the promise above, whatever they know and compute" if formal else "nothing proven; the measured attacks only"
    )
    asked = ", ".join(ledger.get("asked_of_clients", ["class shares"]))
    server = Party(
        "the server",
        f"every single update as it arrives, who sent it, and {asked} of each client{noise}",
        "trusted: no secure aggregation",
    )
    if teachers := ledger.get("teachers"):
        held = ", ".join(f"{k} teachers of {stage}" for stage, k in teachers.items())
        server = server._replace(
            sees=f"{server.sees}; it holds the {held} and counts their votes before the noise",
            limit=f"{server.limit}; of a teacher nothing leaves it but its share of the noisy majorities",
        )
    if (least := ledger.get("server_sees_sums_of", 1)) > 1:
        server = Party(
            "the server",
            f"sums of at least {least} clients' clipped updates, who took part, and {asked} before their noise{noise}",
            "simulated: all masks come from one key that the program knows, which shows the flow of data and secures nothing; "
            "trusted until the protocol with real keys runs",
        )
    if ledger.get("one_shot", {}).get("alone"):
        server = Party("the server", f"{asked} of each client, and who sent them{noise}", "trusted")
    if ledger.get("unit") == "record":
        server = Party(
            "the server",
            "every single update with the noise its client put in, who sent it, and class shares before their noise",
            "trusted with the class shares; the training's part of the promise above holds against the server, too",
        )
    if ledger.get("mechanism") == "local_gaussian":
        server = Party(
            "the server",
            "every single update and class share with the noise its client put in, who sent it, and when",
            "trusted with no data: the promise above holds against the server, too",
        )
    if ledger.get("mechanism") == "distributed_gaussian":
        server = Party(
            "the server",
            f"sums of at least {ledger.get('server_sees_sums_of', 1)} clients' updates with the noise that each put in, class "
            "shares with the noise of each client, and who took part",
            "trusted with no data where the secure sum runs as a protocol, and then the promise above holds against it, too; "
            "in this program it is simulated",
        )
    return [
        Party("each client", "its own records, and the models it is sent", "raw records never leave it"),
        server,
        Party(
            "holders of this folder",
            f"figures made from real records without noise, checkpoints, and {maker}",
            "trusted like the server: do not pass it on",
        ),
        Party("recipients of synthetic/", "synthetic tables, schemas and generators", limit),
    ]


def _words(name: str) -> list[str]:
    """Words of a column name, joined neighbours included: "patient_firstName" -> patient, first, name, patientfirst, ..."""
    parts = [part.lower() for part in re.findall(r"[A-Za-z][a-z]*|[0-9]+", re.sub(r"[^A-Za-z0-9]+", " ", name))]
    whole = [part.lower() for part in re.split(r"[^A-Za-z0-9]+", name) if part]
    return [*parts, *whole, *(a + b for a, b in itertools.pairwise(parts))]


def _safe_harbor(workdir: str, columns: Sequence[tuple[str, Any]], files: Sequence[str]) -> list[Check]:
    if not columns:
        return [Check(question, OPEN, "no schema of published columns") for question, _ in IDENTIFIERS]
    books = sum(column["kind"] != "numeric" for _, column in columns)
    looked = f"{len(columns)} published columns: {len(columns) - books} numeric within a public range, {books} from a code book"
    checks = []
    for question, pattern in IDENTIFIERS:
        hits = [f"{d}.{c['name']}" for d, c in columns if any(re.fullmatch(pattern, w) for w in _words(c["name"]))]
        evidence = f"by name: {', '.join(hits)}" if hits else "no name of a published column suggests it"
        verdict = FOUND if hits else NONE
        if question.startswith("C"):
            old = _oldest(workdir, columns, files)
            if old is None and _ages(columns):
                evidence, verdict = (
                    f"{evidence}; there are ages, and no published file to look into",
                    verdict if hits else OPEN,
                )
            else:
                evidence += f"; oldest published age {old:g}" if old is not None else "; no column of ages"
                verdict = FOUND if old is not None and old > OLDEST else verdict
        checks.append(Check(question, verdict, evidence))
    checks.append(
        Check("R any other unique code", OPEN, "whether a combination of values is unique to a person is not tested")
    )
    return [*checks, Check("free text", NONE, looked + "; no other kind can be published")]


def _ages(columns: Sequence[tuple[str, Any]]) -> list[tuple[str, str]]:
    """(domain, name) of the numeric columns of ages."""
    return [(d, c["name"]) for d, c in columns if c["kind"] == "numeric" and "age" in _words(c["name"])]


def _oldest(workdir: str, columns: Sequence[tuple[str, Any]], files: Sequence[str]) -> float | None:
    """Largest published value of the columns of ages, in years; None where there is none."""
    oldest = None
    for domain, name in _ages(columns):
        for file_name in files:
            if not (file_name.startswith(f"{domain}_") and file_name.endswith(".csv")):
                continue
            path = os.path.join(workdir, "synthetic", file_name)
            with open(path, encoding="utf-8", newline="") as file:
                for number, row in enumerate(csv.DictReader(file), 2):
                    if not row.get(name):
                        continue
                    try:
                        value = float(row[name])
                    except ValueError as error:
                        raise UserError(
                            f"{path} line {number}, column {name}: {row[name]!r} is not a number; restore the file or rerun"
                        ) from error
                    oldest = value if oldest is None else max(oldest, value)
    return oldest


def _anonymity(ledger: Mapping[str, Any], summary: Sequence[Summary], disclosed: Sequence[Row]) -> list[Check]:
    """The three tests of the Article 29 Working Party (Opinion 05/2014) and membership, as far as they were measured."""
    risks = [(s, s.risk) for s in summary if s.risk is not None]
    found = "; ".join(
        f"{labels.model_label(s.model)} on {s.domain}: {r.value.value}{'%' if r.sharp else ' AUC'} {r.value.interval} "
        f"({r.attack}, strongest of {r.attacks})"
        for s, r in risks
    )
    formal = ledger.get("mechanism", "none") != "none"
    bound = f"; the promise bounds what one {ledger.get('unit', 'client')} adds to any such finding" if formal else ""
    guess = "members found at 1% false alarms (guessing: 1%), or AUC (guessing: 0.5)"
    return [
        Check("membership: who was in the training data?", found or OPEN, guess if found else "no attack was run"),
        *(_risk(question, names, disclosed, bound) for question, names in DISCLOSED.items()),
    ]


def _risk(question: str, names: Sequence[str], disclosed: Sequence[Row], bound: str) -> Check:
    """The largest risk of each generator among attacks of these names, and how many attacks told nothing."""
    mine = [r for r in disclosed if r.metric == "risk" and r.row.split(":")[0] in names and r.model != "real"]
    if not mine:
        return Check(question, OPEN, "no attack of this kind was run" + bound)
    found = []
    for domain, model in dict.fromkeys((r.domain, r.model) for r in mine):
        known = [r for r in mine if (r.domain, r.model) == (domain, model) and not math.isnan(r.value)]
        if known:
            worst = max(known, key=lambda r: r.value)
            percent = worst._replace(value=100 * worst.value, low=100 * worst.low, high=100 * worst.high)
            shown = tables.cell(percent, 1)
            said = f"{shown.value}% {shown.interval} ({labels.disclosure_label(worst.row)}, largest of {len(known)})"
            found.append(f"{labels.model_label(model)} on {domain}: {said}")
    told = sum(not math.isnan(r.value) for r in mine)
    evidence = (
        "guesses right beyond what the same attack gets right about people who took no part, 0% where it is no better; the "
        "largest of several lies above 0 by chance alone"
    )
    if told < len(mine):
        evidence += f"; {len(mine) - told} of {len(mine)} attacks are not assessed, being no better than blind guesses"
    return Check(question, "; ".join(found) or OPEN, evidence + bound)
