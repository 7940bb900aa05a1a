"""Encoder: known codes, the way back, and hard constraints that hold whatever a model samples."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_health.data.encode import Layout, make_encoder, public_scaling
from fedjax_health.data.schema import Column, Schema

SCHEMA = Schema(
    "toy",
    (
        Column(name="ward", kind="categorical", categories=("a", "b", "c")),
        Column(name="systolic", low=60, high=260, center=120, scale=20, decimals=0),
        Column(name="sex", kind="binary", role="group"),
        Column(name="diastolic", low=30, high=160, decimals=0, at_most="systolic"),
        Column(name="lactate", low=0, high=20, transform="log1p", decimals=1, nullable=True),
        Column(name="sick", kind="binary", role="label"),
    ),
)
ENCODER = make_encoder(SCHEMA)
# D axis: systolic, diastolic, lactate | sex, lactate missing | ward a, b, c


def _records(n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    systolic = rng.integers(60, 261, n)
    diastolic = np.minimum(rng.integers(30, 161, n), systolic)
    lactate = np.where(rng.random(n) < 0.3, np.nan, rng.integers(0, 201, n) / 10)
    return np.stack([rng.integers(0, 3, n), systolic, rng.integers(0, 2, n), diastolic, lactate], 1).astype(np.float32)


def test_layout_and_known_code():
    assert ENCODER.layout == Layout(numeric=3, bits=2, blocks=(3,), missing=(-1, -1, 4))
    assert ENCODER.layout.dim == 8
    x = ENCODER.encode(jnp.array([[2, 140, 1, 95, np.nan], [0, 120, 0, 30, 1.0]], jnp.float32))
    low, high = np.log1p(0.0), np.log1p(20.0)
    lactate = (np.log1p(1.0) - (low + high) / 2) / ((high - low) / 4)
    np.testing.assert_allclose(
        x, [[1, 0, 0, 1, 1, 0, 0, 1], [0, -2, lactate, 0, 0, 1, 0, 0]], atol=1e-5
    )  # diastolic: middle of the range 95, scale a quarter of it 32.5


def test_public_scaling_is_as_stated_or_from_the_range():
    assert public_scaling(SCHEMA.inputs[1]) == (120.0, 20.0)
    assert public_scaling(SCHEMA.inputs[3]) == (95.0, 32.5)


def test_round_trip_including_missing():
    values = _records(500)
    assert np.isnan(values).any()
    back = np.asarray(jax.jit(lambda v: ENCODER.decode(ENCODER.encode(v)))(values))
    np.testing.assert_allclose(back, values, atol=1e-4)
    assert np.isfinite(np.asarray(ENCODER.encode(jnp.asarray(values)))).all()


def test_values_outside_the_range_come_back_at_its_edge():
    values = jnp.array([[0, 1e4, 0, -5.0, 1e6], [0, -1e4, 0, 30, -3.0]], jnp.float32)
    back = np.asarray(ENCODER.decode(ENCODER.encode(values)))
    np.testing.assert_allclose(back[:, [1, 3, 4]], [[260, 30, 20], [60, 30, 0]], rtol=1e-5)


def test_anything_decodes_to_a_possible_record():
    x = 30.0 * np.random.default_rng(1).standard_normal((4000, 8)).astype(np.float32)
    v = np.asarray(jax.jit(ENCODER.decode)(x), np.float64)
    assert np.isin(v[:, 0], (0, 1, 2)).all() and np.isin(v[:, 2], (0, 1)).all()
    assert ((v[:, 1] >= 60) & (v[:, 1] <= 260)).all() and ((v[:, 3] >= 30) & (v[:, 3] <= v[:, 1])).all()
    np.testing.assert_allclose(v[:, [1, 3]], np.round(v[:, [1, 3]]))
    present = v[~np.isnan(v[:, 4]), 4]
    assert 0 < len(present) < 4000
    assert ((present >= 0) & (present <= 20)).all()
    np.testing.assert_allclose(present, np.round(present, 1), atol=1e-5)
    np.testing.assert_array_equal(np.isnan(v[:, 4]), x[:, 4] > 0.5)


def test_at_most_binds_only_where_it_must():
    x = np.zeros((2, 8), np.float32)
    x[0, :2] = -2.0, 1.0  # systolic 80, diastolic 127.5 before the constraint
    x[1, :2] = 2.0, 1.0  # systolic 160
    np.testing.assert_array_equal(ENCODER.decode(jnp.asarray(x))[:, 3], [80.0, 128.0])


def test_leading_axes_change_nothing():
    values = jnp.asarray(_records(6))
    flat = ENCODER.encode(values)
    np.testing.assert_array_equal(ENCODER.encode(values.reshape(2, 3, 5)).reshape(6, 8), flat)
    np.testing.assert_allclose(jnp.stack([ENCODER.encode(v) for v in values]), flat, rtol=1e-6)
    np.testing.assert_array_equal(ENCODER.decode(flat.reshape(3, 2, 8)).reshape(6, 5), ENCODER.decode(flat))


def test_columns_of_one_kind_only():
    numeric = Schema("n", (Column(name="a", low=-1, high=1), Column(name="y", kind="binary", role="label")))
    codes = Schema(
        "c",
        (
            Column(name="a", kind="categorical", categories=("p", "q", "r")),
            Column(name="b", kind="binary"),
            Column(name="y", kind="binary", role="label"),
        ),
    )
    for schema, values in ((numeric, [[0.25], [-1.0]]), (codes, [[2.0, 1.0], [0.0, 0.0]])):
        encoder = make_encoder(schema)
        values = jnp.array(values, jnp.float32)
        np.testing.assert_allclose(encoder.decode(encoder.encode(values)), values, atol=1e-6)


def test_nullable_code_is_refused():
    label = Column(name="y", kind="binary", role="label")
    with pytest.raises(ValueError, match="only numeric columns may be nullable"):
        make_encoder(Schema("n", (Column(name="a", kind="binary", nullable=True), label)))


def test_rounding_does_not_leave_a_range_that_ends_between_steps():
    column = Column(name="a", low=0.4, high=9.6, decimals=0)
    encoder = make_encoder(Schema("n", (column, Column(name="y", kind="binary", role="label"))))
    back = encoder.decode(jnp.array([[-50.0], [50.0]], jnp.float32))
    np.testing.assert_allclose(back, [[0.4], [9.6]], rtol=1e-6)  # not 0 and 10
