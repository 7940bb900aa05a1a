"""The sampling command: as many rows as asked for, as asked for, in one file; refusals in one sentence."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pandas as pd
import pytest
import toy

from fedjax_health import build
from fedjax_health.data.vitals import make_vitals
from fedjax_health.synthesis import write
from fedjax_health.synthesis.condition import parse_condition
from fedjax_health.synthesis.generator_file import Coder, save_generator
from fedjax_health.synthesis.sample import Published
from launch import sample

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> pathlib.Path:
    """A run's folder with one generator, toy_vae, and another domain's files that cannot be read."""
    path = tmp_path_factory.mktemp("run")
    model = build.MODELS["vae"](toy.encoder().layout, 2, toy.vae_config())
    leaves = model.release(model.init(jax.random.key(0)))
    shares = np.array([0.7, 0.3], np.float32)
    save_generator(
        str(path / "synthetic"),
        "toy",
        "vae",
        Coder((8,), 2, "independent"),
        "public",
        Published(leaves),
        shares,
        toy.SCHEMA,
    )
    (path / "synthetic" / "ward_vae.generator.json").write_text("{")
    (path / "synthetic" / "toy_vae.csv").write_text("")
    return path


def arguments(run: pathlib.Path, out: pathlib.Path, /, **changes) -> list[str]:
    """A command line; an option of None is left out."""
    values = {"run": run, "domain": "toy", "model": "vae", "rows": 3000, "out": out, **changes}
    return ["sample", *(f"--{name}={value}" for name, value in values.items() if value is not None)]


def test_rows_as_asked_for(run, tmp_path, capsys):
    out = tmp_path / "new" / "rows.parquet"
    assert sample.main(arguments(run, out)) == 0
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == (f"{out}\n", "")
    rows = pd.read_parquet(out)
    assert len(rows) == 3000 and list(rows) == [c.name for c in toy.SCHEMA.columns]
    assert set(rows.ward) == {"a", "b", "c"} and set(rows.sick) == {"0", "1"}
    assert (rows.diastolic <= rows.systolic).all() and rows.systolic.dtype == np.int64

    again, other, csv = (tmp_path / name for name in ("again.parquet", "other.parquet", "rows.csv"))
    for path, changes in ((again, {"run": run / "synthetic"}), (other, {"seed": 1}), (csv, {})):
        assert sample.main(arguments(run, path, **changes)) == 0
    assert again.read_bytes() == out.read_bytes()
    assert not pd.read_parquet(other).equals(rows)
    pd.testing.assert_frame_equal(pd.read_csv(csv, dtype={"sick": str}), rows)

    assert sample.main(arguments(run, csv, where="sick=1,sex=male,systolic=110..150")) == 0
    some = pd.read_csv(csv)
    assert len(some) == 3000 and set(some.sick) == {1} and set(some.sex) == {"male"}
    assert some.systolic.between(110, 150).all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run": None}, "--run is missing; give --run, --domain"),
        ({"rows": None}, "--rows is missing"),
        ({"rows": 0}, "rows=0 must be at least 1"),
        ({"rows": "1e6"}, "--rows must be a whole number, got '1e6'"),
        ({"seed": -2}, "seed=-2 must not be negative"),
        ({"seeds": 2}, "unknown option --seeds; did you mean --seed?"),
        ({"run": "nowhere"}, "--run=nowhere: no such folder"),
        ({"model": "gan"}, "holds no generator 'toy_gan'; the nearest is 'toy_vae' (there: toy_vae, ward_vae)"),
        ({"domain": "ward"}, "ward_vae.generator.json is not JSON"),
        ({"where": "systolik=100..120"}, "did you mean 'systolic'?"),
        ({"where": "systolic=255..,diastolic=..31,ward=a"}, "of 262,144 rows of this generator"),
    ],
)
def test_a_bad_value_is_one_sentence_and_exit_code_2(changes, said, run, tmp_path, capsys):
    assert sample.main(arguments(run, tmp_path / "rows.csv", **changes)) == 2
    output = capsys.readouterr()
    assert output.out == "" and os.listdir(tmp_path) == []
    assert output.err.startswith("error: ") and output.err.count("\n") == 1 and said in output.err


def test_other_mistakes(run, tmp_path, capsys, monkeypatch):
    assert sample.main(arguments(run, tmp_path / "rows.xlsx")) == 2
    assert "ending '.xlsx' is neither .parquet nor .csv" in capsys.readouterr().err
    assert sample.main([*arguments(run, tmp_path / "rows.csv"), "more"]) == 2
    assert "unexpected argument 'more'" in capsys.readouterr().err
    assert sample.main(arguments(tmp_path, tmp_path / "rows.csv")) == 2
    assert "holds no generator; repeat the run's command" in capsys.readouterr().err
    assert sample.main(["sample", "--help"]) == 0 and "--where" in capsys.readouterr().out

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(write, "frame_from_table", interrupted)
    assert sample.main(arguments(run, tmp_path / "rows.csv")) == 2
    assert capsys.readouterr().err == "error: interrupted; nothing was written\n"
    assert os.listdir(tmp_path) == []


def test_the_real_command_line(run, tmp_path):
    """The exit codes and the streams of the process, on as many devices as cores: the rows are those of four devices."""
    results = [
        subprocess.run(
            [sys.executable, "-m", "launch.sample", *arguments(run, tmp_path / "rows.csv", **changes)[1:]],
            cwd=ROOT,
            env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache")},
            capture_output=True,
            text=True,
            timeout=300,
        )
        for changes in ({"rows": None}, {})
    ]
    assert (results[0].returncode, results[0].stdout) == (2, "") and results[0].stderr.startswith("error: ")
    assert (results[1].returncode, results[1].stdout) == (0, f"{tmp_path / 'rows.csv'}\n"), results[1].stderr
    assert sample.main(arguments(run, tmp_path / "again.csv")) == 0
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "rows.csv").read_bytes()


def test_the_readmes_command_is_understood():
    (line,) = re.findall(r"python -m launch\.sample (.*)", (ROOT / "README.md").read_text(encoding="utf-8"))
    options = sample._flags()
    assert options(["sample", *line.split()]) == ["sample"]
    assert all(options[name].value is not None for name in sample._NEEDED)
    found = parse_condition(options["where"].value, make_vitals().schema)
    assert (found.label, len(found.ranges)) == (1, 2)


MEASURE = """
import json, resource, sys
from launch import machine, sample
machine.use_all_cores()
for rows in (100_000, 1_000_000):
    assert sample.main([*sys.argv, f"--rows={rows}"]) == 0
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
"""


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_memory_does_not_grow_with_the_rows(ending, run, tmp_path):
    out = tmp_path / f"rows.{ending}"
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *arguments(run, out, rows=None)[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    few, many = (json.loads(line) for line in done.stdout.splitlines()[1::2])  # peak RSS so far, in KiB
    assert (many - few) / 1024 < 50, (few, many)
