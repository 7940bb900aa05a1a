"""Frames of any types: coded into numbers and texts, and back to what they were."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fedjax_health.data import frame_types
from fedjax_health.data.frame_types import coded_frame, read_origins, restored_frame, write_origins
from fedjax_health.data.frames import frame_from_table, table_from_frame
from fedjax_health.data.infer import infer_schema
from fedjax_health.types import UserError

LABEL = ["no", "no", "yes", "no", "yes", "no"]
NONE = [None, True, False, True, None, False]
DAYS = pd.Timestamp("2024-02-28") + pd.to_timedelta([0, 1, 2, 5, 9, 12], unit="D")


def there_and_back(**columns) -> tuple[pd.DataFrame, pd.DataFrame]:
    frame = pd.DataFrame({**columns, "y": LABEL})
    coded, origins = coded_frame(frame, "y")
    schema = infer_schema(coded, "y")
    table, _ = table_from_frame(coded, schema, None, "the frame")
    return frame, restored_frame(frame_from_table(table, schema), origins)


@pytest.mark.parametrize(
    "cells",
    [
        [1.5, 2.25, np.nan, 4.0, 5.125, 6.0],
        np.arange(6, dtype=np.int32),
        pd.array([1, 2, None, 4, 5, 6], dtype="Int64"),
        [0.1, 0.1, 0.7, 0.7, 0.7, 0.1],
        [True, False, True, True, False, False],
        pd.array(NONE, dtype="boolean"),
        pd.Series(NONE, dtype=object),
        [1, "two", 1, "two", "two", 1],
        ["a,b", 'q"', None, "日本", "a,b", 'q"'],
        pd.Categorical(list("abcabc")),
        DAYS,
        DAYS.tz_localize("Europe/Zurich").where([True, True, False, True, True, True]),
        pd.to_timedelta([0, 90, 5, 7, 8, 3600], unit="s"),
        [7] * 6,
        [np.nan] * 6,
        ["x"] * 6,
        [3, None, 3, None, 3, 3],
    ],
)
def test_every_type_of_column_comes_back(cells):
    frame, back = there_and_back(column=cells, second=[3.25, 1.5, 2.0, 9.75, 0.0, 1.0])
    pd.testing.assert_frame_equal(back, frame, check_categorical=False)


def test_names_that_are_no_text_and_their_order_come_back():
    frame, back = there_and_back(**{"b": np.arange(6.0), "a": [5] * 6})
    assert list(back.columns) == ["b", "a", "y"]
    numbered = frame.rename(columns={"b": 3, "a": 4})
    coded, origins = coded_frame(numbered, "y")
    assert list(coded.columns) == ["3", "y"]
    assert list(restored_frame(coded, origins).columns) == [3, 4, "y"]


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        ([1.0, np.inf, 3.0, 4.0, -np.inf, 6.0], "'column' holds 2 infinite values"),
        ([f"id{i}" for i in range(6)], None),
    ],
)
def test_what_cannot_be_coded_is_refused(cells, sentence):
    frame = pd.DataFrame({"column": cells, "y": LABEL})
    if sentence:
        with pytest.raises(UserError, match=sentence):
            coded_frame(frame, "y")
    else:
        assert (
            list(coded_frame(frame, "y")[0]["column"]) == cells
        )  # the schema refuses it, where there are more than 50


def test_a_frame_without_rows_or_with_a_name_twice_is_refused():
    with pytest.raises(UserError, match="no rows"):
        coded_frame(pd.DataFrame({"y": []}), "y")
    with pytest.raises(UserError, match="2 columns named 'a'"):
        coded_frame(pd.DataFrame([[1, 2, "no"]], columns=["a", "a", "y"]), "y")


def test_origins_are_written_and_read(tmp_path):
    frame = pd.DataFrame({"day": DAYS, "code": NONE, "one": 1, "y": LABEL})
    coded, origins = coded_frame(frame, "y")
    assert read_origins(str(tmp_path)) == ()
    write_origins(str(tmp_path), origins)
    assert read_origins(str(tmp_path)) == origins
    pd.testing.assert_frame_equal(restored_frame(coded, read_origins(str(tmp_path))), frame)
    (tmp_path / frame_types.FILE).write_text("[{")
    with pytest.raises(UserError, match="damaged"):
        read_origins(str(tmp_path))
