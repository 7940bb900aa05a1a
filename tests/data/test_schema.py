"""Schema: good ones survive the round trip through JSON; bad ones are refused in one sentence that names the place."""

from __future__ import annotations

import pytest

from fedjax_health.data.schema import Column, Schema, load_schema, schema_from_dict
from fedjax_health.types import UserError

LABEL = Column(name="sick", kind="binary", role="label")
RATE = Column(name="rate", unit="bpm", low=20, high=250, decimals=0)


def test_json_round_trip_keeps_every_field(tmp_path):
    schema = Schema(
        "toy",
        (
            Column(name="who", role="client"),
            RATE,
            Column(name="low", low=0, high=9, center=0.0, scale=2.0, transform="log1p", nullable=True, at_most="rate"),
            Column(name="sex", kind="binary", role="group", categories=("f", "m")),
            Column(name="ward", kind="categorical", categories=("a", "b", "c")),
            LABEL,
        ),
    )
    path = tmp_path / "schema.json"
    path.write_text(schema.to_json())
    assert load_schema(str(path)) == schema
    assert [c.name for c in schema.inputs] == ["rate", "low", "sex", "ward"]
    assert [c.name for c in schema.groups] == ["sex"]
    assert schema.label == LABEL and schema.num_classes == 2
    assert schema.client is not None and schema.client.name == "who"
    assert schema.index("ward") == 3
    assert LABEL.categories == ("0", "1")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "number"}, "kind 'number'"),
        ({"role": "target"}, "role 'target'"),
        ({"transform": "log", "low": 0, "high": 1}, "transform 'log'"),
        ({}, "public range"),
        ({"low": 2, "high": 2}, "2 to 2"),
        ({"low": -1, "high": 2, "transform": "log1p"}, "low >= 0"),
        ({"low": 0, "high": 2, "scale": 0}, "scale must be positive"),
        ({"low": 0, "high": 2, "role": "label"}, "label must be categorical"),
        ({"kind": "categorical", "categories": ("a",)}, "two or more distinct"),
        ({"kind": "categorical", "categories": ("a", "a")}, "two or more distinct"),
        ({"kind": "binary", "categories": ("a", "b", "c")}, "two categories"),
    ],
)
def test_bad_column_is_refused_by_name(changes, message):
    with pytest.raises(UserError, match=message) as error:
        Column(name="pulse", **changes)
    assert "'pulse'" in str(error.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((RATE, RATE, LABEL), "'rate' appears twice"),
        ((RATE,), "exactly one column with role 'label'"),
        ((RATE, LABEL, Column(name="b", kind="binary", role="label")), "exactly one column with role 'label'"),
        ((RATE, LABEL, Column(name="a", role="client"), Column(name="b", role="client")), "at most one column"),
        ((LABEL,), "no feature columns"),
        ((RATE, LABEL, Column(name="d", low=0, high=1, at_most="d")), "name a numeric column"),
        ((RATE, LABEL, Column(name="d", low=0, high=1, at_most="sick")), "name a numeric column"),
        ((RATE, LABEL, Column(name="d", kind="binary", at_most="rate")), "name a numeric column"),
    ],
)
def test_bad_schema_is_refused(columns, message):
    with pytest.raises(UserError, match=message):
        Schema("toy", columns)


def test_unknown_names_say_the_nearest():
    schema = Schema("toy", (RATE, LABEL))
    with pytest.raises(UserError, match="did you mean 'rate'"):
        schema.index("rat")
    with pytest.raises(UserError, match="known: rate"):
        schema.index("zzz")
    with pytest.raises(UserError, match=r"f\.json: column 0 has the unknown key 'lows'; did you mean 'low'"):
        schema_from_dict({"columns": [{"name": "a", "lows": 0}]}, "f.json")


def test_bad_files_name_the_file(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_schema(str(tmp_path / "none.json"))
    path = tmp_path / "schema.json"
    path.write_text('{"name": "toy",\n "columns": [}')
    with pytest.raises(UserError, match=r"schema\.json' line 2 is not JSON"):
        load_schema(str(path))
    path.write_text("{}")
    with pytest.raises(UserError, match="non-empty list 'columns'"):
        load_schema(str(path))
    path.write_text('{"columns": [{"kind": "binary"}]}')
    with pytest.raises(UserError, match="column 0 has no 'name'"):
        load_schema(str(path))
