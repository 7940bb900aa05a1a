"""PhysioNet/CinC Challenge 2019: hourly vital signs of intensive-care patients, labelled for sepsis."""

# pandas' own annotations are unions that a chained expression does not narrow
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
from __future__ import annotations

import gzip
import io
import os
import pathlib
import re
import zlib

import numpy as np
import pandas as pd

from fedjax_health.data import clinical
from fedjax_health.data.frames import table_from_frame
from fedjax_health.data.schema import Schema
from fedjax_health.data.source import Source
from fedjax_health.types import UserError

VITALS = {
    "HR": "heart_rate",
    "O2Sat": "spo2",
    "Temp": "temperature",
    "SBP": "systolic_bp",
    "MAP": "mean_bp",
    "DBP": "diastolic_bp",
    "Resp": "resp_rate",
    "Glucose": "glucose",
}
ROUTINE = ("heart_rate", "spo2", "systolic_bp", "mean_bp", "diastolic_bp", "resp_rate")
READ = (*VITALS, "Age", "Gender", "SepsisLabel")
WHERE_TO_GET = "download training_setA or training_setB from https://physionet.org/content/challenge-2019/1.0.0/"
FILES_AT_ONCE = 4000


SCHEMA = Schema(
    "physionet2019",
    (*clinical.vital_columns(tuple(VITALS.values())), *clinical.GROUPS, clinical.label_column("sepsis")),
)


def load_physionet2019(path: str, max_patients: int | None = None) -> Source:
    """Reads the challenge's training set; a record is an hour, a client is a patient, the label is SepsisLabel.

    Hours without any of the routine signs carry nothing and are dropped. Age enters as its band only (age itself would
    repeat it), and the number of hours not at all: stays differ in length by the label, which is a shortcut.

    Args:
      path: folder of pNNNNNN.psv files (subfolders too), or training_setX.psv(.gz) with a leading `patient` column, or
        a folder of such.
      max_patients: reads the first so many patients, by name; None = all.

    Returns:
      Source with K patients, M hours, F = 10.

    Raises:
      UserError: nothing of the challenge at `path`, a file of another layout, or cells that are not numbers.

    Source: Reyna et al., Critical Care Medicine 48(2):210-217, 2020; doi 10.13026/v64v-d857.
    """
    if max_patients is not None and max_patients < 1:
        raise UserError(f"max_patients is {max_patients}, so no patient would be read; use a positive number or None")
    frame, asked = _read(path, max_patients)
    frame = frame.assign(**{name: _numeric(frame, name, path) for name in READ})
    signs = frame[list(VITALS)].rename(columns=VITALS)
    live = signs[list(ROUTINE)].notna().any(axis=1)
    notes = []
    if not live.all():
        notes.append(
            f"Dropped {(~live).sum():,} of {len(live):,} hours without heart rate, SpO2, blood pressure and "
            "respiratory rate: they hold no routine measurement."
        )
    for name, allowed in (("Age", "a number"), ("Gender", "0 or 1"), ("SepsisLabel", "0 or 1")):
        fine = frame[name].notna() if name == "Age" else frame[name].isin((0.0, 1.0))
        _refuse(frame, name, live & ~fine, allowed, path)
    frame, signs = frame[live], signs[live]
    signs = signs.assign(
        age_band=clinical.age_bands(frame["Age"]),
        sex=np.where(frame["Gender"] == 1.0, "male", "female"),
        sepsis=np.where(frame["SepsisLabel"] == 1.0, "sepsis", "no_sepsis"),
    )
    table, clipped = table_from_frame(signs, SCHEMA, frame["patient"], path)
    lost = asked - (int(table.client[-1]) + 1)
    if lost:
        notes.append(f"Dropped {lost:,} of {asked:,} patients, of whom no hour was left.")
    return Source(SCHEMA, "diagnosis", table, (*notes, *clipped))


def _numeric(frame: pd.DataFrame, name: str, path: str) -> pd.Series:
    values = pd.to_numeric(frame[name], errors="coerce").astype(np.float64)
    _refuse(frame, name, values.isna() & frame[name].notna(), "a number or NaN", path)
    return values


def _refuse(frame: pd.DataFrame, name: str, bad: pd.Series, allowed: str, path: str) -> None:
    if not bad.any():
        return
    at = int(np.flatnonzero(bad)[0])
    patient = frame["patient"].iloc[at]
    row = int((frame["patient"].iloc[: at + 1] == patient).sum())
    raise UserError(
        f"{path}: {name} of patient {patient!r} is {str(frame[name].iloc[at])!r} in row {row} of the patient, not "
        f"{allowed}; correct the file or download it again"
    )


def _read(path: str, max_patients: int | None) -> tuple[pd.DataFrame, int]:
    """All hours with a column `patient`, and the number of patients that were asked for."""
    if os.path.isdir(path):
        files = sorted(pathlib.Path(path).rglob("*.psv*"), key=lambda file: file.name)
        patients = [file for file in files if re.fullmatch(r"p\d+\.psv", file.name)][:max_patients]
        if patients:
            batches = [patients[i : i + FILES_AT_ONCE] for i in range(0, len(patients), FILES_AT_ONCE)]
            return pd.concat([_read_patients(batch) for batch in batches], ignore_index=True), len(patients)
        sets = [file for file in files if re.fullmatch(r"training_set\w*\.psv(\.gz)?", file.name)]
        if not sets:
            raise UserError(f"folder {path!r} holds no pNNNNNN.psv files; {WHERE_TO_GET} and give its folder")
        frame = pd.concat([_read_set(file) for file in sets], ignore_index=True)
    elif os.path.isfile(path):
        frame = _read_set(pathlib.Path(path))
    else:
        raise UserError(f"folder {path!r} does not exist; {WHERE_TO_GET} and give its folder")
    names = frame["patient"].unique()[:max_patients]
    return frame[frame["patient"].isin(names)], len(names)


def _read_patients(files: list[pathlib.Path]) -> pd.DataFrame:
    """One parse for many small files, which is a hundred times faster than one parse for each."""
    header = b""
    bodies, counts = [], []
    for file in files:
        first, _, body = file.read_bytes().partition(b"\n")
        header = header or first.strip()
        if first.strip() != header:
            raise UserError(f"{file}: its header line differs from that of {files[0].name}; download the file again")
        body = body if body.endswith(b"\n") or not body else body + b"\n"
        bodies.append(body)
        counts.append(_count_rows(body, header, str(file)))
    names = header.decode("utf-8", "replace").split("|")
    _require(names, READ, str(files[0]))
    frame = _parse(io.BytesIO(b"".join(bodies)), f"{files[0]} … {files[-1].name}", READ, header=None, names=names)
    return frame.assign(patient=np.repeat([file.stem for file in files], counts))


def _read_set(file: pathlib.Path) -> pd.DataFrame:
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file}: not readable as gzip ({error}); {WHERE_TO_GET}") from error
    header, _, body = content.partition(b"\n")
    _require(header.decode("utf-8", "replace").strip().split("|"), ("patient", *READ), str(file))
    _count_rows(body, header, str(file))
    return _parse(io.BytesIO(content), str(file), ("patient", *READ))


def _count_rows(body: bytes, header: bytes, where: str) -> int:
    """Rows of a file; refuses one with a cell more or fewer, whose values would slip to other columns or patients."""
    lines = body.splitlines()
    bars = header.count(b"|")
    for row, line in enumerate(lines, 1):
        if line.count(b"|") != bars:
            raise UserError(
                f"{where}: row {row} has {line.count(b'|') + 1} cells, the header {bars + 1}; download the file again"
            )
    return len(lines)


def _parse(source: io.BytesIO, where: str, columns: tuple[str, ...], **options) -> pd.DataFrame:
    try:
        return pd.read_csv(source, sep="|", usecols=columns, low_memory=False, **options)
    except ValueError as error:  # parser and encoding errors
        reason = " ".join(str(error).split())
        raise UserError(f"{where}: not readable as text separated by '|' ({reason}); {WHERE_TO_GET}") from error


def _require(names: list[str], wanted: tuple[str, ...], where: str) -> None:
    for name in wanted:
        if name not in names:
            raise UserError(f"{where}: has no column {name!r}, so it is not a file of the challenge; {WHERE_TO_GET}")
