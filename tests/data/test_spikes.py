"""Spikes between values of no resolution: an amount's many zeros, a reading's few levels; exact, and in their own shares."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.stats

from fedjax_health.data.cells import edges_of, spike_edges, variables
from fedjax_health.data.frames import frame_from_table, table_from_frame
from fedjax_health.data.infer import infer_schema
from fedjax_health.data.representation import encode_table, make_decode
from fedjax_health.data.schema import Column, Schema, schema_from_dict
from fedjax_health.privacy.fit import fit_representation
from fedjax_health.types import Table, UserError

pytestmark = pytest.mark.quick_compile

LEVELS = np.log([16.0, 26.0, 51.0, 96.0])
N = 3000


def frame() -> pd.DataFrame:
    r = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "amount": np.where(r.random(N) < 0.6, 0.0, r.lognormal(6, 2, N)),
            "level": r.choice(LEVELS, N, p=[0.1, 0.2, 0.3, 0.4]),
            "offset": np.where(r.random(N) < 0.3, 1e4 + 1 / 3, 1e4 + r.normal(0, 5, N)),
            "smooth": r.normal(size=N),
            "y": np.where(r.random(N) < 0.4, "yes", "no"),
        }
    )


def without(schema: Schema) -> Schema:
    return dataclasses.replace(schema, columns=tuple(dataclasses.replace(c, spikes=()) for c in schema.columns))


def shares(schema: Schema) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows of a generator that has learnt nothing, and the normal scores of the records."""
    table, _ = table_from_frame(frame(), schema, None, "the frame")
    fitted = fit_representation(
        table.values,
        table.label,
        np.ones(N),
        np.arange(N, dtype=np.int32),
        schema,
        "scores",
        0.0,
        lambda query: np.random.default_rng(0),
        np.random.default_rng(1),
    )
    x = encode_table(table.values, table.label, schema, "scores", fitted, np.random.default_rng(2))
    decode = jax.jit(make_decode(schema))
    back = np.asarray(decode(jnp.asarray(x), jnp.asarray(table.label), fitted))
    normal = np.random.default_rng(3).standard_normal(x.shape).astype(np.float32)
    drawn = np.asarray(decode(jnp.asarray(normal), jnp.asarray(table.label), fitted))
    if schema.inputs[0].spikes:
        for j, column in enumerate(schema.inputs):
            here = np.isin(table.values[:, j], np.asarray(column.spikes, np.float32))
            np.testing.assert_array_equal(back[here, j], table.values[here, j])
    return frame_from_table(Table(drawn, table.label, np.arange(N, dtype=np.int32)), schema), x


def test_spikes_are_found_come_back_exactly_and_keep_their_shares():
    schema, real = infer_schema(frame(), "y"), frame()
    amount, level, offset, smooth = schema.inputs
    assert amount.spikes == (0.0,) and amount.transform == "log1p" and offset.spikes == (1e4 + 1 / 3,)
    assert level.spikes == tuple(LEVELS) and smooth.spikes == ()
    rows, x = shares(schema)
    assert np.isin(rows["level"], LEVELS).all()
    for name, value in [("amount", 0.0), ("offset", 1e4 + 1 / 3), *[("level", v) for v in LEVELS]]:
        assert np.mean(rows[name] == value) == pytest.approx(np.mean(real[name] == value), abs=0.035)
    for column in x.T:
        assert scipy.stats.kstest(column, "norm").pvalue > 0.01
    assert scipy.stats.ks_2samp(rows["amount"], real["amount"]).statistic < 0.04


def test_without_spikes_a_generator_never_says_zero():
    rows, _ = shares(without(infer_schema(frame(), "y")))
    assert not (rows["amount"] == 0.0).any() and not np.isin(rows["level"], LEVELS).all()


def test_cells_of_spikes_do_not_overlap_nor_do_others_reach_into_them():
    near = Column(name="x", low=0.0, high=1e9, transform="log1p", spikes=(0.0, 1e-6, 2e-6, 5.0, 1e9))
    schema = Schema("s", (near, Column(name="y", kind="binary", role="label")))
    (variable,) = variables(schema)
    narrow, edges = spike_edges(variable), edges_of(variable, 64)
    assert (narrow[:, 0] < narrow[:, 1]).all() and (narrow[1:, 0] >= narrow[:-1, 1]).all()
    assert (np.diff(edges) > 0).all() and np.isin(narrow, edges).all()
    for low, high in narrow:
        assert not ((low < edges) & (edges < high)).any()
    assert schema_from_dict({"name": "s", "columns": [dataclasses.asdict(c) for c in schema.columns]}, "f") == schema


@pytest.mark.parametrize(
    ("more", "sentence"),
    [({"spikes": (2.0,)}, "outside"), ({"spikes": (0.5,), "at_most": "z"}, "spikes cannot stand beside at_most")],
)
def test_spikes_that_cannot_be_kept_are_refused(more, sentence):
    with pytest.raises(UserError, match=sentence):
        Column(name="x", low=0.0, high=1.0, **more)
