"""Files as strangers write them: separators, encodings, headers."""

import gzip

import pandas as pd
import pytest

from fedjax_health.data import frame_file
from fedjax_health.data.frame_file import read_frame
from fedjax_health.data.schema import Column, Schema
from fedjax_health.types import UserError


def write(path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize(
    ("content", "ward", "pulse"),
    [
        (b'pulse,ward\n60,"a, b"\n', "a, b", 60),
        (b'pulse;ward\n60,5;"a; b"\n', "a; b", 60.5),
        (b"pulse;ward\n60.5;a,b\n", "a,b", 60.5),
        (b"pulse\tward\n60\ta,b;c\n", "a,b;c", 60),
        (b"pulse|ward\r\n60|a\r\n", "a", 60),
        (b'"pulse" , ward\n60, "a"\n', "a", 60),
    ],
)
def test_separators(tmp_path, content, ward, pulse):
    frame, _ = read_frame(write(tmp_path / "t.csv", content))
    frame.columns = [c.strip() for c in frame.columns]
    assert frame.to_dict("records") == [{"pulse": pulse, "ward": ward}]


def test_compressed_and_tab_separated_files(tmp_path):
    assert read_frame(write(tmp_path / "t.csv.gz", gzip.compress(b"a,b\n1,2\n")))[0].shape == (1, 2)
    assert read_frame(write(tmp_path / "t.tsv", b"a\tb\n1\t2\n"))[0].shape == (1, 2)
    with pytest.raises(UserError, match="not readable"):
        read_frame(write(tmp_path / "u.csv.gz", b"a,b\n1,2\n"))


@pytest.mark.parametrize("rows", [1, 5, 40])
def test_the_wrong_byte_is_found_wherever_it_is(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(frame_file, "BLOCK", 7)  # so that blocks cut characters in two
    before = "ward,n\n" + "Nürnberg,1\n" * (rows - 1)
    path = write(tmp_path / "t.csv", before.encode() + "Köln,1\n".encode("cp1252") + b"a,1\n")
    with pytest.raises(UserError) as caught:
        read_frame(path)
    assert f"row {rows} (byte {len(before.encode()) + 1}) holds the byte 0xF6" in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    path = write(tmp_path / "t.csv", b"\xef\xbb\xbfward,n\na,1\n")
    assert list(read_frame(path)[0].columns) == list(read_frame(path, encoding="UTF8")[0].columns) == ["ward", "n"]
    wide = write(tmp_path / "u.csv", "ward,n\nKöln,1\n".encode("utf-16"))
    assert read_frame(wide, encoding="utf-16")[0]["ward"].tolist() == ["Köln"]


def test_what_the_code_book_knows_is_not_missing(tmp_path):
    schema = Schema("t", (
        Column(name="unit", kind="categorical", categories=("NA", "ICU")), Column(name="ill", kind="binary", role="label"),
    ))  # fmt: skip
    path = write(tmp_path / "t.csv", b"unit,ill\nNA,0\nICU,1\n")
    assert read_frame(path, schema)[0]["unit"].tolist() == ["NA", "ICU"]
    assert read_frame(path)[0]["unit"].isna().tolist() == [True, False]


def test_parquet_of_lists_is_refused(tmp_path):
    pd.DataFrame({"a": [[1], [2]], "b": [1, 2]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError, match="'a' holds list"):
        read_frame(str(tmp_path / "t.parquet"))
