"""Whole runs whose noise nobody can make again: each differs, an interrupted one goes on, and no secret is left behind."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import stat

import jax
import numpy as np
import pytest

from configs import table as table_config
from fedjax_health import config as configuration
from fedjax_health import experiment, secret, workdir
from fedjax_health import randomness as chance
from fedjax_health.train import stage
from fedjax_health.train.metrics import Writer
from fedjax_health.types import UserError

pytestmark = pytest.mark.quick_compile

SCHEMA = {
    "name": "ward",
    "columns": [
        {"name": "patient", "role": "client"},
        {"name": "pulse", "unit": "bpm", "low": 30, "high": 220},
        {"name": "outcome", "kind": "binary", "role": "label", "categories": ["stable", "worse"]},
    ],
}
LINES = [f"P{i // 6},{60 + i % 50},{('stable', 'worse')[i % 3 // 2]}" for i in range(360)]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Runs without their evaluation, which draws nothing from the secret."""
    monkeypatch.setattr(experiment, "evaluate", lambda *_: None)
    monkeypatch.setattr(experiment, "render_report", lambda path: os.path.join(path, "report.html"))
    monkeypatch.setattr(experiment, "show", lambda *_: None)
    monkeypatch.setattr(stage, "SAVE_SECONDS", 0.0)


def config(folder: pathlib.Path, randomness="system", **changes) -> configuration.Config:
    (folder / "ward.csv").write_text("\n".join(["patient,pulse,outcome", *LINES]) + "\n")
    (folder / "ward.json").write_text(json.dumps(SCHEMA))
    raw = table_config.get_config()
    raw.models, raw.seeds = ("vae",), 2
    raw.data.path, raw.data.schema = str(folder / "ward.csv"), str(folder / "ward.json")
    raw.privacy.randomness = randomness
    for section in (raw.vae, raw.gan):
        section.hidden = (4,)
        section.train.rounds, section.train.rounds_per_chunk = 6, 2
        section.train.cohort, section.train.batch_size = 8, 4
    raw.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return configuration.from_config_dict(raw)


def system_gives(monkeypatch, words: bytes) -> None:
    real = os.urandom
    monkeypatch.setattr(os, "urandom", lambda n: words if n == len(words) else real(n))


def published(run: pathlib.Path) -> dict[str, bytes]:
    tables = {p.name: p.read_bytes() for p in (run / "synthetic").iterdir() if p.suffix == ".csv"}
    return {**tables, "metrics": (run / "metrics.jsonl").read_bytes()}


class Killed(BaseException):
    """Stands for a kill."""


def interrupted(config, run: pathlib.Path, chunks: int) -> None:
    """A run that ends within its trainings after so many chunks, between the metrics and the checkpoint."""
    seen = []

    class Cut(Writer):
        def write_rounds(self, *args, **kwargs):
            super().write_rounds(*args, **kwargs)
            seen.append(0)
            if len(seen) > chunks:
                raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "Writer", Cut)
        with pytest.raises(Killed):
            experiment.run(config, str(run))


def holding(run: pathlib.Path, needle: bytes) -> list[pathlib.Path]:
    return [p for p in run.rglob("*") if p.is_file() and needle in p.read_bytes()]


@pytest.mark.slow
def test_two_runs_of_one_config_differ_and_no_secret_is_left(tmp_path, monkeypatch):
    words = hashlib.sha256(b"a secret").digest()
    seen, train = [], experiment.train

    def looking(settings, plan, release, p, done, path, writer, randomness):
        file = pathlib.Path(path, secret.FILE_NAME)
        seen.append(stat.S_IMODE(file.stat().st_mode))
        assert file in holding(file.parent, words.hex().encode())  # the search finds what is there
        return train(settings, plan, release, p, done, path, writer, randomness)

    def released(*args):
        assert not (tmp_path / "one" / secret.FILE_NAME).exists()  # before anything is published
        return synthesise(*args)

    synthesise = experiment.synthesise
    with monkeypatch.context() as patch:
        system_gives(patch, words)
        patch.setattr(experiment, "train", looking)
        patch.setattr(experiment, "synthesise", released)
        experiment.run(config(tmp_path), str(tmp_path / "one"))
    assert seen == [0o600]
    experiment.run(config(tmp_path), str(tmp_path / "two"))
    one, two = published(tmp_path / "one"), published(tmp_path / "two")
    assert set(one) == set(two) == {"table_vae.csv", "metrics"}
    assert all(one[name] != two[name] for name in one)
    shares = [json.loads((tmp_path / run / chance.SHARES).read_text())["table"] for run in ("one", "two")]
    assert np.all(np.asarray(shares[0]) != np.asarray(shares[1]))

    made = chance.Randomness(np.frombuffer(words, "<u4"))
    keys = np.asarray(jax.random.key_data(chance.training_keys(made, 0, "table/vae", 2)))
    for needle in (words, words[:16], words.hex().encode(), *(key.tobytes() for key in keys)):
        assert holding(tmp_path / "one", needle) == []
    ledger = json.loads((tmp_path / "one" / "privacy_ledger.json").read_text())
    assert ledger["randomness"] == "system" and 0 < ledger["epsilon_total"] <= 8.0
    assert any("256 bits of the operating system" in s for s in ledger["not_covered"])
    assert not any("31 bits" in s for s in ledger["not_covered"])

    before = {p: p.read_bytes() for p in (tmp_path / "one" / "synthetic").iterdir()}
    experiment.run(config(tmp_path), str(tmp_path / "one"))  # started again it publishes the same
    assert {p: p.read_bytes() for p in (tmp_path / "one" / "synthetic").iterdir()} == before
    assert published(tmp_path / "one") == one and not (tmp_path / "one" / secret.FILE_NAME).exists()


@pytest.mark.slow
@pytest.mark.long
def test_interrupted_equals_uninterrupted_with_the_same_secret(tmp_path, monkeypatch):
    """Interrupted in its second training, when the first one has ended and keeps no key."""
    both, words = {"models": ("vae", "gan")}, hashlib.sha256(b"another").digest()
    with monkeypatch.context() as patch:
        system_gives(patch, words)
        experiment.run(config(tmp_path, **both), str(tmp_path / "whole"))
        interrupted(config(tmp_path, **both), tmp_path / "parts", 4)
    assert (tmp_path / "parts" / secret.FILE_NAME).exists()
    experiment.run(config(tmp_path, **both), str(tmp_path / "parts"))
    assert published(tmp_path / "parts") == published(tmp_path / "whole")
    for run in ("parts", "whole"):
        assert holding(tmp_path / run, words) == holding(tmp_path / run, words.hex().encode()) == []


def test_a_lost_secret_and_another_choice_are_refused(tmp_path):
    interrupted(config(tmp_path), tmp_path / "run", 1)
    with pytest.raises(UserError, match=r"privacy.randomness: was 'system', now 'seed'"):
        experiment.run(config(tmp_path, "seed"), str(tmp_path / "run"))
    (tmp_path / "run" / secret.FILE_NAME).unlink()
    with pytest.raises(UserError, match=rf"{secret.FILE_NAME}.* is gone.*second release.*new workdir"):
        experiment.run(config(tmp_path), str(tmp_path / "run"))
    assert not (tmp_path / "run" / secret.FILE_NAME).exists()
    workdir.open_workdir(str(tmp_path / "by_seed"), config(tmp_path, "seed"))
    with pytest.raises(UserError, match=r"privacy.randomness: was 'seed', now 'system'"):
        experiment.run(config(tmp_path), str(tmp_path / "by_seed"))
