"""Sampling: the rows asked for, labels at the given shares, inside the hard constraints, a function of the key."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_health.data.schema import Column, Schema
from fedjax_health.models.base import GenerativeModel, ModelParams, no_refine
from fedjax_health.synthesis.sample import CHUNK, Published, decoder_of, make_sampler

SCHEMA = Schema(
    "toy",
    (
        Column(name="rate", low=0, high=200, center=100, scale=10, decimals=0),
        Column(name="half", low=0, high=200, center=100, scale=10, decimals=0, at_most="rate"),
        Column(name="sick", kind="categorical", role="label", categories=("a", "b", "c")),
    ),
)
TRACES = []


def _sample(released, label, key):
    """Numeric code = released + 2 label + wide noise."""
    TRACES.append(1)
    return released + 2.0 * label.astype(jnp.float32)[:, None] + 4.0 * jax.random.normal(key, (label.shape[0], 2))


def _unused(*_):
    raise AssertionError("sampling needs the released part only")


MODEL = GenerativeModel(lambda _: ModelParams((), ()), _unused, no_refine, _unused, _sample, _unused)
SAMPLE = make_sampler(MODEL, decoder_of(SCHEMA, "public"))
RELEASED = Published(jnp.float32(0.5))
SHARES = np.array([0.5, 0.3, 0.2], np.float32)


@pytest.mark.parametrize("rows", [1, 7, CHUNK, CHUNK + 1])
def test_as_many_rows_as_asked_for(rows):
    table = SAMPLE(RELEASED, SHARES, jax.random.key(0), rows)
    assert table.values.shape == (rows, 2) and table.values.dtype == np.float32
    assert table.label.shape == (rows,) and table.label.dtype == np.int32
    np.testing.assert_array_equal(table.client, np.arange(rows))


def test_labels_have_the_shares_and_condition_the_row():
    table = SAMPLE(RELEASED, SHARES, jax.random.key(1), 3 * CHUNK)
    share = np.bincount(table.label, minlength=3) / len(table.label)
    np.testing.assert_allclose(share, SHARES, atol=0.023)  # 5 standard deviations
    means = [table.values[table.label == c, 0].mean() for c in range(3)]
    np.testing.assert_allclose(means, [105, 125, 145], atol=6)
    certain = SAMPLE(RELEASED, np.array([0, 1, 0], np.float32), jax.random.key(1), 500)
    assert (certain.label == 1).all()


def test_hard_constraints_hold():
    values = SAMPLE(RELEASED, SHARES, jax.random.key(2), 4000).values
    assert values.min() >= 0 and values.max() <= 200
    np.testing.assert_array_equal(values, np.round(values))
    assert (values[:, 1] <= values[:, 0]).all() and (values[:, 1] < values[:, 0]).any()


def test_a_function_of_key_and_release_with_no_row_repeated():
    few, many = (SAMPLE(RELEASED, SHARES, jax.random.key(3), n) for n in (100, 2 * CHUNK))
    np.testing.assert_array_equal(few.values, many.values[:100])
    assert (many.values[:CHUNK] != many.values[CHUNK:]).any()  # chunks do not share a key
    assert (few.values != SAMPLE(RELEASED, SHARES, jax.random.key(4), 100).values).any()
    assert (few.values != SAMPLE(Published(jnp.float32(3.0)), SHARES, jax.random.key(3), 100).values).any()


def test_compiled_once_for_every_release_share_and_size():
    sample = make_sampler(MODEL, decoder_of(SCHEMA, "public"))
    TRACES.clear()
    for rows, shares in ((5, SHARES), (CHUNK + 5, SHARES[::-1].copy()), (2, SHARES)):
        sample(Published(jnp.float32(rows)), shares, jax.random.key(rows), rows)
    assert len(TRACES) == 1
