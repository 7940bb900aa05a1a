"""The judging command: one folder with tables and a report, or one sentence and nothing; every kind of bad input."""

from __future__ import annotations

import csv
import json
import os
import pathlib
import re

import numpy as np
import pandas as pd
import pytest
from strangers import HOLDOUT, REAL, SYNTHETIC, patients

from fedjax_health import judge
from fedjax_health.data.schema import load_schema
from fedjax_health.evaluation import foreign
from fedjax_health.evaluation.rows import read_rows
from launch import evaluate

FILES = {"real": REAL, "holdout": HOLDOUT, "synthetic": SYNTHETIC}


def broken(column: str, value: object, rows: int = 10) -> pd.DataFrame:
    """The synthetic frame with another value in its first rows."""
    cells = SYNTHETIC[column].astype(object)
    return SYNTHETIC.assign(**{column: cells.where(SYNTHETIC.index >= rows, value)})


def text(frame: pd.DataFrame, **options) -> bytes:
    return frame.to_csv(index=False, **options).encode()


def write(folder: pathlib.Path, ending: str = "csv", **changes) -> dict[str, str]:
    """Files of a case; a change is a frame or bytes."""
    paths = {}
    for name, content in {**FILES, **changes}.items():
        path = folder / f"{name}.{ending}"
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif ending == "parquet":
            content.to_parquet(path)
        else:
            content.to_csv(path, index=False)
        paths[name] = str(path)
    return paths


def arguments(paths: dict[str, str], out: pathlib.Path, **options) -> list[str]:
    values = {**paths, "label": "outcome", "client": "person", "out": str(out), **options}
    return ["evaluate", *(f"--{name}={value}" for name, value in values.items() if value is not None)]


@pytest.fixture(scope="module")
def judged(tmp_path_factory) -> pathlib.Path:
    """A whole judgement of a copy of the training table, and of an independent draw that is called "apart"."""
    folder = tmp_path_factory.mktemp("judged")
    paths = write(folder, synthetic=REAL.drop(columns="person"))
    other = folder / "other.csv"
    patients(240, 3, 3000).to_csv(other, index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foreign, "HALVES", 2)
        argv = [*arguments(paths, folder / "out"), f"--synthetic=apart={other}", "--group=ward"]
        assert evaluate.main(argv) == 0
    assert sorted(os.listdir(folder)) == ["holdout.csv", "other.csv", "out", "real.csv", "synthetic.csv"]
    return folder / "out"


def test_folder_of_a_judgement(judged):
    manifest = json.loads((judged / "manifest.json").read_text())
    assert manifest["status"] == "done" and manifest["kind"] == "tables"
    for name in ("similarity", "utility", "membership", "fairness"):
        rows = read_rows(str(judged / "tables" / f"{name}.csv"))
        assert {r.model for r in rows} >= {"synthetic", "apart"} and {r.domain for r in rows} == {"real"}
    schema = load_schema(str(judged / "schema.json"))
    assert [c.name for c in schema.columns] == list(REAL) and schema.client and schema.label.name == "outcome"
    assert [c.name for c in schema.groups] == ["ward"]
    config = json.loads((judged / "config.json").read_text())
    assert re.fullmatch(r"[0-9a-f]{64}", config["sha256"]["apart"])
    with open(judged / "tables" / "roc.csv", encoding="utf-8") as file:
        assert {line["row"].split(":")[0] for line in csv.DictReader(file)} == {
            "model-on-real", "model-on-synthetic", "synthetic-table",
        }  # fmt: skip


def test_copy_of_the_training_table_is_called_one(judged):
    warnings = json.loads((judged / "manifest.json").read_text())["warnings"]
    assert len(warnings) == 1 and "100 % of the rows of synthetic are exact copies" in warnings[0]
    place = {(r.model, r.row, r.metric): r for r in read_rows(str(judged / "tables" / "similarity.csv"))}
    assert place["synthetic", "synthetic", "copied_rows"].value == 1.0
    assert place["apart", "synthetic", "copied_rows"].value < 0.1
    auc = {(r.model, r.row): r for r in read_rows(str(judged / "tables" / "membership.csv")) if r.metric == "auc"}
    nearest = "synthetic-table:nearest-synthetic"
    assert auc["synthetic", nearest].low > 0.5 and auc["synthetic", nearest].value > 0.8
    assert auc["apart", nearest].low < 0.5


def test_report_claims_no_privacy(judged):
    page = (judged / "report.html").read_text(encoding="utf-8")
    assert "No formal privacy claim is known" in page and "exact copies of training rows" in page
    assert "Who is trusted with what" not in page  # nobody took part in anything here
    for promise in ("There is no formal privacy guarantee for this run", "ε = ", "is private"):
        assert promise not in page


REFUSED = {
    "no real file": ({"real": None}, {}, "--real is missing"),
    "no such file": ({"synthetic": "gone.csv"}, {}, "gone.csv", "does not exist"),
    "a folder": ({"synthetic": "/tmp"}, {}, "folder"),
    "another ending": ({"synthetic": __file__}, {}, "ending", ".parquet"),
    "a reserved name": ({"synthetic": "real=x.csv"}, {}, "'real'", "another name"),
    "no label": ({"label": None}, {}, "--label", "outcome"),
    "label not there": ({"label": "outcom"}, {}, "real.csv", "'outcome'"),
    "label of numbers": ({"label": "pulse"}, {}, "'pulse'", "different values"),
    "client not there": ({"client": "patient"}, {}, "--client=patient"),
    "group not there": ({"group": "wards"}, {}, "'wards'", "'ward'"),
    "unknown encoding": ({"encoding": "utf-9"}, {}, "utf-9", "cp1252"),
    "unknown option": ({"sede": 1}, {}, "--sede", "--seed"),
    "missing schema": ({"schema": "gone.json"}, {}, "--schema=gone.json", "inferred"),
    "empty": ({}, {"synthetic": b""}, "synthetic.csv", "empty"),
    "blank lines": ({}, {"synthetic": b"\n \n"}, "synthetic.csv", "empty"),
    "header only": ({}, {"synthetic": SYNTHETIC[:0]}, "synthetic.csv", "no rows"),
    "header twice": ({}, {"synthetic": text(SYNTHETIC).replace(b"crp", b"pulse", 1)}, "'pulse'", "2 times"),
    "a row too long": ({}, {"synthetic": text(SYNTHETIC) + b"1,2,3,4,5,6,7\n"}, "synthetic.csv", "line 242"),
    "not UTF-8": ({}, {"synthetic": text(SYNTHETIC).replace(b",a,", ",\xe4,".encode("cp1252"))}, "row ", "0xE4", "cp1252"),
    "UTF-16": ({}, {"synthetic": text(SYNTHETIC).decode().encode("utf-16")}, "header (byte 0)", "0xFF"),
    "missing column": ({}, {"synthetic": SYNTHETIC.rename(columns={"pulse": "Puls"})}, "'pulse'", "'Puls'"),
    "missing in the holdout": ({}, {"holdout": HOLDOUT.drop(columns="crp")}, "holdout.csv", "'crp'"),
    "text among numbers": (
        {}, {"real": REAL.assign(pulse=REAL.pulse.astype(object).where(REAL.index != 5, "fast"))},
        "real.csv", "'fast'", "row 6",
    ),
    "one class, real": ({}, {"real": REAL.assign(outcome="stable")}, "real.csv", "'stable'", "two classes"),
    "one class, held out": ({}, {"holdout": HOLDOUT.assign(outcome="worse")}, "holdout.csv", "'worse'"),
    "unknown class only": ({}, {"synthetic": SYNTHETIC.assign(outcome="cured")}, "'cured'", "stable, worse"),
    "one real row": ({}, {"real": REAL[:1]}, "real.csv", "every one of 1 rows"),
    "one held-out row": ({}, {"holdout": HOLDOUT[:1]}, "holdout.csv", "every one of 1 rows"),
    "nobody's row": ({}, {"real": REAL.assign(person=REAL.person.where(REAL.index != 7))}, "real.csv", "row 8"),
    "held-out clients are the real ones": ({}, {"holdout": REAL}, "60 of its 60 clients", "'person'"),
    "held-out rows are the real ones": ({"client": None}, {"holdout": REAL[::-1]}, "same rows", "real.csv"),
    "held-out rows are those to judge": ({"client": None}, {"holdout": SYNTHETIC}, "missing in it", "'person'"),
    "nothing but the label": ({}, {k: f[["person", "outcome"]] for k, f in FILES.items() if k != "synthetic"}, "no column"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case, tmp_path, capsys):
    options, changes, *words = REFUSED[case]
    paths = write(tmp_path, **changes)
    before = sorted(os.listdir(tmp_path))
    argv = arguments(paths, tmp_path / "out", **options)
    assert evaluate.main(argv) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and printed.err.count("\n") == 1, printed.err
    for word in words:
        assert word in printed.err, printed.err
    assert sorted(os.listdir(tmp_path)) == before


def test_folder_in_use_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine").write_text("")
    assert evaluate.main(arguments(write(tmp_path), tmp_path)) == 2
    assert "not an empty folder" in capsys.readouterr().err


QUOTED = {"a": "A, one", "b": "B; two", "c": 'C "3"'}
ACCEPTED = {
    "as it should be": ({}, {}),
    "another order": ({"synthetic": SYNTHETIC[list(SYNTHETIC)[::-1]]}, {}, "another order"),
    "a column more": ({"synthetic": SYNTHETIC.assign(score=1)}, {}, "score is not read"),
    "a saved index": ({"synthetic": SYNTHETIC.to_csv().encode()}, {}, "without a name"),
    "semicolons": ({"synthetic": text(SYNTHETIC, sep=";", decimal=",")}, {}, "semicolons", "decimals by commas"),
    "tabs": ({"synthetic": text(SYNTHETIC, sep="\t")}, {}, "tabs"),
    "byte-order mark": ({"synthetic": b"\xef\xbb\xbf" + text(SYNTHETIC)}, {}),
    "quoted separators": ({k: f.assign(ward=f.ward.map(QUOTED)) for k, f in FILES.items()}, {}),
    "cp1252": ({"synthetic": text(SYNTHETIC).replace(b",a,", b",\xe4,")}, {"encoding": "cp1252"}, "'ä'"),
    "text among numbers": ({"synthetic": broken("pulse", "fast", 1)}, {}, "pulse: 1 of 240 cells are text"),
    "outside the range": ({"synthetic": broken("pulse", 9999)}, {}, "10 of 240"),
    "unknown category": ({"synthetic": broken("ward", "z")}, {}, "'z'"),
    "unknown class": ({"synthetic": broken("outcome", "x")}, {}, "left out"),
    "one class": ({"synthetic": SYNTHETIC.assign(outcome="stable")}, {}),
    "infinite": ({"real": REAL.assign(crp=REAL.crp.where(REAL.index > 2, -np.inf))}, {}, "3 of 240 cells are infinite"),
    "no value anywhere": ({k: f.assign(k=np.nan) for k, f in FILES.items()}, {}, "k is left out: it has no value"),
    "no value here": ({"synthetic": SYNTHETIC.assign(crp=np.nan)}, {}),
    "one value": ({k: f.assign(k=3) for k, f in FILES.items()}, {}, "k is left out: every cell is '3'"),
    "free text": ({k: f.assign(k=[f"{k}{i}" for i in range(len(f))]) for k, f in FILES.items()}, {}, "different texts"),
    "one row": ({"synthetic": SYNTHETIC[:1]}, {}),
    "clients in both": ({"holdout": pd.concat([HOLDOUT, REAL[:8]])}, {}, "2 of 52 clients"),
}  # fmt: skip


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_is_read_and_said(case, tmp_path):
    changes, options, *words = ACCEPTED[case]
    paths = write(tmp_path, **changes)
    request = judge.Request(
        paths["real"], paths["holdout"], (("syn", paths["synthetic"]),), label="outcome", client="person", **options
    )
    tables, schema = judge.read_tables(request)
    said = " ".join(tables.notes)
    for word in words:
        assert word in said, said
    if not words:
        assert not tables.notes
    assert [c.name for c in schema.inputs] == ["pulse", "crp", "oxygen", "ward"]
    (made,) = tables.synthetic.values()
    assert made.values.shape[1] == 4 and len(tables.outside["syn"]) == len(made.label)
    assert np.isfinite(made.values[:, 0]).sum() >= len(made.label) - 1


def test_parquet_says_the_same(tmp_path):
    (tmp_path / "b").mkdir()
    found = []
    for paths in (write(tmp_path), write(tmp_path / "b", "parquet")):
        request = judge.Request(paths["real"], paths["holdout"], (("s", paths["synthetic"]),), "", "outcome", "person")
        found.append(judge.read_tables(request))
    for a, b in zip(found[0][0].real, found[1][0].real, strict=True):
        np.testing.assert_array_equal(a, b)
    assert found[0][1] == found[1][1]


def test_the_schema_written_is_the_schema_read(judged, tmp_path):
    paths = write(tmp_path)
    written = str(judged / "schema.json")
    given = judge.Request(paths["real"], paths["holdout"], (("s", paths["synthetic"]),), written)
    inferred = given._replace(schema="", label="outcome", client="person", groups=("ward",))
    (a, schema), (b, same) = judge.read_tables(given), judge.read_tables(inferred)
    assert schema == same == load_schema(written)
    for x, y in zip(a.real, b.real, strict=True):
        np.testing.assert_array_equal(x, y)
