"""Whatever a user gets wrong is one sentence that names it, and exit code 2; never a traceback."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

from configs import physionet2019
from configs import table as table_config
from fedjax_health import build, experiment
from fedjax_health import config as configuration
from fedjax_health.types import UserError

ROOT = pathlib.Path(__file__).parents[2]
SCHEMA = {
    "name": "ward",
    "columns": [
        {"name": "patient", "role": "client"},
        {"name": "pulse", "unit": "bpm", "low": 30, "high": 220},
        {"name": "oxygen", "kind": "binary", "categories": ["no", "yes"]},
        {"name": "outcome", "kind": "binary", "role": "label", "categories": ["stable", "worse"]},
    ],
}
HEADER = "patient,pulse,oxygen,outcome"
LINES = [f"P{i // 6},{60 + i % 50},{('no', 'yes')[i % 2]},{('stable', 'worse')[i % 3 // 2]}" for i in range(240)]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The real command line."""
    return subprocess.run(
        [sys.executable, "-m", "launch.main", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def files(folder: pathlib.Path, lines: list[str] = LINES, header: str = HEADER) -> dict[str, str]:
    """A table of 40 clients and its schema, as overrides."""
    (folder / "ward.csv").write_text("\n".join([header, *lines]) + "\n")
    (folder / "ward.json").write_text(json.dumps(SCHEMA))
    return {"data.path": str(folder / "ward.csv"), "data.schema": str(folder / "ward.json")}


def config(changes: dict[str, object]) -> configuration.Config:
    """The table scenario in miniature with some keys changed."""
    raw = table_config.get_config()
    raw.models, raw.seeds, raw.privacy.mechanism = ("vae",), 1, "none"
    raw.vae.hidden = (4,)
    for section in (raw.vae, raw.classifier):
        section.train.rounds, section.train.rounds_per_chunk = 4, 2
        section.train.cohort, section.train.batch_size = 8, 4
    raw.update_from_flattened_dict(changes)
    return configuration.from_config_dict(raw)


def refused(changes: dict[str, object], folder: pathlib.Path) -> str:
    """The sentence with which a run of that config ends."""
    with pytest.raises(UserError) as caught:
        experiment.run(config(changes), str(folder))
    sentence = str(caught.value)
    assert "\n" not in sentence and "Traceback" not in sentence and len(sentence) < 500, sentence
    return sentence


def has(sentence: str, *parts: str) -> None:
    """Every part is said."""
    for part in parts:
        assert part in sentence, f"{part!r} is not in: {sentence}"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--config=configs/iot.py:smoke", "--config.vae.latnt=3"], ["'vae.latnt'", "'latent'"]),
        (["--config=configs/iot.py:smoke", "--config.vea.latent=3"], ["'vea'", "'vae'"]),
        (["--config=configs/iot.py:smoke", "--config.vae.latent.size=3"], ["'vae.latent.size'", "no keys"]),
        (["--config=configs/iot.py:smoke", "--config.vae.latent=many"], ["'vae.latent'", "int", "'many'"]),
        (["--config=configs/iot.py:smoke", "--config.privacy.epsilon=low"], ["'privacy.epsilon'", "float", "'low'"]),
        (["--config=configs/iot.py:smoke", "--config.vae=3"], ["'vae'", "section", "latent"]),
        (["--config=configs/nope.py"], ["'configs/nope.py'", "configs/iot.py"]),
        (["--config=LICENSE"], ["'LICENSE'", "configs/iot.py"]),
        (["--config=README.md"], ["'README.md'", "line", "configs/iot.py"]),
        (["--config=configs/iot.py:nope"], ["configs/iot.py", "'nope'", "smoke"]),
        (["--config=configs/base.py:smoke"], ["configs/base.py:smoke", "variant"]),
        (["--confg=configs/iot.py"], ["--confg", "--config"]),
        (["--config=configs/iot.py:smoke", "--config.seed=1", "stray"], ["'stray'", "--"]),
    ],
)
def test_bad_option(arguments, parts):
    done = command(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    has(done.stderr, *parts)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--config=configs/iot.py:smoke", "--config.data.num_clients=0"], ["data.num_clients=0"]),
        (["--config=configs/table.py", "--config.data.path=nowhere.csv"], ["schema file ''", "--config.data.schema"]),
        (["--config=configs/mimic3.py", "--config.data.path=nowhere"], ["nowhere", "physionet.org"]),
    ],
)
def test_bad_run(arguments, parts, tmp_path):
    done = command(*arguments, f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    has(done.stderr, *parts)


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("vae.hidden", (32, -1), ["vae.hidden", "-1", "positive"]),
        ("vae.train.batch_size", 0, ["vae.train.batch_size=0", "positive"]),
        ("seeds", -1, ["seeds=-1", "positive"]),
        ("models", ("vea",), ["models", "'vea'", "'vae'"]),
        ("vae.train.rounds", 3, ["vae.train.rounds=3", "rounds_per_chunk=2"]),
        ("data.test_fraction", 1.5, ["data.test_fraction=1.5"]),
    ],
)
def test_bad_value(key, value, parts):
    with pytest.raises(UserError) as caught:
        config({key: value})
    has(str(caught.value), *parts)


def test_budget_that_is_none(tmp_path):
    own = {**files(tmp_path), "privacy.mechanism": "central_gaussian"}
    with pytest.raises(UserError) as caught:
        config({**own, "privacy.epsilon": 0.0})
    has(str(caught.value), "privacy.epsilon=0.0", "positive", "'none'")
    # 40 clients, of which 10 % and 20 % are held out
    has(refused({**own, "privacy.delta": 0.5}, tmp_path / "run"), "privacy.delta=0.5", "1/28")


def test_sizes_that_no_client_has(tmp_path):
    own = files(tmp_path)
    has(refused({**own, "vae.train.batch_size": 7}, tmp_path / "a"), "batch_size=7", "largest holds 6", "lower")
    has(refused({**own, "vae.train.cohort": 29}, tmp_path / "b"), "cohort=29", "28 training clients", "lower")


def test_missing_files(tmp_path):
    own = files(tmp_path)
    has(refused({**own, "data.path": ""}, tmp_path / "a"), "'table'", "--config.data.path")
    has(refused({**own, "data.path": "gone.csv"}, tmp_path / "b"), "'gone.csv'", "does not exist")
    has(refused({**own, "data.path": str(tmp_path)}, tmp_path / "c"), "folder", str(tmp_path))
    has(refused({**own, "data.schema": "gone.json"}, tmp_path / "d"), "'gone.json'", "--config.data.schema")
    raw = physionet2019.get_config()
    for path in ("gone", str(tmp_path)):  # not there, and nothing of the kind in it
        raw.data.path = path
        with pytest.raises(UserError) as caught:
            build.build_domain("physionet2019", configuration.from_config_dict(raw))
        has(str(caught.value), path, "physionet.org")


def test_column_missing_in_the_file(tmp_path):
    own = files(tmp_path, header="patient,Puls,oxygen,outcome")
    has(refused(own, tmp_path / "run"), "ward.csv", "'pulse'", "'Puls'")


def test_text_among_numbers(tmp_path):
    own = files(tmp_path, [*LINES[:5], "P0,fast,no,stable", *LINES[5:]])
    has(refused(own, tmp_path / "run"), "ward.csv", "'pulse'", "'fast'", "row 6")


def test_category_that_is_not_in_the_code_book(tmp_path):
    own = files(tmp_path, [*LINES, "P9,70,maybe,stable"])
    has(refused(own, tmp_path / "run"), "ward.csv", "'oxygen'", "'maybe'", "row 241", "no, yes")


def test_label_of_one_class(tmp_path):
    own = files(tmp_path, [line.replace("worse", "stable") for line in LINES])
    has(refused(own, tmp_path / "run"), "ward.csv", "'outcome'", "'stable'", "two classes")


def test_no_clients_left(tmp_path):
    has(refused(files(tmp_path, []), tmp_path / "run"), "ward.csv", "no rows")
    (tmp_path / "p1.psv").write_text(
        "HR|O2Sat|Temp|SBP|MAP|DBP|Resp|Glucose|Age|Gender|SepsisLabel\n" + "NaN|NaN|NaN|NaN|NaN|NaN|NaN|NaN|60|1|0\n"
    )
    raw = physionet2019.get_config()
    raw.data.path = str(tmp_path)  # the adapter leaves out hours without a measurement
    with pytest.raises(UserError) as caught:
        build.build_domain("physionet2019", configuration.from_config_dict(raw))
    has(str(caught.value), str(tmp_path), "no rows are left")


def test_too_few_clients_to_split(tmp_path):
    own = files(tmp_path, LINES[:12])
    has(refused(own, tmp_path / "run"), "2", "clients")


def test_values_outside_the_public_range_are_no_error(tmp_path):
    own = files(tmp_path, [*LINES, "P9,900,no,stable", "P9,5,no,stable"])
    domain = build.build_domain("table", config(own))
    # stops after loading, when the manifest already says what was changed
    refused({**own, "privacy.mechanism": "central_gaussian", "privacy.delta": 0.5}, tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["status"] == "failed"
    assert manifest["notes"] == {"table": list(domain.notes)} and len(domain.notes) == 1
    has(domain.notes[0], "pulse", "2 of 242", "30–220 bpm", "clipped")
    values = [t.values[:, 0] for t in (domain.train, domain.validation, domain.test)]
    assert min(v.min() for v in values) == 30 and max(v.max() for v in values) == 220


def test_folder_of_another_run(tmp_path):
    own = files(tmp_path)
    refused({**own, "data.path": "gone.csv"}, tmp_path / "run")  # leaves its config there
    has(refused({**own, "data.path": "gone.csv", "seed": 7}, tmp_path / "run"), "another config", "seed", "0", "7")
    has(refused(own, tmp_path), str(tmp_path), "holds no run", "--workdir")
    has(refused(own, tmp_path / "ward.csv"), "ward.csv", "--workdir")


def test_loss_that_diverges(tmp_path):
    wild = {"vae.train.algorithm": "fedavg", "vae.train.l2_clip_norm": 1e30, "vae.train.server_learning_rate": 1e38}
    sentence = refused({**files(tmp_path), **wild, "vae.train.client_learning_rate": 1e6}, tmp_path / "run")
    has(sentence, "'table/vae'", "round", "client_learning_rate")
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["status"] == "failed"


def test_truncated_checkpoint(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    own = files(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "synthesise", interrupted)  # after training
        with pytest.raises(KeyboardInterrupt):
            experiment.run(config(own), str(tmp_path / "run"))
    saved = tmp_path / "run" / "checkpoints" / "table_vae" / "4"
    for folder, _, names in os.walk(saved):
        for name in names:
            path = pathlib.Path(folder, name)
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    has(refused(own, tmp_path / "run"), f"{saved}", "truncated", "delete")
