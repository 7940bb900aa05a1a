"""The synthesizer: fits a frame three ways, samples, saves and loads, keeps its promise, and says what it cannot do."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from fedjax_health.data.infer import infer_schema
from fedjax_health.data.schema import Column, Schema
from fedjax_health.synthesizer import Synthesizer, preset
from fedjax_health.types import UserError

pytestmark = pytest.mark.quick_compile

SCHEMA = Schema(
    "table",
    (
        Column(name="patient", role="client"),
        Column(name="pulse", low=30, high=220, center=80, scale=15, decimals=0),
        Column(name="spo2", low=50, high=100, center=97, scale=3, decimals=0, nullable=True),
        Column(name="ward", kind="categorical", categories=("icu", "general", "home")),
        Column(name="sick", kind="binary", role="label", categories=("no", "yes")),
    ),
)


def frame(rows: int = 1500, patients: int = 300, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    patient = np.sort(rng.integers(0, patients, rows))
    sick = rng.random(rows) < 0.3
    pulse = np.round(rng.normal(78, 10, rows) + 25 * sick)
    spo2 = np.minimum(np.round(rng.normal(98, 2, rows) - 4 * sick), 100.0)
    return pd.DataFrame(
        {
            "patient": [f"p{i}" for i in patient], "pulse": pulse, "spo2": np.where(rng.random(rows) < 0.2, np.nan, spo2),
            "ward": np.where(sick, "icu", rng.choice(["general", "home"], rows)), "sick": np.where(sick, "yes", "no"),
        }
    )  # fmt: skip


def small(epsilon: float, federated: bool, rounds: int = 250):
    patients = pd.factorize(frame()["patient"])[0] if federated else np.arange(1500)
    chosen = preset(np.bincount(patients), epsilon, federated)
    train = dataclasses.replace(chosen.train, rounds=rounds, rounds_per_chunk=min(rounds, 250))
    return dataclasses.replace(chosen, hidden=(16,), train=train)


def without(schema: Schema) -> Schema:
    return dataclasses.replace(schema, columns=schema.columns[1:])


@pytest.fixture(scope="module")
def private() -> Synthesizer:
    return Synthesizer(schema=SCHEMA, epsilon=8.0, preset=small(8.0, True)).fit(frame())


@pytest.mark.parametrize("kind", ["central", "federated"])
def test_rows_resemble_the_frame_without_a_guarantee(kind):
    federated = kind == "federated"
    schema = SCHEMA if federated else without(SCHEMA)
    made = Synthesizer(schema=schema, preset=small(math.inf, federated, 500)).fit(frame())
    rows, real = made.sample(4000), frame()
    assert list(rows.columns) == ["pulse", "spo2", "ward", "sick"]
    assert made.ledger["epsilon_total"] is None
    assert np.mean(rows["sick"] == "yes") == pytest.approx(np.mean(real["sick"] == "yes"), abs=0.03)
    assert rows["spo2"].isna().mean() == pytest.approx(0.2, abs=0.1)
    for sick in ("yes", "no"):
        mine, theirs = rows[rows["sick"] == sick], real[real["sick"] == sick]
        assert mine["pulse"].mean() == pytest.approx(theirs["pulse"].mean(), abs=8.0)
    icu = [np.mean(rows["ward"][rows["sick"] == sick] == "icu") for sick in ("yes", "no")]
    assert icu[0] > icu[1] + 0.3  # a few hundred steps of a small network; all of them and none in truth


def test_a_guarantee_is_in_the_ledger_with_all_that_was_asked(private):
    ledger = private.ledger
    assert ledger["unit"] == "client" and 7.5 < ledger["epsilon_total"] <= 8.0
    names = [event["name"] for event in ledger["events"]]
    assert names == ["class shares table", "distribution functions table", "correlation table", "train table/vae"]
    noise = [event["noise_multiplier"] for event in ledger["events"]]
    assert noise[1] == noise[2] > 0 and noise[0] == 20.0
    rows = private.sample(3000)
    assert rows["pulse"].between(40, 160).mean() > 0.95


def test_the_same_seed_gives_the_same_rows_and_a_condition_is_met(private):
    pd.testing.assert_frame_equal(private.sample(50, seed=3), private.sample(50, seed=3))
    assert not private.sample(50, seed=3).equals(private.sample(50, seed=4))
    rows = private.sample(200, where="sick=yes,pulse=90..")
    assert set(rows["sick"]) == {"yes"} and rows["pulse"].min() >= 90


def test_saved_and_loaded_gives_the_same_rows(private, tmp_path):
    private.save(str(tmp_path / "kept"))
    again = Synthesizer.load(str(tmp_path / "kept"))
    pd.testing.assert_frame_equal(again.sample(100, seed=1), private.sample(100, seed=1))
    assert again.schema == without(SCHEMA)
    assert b"p17" not in b"".join(p.read_bytes() for p in (tmp_path / "kept").iterdir())
    with pytest.raises(UserError, match="nothing is fitted"):
        again.save(str(tmp_path / "other"))


def test_every_row_is_hidden_where_there_is_no_client():
    made = Synthesizer(schema=without(SCHEMA), epsilon=3.0, preset=small(3.0, False, 50)).fit(frame())
    assert made.ledger["epsilon_total"] <= 3.0
    assert made.ledger["delta"] == pytest.approx(1500**-1.1)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"label": "sick", "epsilon": 8.0}, "epsilon=8 needs a schema"),
        ({}, "neither a schema nor a label"),
        ({"label": "sick", "epsilon": 0.0}, "epsilon=0 needs a schema"),
        ({"schema": SCHEMA, "epsilon": -1.0}, "epsilon=-1 must be positive"),
    ],
)
def test_settings_that_cannot_be(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        Synthesizer(**settings)


def test_nothing_is_drawn_before_anything_is_fitted():
    with pytest.raises(UserError, match="call fit"):
        Synthesizer(schema=SCHEMA).sample(10)


def test_a_schema_is_read_off():
    found = infer_schema(frame(), "sick", "patient")
    pulse, spo2, ward, sick = found.columns[1:]
    assert found.client is not None and found.client.name == "patient"
    assert (pulse.kind, pulse.decimals, pulse.nullable) == ("numeric", 0, False)
    assert spo2.nullable and spo2.high == 100.0
    assert ward.categories == ("general", "home", "icu") and sick.categories == ("no", "yes")  # the usual one first
    heavy = infer_schema(pd.DataFrame({"bytes": np.exp(np.arange(200) / 20), "sick": [0, 1] * 100}), "sick")
    assert heavy.columns[0].transform == "log1p"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: f.rename(columns={"sick": "ill"}), "no column 'sick'"),
        (lambda f: f.assign(empty=np.nan), "'empty' has no value"),
        (lambda f: f.assign(note=[f"text {i}" for i in range(len(f))]), "1,500 different texts"),
        (lambda f: f.assign(ward=f["ward"].where(f["pulse"] > 60)), "'ward' has gaps"),
        (lambda f: f.assign(one="x"), "holds x only"),
    ],
)
def test_frames_that_say_too_little(change, sentence):
    with pytest.raises(UserError, match=sentence):
        infer_schema(change(frame()), "sick", "patient")


def test_a_frame_without_a_schema_comes_back_in_its_own_types(tmp_path):
    given = frame().drop(columns="patient").assign(
        day=pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(1500) % 90, unit="D"), unit="bpm",
        dose=np.where(np.arange(1500) % 3, 0.0, np.random.default_rng(1).lognormal(size=1500)), sick=frame()["sick"] == "yes",
    )  # fmt: skip
    given.loc[::5, "ward"] = None
    chosen = dataclasses.replace(small(math.inf, False, 1000), decoder="independent")
    made = Synthesizer(label="sick", preset=chosen).fit(given)
    rows = made.sample(500)
    assert list(rows.columns) == list(given.columns) and (rows.dtypes == given.dtypes).all()
    assert set(rows["ward"].dropna()) <= {"icu", "general", "home"} and 0.05 < rows["ward"].isna().mean() < 0.4
    assert rows["day"].between(given["day"].min(), given["day"].max()).all() and (rows["unit"] == "bpm").all()
    assert 0.5 < np.mean(rows["dose"] == 0.0) < 0.8
    made.save(str(tmp_path / "saved"))
    pd.testing.assert_frame_equal(Synthesizer.load(str(tmp_path / "saved")).sample(500), rows)
    texts = made.fit(given[["ward", "sick"]].fillna("none")).sample(
        2000
    )  # another frame, another schema; and no number in it
    icu = [np.mean(texts["ward"][texts["sick"] == sick] == "icu") for sick in (True, False)]
    assert list(texts.columns) == ["ward", "sick"] and icu[0] > icu[1] + 0.2
