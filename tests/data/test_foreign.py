"""Frames from anywhere under one schema: misfits are counted where they stand, and nothing else is touched."""

import numpy as np
import pandas as pd
import pytest
from strangers import HOLDOUT, REAL, SYNTHETIC

from fedjax_health.data.foreign import OTHER, code_frame, make_tables
from fedjax_health.data.foreign_schema import GAP, as_text, infer_foreign, measured, with_roles
from fedjax_health.data.frames import frame_from_table
from fedjax_health.data.schema import Column, Schema
from fedjax_health.types import UserError

SCHEMA = Schema(
    "ward",
    (
        Column(name="person", role="client"),
        Column(name="systolic", low=50, high=250),
        Column(name="diastolic", low=20, high=150, at_most="systolic", nullable=True),
        Column(name="sex", kind="binary", categories=("f", "m")),
        Column(name="ill", kind="binary", role="label"),
    ),
)


def frame(**changes) -> pd.DataFrame:
    cells = {
        "person": ["b", "a", "b", "a"],
        "systolic": [120.0, 130.0, 140.0, 150.0],
        "diastolic": [80.0, np.nan, 70.0, 90.0],
        "sex": ["f", "m", "f", "m"],
        "ill": [0, 1, 1, 0],
    }
    return pd.DataFrame({**cells, **changes})


def test_rows_that_fit_are_coded_and_stay():
    coded = code_frame(frame(), SCHEMA, "t", lenient=False)
    np.testing.assert_array_equal(coded.table.values, [[120, 80, 0], [140, 70, 0], [130, np.nan, 1], [150, 90, 1]])
    assert coded.table.client.tolist() == [0, 0, 1, 1] and coded.names.tolist() == ["b", "a"]
    assert not coded.outside.any() and not coded.notes


@pytest.mark.parametrize(
    ("changes", "outside", "words"),
    [
        ({"systolic": [120, 900, 140, 150]}, [0, 0, 1, 0], "outside 50 to 250, and cut"),
        ({"systolic": [120, np.inf, 140, 150]}, [0, 0, 1, 0], "infinite"),
        ({"systolic": [120, "high", 140, 150]}, [0, 0, 1, 0], "text, and taken as missing"),
        ({"systolic": [120, np.nan, 140, 150]}, [0, 0, 1, 0], "missing, where"),
        ({"diastolic": [80, np.nan, 145, 90]}, [0, 1, 0, 0], "diastolic is above systolic in 1 of 4 rows"),
        ({"sex": ["f", "x", "f", "m"]}, [0, 0, 1, 0], "(such as 'x')"),
        ({"sex": ["f", None, "f", "m"]}, [0, 0, 1, 0], "missing, where"),
    ],
)
def test_misfits_are_counted_where_they_stand(changes, outside, words):
    coded = code_frame(frame(**changes), SCHEMA, "t.csv", lenient=True)
    assert coded.outside.tolist() == [bool(o) for o in outside]  # by client: b, b, a, a
    assert len(coded.notes) == 1 and words in coded.notes[0] and "t.csv" in coded.notes[0]
    assert (coded.table.values[:, 0][~np.isnan(coded.table.values[:, 0])] <= 250).all()


@pytest.mark.parametrize(
    "labels", [["0", "1", "1", "0"], [0.0, 1.0, 1.0, 0.0], [False, True, True, False], ["0.0", "1", "1.0", " 0"]]
)
def test_a_code_in_any_spelling(labels):
    assert code_frame(frame(ill=labels), SCHEMA, "t", lenient=False).table.label.tolist() == [0, 1, 1, 0]


def test_rows_of_an_unknown_class_are_left_out():
    coded = code_frame(frame(ill=["0", "2", None, "1"]), SCHEMA, "t", lenient=False)
    assert coded.table.label.tolist() == [0, 1] and coded.names.tolist() == ["b", "a"]
    assert "2 of 4 rows have no label" in coded.notes[0] and "'2'" in coded.notes[0]


def test_unknown_and_blank_categories_get_one_of_their_own():
    fake = frame(sex=["x", None, "f", "m"]).drop(columns="person")
    tables = make_tables(("r", frame()), ("h", frame(person=["c", "d", "c", "d"])), {"s": ("s", fake)}, SCHEMA)
    column = tables.schema.inputs[2]
    assert column.kind == "categorical" and column.categories == ("f", "m", OTHER, GAP)
    assert frame_from_table(tables.synthetic["s"], tables.schema)["sex"].tolist() == [OTHER, GAP, "f", "m"]
    assert frame_from_table(tables.real, tables.schema)["sex"].tolist() == ["f", "f", "m", "m"]
    assert tables.schema.inputs[0].nullable is False and tables.schema.inputs[1].nullable is True


def test_inferred_schema_takes_its_own_rows_without_a_note():
    real, holdout = ("r", REAL.assign(ward=REAL.ward.where(REAL.index != 3))), ("h", HOLDOUT)
    schema, notes = infer_foreign(real, holdout, "outcome", "person", "ward")
    assert not notes and schema.client is not None and schema.label.categories[0] == "stable"
    assert GAP in schema.inputs[schema.index("ward")].categories
    tables = make_tables(real, holdout, {"s": ("s", real[1].drop(columns="person"))}, schema)
    assert tables.notes == [] and not tables.outside["s"].any() and tables.schema == schema
    np.testing.assert_array_equal(tables.real.values, tables.synthetic["s"].values)


def test_clients_on_both_sides_leave_the_holdout():
    both = pd.concat([HOLDOUT[:40], REAL[:8]], ignore_index=True)
    schema, _ = infer_foreign(("r", REAL), ("h", both), "outcome", "person", "ward")
    tables = make_tables(("r", REAL), ("h", both), {"s": ("s", SYNTHETIC)}, schema)
    assert len(tables.holdout.label) == 40 and tables.holdout.client.max() == 9
    np.testing.assert_array_equal(np.unique(tables.holdout.client), np.arange(10))


def test_text_of_cells():
    assert as_text(pd.Series([1.0, 2.5, np.nan])).tolist()[:2] == ["1", "2.5"]
    assert as_text(pd.Series([" a ", "", None])).tolist() == ["a", None, None]
    assert as_text(pd.Series([True, False])).tolist() == ["True", "False"]
    assert measured(pd.Series(["1", "2,5", *"3" * 20])) and not measured(pd.Series(["a", "b", "3"]))
    assert not measured(pd.Series([True, False]))


def test_roles_are_given_to_columns():
    schema = with_roles(SCHEMA, "sex", ("systolic",))
    assert schema.client is not None and schema.client.name == "sex"
    assert [c.name for c in schema.groups] == ["systolic"] and len(schema.inputs) == 2
    with pytest.raises(UserError, match="sexe"):
        with_roles(SCHEMA, "", ("sexe",))
