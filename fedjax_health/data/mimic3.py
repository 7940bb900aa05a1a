"""MIMIC-III (full or demo): hourly vital signs of intensive-care stays, labelled by outcome or diagnosis."""

# pandas' own annotations are unions that a chained expression does not narrow
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pandas as pd

from fedjax_health.data import clinical
from fedjax_health.data.frames import table_from_frame
from fedjax_health.data.schema import Schema
from fedjax_health.data.source import Source
from fedjax_health.types import UserError

# Items of CHARTEVENTS (CareVue, then MetaVision) and of LABEVENTS.
CHART_ITEMS = {
    "heart_rate": (211, 220045),
    "spo2": (646, 220277),
    "temperature": (223762, 676, 223761, 678),
    "systolic_bp": (51, 442, 455, 6701, 220179, 220050),
    "diastolic_bp": (8368, 8440, 8441, 8555, 220180, 220051),
    "resp_rate": (618, 615, 220210, 224690),
    "glucose": (807, 811, 1529, 3744, 3745, 220621, 225664, 226537),
}
FAHRENHEIT = (223761, 678)
LAB_ITEMS = {"glucose": (50931, 50809)}
# Beyond these a reading is an artefact or a typing error, not a patient: low < value <= high.
POSSIBLE = {
    "heart_rate": (0, 300),
    "spo2": (0, 100),
    "temperature": (25, 45),
    "systolic_bp": (0, 300),
    "diastolic_bp": (0, 250),
    "resp_rate": (0, 100),
    "glucose": (0, 2000),
}
# ICD-9 codes as MIMIC writes them (no dot), by their first digits.
ICD9 = {"sepsis": ("038", "99591", "99592", "78552"), "diabetes": ("250",), "heart_failure": ("428",)}
LABELS = ("mortality", *ICD9)
ADULT_YEARS = 16
TEXT = ("GENDER", "DOB", "INTIME", "OUTTIME", "CHARTTIME", "ICD9_CODE")
CHUNK_ROWS = 2_000_000
WHERE_TO_GET = "download it from https://physionet.org/content/mimiciii-demo/1.4/ (or, with access, mimiciii/1.4/)"


def mimic3_schema(label: str) -> Schema:
    """The columns of a record, which need no file.

    Args:
      label: see `load_mimic3`.

    Raises:
      UserError: an unknown label.
    """
    if label not in LABELS:
        raise UserError(f"label {label!r} of MIMIC-III is unknown; use one of {', '.join(LABELS)}")
    columns = (*clinical.vital_columns(tuple(CHART_ITEMS)), *clinical.GROUPS, clinical.label_column(label))
    return Schema("mimic3", columns)


def load_mimic3(path: str, label: str = "mortality") -> Source:
    """Reads hourly means of seven vital signs; a record is an hour of an ICU stay, a client is a patient.

    value[stay, hour] = mean of the possible readings in [INTIME + hour, INTIME + hour + 1 h). All hours of a stay have
    the label of its admission. Children (under 16), hours outside the stay, and hours with neither heart rate nor SpO2
    are left out. Ages over 89 are hidden in the original and fall into the band 80+. Memory grows with the hours, not
    with the rows of CHARTEVENTS, which is read in parts.

    Args:
      path: folder with PATIENTS, ADMISSIONS, ICUSTAYS, CHARTEVENTS, for a diagnosis DIAGNOSES_ICD, and, where it is
        there, LABEVENTS (laboratory glucose), as .csv or .csv.gz, names in upper or lower case.
      label: "mortality" (death in hospital), or an ICD-9 group of the admission: "sepsis" (038, 995.91, 995.92,
        785.52), "diabetes" (250), "heart_failure" (428).

    Returns:
      Source with K patients, M hours, F = 9, task "diagnosis".

    Raises:
      UserError: an unknown label, a missing table or column, a file that is not CSV, or a label of one class.

    Source: Johnson et al., Scientific Data 3:160035, 2016; doi 10.13026/C2XW26.
    """
    schema = mimic3_schema(label)
    stays, notes = _stays(path, label)
    sums, impossible, seen = _events(path, "CHARTEVENTS", CHART_ITEMS, "ICUSTAY_ID", stays)
    if _find(path, "LABEVENTS"):
        lab, lab_impossible, lab_seen = _events(path, "LABEVENTS", LAB_ITEMS, "HADM_ID", stays)
        sums, impossible, seen = pd.concat([sums, lab]), impossible + lab_impossible, seen + lab_seen
    else:
        notes.append("LABEVENTS is not in the folder: glucose comes from bedside readings only.")
    if impossible:
        notes.append(
            f"Treated {impossible:,} of {seen:,} readings as missing: they were 0 or beyond what a patient can have."
        )
    hours = _hours(sums)
    live = hours[["heart_rate", "spo2"]].notna().any(axis=1)
    if not live.all():
        notes.append(f"Dropped {(~live).sum():,} of {len(live):,} stay-hours with neither heart rate nor SpO2.")
    frame = hours[live].reset_index().merge(stays, on="ICUSTAY_ID")
    frame = frame.sort_values(["SUBJECT_ID", "INTIME", "ICUSTAY_ID", "hour"], ignore_index=True)
    adults = stays["SUBJECT_ID"].nunique()
    lost = adults - frame["SUBJECT_ID"].nunique()
    if lost:
        notes.append(f"Dropped {lost:,} of {adults:,} patients, of whom no hour was left.")
    table, clipped = table_from_frame(frame, schema, frame["SUBJECT_ID"], path)
    return Source(schema, "diagnosis", table, (*notes, *clipped))


def _stays(path: str, label: str) -> tuple[pd.DataFrame, list[str]]:
    """One row an adult ICU stay: SUBJECT_ID, HADM_ID, ICUSTAY_ID, INTIME, OUTTIME, age_band, sex and the label."""
    stays = _read(path, "ICUSTAYS", ("SUBJECT_ID", "HADM_ID", "ICUSTAY_ID", "INTIME", "OUTTIME"))
    patients = _read(path, "PATIENTS", ("SUBJECT_ID", "GENDER", "DOB"))
    admissions = _read(path, "ADMISSIONS", ("HADM_ID", "HOSPITAL_EXPIRE_FLAG"))
    stays = stays.merge(patients, on="SUBJECT_ID").merge(admissions, on="HADM_ID")
    for name in ("INTIME", "OUTTIME", "DOB"):
        stays[name] = _times(stays[name], f"{path}: {name}")
    wrong = ~stays["GENDER"].isin(("F", "M"))
    if wrong.any():
        gender, subject = stays.loc[wrong, ["GENDER", "SUBJECT_ID"]].iloc[0]
        raise UserError(
            f"{path}: PATIENTS has GENDER {str(gender)!r} for SUBJECT_ID {subject:.0f}, not 'F' or 'M'; correct it"
        )
    timed = stays[["INTIME", "OUTTIME", "DOB"]].notna().all(axis=1)
    stays, untimed = stays[timed], int((~timed).sum())
    # By calendar, since the hidden ages (DOB moved back 300 years) overflow a difference in nanoseconds.
    born, entered = stays["DOB"].dt, stays["INTIME"].dt
    before_birthday = entered.month * 100 + entered.day < born.month * 100 + born.day
    age = entered.year - born.year - before_birthday.astype(int)
    if label == "mortality":
        positive = stays["HOSPITAL_EXPIRE_FLAG"] == 1
    else:
        codes = _read(path, "DIAGNOSES_ICD", ("HADM_ID", "ICD9_CODE"))
        of_group = codes["ICD9_CODE"].fillna("").str.strip().str.replace(".", "").str.startswith(ICD9[label])
        positive = stays["HADM_ID"].isin(codes.loc[of_group, "HADM_ID"])
    stays = stays.assign(
        age_band=clinical.age_bands(age),
        sex=stays["GENDER"].map({"F": "female", "M": "male"}),
        **{label: np.where(positive, label, f"no_{label}")},
    )
    adult = age >= ADULT_YEARS
    notes = [f"Left out {untimed:,} ICU stays without a beginning or an end."] if untimed else []
    if not adult.all():
        notes.append(f"Left out {(~adult).sum():,} of {len(adult):,} ICU stays of patients under {ADULT_YEARS}.")
    return stays[adult].drop(columns=["GENDER", "DOB", "HOSPITAL_EXPIRE_FLAG"]), notes


def _events(
    path: str, table: str, items: dict[str, tuple[int, ...]], join: str, stays: pd.DataFrame
) -> tuple[pd.DataFrame, int, int]:
    """Sums and counts by stay, hour and sign from one table; how many readings were impossible, and how many in all.

    CHARTEVENTS names the stay; LABEVENTS names the admission only, and the time decides between its stays.
    """
    sign_of = {item: sign for sign, codes in items.items() for item in codes}
    file = _require(path, table)
    columns = (join, "ITEMID", "CHARTTIME", "VALUENUM", *(("ERROR",) if table == "CHARTEVENTS" else ()))
    times = stays[list(dict.fromkeys((join, "ICUSTAY_ID", "INTIME", "OUTTIME")))]
    parts, impossible, seen = [], 0, 0
    for chunk in _chunks(file, columns):
        wanted = chunk["ITEMID"].isin(sign_of) & chunk[[join, "VALUENUM"]].notna().all(axis=1)
        if "ERROR" in chunk:
            wanted &= chunk["ERROR"] != 1
        events = chunk[wanted].merge(times, on=join)
        celsius = (events["VALUENUM"] - 32.0) / 1.8
        events["VALUENUM"] = events["VALUENUM"].mask(events["ITEMID"].isin(FAHRENHEIT), celsius)
        sums, wrong, read = _sums(events.assign(sign=events["ITEMID"].map(sign_of)), file)
        parts.append(sums)
        impossible, seen = impossible + wrong, seen + read
    return pd.concat(parts), impossible, seen


def _sums(events: pd.DataFrame, where: str) -> tuple[pd.DataFrame, int, int]:
    time = _times(events["CHARTTIME"], f"{where}: CHARTTIME")
    inside = (time >= events["INTIME"]) & (time <= events["OUTTIME"])
    events = events.assign(hour=(time - events["INTIME"]) // pd.Timedelta(hours=1))[inside]
    low = events["sign"].map({sign: limits[0] for sign, limits in POSSIBLE.items()}).astype(np.float64)
    high = events["sign"].map({sign: limits[1] for sign, limits in POSSIBLE.items()}).astype(np.float64)
    possible = (events["VALUENUM"] > low) & (events["VALUENUM"] <= high)
    sums = events[possible].groupby(["ICUSTAY_ID", "hour", "sign"])["VALUENUM"].agg(["sum", "count"])
    return sums, int((~possible).sum()), len(events)


def _hours(sums: pd.DataFrame) -> pd.DataFrame:
    """Hourly means, one column a sign, by (ICUSTAY_ID, hour)."""
    total = sums.groupby(level=["ICUSTAY_ID", "hour", "sign"]).sum()
    means = (total["sum"] / total["count"]).unstack("sign")
    return means.reindex(columns=list(CHART_ITEMS))


def _times(cells: pd.Series, where: str) -> pd.Series:
    try:
        return pd.to_datetime(cells, format="ISO8601")
    except ValueError as error:
        raise UserError(
            f"{where} holds a time that is not like 2130-02-04 04:00:00 ({error}); correct the cell"
        ) from error


def _find(path: str, table: str) -> str | None:
    names = os.listdir(path) if os.path.isdir(path) else []
    wanted = (f"{table}.CSV", f"{table}.CSV.GZ")
    return next((os.path.join(path, name) for name in sorted(names) if name.upper() in wanted), None)


def _require(path: str, table: str) -> str:
    found = _find(path, table)
    if found is None:
        lacks = f"does not hold {table}.csv or {table}.csv.gz" if os.path.isdir(path) else "does not exist"
        raise UserError(f"folder {path!r} {lacks}; {WHERE_TO_GET}")
    return found


def _read(path: str, table: str, columns: tuple[str, ...]) -> pd.DataFrame:
    return pd.concat(list(_chunks(_require(path, table), columns)), ignore_index=True)


def _chunks(file: str, columns: tuple[str, ...]) -> Iterator[pd.DataFrame]:
    """The wanted columns of a table, upper-case, a part at a time."""
    try:
        names = list(pd.read_csv(file, nrows=0).columns)
        present = {name.upper(): name for name in names}
        for column in columns:
            if column not in present:
                raise UserError(
                    f"{file}: has no column {column!r}, so it is not the table of MIMIC-III; {WHERE_TO_GET}"
                )
        own = {present[column]: column for column in columns}
        types = {present[column]: str if column in TEXT else np.float64 for column in columns}
        with pd.read_csv(file, usecols=list(own), dtype=types, chunksize=CHUNK_ROWS, low_memory=False) as reader:
            for chunk in reader:
                yield chunk.rename(columns=own)
    except UserError:
        raise
    except (ValueError, OSError, EOFError) as error:  # parser, encoding and decompression errors
        raise UserError(f"{file}: not readable as CSV ({' '.join(str(error).split())}); {WHERE_TO_GET}") from error
