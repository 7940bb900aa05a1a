"""The one-shot copula's published files: the run's own rows again, conditions, the command, and files that are refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import toy

from configs import base
from fedjax_health import build, experiment, prepare, rng
from fedjax_health.config import from_config_dict
from fedjax_health.data.frames import frame_from_table
from fedjax_health.federated.sharding import make_mesh
from fedjax_health.randomness import BY_SEED
from fedjax_health.synthesis.generator import load_generator, sampling_key
from fedjax_health.train.stage import federation_keys
from fedjax_health.types import UserError
from launch import sample

SEED, ROWS = 31_337, 6000  # more than one chunk


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of two seeds, by the stage that publishes."""
    raw = base.get_config()
    raw.models, raw.seeds, raw.seed, raw.data.domains = ("copula",), 2, SEED, ("toy",)
    raw.evaluation.synthetic_rows = ROWS
    config = from_config_dict(raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "build_domain", lambda name, config: toy.domain(300))
        bare = prepare.bare_domain("toy", config, make_mesh())
    prepared = prepare.measure(bare, prepare.plan_privacy(config, [bare]), config, BY_SEED)
    path = tmp_path_factory.mktemp("run")
    (subject,) = experiment.synthesise(config, prepared, {}, str(path))
    score = subject.score(prepared.domain.test, 0)
    assert score.shape == prepared.domain.test.label.shape and np.isfinite(score).all() and np.std(score) > 0
    assert [len(t.label) for t in subject.tables] == 2 * [len(prepared.domain.train.label)]
    assert not np.array_equal(subject.tables[0].values, subject.tables[1].values)
    return path


def test_the_runs_own_key_gives_the_published_rows(run):
    table = pd.read_parquet(run / "synthetic" / "toy_copula.parquet")
    key = federation_keys(rng.named_seed(SEED, "toy/copula", "synthesis"), 2)[0]
    generator = load_generator(str(run / "synthetic" / "toy_copula.generator.json"))
    again = generator.sample(ROWS, key)
    assert len(table) == ROWS
    pd.testing.assert_frame_equal(frame_from_table(again, toy.SCHEMA), table)
    some = generator.sample(200, key, "systolic=110..150,sex=male,sick=1")
    assert (some.label == 1).all() and (some.values[:, 4] == 1).all()
    assert ((some.values[:, 1] >= 110) & (some.values[:, 1] <= 150)).all()


def test_the_command_draws_its_rows(run, tmp_path, capsys):
    out = tmp_path / "rows.parquet"
    line = [f"--run={run}", "--domain=toy", "--model=copula", "--rows=500", f"--out={out}", "--where=ward=b"]
    assert sample.main(["sample", *line]) == 0 and capsys.readouterr().err == ""
    generator = load_generator(str(run / "synthetic" / "toy_copula.generator.json"))
    rows = generator.sample(500, sampling_key(0, "toy", "copula"), "ward=b")
    pd.testing.assert_frame_equal(pd.read_parquet(out), frame_from_table(rows, toy.SCHEMA))


def test_its_files_hold_the_statistics_and_nothing_else(run):
    raw = json.loads((run / "synthetic" / "toy_copula.generator.json").read_text())
    assert raw["network"] == {} and raw["representation"] == "copula" and str(SEED) not in json.dumps(raw)
    with np.load(run / "synthetic" / "toy_copula.generator.npz") as file:
        assert set(file.files) == {"network/shares", *(f"fitted/{n}" for n in ("edges", "below", "factor", "own"))}
        assert file["network/shares"].shape == (2, 5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"network": {"hidden": [8], "latent": 2, "decoder": "independent"}}, "unknown config key 'network.hidden'"),
        ({"model": "vae"}, "lacks the key 'hidden'"),
        ({"model": "vae", "network": {"hidden": [8], "latent": 2, "decoder": "independent"}}, "lacks the array"),
        ({"representation": "public"}, "which no copula has"),
        ({"model": ["copula"]}, "unknown model"),
    ],
)
def test_files_that_do_not_fit_are_refused_in_one_sentence(changes, said, run, tmp_path):
    for file in (run / "synthetic").iterdir():
        shutil.copy(file, tmp_path)
    path = tmp_path / "toy_copula.generator.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=said) as error:
        load_generator(str(path))
    assert "\n" not in str(error.value)
