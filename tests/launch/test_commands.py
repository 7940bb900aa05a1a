"""Commands as they are documented: configs load, docstrings and the README say what runs, the smoke run makes every file."""

from __future__ import annotations

import csv
import importlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
from absl import flags
from ml_collections import config_flags

from fedjax_health import config as configuration
from fedjax_health.data import schema, table
from fedjax_health.evaluation import alerts
from fedjax_health.evaluation.central import SHOWN
from fedjax_health.evaluation.rows import read_rows
from fedjax_health.train import metrics

pytestmark = pytest.mark.filterwarnings(
    "ignore:the load_module:DeprecationWarning"
)  # how ml_collections reads a config
ROOT = pathlib.Path(__file__).parents[2]
SCENARIOS = sorted(p.stem for p in (ROOT / "configs").glob("*.py") if p.stem != "__init__")
ENDINGS = ("csv", "parquet", "generator.json", "generator.npz")
README = (ROOT / "README.md").read_text(encoding="utf-8")
TABLES = ("similarity", "utility", "membership", "detection", "efficiency", "privacy", "fairness", "disclosure")


def command(*arguments: str, cwd: pathlib.Path = ROOT) -> str:
    """The real command line; its standard output."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
    done = subprocess.run(
        [sys.executable, "-m", "launch.main", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def parsed(argv: list[str]) -> configuration.Config:
    """What launch.main makes of its arguments, with the file's path as from the root of the checkout."""
    argv = [re.sub(r"^(--config=)(configs/)", rf"\g<1>{ROOT}/\2", a) for a in argv]
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file("config", None, "", values, sys_argv=["main", *argv], lock_config=True)
    flags.DEFINE_string("workdir", None, "", values)
    values(["main", *argv])
    return configuration.from_config_dict(config.value)


def commands(text: str) -> list[list[str]]:
    """Arguments of every `python -m launch.main` line, what follows two spaces left out, brackets opened."""
    found = re.findall(r"python -m launch\.main (--.*?)(?:  |\n|$)", text)
    return [shlex.split(re.sub(r"[][]", "", line)) for line in found]


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_config_converts(name):
    config = configuration.from_config_dict(importlib.import_module(f"configs.{name}").get_config())
    assert config.name == name  # so that two scenarios never share runs/<name>


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "base"])
def test_docstring_commands_parse(name):
    found = commands(importlib.import_module(f"configs.{name}").__doc__ or "")
    assert found
    for argv in found:
        assert argv[0].split(":")[0] == f"--config=configs/{name}.py"
        assert parsed(argv).name.startswith(name)


def test_readme_commands_parse():
    blocks = re.findall(r"```bash\n(.*?)```", README, re.S)
    found = [argv for block in blocks for argv in commands(block)]
    configs = [parsed(argv) for argv in found]
    assert [c.name for c in configs] == ["iot", "iot_eps2", "patients"]
    changed = configs[1]
    assert (changed.privacy.epsilon, changed.seeds, changed.models) == (2.0, 5, ("vae", "gan"))
    assert all("\n" not in block.strip() for block in blocks)  # one line to copy


def test_readme_names_what_exists():
    for path in re.findall(r"`((?:configs|fedjax_health|launch|docs)/[\w./]+\.\w+)", README):
        assert (ROOT / path).is_file(), path
    for name in SCENARIOS:
        assert f"configs/{name}.py" in README
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / path).is_file(), path
    picture = (ROOT / "docs" / "report.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) <= 300_000


def test_readme_explains_every_column_key():
    keys = schema.Column.__dataclass_fields__
    explained = re.search(r"The keys of a column:(.*?)\n\n[^|]", README, re.S)
    assert explained
    first = re.findall(r"^\| (`.*?`) \|", explained[1], re.M)
    assert re.findall(r"`(\w+)`", " ".join(first)) == list(keys)


def own_table(folder: pathlib.Path) -> list[str]:
    """Makes the README's patients.csv and patients.json; the arguments of its command."""
    (script,) = re.findall(r"```python\n(# make_patients\.py.*?)```", README, re.S)
    (text,) = re.findall(r"```json\n(\{\n  \"name\": \"patients\".*?)```", README, re.S)
    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True, timeout=60)
    (folder / "patients.json").write_text(text)
    (argv,) = [a for a in commands(README) if "--config=configs/table.py" in a]
    return [a.replace("=configs/", f"={ROOT}/configs/") for a in argv]


def test_readme_table_is_as_shown(tmp_path):
    own_table(tmp_path)
    (shown,) = re.findall(r"```text\n(patient,.*?)```", README, re.S)
    made = (tmp_path / "patients.csv").read_text()
    assert made.startswith(shown)
    source = table.load_table(str(tmp_path / "patients.csv"), str(tmp_path / "patients.json"), "diagnosis")
    assert len(source.table.label) == 3600 and source.table.client.max() == 299 and source.notes == ()


@pytest.mark.slow
def test_readme_table_runs(tmp_path):
    sizes = [
        f"--config.{m}.train.{k}=10" for m in ("vae", "wgan_gp", "classifier") for k in ("rounds", "rounds_per_chunk")
    ]
    small = [
        "--config.seeds=2",
        "--config.evaluation.max_rows=300",
        "--config.evaluation.augmentation=chosen",
        "--config.evaluation.real_fractions=(1.0, 0.2)",
        "--config.vae.hidden=8",
        "--config.wgan_gp.hidden=8",
    ]
    out = command(*own_table(tmp_path), *sizes, *small, cwd=tmp_path)
    assert out == "runs/patients/report.html"
    run = tmp_path / "runs" / "patients"
    for model in ("vae", "wgan_gp"):
        with open(run / "synthetic" / f"table_{model}.csv", encoding="utf-8", newline="") as file:
            records = list(csv.DictReader(file))
        assert records and "patient" not in records[0]
        assert all(int(r["diastolic"]) <= int(r["systolic"]) for r in records)
        assert {r["ward"] for r in records} <= {"medical", "surgical", "icu"}
        # what was published can be read back by its own schema
        back = table.load_table(
            str(run / "synthetic" / f"table_{model}.csv"), str(run / "synthetic" / "table.schema.json"), "diagnosis"
        )
        assert len(back.table.label) == len(records)
        useful = {(r.row, r.metric): r for r in read_rows(str(run / "tables" / "utility.csv")) if r.model == model}
        central = {f"synthetic:{kind}" for kind in SHOWN}
        federated = {"synthetic", "real+synthetic", "real@20%+synthetic", "real+chosen"}
        assert {row for row, _ in useful} == federated | central
        assert ("real@20%+synthetic", "auroc_gain") in useful and ("synthetic", "auroc_gain") not in useful
        assert sum(r.value for (_, metric), r in useful.items() if metric.startswith("chosen[")) == pytest.approx(1)
    assert json.loads((run / "privacy_ledger.json").read_text())["epsilon_total"] <= 8.0


def figures(folder: pathlib.Path) -> dict[str, str]:
    """The tables' text; of efficiency.csv without what a machine measured."""
    texts = {p.name: p.read_text() for p in sorted((folder / "tables").glob("*.csv"))}
    lines = texts["efficiency.csv"].splitlines()
    texts["efficiency.csv"] = "\n".join(line for line in lines if line.split(",")[2] != "machine")
    return texts


@pytest.mark.slow
def test_smoke_run_makes_every_file(tmp_path):
    run = tmp_path / "run"
    smoke = ["--config=configs/iot.py:smoke", f"--workdir={run}"]
    assert command(*smoke) == str(run / "report.html")

    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["status"] == "done" and manifest["seeds"] == [0, 1, 2]
    assert {"jax", "numpy", "python", "fedjax_health"} <= set(manifest["versions"])
    assert json.loads((run / "config.json").read_text())["name"] == "iot_smoke"
    ledger = json.loads((run / "privacy_ledger.json").read_text())
    assert 0 < ledger["epsilon_total"] <= ledger["target_epsilon"] == 8.0
    assert (ledger["unit"], ledger["relation"]) == ("client", "add_or_remove_one")
    assert len(ledger["events"]) == 2 + 4  # class shares of two domains, four trainings

    stages = [(d, m) for d in ("vitals", "threats") for m in ("vae", "wgan_gp")]
    synthetic = {f"{d}_{m}.{ending}" for d, m in stages for ending in ENDINGS}
    schemas = {"schema.json", "vitals.schema.json", "threats.schema.json"}
    assert set(os.listdir(run / "synthetic")) == synthetic | schemas
    with open(run / metrics.FILE_NAME, encoding="utf-8") as file:
        history = [json.loads(line) for line in file]
    assert {h["stage"] for h in history} == {f"{d}/{m}" for d, m in stages}
    assert {h["round"] for h in history} == set(range(1, 21))
    assert list((run / "tensorboard").rglob("events.out.tfevents.*"))
    assert all(os.listdir(run / "checkpoints" / f"{d}_{m}") for d, m in stages)
    assert len(list((run / "figures").glob("*.png"))) >= 6
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page and not re.search(r'(src|href)="(https?:)?//', page)

    rows = {name: read_rows(str(run / "tables" / f"{name}.csv")) for name in TABLES}
    assert all(rows.values())
    for name in ("similarity", "utility", "membership", "efficiency", "disclosure"):
        assert {(r.domain, r.model) for r in rows[name]} >= set(stages), name
    assert {(r.domain, r.model) for r in rows["detection"]} >= {("threats", m) for m in ("vae", "wgan_gp")}
    assert {r.metric for r in rows["detection"] if r.row == "real"} >= {*alerts.FIGURES, "detection_at_1pct_fpr"}
    assert {r.row for r in rows["efficiency"] if r.model == "detector"} >= {"detector", "machine"}
    assert {r.row for r in rows["utility"]} >= {"real", "synthetic", "real+synthetic"}
    assert {r.row for r in rows["similarity"]} >= {"real-vs-real", "independent-marginals", "gaussian-copula"}
    assert {r.row.split(":")[0] for r in rows["membership"]} == {
        "model-on-real",
        "model-on-synthetic",
        "federated+synthetic",
        "dp-ceiling",
    }


@pytest.mark.long
def test_a_finished_smoke_run_is_done_again_to_the_same_figures(tmp_path):
    run = tmp_path / "run"
    smoke = ["--config=configs/iot.py:smoke", f"--workdir={run}"]
    assert command(*smoke) == str(run / "report.html")
    synthetic = os.listdir(run / "synthetic")
    before, curves = figures(run), (run / metrics.FILE_NAME).read_bytes()
    published = {name: (run / "synthetic" / name).read_bytes() for name in synthetic}
    assert command(*smoke) == str(run / "report.html")
    assert figures(run) == before
    assert (run / metrics.FILE_NAME).read_bytes() == curves
    assert {name: (run / "synthetic" / name).read_bytes() for name in synthetic} == published
