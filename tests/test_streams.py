"""A run on streams from the config to its files, private too; and what it refuses."""

from __future__ import annotations

import importlib
import json
import os

import pandas as pd
import pytest

from fedjax_health import config as configuration
from fedjax_health import streams
from fedjax_health.evaluation.rows import read_rows
from fedjax_health.types import UserError

pytestmark = pytest.mark.quick_compile


def smoke(**privacy) -> configuration.Config:
    raw = importlib.import_module("configs.streams").get_config("smoke")
    raw.seeds = 2
    raw.vae.train.rounds, raw.classifier.train.rounds = 5, 5
    raw.models = ("vae",)
    raw.evaluation.augmentation, raw.evaluation.real_fractions = "chosen", (1.0, 0.5)
    raw.privacy.update(privacy)
    return configuration.from_config_dict(raw)


def test_a_run_is_of_streams_or_of_tables():
    raw = importlib.import_module("configs.streams").get_config()
    assert streams.has_streams(configuration.from_config_dict(raw))
    raw.data.domains = ("vitals",)
    assert not streams.has_streams(configuration.from_config_dict(raw))
    raw.data.domains = ("vitals", "vital_stream")
    with pytest.raises(UserError, match="mixes streams"):
        streams.has_streams(configuration.from_config_dict(raw))


def test_a_model_without_a_temporal_form_is_refused(tmp_path):
    raw = importlib.import_module("configs.streams").get_config("smoke")
    raw.models = ("gan",)
    with pytest.raises(UserError, match="unknown model of streams 'gan'; did you mean 'wgan_gp'"):
        streams.run(configuration.from_config_dict(raw), str(tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", [pytest.param("none", marks=pytest.mark.long), "central_gaussian"])
def test_a_run_makes_its_files(tmp_path, mechanism):
    run = tmp_path / "run"
    assert streams.run(smoke(mechanism=mechanism), str(run)) == str(run / "tables" / "streams.csv")
    rows = read_rows(str(run / "tables" / "streams.csv"))
    assert {r.row for r in rows} >= {"synthetic", "real-vs-real", "gaussian-copula", "shuffled-time", "heart_rate"}
    assert {r.model for r in rows} == {"-", "vae"} and {r.n for r in rows} == {2}
    useful = read_rows(str(run / "tables" / "utility.csv"))
    more = {"real@50%", "real@50%+synthetic", "real+chosen"}
    assert {r.row for r in useful} == {"real", "synthetic", "real+synthetic", "gaussian-copula"} | more
    told = read_rows(str(run / "tables" / "disclosure.csv"))
    assert {r.model for r in told} == {"vae", "real"} and {"linkability", "inference:condition"} <= {
        r.row for r in told
    }
    windows = pd.read_parquet(run / "synthetic" / "vital_stream_vae.parquet")
    assert windows.groupby("window").size().eq(24).all() and windows["condition"].nunique() == 2
    assert windows["spo2"].between(70, 100).all()
    assert set(os.listdir(run / "figures")) == {"vital_stream_acf.png", "vital_stream_windows.png"}
    ledger = json.loads((run / "privacy_ledger.json").read_text())
    privacy = {r.metric: r.value for r in read_rows(str(run / "tables" / "privacy.csv")) if r.row == "run"}
    if mechanism == "none":
        assert ledger["epsilon_total"] is None and not privacy
    else:  # the same plan and ledger as a run on tables
        assert 0 < ledger["epsilon_total"] <= 8.0
        assert privacy["epsilon_total"] == pytest.approx(ledger["epsilon_total"], rel=1e-4)
        assert len(ledger["events"]) == 2 and ledger["unit"] == "client"
    assert json.loads((run / "manifest.json").read_text())["status"] == "done"
