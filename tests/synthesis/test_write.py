"""Pieces of a table in one file: the cells of the whole, types that no piece decides, nothing left of a failure."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pyarrow.parquet as pa_parquet
import pytest

from fedjax_health.data.frames import frame_from_table, write_frame
from fedjax_health.data.schema import Column, Schema
from fedjax_health.synthesis.write import write_tables
from fedjax_health.types import Table, UserError

SCHEMA = Schema(
    "mixed",
    (
        Column(name="patient", role="client"),
        Column(name="y", kind="binary", role="label", categories=("no, never", 'say "yes"')),
        Column(name="pulse", low=30, high=220, decimals=0),
        Column(name="steps", low=0, high=1e6, decimals=0, nullable=True),
        Column(name="lactate", low=0, high=20, decimals=1, nullable=True),
        Column(name="raw", low=-1, high=1),
        Column(name="ward", kind="categorical", categories=("a", "b", "c")),
    ),
)


def table(rows: int = 500, seed: int = 0) -> Table:
    generator = np.random.default_rng(seed)
    values = np.stack(
        [
            generator.integers(30, 220, rows),
            generator.integers(0, 10**6, rows),
            np.round(generator.uniform(0, 20, rows), 1),
            generator.uniform(-1, 1, rows) * 10.0 ** generator.integers(-7, 0, rows),
            generator.integers(0, 3, rows),
        ],
        1,
    ).astype(np.float32)
    values[rows // 2 :, 1:3] = np.nan  # the first half of the pieces misses nothing
    return Table(values, generator.integers(0, 2, rows).astype(np.int32), np.arange(rows, dtype=np.int32))


def pieces(whole: Table, size: int):
    for start in range(0, len(whole.label), size):
        yield Table(*(column[start : start + size] for column in whole))


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_the_cells_of_the_whole_table(ending, tmp_path):
    path, other = str(tmp_path / "out" / f"rows.{ending}"), str(tmp_path / f"whole.{ending}")
    write_tables(pieces(table(), 60), SCHEMA, path)
    write_frame(frame_from_table(table(), SCHEMA), other)
    read = pd.read_parquet if ending == "parquet" else pd.read_csv
    pd.testing.assert_frame_equal(read(path), read(other), check_exact=True)
    assert os.listdir(tmp_path / "out") == [f"rows.{ending}"]
    if ending == "parquet":
        assert pa_parquet.ParquetFile(path).num_row_groups == 9
        assert "patient" not in pa_parquet.read_schema(path).names


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_how_a_table_is_cut_changes_no_cell(ending, tmp_path):
    read = pd.read_parquet if ending == "parquet" else pd.read_csv
    for name, size in (("one", 500), ("many", 7)):
        write_tables(pieces(table(), size), SCHEMA, str(tmp_path / f"{name}.{ending}"))
    pd.testing.assert_frame_equal(*(read(tmp_path / f"{name}.{ending}") for name in ("one", "many")))
    if ending == "csv":
        assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "many.csv").read_bytes()


@pytest.mark.parametrize("ending", ["parquet", "csv"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, MemoryError])
def test_nothing_is_left_of_a_failure_and_the_old_file_stays(ending, error, tmp_path):
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(b"old")

    def failing():
        yield table()
        raise error

    with pytest.raises(error):
        write_tables(failing(), SCHEMA, str(path))
    assert os.listdir(tmp_path) == [path.name] and path.read_bytes() == b"old"


def test_targets_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.csv").mkdir()

    def drawn():
        raise AssertionError("no row is drawn for a file that cannot be")
        yield

    for name, said in (("rows.txt", "ending '.txt' is neither"), ("folder.csv", "it is a folder")):
        with pytest.raises(UserError, match=said):
            write_tables(drawn(), SCHEMA, str(tmp_path / name))
    with pytest.raises(UserError, match=r"cannot write .*file/rows\.csv"):
        write_tables(drawn(), SCHEMA, str(tmp_path / "file" / "rows.csv"))
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.csv"]
