"""Frames to tables and back, the messages for broken cells, and files that are written whole."""

import json
import os

import numpy as np
import pandas as pd
import pytest

from fedjax_health.data.frames import frame_from_table, numbers, table_from_frame, write_frame
from fedjax_health.data.schema import Column, Schema
from fedjax_health.data.table import load_table
from fedjax_health.types import Table, UserError

SCHEMA = Schema(
    "ward",
    (
        Column(name="ward", role="client"),
        Column(name="heart_rate", unit="bpm", low=20, high=300, decimals=0),
        Column(name="lactate", unit="mmol/L", low=0, high=30, decimals=1, nullable=True),
        Column(name="sex", kind="categorical", role="group", categories=("female", "male", "None")),
        Column(name="ill", kind="binary", role="label"),
    ),
)
OPEN = Schema("open", SCHEMA.columns[1:])


def frame(**changes) -> pd.DataFrame:
    cells = {
        "ward": ["b", "a", "b", "a"],
        "heart_rate": [60.0, 70.0, 80.0, 90.0],
        "lactate": [1.0, np.nan, 2.0, 3.0],
        "sex": ["female", "male", " male ", "None"],
        "ill": [0, 1, 1, 0],
    }
    return pd.DataFrame({**cells, **changes})


def load(data: pd.DataFrame, schema: Schema = SCHEMA, client: pd.Series | None = None):
    return table_from_frame(data, schema, client, "ward.csv")


def test_table_is_coded_and_client_major():
    table, notes = load(frame())
    np.testing.assert_array_equal(table.client, [0, 0, 1, 1])  # "b" comes first in the file
    np.testing.assert_array_equal(table.values, [[60, 1, 0], [80, 2, 1], [70, np.nan, 1], [90, 3, 2]])
    np.testing.assert_array_equal(table.label, [0, 1, 1, 0])
    assert [a.dtype for a in table] == [np.float32, np.int32, np.int32]
    assert notes == ()


def test_without_client_column_every_row_is_a_client():
    np.testing.assert_array_equal(load(frame(), OPEN)[0].client, [0, 1, 2, 3])
    np.testing.assert_array_equal(load(frame(), OPEN, pd.Series([7, 7, 5, 7]))[0].client, [0, 0, 0, 1])


def test_clipping_is_counted_and_inside_is_left_alone():
    table, notes = load(frame(heart_rate=[10.0, 20.0, 300.0, 301.0], lactate=[np.nan, np.inf, 1.0, np.nan]))
    np.testing.assert_array_equal(np.sort(table.values[:, 0]), [20, 20, 300, 300])
    assert notes == (
        "heart_rate: 2 of 4 values outside 20–300 bpm were clipped.",
        "lactate: 1 infinite values were treated as missing.",
    )


def test_categories_match_in_any_spelling_of_a_number_or_truth_value():
    for cells in ([0, 1, 1, 0], [0.0, 1.0, 1.0, 0.0], ["0", "1.0", "1", "0"], [False, True, True, False]):
        np.testing.assert_array_equal(load(frame(ill=cells))[0].label, [0, 1, 1, 0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heart_rate": ["60", "70", "fast", "x"]}, r"column 'heart_rate' holds the text 'fast' in row 3"),
        ({"heart_rate": [60.0, np.nan, 1.0, np.nan]}, r"'heart_rate' has no value in row 2 \(2 of 4 rows\).*nullable"),
        ({"sex": ["female", "male", "other", "male"]}, r"'sex' holds 'other' in row 3.*\(female, male, None\)"),
        ({"sex": ["female", "male", None, "male"]}, r"'sex' has no value in row 3"),
        ({"ill": [0, 1, 2, 1]}, r"'ill' holds '2' in row 3"),
        ({"ill": [0, 1, None, 1]}, r"'ill' has no value in row 3.*drop such rows$"),
        ({"ill": [1, 1, 1, 1]}, r"all 4 rows have the label 'ill' = '1'"),
        ({"ward": ["a", None, "b", "b"]}, r"client id is missing in row 2.*'ward'"),
        ({"ward": ["a", "b", " ", "b"]}, r"client id is missing in row 3"),
    ],
)
def test_broken_cells_are_named(changes, message):
    with pytest.raises(UserError, match=r"^ward\.csv: .*" + message):
        load(frame(**changes))


def test_missing_column_names_the_nearest():
    with pytest.raises(UserError, match=r"'heart_rate' is missing in the file \(the nearest is 'Heart_Rat'\)"):
        load(frame().rename(columns={"heart_rate": "Heart_Rat"}))


def test_no_rows():
    with pytest.raises(UserError, match="no rows are left"):
        load(frame()[:0])


def test_rows_are_those_of_the_file_after_a_filter():
    with pytest.raises(UserError, match="in row 3"):
        load(frame(sex=["female", "male", "other", "male"])[1:])


def test_numbers_reads_text():
    got = numbers(pd.Series([" 1.5", "", "nan", None, "-2e1"], name="x"), "f")
    np.testing.assert_array_equal(got, [1.5, np.nan, np.nan, np.nan, -20.0])


def test_frame_and_table_are_inverse():
    table, _ = load(frame())
    back = frame_from_table(table, SCHEMA)
    assert list(back.columns) == ["heart_rate", "lactate", "sex", "ill"]
    assert back["heart_rate"].dtype == np.int64 and back["lactate"].dtype == np.float64
    assert back["sex"].tolist() == ["female", "male", "male", "None"]
    assert back["ill"].tolist() == ["0", "1", "1", "0"]
    again, _ = table_from_frame(back, OPEN, pd.Series(table.client), "back")
    for a, b in zip(table, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_frame_rounds_to_the_published_resolution():
    values = np.array([[59.6, -0.04, 0], [np.nan, 1.26, np.nan]], np.float32)
    back = frame_from_table(Table(values, np.array([0, 1], np.int32), np.arange(2, dtype=np.int32)), OPEN)
    assert back["heart_rate"].tolist()[0] == 60.0 and np.isnan(back["heart_rate"][1])
    assert str(back["lactate"][0]) == "0.0" and back["lactate"][1] == 1.3
    assert back["sex"][0] == "female" and pd.isna(back["sex"][1])


@pytest.mark.parametrize("code", [-1.0, 3.0])
def test_frame_refuses_a_code_outside_the_code_book(code):
    table = load(frame())[0]
    table.values[1, 2] = code
    with pytest.raises(ValueError, match="'sex'"):
        frame_from_table(table, SCHEMA)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_files_are_the_same_bytes_and_leave_nothing_behind(tmp_path, ending):
    data = frame_from_table(load(frame())[0], SCHEMA)
    first, second = tmp_path / "new" / f"1.{ending}", tmp_path / "new" / f"2.{ending}"
    write_frame(data, str(first))
    write_frame(data, str(second))
    write_frame(data, str(second))
    assert first.read_bytes() == second.read_bytes()
    assert sorted(os.listdir(tmp_path / "new")) == [first.name, second.name]
    read = pd.read_csv(first, keep_default_na=False) if ending == "csv" else pd.read_parquet(first)
    assert read["heart_rate"].tolist() == [60, 80, 70, 90]


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "x.parquet"
    write_frame(pd.DataFrame({"a": [1]}), str(path))
    old = path.read_bytes()
    with pytest.raises(Exception, match="object"):
        write_frame(pd.DataFrame({"a": [object()]}), str(path))
    assert path.read_bytes() == old and os.listdir(tmp_path) == ["x.parquet"]
    with pytest.raises(UserError, match=r"'\.xlsx' is neither"):
        write_frame(pd.DataFrame({"a": [1]}), "x.xlsx")


def saved(tmp_path, name: str, data: pd.DataFrame, schema: Schema = SCHEMA) -> tuple[str, str]:
    (tmp_path / "schema.json").write_text(schema.to_json())
    path = str(tmp_path / name)
    data.to_parquet(path) if name.endswith("parquet") else data.to_csv(path, index=False, na_rep="NA")
    return path, str(tmp_path / "schema.json")


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet"])
def test_load_table_reads_every_format(tmp_path, name):
    source = load_table(*saved(tmp_path, name, frame().assign(spare="x")), "diagnosis")
    for a, b in zip(source.table, load(frame())[0], strict=True):
        np.testing.assert_array_equal(a, b)  # "None" is a category here and not a missing value
    assert (source.schema, source.task, source.notes) == (SCHEMA, "diagnosis", ())


def test_load_table_keeps_ids_as_text_and_notes_rows_without_a_client(tmp_path):
    path, schema = saved(tmp_path, "t.csv", frame(ward=["007", "7", "07", "7"]))
    assert load_table(path, schema, "detection").table.client.max() == 2
    source = load_table(*saved(tmp_path, "t.csv", frame(), OPEN), "detection")
    assert source.table.client.tolist() == [0, 1, 2, 3]
    assert source.notes == ("The schema names no client column: each of the 4 rows is a client of its own.",)


def test_load_table_repairs_a_joined_log_and_says_so(tmp_path):
    path, schema = saved(tmp_path, "t.csv", frame())
    plain = load_table(path, schema, "detection")
    header, *rows = (tmp_path / "t.csv").read_text().splitlines()
    joined = [header, *rows[:2], "pump7,,,,", header, *rows[2:], header, "a,,,,"]
    (tmp_path / "t.csv").write_text("\n".join(joined) + "\n")
    source = load_table(path, schema, "detection")
    for mine, its in zip(source.table, plain.table, strict=True):
        np.testing.assert_array_equal(mine, its)
    assert source.notes == (
        "2 header lines among the records of t.csv were dropped (row 4, 7).",
        "2 rows of t.csv without any value were dropped (row 3, 8).",
        "1 devices of t.csv had no other rows and are left out (pump7).",
    )
    (tmp_path / "t.csv").write_text("\n".join([*joined, "b,fast,1,male,1"]) + "\n")
    with pytest.raises(UserError, match="numeric column 'heart_rate' holds the text 'fast' in row 9"):
        load_table(path, schema, "detection")


def test_load_table_explains_bad_files(tmp_path):
    path, schema = saved(tmp_path, "t.csv", frame())
    with pytest.raises(UserError, match="task 'treat' is unknown"):
        load_table(path, schema, "treat")
    with pytest.raises(UserError, match=r"gone\.csv' does not exist"):
        load_table(str(tmp_path / "gone.csv"), schema, "diagnosis")
    with pytest.raises(UserError, match="is a folder"):
        load_table(str(tmp_path), schema, "diagnosis")
    with pytest.raises(UserError, match="unknown ending"):
        load_table(schema, schema, "diagnosis")
    header = "ward,heart_rate,lactate,sex,ill\n"
    for name, content, message in (
        ("empty.csv", b"", "not readable as CSV"),
        ("comma.csv", (header + "a,97,5,1,male,1\n").encode(), "not readable as CSV"),
        ("head.csv", header.encode(), "no rows are left"),
        ("latin.csv", header.encode() + b"\xe4,60,1,male,1\n", "not readable as CSV"),
        ("not.csv.gz", header.encode(), "not readable as CSV"),
        ("cut.csv", (header + "a,60\n").encode(), "'sex' has no value in row 1"),
        ("other.csv", b"a;b\n1;2\n", r"'ward' is missing in the file \(it has a;b\)"),
        ("twice.csv", b"ward,heart_rate,lactate,sex,ill,lactate\n", "'lactate' stands 2 times in the header"),
        ("not.parquet", header.encode(), "not readable as Parquet"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            load_table(str(tmp_path / name), schema, "diagnosis")
    broken = frame(ill=["0", "1", "yes", "1"])
    with pytest.raises(UserError, match=json.dumps("ill").replace('"', "'") + " holds 'yes' in row 3"):
        load_table(*saved(tmp_path, "t.csv", broken), "diagnosis")
