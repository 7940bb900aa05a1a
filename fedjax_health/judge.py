"""Judges synthetic tables that this project need not have made: read → match → compare → learn → attack → report."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from fedjax_health import workdir
from fedjax_health.data.foreign import Tables, make_tables
from fedjax_health.data.foreign_schema import infer_foreign, with_roles
from fedjax_health.data.frame_file import read_frame
from fedjax_health.data.schema import Schema, load_schema
from fedjax_health.evaluation import collapse, curves
from fedjax_health.evaluation.foreign import (
    MOST_ROWS,
    Case,
    check_apart,
    drawn_alike,
    similarity_rows,
    some_rows,
    warnings,
)
from fedjax_health.evaluation.foreign_membership import membership_tables
from fedjax_health.evaluation.foreign_utility import fit_all, task_rows
from fedjax_health.evaluation.rows import write_rows
from fedjax_health.files import write_text
from fedjax_health.report.html import render_report
from fedjax_health.results import Pictures, make_attacks
from fedjax_health.types import Row, UserError

LOG = logging.getLogger("fedjax_health")
KIND = "tables"  # of the manifest, where nothing was trained and nothing is known of how the tables were made
RESERVED = ("-", "", "real", "holdout", "paper")


class Request(NamedTuple):
    """What is asked for.

    Attributes:
      real, holdout: files with the rows that the generator learned from, and that it never saw.
      synthetic: (name, file) of each table to judge.
      schema: file; "" = inferred.
      label, client: columns, "" = as in the schema.
      groups: columns by which fairness is reported, beside those of the schema.
      encoding: of text files.
      seed: of every choice by chance.
    """

    real: str
    holdout: str
    synthetic: tuple[tuple[str, str], ...]
    schema: str = ""
    label: str = ""
    client: str = ""
    groups: tuple[str, ...] = ()
    encoding: str = "utf-8"
    seed: int = 0


def named(given: list[str]) -> tuple[tuple[str, str], ...]:
    """Names and files of "NAME=FILE" or "FILE", whose name is then the file's.

    Args:
      given: one a table.

    Raises:
      UserError: none, a name twice, or one that means something else in the tables.
    """
    found: dict[str, str] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or "/" in name or "." in name:
            name, path = os.path.basename(text).split(".")[0], text
        if name in RESERVED:
            raise UserError(
                f"--synthetic={text}: a table cannot be called {name!r}; give another name, as in ctgan={path}"
            )
        if name in found:
            raise UserError(f"--synthetic={text}: {name!r} is already {found[name]}; give names, as in other={path}")
        found[name] = path
    if not found:
        raise UserError(
            "--synthetic is missing; give at least one table to judge, as in --synthetic=ctgan=synthetic.csv"
        )
    return tuple(found.items())


def read_tables(request: Request) -> tuple[Tables, Schema]:
    """Reads all files, with the schema as given or inferred.

    Args:
      request: what is asked for.

    Raises:
      UserError: something in the files, the schema or the options that the user can mend.
    """
    if request.schema and not os.path.isfile(request.schema):
        raise UserError(
            f"--schema={request.schema} does not exist; give a schema file, or leave it out to have one inferred"
        )
    given = load_schema(request.schema) if request.schema else None
    notes: list[str] = []

    def read(path: str) -> tuple[str, Any]:
        frame, found = read_frame(path, given, request.encoding)
        notes.extend(found)
        return path, frame

    real, holdout = read(request.real), read(request.holdout)
    synthetic = {name: read(path) for name, path in request.synthetic}
    if given is None:
        domain = os.path.basename(request.real).split(".")[0]
        schema, found = infer_foreign(real, holdout, request.label, request.client, domain)
        notes += found
        kept = [column.name for column in schema.columns]  # the notes say why the others are left out
        real = (real[0], real[1][kept])
    elif request.label and request.label != given.label.name:
        raise UserError(
            f"--label={request.label}, but the label of the schema {request.schema!r} is {given.label.name!r}; leave --label "
            "out, or change the schema"
        )
    else:
        schema = given
    schema = with_roles(schema, request.client, request.groups)
    tables = make_tables(real, holdout, synthetic, schema)
    return tables._replace(notes=notes + tables.notes), schema


def judge(request: Request, out: str) -> str:
    """Reads, judges and reports; the folder appears whole or not at all.

    Args:
      request: what is asked for.
      out: folder to make; must not exist, or be empty.

    Returns:
      Path of report.html.

    Raises:
      UserError: something that the user can mend.
    """
    if os.path.exists(out) and (not os.path.isdir(out) or os.listdir(out)):
        raise UserError(f"--out={out} exists and is not an empty folder; give another, or remove it")
    manifest: dict[str, Any] = workdir.provenance([], request.seed) | {"kind": KIND}

    @contextlib.contextmanager
    def timed(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        manifest["seconds"][name] = round(time.perf_counter() - start, 2)
        LOG.info("%s: %.1f s", name, manifest["seconds"][name])

    with timed("read"):
        tables, schema = read_tables(request)
    case = Case(schema.name, tables, request.seed)
    check_apart(case, _files(request))
    with timed("similarity"):
        close, n = similarity_rows(case)
    with timed("utility"):
        fits = fit_all(case)
        useful, fair = task_rows(case, fits)
    with timed("membership"):
        member, roc = membership_tables(case, fits, make_attacks())
    said = warnings(case, close)
    for sentence in (*said, *collapse.warnings(close, case.domain)):  # the report finds the collapsed ones itself
        LOG.warning("warning: %s", sentence)
    notes = [*tables.notes, *_sizes(case, n), drawn_alike(close)]
    manifest |= {"status": "done", "warnings": said, "notes": {case.domain: notes}}
    rows = {"similarity": close, "utility": useful, "membership": member, "fairness": fair}
    try:
        os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
        partial = tempfile.mkdtemp(dir=os.path.dirname(os.path.abspath(out)), prefix=".evaluate.")
    except OSError as error:
        raise UserError(f"--out={out} cannot be made ({error.strerror}); give another") from error
    try:
        # the report's title is the folder's name
        path = os.path.join(partial, os.path.basename(os.path.abspath(out)))
        os.mkdir(path)
        _write(path, request, schema, case, rows, pictures(case, roc), manifest)
        os.replace(path, out)
    finally:
        shutil.rmtree(partial)
    return os.path.join(out, "report.html")


def pictures(case: Case, roc: list[tuple]) -> Pictures:
    """Distributions and correlations of at most 5,000 rows of each table, and the given ROC curves.

    Args:
      case: the tables.
      roc: points.
    """
    given = {"real": case.tables.holdout, **case.tables.synthetic}
    few = {name: some_rows(t, MOST_ROWS, case.generator("pictures", name)) for name, t in given.items()}
    synthetic = {name: t for name, t in few.items() if name != "real"}
    bins = curves.distribution_curves(few["real"], synthetic, case.schema)
    cells = [(case.domain, name, *c) for name, t in few.items() for c in curves.correlation_cells(t, case.schema)]
    return Pictures([tuple(b._replace(domain=case.domain)) for b in bins], cells, roc)


def _sizes(case: Case, n: int) -> list[str]:
    """How many rows there are, and how many of them were looked at."""
    tables = {"real": case.tables.real, "held-out": case.tables.holdout, **case.tables.synthetic}
    units = "clients" if case.schema.client else "clients (no column says whose a row is, so each is its own)"
    counts = [f"{len(t.label):,} rows {name}" for name, t in tables.items()]
    return [
        f"{'; '.join(counts)}. Real rows are of {int(case.tables.real.client.max()) + 1:,} {units}, held-out ones of "
        f"{int(case.tables.holdout.client.max()) + 1:,}.",
        f"Similarity compares at most {MOST_ROWS:,} rows of each table, drawn at random by client ({n:,} held-out clients); "
        "copies and cells outside the schema are looked for in all.",
        "Intervals are of held-out and synthetic rows drawn anew; a generator trained anew would vary more.",
    ]


def _write(
    path: str,
    request: Request,
    schema: Schema,
    case: Case,
    rows: dict[str, list[Row]],
    drawn: Pictures,
    manifest: dict[str, Any],
) -> None:
    config = request._asdict() | {"sha256": {name: _sha256(file) for name, file in _files(request).items()}}
    write_text(os.path.join(path, "config.json"), json.dumps(config, indent=2) + "\n")
    write_text(os.path.join(path, "schema.json"), schema.to_json())
    public = dataclasses.replace(case.schema, columns=tuple(c for c in case.schema.columns if c.role != "client"))
    published = {"files": {}, "schemas": {case.domain: json.loads(public.to_json())}}
    write_text(os.path.join(path, "synthetic", "schema.json"), json.dumps(published, indent=2) + "\n")
    for name, table in rows.items():
        write_rows(table, os.path.join(path, "tables", f"{name}.csv"))
    drawn.write(os.path.join(path, "tables"))
    workdir.write_manifest(path, manifest)
    render_report(path)


def _files(request: Request) -> dict[str, str]:
    return {"real": request.real, "holdout": request.holdout, **dict(request.synthetic)}


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
