"""Conditions: what each spelling asks for, by the published value, and what is refused in one sentence."""

from __future__ import annotations

import numpy as np
import pytest
import toy

from fedjax_health.data.schema import Column, Schema
from fedjax_health.synthesis.condition import Condition, Range, holds, parse_condition
from fedjax_health.types import UserError

ODD = Schema(
    "odd",
    (
        Column(name="id", role="client"),
        Column(name="code", kind="categorical", categories=("2", "1", "a, b")),
        Column(name="raw", low=-1, high=1),
        Column(name="y", kind="categorical", role="label", categories=("no", "maybe", "yes")),
    ),
)


def test_every_spelling():
    text = "sick=1, ward=c,sex=female,systolic=100..140,diastolic=..80,lactate=2.5.."
    assert parse_condition(text, toy.SCHEMA) == Condition(
        text,
        1,
        (
            Range(0, 2.0, 2.0, None),
            Range(4, 0.0, 0.0, None),
            Range(1, 100.0, 140.0, 0),
            Range(2, 30.0, 80.0, 0),
            Range(3, 2.5, 20.0, 1),
        ),
    )
    assert parse_condition(" ", toy.SCHEMA) == Condition("", None, ())
    assert parse_condition("systolic=72", toy.SCHEMA).ranges == (Range(1, 72.0, 72.0, 0),)
    assert parse_condition("raw=-1e-1..+0.5", ODD).ranges == (Range(1, -0.1, 0.5, None),)


def test_a_category_by_name_or_by_place_but_never_by_place_where_names_are_numbers():
    assert parse_condition("ward=b", toy.SCHEMA).ranges == parse_condition("ward=1", toy.SCHEMA).ranges
    assert parse_condition("y=2", ODD).label == parse_condition("y=yes", ODD).label == 2
    assert parse_condition("code=2", ODD).ranges[0].low == 0.0
    assert parse_condition("code=a, b,y=no", ODD) == Condition("code=a, b,y=no", 0, (Range(0, 2.0, 2.0, None),))
    with pytest.raises(UserError, match="no such category"):
        parse_condition("code=0", ODD)


def test_values_are_compared_as_they_are_published():
    values = np.array([[0, 120, 80, 2.1, 0], [0, 120, 80, 2.2, 0], [0, 120, 80, np.nan, 0]], np.float32)
    assert float(values[0, 3]) < 2.1 and float(values[1, 3]) > 2.2  # neither is the number that is written out
    for text, kept in (
        ("lactate=2.1..2.2", [True, True, False]),
        ("lactate=..2.1", [True, False, False]),
        ("lactate=2.2", [False, True, False]),
        ("lactate=0..20,systolic=121..", [False] * 3),
        ("sick=0", [True] * 3),
    ):
        np.testing.assert_array_equal(holds(parse_condition(text, toy.SCHEMA), values), kept)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("systolik=100..140", "unknown column 'systolik'; did you mean 'systolic'?"),
        ("zzz=1", "unknown column 'zzz'; known: ward, systolic"),
        ("Ward=a", "did you mean 'ward'?"),
        ("sex=femal", "no such category of 'sex'; did you mean 'female'?"),
        ("ward=3", "no such category of 'ward'; known: a, b, c"),
        ("sick=yes", "no such category of 'sick'; known: 0, 1"),
        ("systolic", "'systolic' is no column=value"),
        ("systolic=high", "is no range of a numeric column; write it as systolic=60..260"),
        ("systolic=..", "is no range"),
        ("systolic=100-140", "is no range"),
        ("systolic=140..100", "wrong way round; write systolic=100..140"),
        ("systolic=261..300", "outside the public range 60..260"),
        ("ward=a,ward=b", "names column 'ward' twice"),
    ],
)
def test_a_bad_condition_is_one_sentence(text, said):
    with pytest.raises(UserError, match=r".") as error:
        parse_condition(text, toy.SCHEMA)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_client_is_no_column_to_ask_for():
    with pytest.raises(UserError, match="unknown column 'id'"):
        parse_condition("id=3", ODD)
