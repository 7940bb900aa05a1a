"""The adapters of public data sets: on invented rows in the original formats, and on the data sets themselves."""

import gzip
import os

import numpy as np
import pytest
from sources import clients, column, real

from fedjax_health.data import mimic3
from fedjax_health.data.frames import frame_from_table
from fedjax_health.data.mimic3 import load_mimic3
from fedjax_health.data.physionet2019 import load_physionet2019
from fedjax_health.types import UserError

PSV = "HR|O2Sat|Temp|SBP|MAP|DBP|Resp|FiO2|Glucose|Age|Gender|ICULOS|SepsisLabel\n"
PATIENTS = {
    "p100001": "NaN|NaN|37|NaN|NaN|NaN|NaN|-50|99|49|0|1|0\n80|97.5|NaN|120|80|60|18|1|NaN|49|0|2|0\n",
    "p100002": "NaN|NaN|NaN|NaN|NaN|NaN|NaN|1|NaN|65|1|1|0\n",
    "p100003": "310|99|38.5|90|60|40|30|1|150|80.5|1|1|0\n100|NaN|NaN|NaN|NaN|NaN|NaN|1|NaN|80.5|1|2|1",
}


def psv_folder(tmp_path, patients=PATIENTS) -> str:
    (tmp_path / "training_setX").mkdir(exist_ok=True)
    for name, rows in patients.items():
        (tmp_path / "training_setX" / f"{name}.psv").write_text(PSV + rows)
    return str(tmp_path)


def test_physionet_reads_the_original_layout(tmp_path):
    source = load_physionet2019(psv_folder(tmp_path))
    frame = frame_from_table(source.table, source.schema)
    assert source.table.client.tolist() == [0, 1, 1]
    assert frame["heart_rate"].tolist() == [80, 300, 100]
    assert frame["age_band"].tolist() == ["under 50", "80+", "80+"]
    assert frame["sex"].tolist() == ["female", "male", "male"]
    assert frame["sepsis"].tolist() == ["no_sepsis", "no_sepsis", "sepsis"]
    assert np.isnan(column(source, "temperature")).tolist() == [True, False, True]
    assert source.notes == (
        "Dropped 2 of 5 hours without heart rate, SpO2, blood pressure and respiratory rate: "
        "they hold no routine measurement.",
        "Dropped 1 of 3 patients, of whom no hour was left.",
        "heart_rate: 1 of 3 values outside 20–300 bpm were clipped.",
    )
    assert not {"ICULOS", "FiO2", "Age"} & set(frame.columns)


def test_physionet_takes_one_file_too_and_the_first_patients(tmp_path):
    folder = psv_folder(tmp_path)
    lines = [f"{name}|{row}" for name, rows in PATIENTS.items() for row in rows.splitlines()]
    path = tmp_path / "training_setX.psv.gz"
    path.write_bytes(gzip.compress(("patient|" + PSV + "\n".join(lines) + "\n").encode()))
    for a, b in zip(load_physionet2019(folder).table, load_physionet2019(str(path)).table, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(UserError, match="label"):  # the first patient alone never has sepsis
        load_physionet2019(folder, max_patients=1)
    assert clients(load_physionet2019(str(path), max_patients=3)) == 2


def test_physionet_explains_what_is_wrong(tmp_path):
    with pytest.raises(UserError, match="does not exist; download"):
        load_physionet2019(str(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"holds no pNNNNNN\.psv files; download"):
        load_physionet2019(str(tmp_path))
    with pytest.raises(UserError, match="max_patients is 0"):
        load_physionet2019(str(tmp_path), max_patients=0)
    good, hour = PATIENTS["p100003"], "80|97|NaN|120|80|60|18|1|NaN|49|"
    for rows, message in (
        (f"{hour}0|1|0\nfast{hour[2:]}0|2|0\n", "HR of patient 'p100009' is 'fast' in row 2"),
        (f"{hour}2|1|0\n", "Gender of patient 'p100009' is '2.0' in row 1"),
        (f"{hour}1|1|NaN\n", "SepsisLabel of patient 'p100009' is 'nan'"),
        (f"{hour}1|1|1|7|7\n", r"p100009\.psv: row 1 has 15 cells, the header 13; download"),
    ):
        with pytest.raises(UserError, match=message):
            load_physionet2019(psv_folder(tmp_path, {"p100003": good, "p100009": rows}))
    (tmp_path / "training_setX" / "p100009.psv").write_text("HR|Age\n1|2\n")
    with pytest.raises(UserError, match=r"p100009\.psv: its header line differs"):
        load_physionet2019(str(tmp_path))
    (tmp_path / "other.psv").write_text("patient|HR\n1|2\n")
    with pytest.raises(UserError, match="has no column 'O2Sat'"):
        load_physionet2019(str(tmp_path / "other.psv"))


@pytest.mark.parametrize(("end", "count"), [("1|1", 15), ("", 13)])
def test_physionet_one_file_with_a_row_of_the_wrong_length(tmp_path, end, count):
    rows = [f"{name}|{row}" for name, rows in PATIENTS.items() for row in rows.splitlines()]
    rows[3] = rows[3].rpartition("|")[0] + (f"|{end}" if end else "")
    for name, pack in (("training_setX.psv", bytes), ("training_setX.psv.gz", gzip.compress)):
        (tmp_path / name).write_bytes(pack(("patient|" + PSV + "\n".join(rows) + "\n").encode()))
        with pytest.raises(UserError, match=rf"{name}: row 4 has {count} cells, the header 14"):
            load_physionet2019(str(tmp_path / name))


@pytest.mark.realdata
def test_physionet_real_figures():
    source = load_physionet2019(real("physionet2019"))
    assert clients(source) == 7271
    assert len(source.table.label) == 244061 and "Dropped 31,986 of 276,047 hours" in source.notes[0]
    # The first 9,271 patients: HR 84.15 ± 17.86, SpO2 97.11 ± 3.01, glucose 138.96 ± 51.14, 1.386 % positive.
    assert np.nanmean(column(source, "heart_rate")) == pytest.approx(84.15, abs=0.3)
    assert np.nanstd(column(source, "heart_rate")) == pytest.approx(17.86, abs=0.3)
    assert np.nanmean(column(source, "spo2")) == pytest.approx(97.11, abs=0.1)
    assert np.nanmean(column(source, "glucose")) == pytest.approx(138.96, abs=1.0)
    assert source.table.label.mean() == pytest.approx(0.01386, abs=0.001)


def mimic_folder(tmp_path, zipped=(), lower=False, **changes) -> str:
    tables = {
        "PATIENTS": "SUBJECT_ID,GENDER,DOB\n2,F,1850-06-01 00:00:00\n1,M,2100-06-02 00:00:00\n3,F,2149-01-01 00:00:00\n"
        "4,F,2100-01-01 00:00:00\n",
        "ADMISSIONS": "HADM_ID,HOSPITAL_EXPIRE_FLAG\n20,1\n10,0\n30,0\n40,0\n",
        "ICUSTAYS": "SUBJECT_ID,HADM_ID,ICUSTAY_ID,INTIME,OUTTIME\n"
        "2,20,200,2150-01-01 10:30:00,2150-01-02 10:00:00\n1,10,100,2150-06-01 00:00:00,2150-06-01 06:00:00\n"
        "3,30,300,2150-01-01 00:00:00,2150-01-02 00:00:00\n4,40,400,2150-01-01 00:00:00,2150-01-02 00:00:00\n",
        "DIAGNOSES_ICD": "HADM_ID,ICD9_CODE\n10,25000\n10,0389\n20,4280\n20,99591\n20,V250\n",
        "CHARTEVENTS": "SUBJECT_ID,ICUSTAY_ID,ITEMID,CHARTTIME,VALUE,VALUENUM,ERROR\n"
        "1,100,211,2150-06-01 00:10:00,80,80,\n"
        "1,100,220045,2150-06-01 00:50:00,90,90,0\n"
        "1,100,211,2150-06-01 00:55:00,200,200,1\n"  # marked as an error
        "1,100,646,2150-06-01 00:20:00,0,0,0\n"  # impossible
        "1,100,646,2150-06-01 01:00:00,98,98,0\n"
        "1,100,678,2150-06-01 01:10:00,98.6,98.6,0\n"
        "1,100,676,2150-06-01 02:10:00,37,37,0\n"  # an hour with neither heart rate nor SpO2
        "1,100,211,2150-06-01 07:10:00,70,70,0\n"  # after the stay
        "1,,211,2150-06-01 01:10:00,70,70,0\n"
        "1,100,999,2150-06-01 01:10:00,70,70,0\n"
        "2,200,220045,2150-01-01 11:25:00,100,100,0\n"
        "2,200,220277,2150-01-01 11:35:00,95,95,0\n"
        "3,300,220045,2150-01-01 11:25:00,140,140,0\n",
        "LABEVENTS": "HADM_ID,ITEMID,CHARTTIME,VALUENUM\n"
        "10,50931,2150-06-01 00:30:00,150\n,50931,2150-06-01 00:30:00,9\n10,50809,2149-06-01 00:30:00,10\n",
    }
    for name, content in {**tables, **changes}.items():
        if lower:
            header, _, rows = content.partition("\n")
            name, content = name.lower(), header.lower() + "\n" + rows
        data = content.encode()
        path = tmp_path / (f"{name}.csv.gz" if name in zipped else f"{name}.csv")
        path.write_bytes(gzip.compress(data) if name in zipped else data)
    return str(tmp_path)


def test_mimic_hourly_means(tmp_path):
    source = load_mimic3(mimic_folder(tmp_path, zipped=("CHARTEVENTS",)))
    # Patient 1: hours 0 and 1; patient 2: hours 0 and 1 after 10:30. Patient 3 is a baby, patient 4 has no readings.
    assert source.table.client.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(column(source, "heart_rate"), [85, np.nan, 100, np.nan])
    np.testing.assert_array_equal(column(source, "spo2"), [np.nan, 98, np.nan, 95])
    np.testing.assert_allclose(column(source, "temperature"), [np.nan, 37, np.nan, np.nan], rtol=1e-6)
    np.testing.assert_array_equal(column(source, "glucose"), [150, np.nan, np.nan, np.nan])
    frame = frame_from_table(source.table, source.schema)
    assert frame["age_band"].tolist() == ["under 50"] * 2 + ["80+"] * 2  # the day before the 50th birthday; 300 years
    assert frame["sex"].tolist() == ["male"] * 2 + ["female"] * 2
    assert frame["mortality"].tolist() == ["no_mortality"] * 2 + ["mortality"] * 2
    assert source.notes == (
        "Left out 1 of 4 ICU stays of patients under 16.",
        "Treated 1 of 9 readings as missing: they were 0 or beyond what a patient can have.",
        "Dropped 1 of 5 stay-hours with neither heart rate nor SpO2.",
        "Dropped 1 of 3 patients, of whom no hour was left.",
    )


def test_mimic_does_not_depend_on_parts_or_letter_case(tmp_path, monkeypatch):
    whole = load_mimic3(mimic_folder(tmp_path)).table
    monkeypatch.setattr(mimic3, "CHUNK_ROWS", 2)
    (tmp_path / "low").mkdir()
    for a, b in zip(whole, load_mimic3(mimic_folder(tmp_path / "low", lower=True)).table, strict=True):
        np.testing.assert_array_equal(a, b)


def test_mimic_diagnoses(tmp_path):
    folder = mimic_folder(tmp_path)
    assert load_mimic3(folder, "diabetes").table.label.tolist() == [1, 1, 0, 0]
    assert load_mimic3(folder, "heart_failure").table.label.tolist() == [0, 0, 1, 1]
    with pytest.raises(UserError, match="all 4 rows have the label 'sepsis' = 'sepsis'"):
        load_mimic3(folder, "sepsis")
    with pytest.raises(UserError, match="label 'flu' of MIMIC-III is unknown"):
        load_mimic3(folder, "flu")


def test_mimic_explains_missing_and_broken_tables(tmp_path):
    folder = mimic_folder(tmp_path)
    os.remove(tmp_path / "LABEVENTS.csv")
    assert "LABEVENTS is not in the folder: glucose comes from bedside readings only." in load_mimic3(folder).notes
    os.remove(tmp_path / "DIAGNOSES_ICD.csv")
    load_mimic3(folder)
    with pytest.raises(UserError, match=r"does not hold DIAGNOSES_ICD\.csv or DIAGNOSES_ICD\.csv\.gz; download"):
        load_mimic3(folder, "diabetes")
    with pytest.raises(UserError, match="does not exist; download"):
        load_mimic3(str(tmp_path / "gone"))
    for table, content, message in (
        ("ADMISSIONS", "HADM_ID\n1\n", r"ADMISSIONS\.csv: has no column 'HOSPITAL_EXPIRE_FLAG'"),
        ("PATIENTS", "SUBJECT_ID,GENDER,DOB\n1,X,2100-06-02\n", "GENDER 'X' for SUBJECT_ID 1"),
        ("PATIENTS", "SUBJECT_ID,GENDER,DOB\n1,M,soon\n", "DOB holds a time"),
        ("ADMISSIONS", "HADM_ID,HOSPITAL_EXPIRE_FLAG\nten,1\n", r"ADMISSIONS\.csv: not readable.*'ten'"),
    ):
        with pytest.raises(UserError, match=message):
            load_mimic3(mimic_folder(tmp_path, **{table: content}))


@pytest.mark.realdata
def test_mimic_real_figures():
    source = load_mimic3(real("mimic3_demo"))
    assert clients(source) == 98
    # Of single readings: HR 87.85 ± 19.00, SpO2 97.07, glucose 141.86; hourly means lie near.
    assert np.nanmean(column(source, "heart_rate")) == pytest.approx(87.85, abs=1.0)
    assert np.nanstd(column(source, "heart_rate")) == pytest.approx(19.0, abs=1.5)
    assert np.nanmean(column(source, "spo2")) == pytest.approx(97.07, abs=0.3)
    assert np.nanmean(column(source, "glucose")) == pytest.approx(141.86, abs=2.0)
    assert np.nanmean(column(source, "temperature")) == pytest.approx(37.0, abs=0.3)
    full = np.isfinite(np.stack([column(source, name) for name in ("heart_rate", "spo2", "glucose")])).all(0)
    assert 96 <= len(set(source.table.client[full].tolist())) <= 98 and 2900 <= full.sum() <= 3400
    assert 0.3 < source.table.label.mean() < 0.5
    sepsis = load_mimic3(real("mimic3_demo"), "sepsis")
    np.testing.assert_array_equal(sepsis.table.values, source.table.values)
    assert 0.25 < sepsis.table.label.mean() < 0.45
