"""A published generator: the run's own rows again, the model's conditional law, and files that are refused."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import os
import pathlib
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pandas as pd
import pytest
import toy
from scipy import stats

from fedjax_health import build, checks, experiment, rng
from fedjax_health.config import from_config_dict
from fedjax_health.data.frames import frame_from_table
from fedjax_health.data.schema import Column, Schema
from fedjax_health.federated.sharding import make_mesh
from fedjax_health.prepared import Prepared
from fedjax_health.synthesis import generator as generators
from fedjax_health.synthesis.generator import load_generator, sampling_key
from fedjax_health.synthesis.generator_file import Network, save_generator
from fedjax_health.synthesis.sample import CHUNK, Published, decoder_of, make_stream
from fedjax_health.train.stage import federation_keys
from fedjax_health.types import UserError

SHARES = np.array([[0.7, 0.3], [0.2, 0.8]], np.float32)
SEED = 31_337
KEY = sampling_key(0, "toy", "vae")


def network(name: str, hidden: tuple[int, ...] = (8,)):
    own = {"generator": "causal"} if name == "acgan" else {}  # one GAN makes its rows column by column
    return dataclasses.replace(toy.model_config(name), hidden=hidden, **own)


def released(name: str, seed: int):
    """A generator with weights wide enough for its classes to differ."""
    model = build.MODELS[name](toy.encoder().layout, 2, network(name))
    params = model.init(jax.random.key(seed))
    return model, params, jax.tree.map(lambda leaf: 2.0 * leaf, model.release(params))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> pathlib.Path:
    """The synthetic/ folder of a run of two seeds and all models, by the stage that publishes."""
    config = from_config_dict(importlib.import_module("configs.base").get_config())
    config = dataclasses.replace(
        config,
        models=checks.MODELS,
        seeds=2,
        seed=SEED,
        data=dataclasses.replace(config.data, representation="public"),
        **{name: network(name) for name in checks.MODELS},
    )
    parts, trained = {}, {}
    for name in config.models:
        model, params, _ = released(name, 0)
        average = jax.tree.map(lambda *leaves: np.stack(leaves), *(released(name, s)[2] for s in range(2)))
        parts[name] = SimpleNamespace(model=model)
        trained[f"toy/{name}"] = SimpleNamespace(state=SimpleNamespace(average=average, params=params))
    path = tmp_path_factory.mktemp("run")
    prepared = Prepared(toy.domain(), np.ones((2, 24), bool), SHARES, parts)
    experiment.synthesise(config, prepared, trained, str(path))
    return path / "synthetic"


@pytest.fixture(scope="module")
def loaded(run):
    return load_generator(str(run / "toy_vae.generator.json"))


@pytest.mark.parametrize("name", checks.MODELS)
def test_the_runs_own_key_gives_the_published_rows(name, run):
    table = pd.read_parquet(run / f"toy_{name}.parquet")
    key = federation_keys(rng.named_seed(SEED, f"toy/{name}", "synthesis"), 2)[0]
    again = load_generator(str(run / f"toy_{name}.generator.json")).sample(len(table), key)
    assert len(table) == len(toy.domain().train.label)
    pd.testing.assert_frame_equal(frame_from_table(again, toy.SCHEMA), table)


def test_nothing_but_what_is_released_goes_out(run):
    ends = ("parquet", "csv", "generator.json", "generator.npz")
    assert set(os.listdir(run)) == {f"toy_{m}.{e}" for m in checks.MODELS for e in ends}
    with np.load(run / "toy_vae.generator.npz", allow_pickle=False) as file:
        layers = {f"network/decoder/params/Dense_{i}/{leaf}" for i in (0, 1) for leaf in ("kernel", "bias")}
        assert set(file.files) == {"network/scale", *layers}
        first = released("vae", 0)[2]["decoder"]["params"]["Dense_0"]["kernel"]
        np.testing.assert_array_equal(file["network/decoder/params/Dense_0/kernel"], first)
    text = (run / "toy_vae.generator.json").read_text()
    raw = json.loads(text)
    assert raw["class_shares"] == SHARES[0].tolist()
    assert raw["network"] == {"hidden": [8], "latent": 2, "decoder": "independent"}
    for name, generator in (("gan", "direct"), ("acgan", "causal"), ("pategan", "direct")):
        of_gan = json.loads((run / f"toy_{name}.generator.json").read_text())["network"]
        assert of_gan == {"hidden": [8], "latent": 2, "generator": generator}
    assert json.loads((run / "toy_diffusion.generator.json").read_text())["network"] == {"hidden": [8], "steps": 6}
    with np.load(run / "toy_medgan.generator.npz", allow_pickle=False) as file:
        assert {name.split("/")[1] for name in file.files} == {"generator", "decoder"}
    assert str(SEED) not in text


def test_a_clients_column_stays_at_home_and_equal_generators_give_equal_bytes(tmp_path):
    schema = Schema("toy", (Column(name="patient", role="client"), *toy.SCHEMA.columns))
    for folder in ("a", "b"):
        save_generator(
            str(tmp_path / folder),
            "toy",
            "gan",
            Network((8,), 2),
            "public",
            Published(released("gan", 0)[2]),
            SHARES[0],
            schema,
        )
    files = [sorted((tmp_path / folder).iterdir()) for folder in ("a", "b")]
    assert [f.read_bytes() for f in files[0]] == [f.read_bytes() for f in files[1]] and len(files[0]) == 2
    assert load_generator(str(tmp_path / "a" / "toy_gan.generator.json")).schema == toy.SCHEMA


def test_rows_depend_on_the_key_and_neither_on_the_devices_nor_on_how_many_are_asked_for(loaded, monkeypatch):
    model, _, leaves = released("vae", 0)
    alone = make_stream(model, decoder_of(toy.SCHEMA, "public"), make_mesh(1))(Published(leaves), SHARES[0], KEY)
    first = [next(alone) for _ in range(4)]
    four = loaded.sample(4 * CHUNK, KEY)  # on four devices, a chunk each
    np.testing.assert_array_equal(four.values, np.concatenate([f[0] for f in first]))
    np.testing.assert_array_equal(four.label, np.concatenate([f[1] for f in first]))
    monkeypatch.setattr(generators, "PIECE", 5000)
    pieces = list(loaded.stream(12_000, KEY))
    assert [len(p.label) for p in pieces] == [5000, 5000, 2000]
    np.testing.assert_array_equal(np.concatenate([p.values for p in pieces]), four.values[:12_000])
    other = loaded.sample(100, sampling_key(1, "toy", "vae"))
    assert (other.values[:, 1] != four.values[:100, 1]).any()


def test_rejection_keeps_every_row_that_meets_the_condition_and_no_other(loaded):
    where = "systolic=110..150,sex=male,lactate=0..20"
    every = loaded.sample(40_000, KEY)
    frame = frame_from_table(every, toy.SCHEMA)
    meets = (frame.systolic.between(110, 150) & (frame.sex == "male") & frame.lactate.notna()).to_numpy()
    count = int(meets.sum())
    assert 400 < count < 20_000
    some = loaded.sample(count, KEY, where)
    np.testing.assert_array_equal(some.values, every.values[meets])
    np.testing.assert_array_equal(some.label, every.label[meets])
    np.testing.assert_array_equal(some.client, np.arange(count))


def test_a_label_is_conditioned_on(loaded):
    every, sick = loaded.sample(40_000, KEY), loaded.sample(20_000, sampling_key(5, "toy", "vae"), "sick=1")
    assert (sick.label == 1).all() and abs(every.label.mean() - SHARES[0, 1]) < 0.012  # 5 standard deviations
    same, other = (every.values[every.label == y] for y in (1, 0))
    gaps = [stats.ks_2samp(sick.values[:, 1], rows[:, 1]).pvalue for rows in (same, other)]
    assert gaps[0] > 1e-4 and gaps[1] < 1e-12
    both = loaded.sample(300, sampling_key(5, "toy", "vae"), "sick=1,ward=b")
    np.testing.assert_array_equal(both.values, sick.values[sick.values[:, 0] == 1][:300])


def test_a_rare_condition_is_refused_with_the_share_it_has(loaded):
    with pytest.raises(UserError, match=r"is met by \d of 262,144 rows .* a share of \S+, and needs 0\.0001; ask"):
        loaded.stream(5, KEY, "systolic=255..260,diastolic=30..31")
    with pytest.raises(UserError, match="rows=0 must be at least 1"):
        loaded.stream(0, KEY)
    with pytest.raises(UserError, match="seed=-1 must not be negative"):
        sampling_key(-1, "toy", "vae")


@pytest.mark.parametrize(("share", "refused"), [(0.5e-4, True), (2e-4, False)])
def test_the_line_is_one_row_in_10_000(share, refused, loaded, monkeypatch):
    """Rows whose number decides whether they meet the condition, at a share known exactly."""
    draws = np.zeros((1 << 16, 5), np.float32)
    draws[: round(share * (1 << 18)) // 4, 1] = 100.0

    def endless(*_):
        while True:
            yield draws, np.zeros(len(draws), np.int32)

    monkeypatch.setattr(loaded, "_draw", endless)
    if refused:
        with pytest.raises(UserError, match="is met by 12 of 262,144"):
            loaded.stream(5, KEY, "systolic=100")
    else:
        assert (loaded.sample(50, KEY, "systolic=100").values[:, 1] == 100.0).all()


def change(path: pathlib.Path, **values) -> None:
    """Changes the description; a value of None removes the key."""
    raw = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in raw.items() if v is not None}))


def rewrite(path: pathlib.Path, **arrays) -> None:
    """Changes the arrays, and the description's digest with them; an array of None is left out."""
    with np.load(path.with_suffix(".npz")) as file:
        kept = {**{name: file[name] for name in file.files}, **arrays}
    np.savez(path.with_suffix(".npz"), **{k: v for k, v in kept.items() if v is not None})
    change(path, sha256=hashlib.sha256(path.with_suffix(".npz").read_bytes()).hexdigest())


def _cut(path: pathlib.Path, share: float = 0.6) -> None:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def _flip(path: pathlib.Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    path.write_bytes(bytes(whole))


def _array(path: pathlib.Path) -> None:
    with open(path, "wb") as file:
        np.save(file, np.zeros(3, np.float32))


SCALE = "network/scale"
KERNEL = "network/decoder/params/Dense_0/kernel"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda p: p.unlink(), "toy_vae.generator.json cannot be read"),
        (_cut, "generator.json is not JSON"),
        (lambda p: p.write_text("[]"), "has format None"),
        (lambda p: change(p, format=1), "has format 1 and this version of fedjax_health reads 4"),
        (lambda p: change(p, network=None), "lacks the key 'network'"),
        (lambda p: change(p, network={"hidden": [8]}), "lacks the key 'latent'"),
        (lambda p: change(p, network={"hidden": "8", "latent": 2, "decoder": "independent"}), "must be a list of int"),
        (lambda p: change(p, network={"hidden": [8, 0], "latent": 2, "decoder": "independent"}), "size 0 of a network"),
        (lambda p: change(p, network={"hidden": [8], "latent": 2, "decoder": "x"}), "decoder 'x' is not one of"),
        (lambda p: change(p, model="diffusion"), "unknown config key 'network.latent'"),
        (lambda p: change(p, model="diffusion", network={"hidden": [8], "steps": 0}), "size 0 of a network"),
        (lambda p: change(p, model="diffusion", network={"hidden": [8], "steps": 6}), "lacks the array"),
        (lambda p: change(p, network={"hidden": [9], "latent": 2, "decoder": "independent"}), "is float32[8], and"),
        (lambda p: change(p, model="vea"), "unknown model 'vea'; did you mean 'vae'?"),
        (lambda p: change(p, class_shares=[0.5, 0.2, 0.3]), "class_shares are not 2 positive numbers"),
        (lambda p: change(p, class_shares=[1.5, -0.5]), "class_shares are not 2 positive numbers"),
        (lambda p: change(p, class_shares="many"), "generator.json is damaged (could not convert"),
        (lambda p: change(p, schema={"columns": []}), "non-empty list 'columns'"),
        (
            lambda p: change(p, schema={"columns": [{"name": "a", "low": "x", "high": 3}]}),
            "generator.json is damaged ('<'",
        ),
        (lambda p: p.with_suffix(".npz").unlink(), "toy_vae.generator.npz is missing"),
        (lambda p: _cut(p.with_suffix(".npz")), "generator.npz cannot be read"),
        (lambda p: _cut(p.with_suffix(".npz"), 0.0), "generator.npz cannot be read"),
        (lambda p: _flip(p.with_suffix(".npz")), "generator.npz cannot be read"),
        (lambda p: p.with_suffix(".npz").write_bytes(b"no archive"), "generator.npz cannot be read"),
        (lambda p: _array(p.with_suffix(".npz")), "generator.npz cannot be read"),
        (lambda p: shutil.copy(p.with_name("toy_gan.generator.npz"), p.with_suffix(".npz")), "SHA-256 differs"),
        (lambda p: rewrite(p, **{KERNEL: None}), f"lacks the array '{KERNEL}'"),
        (lambda p: rewrite(p, more=np.zeros(3, np.float32)), "holds the array 'more', which no vae has"),
        (lambda p: rewrite(p, **{SCALE: np.zeros(2, np.float32)}), "array 'network/scale' is float32[2], and"),
        (lambda p: rewrite(p, **{SCALE: np.zeros(3)}), "array 'network/scale' is float64[3], and"),
        (lambda p: rewrite(p, **{SCALE: np.full(3, np.nan, np.float32)}), "array 'network/scale' is not finite"),
        (lambda p: rewrite(p, scale=np.array([{}, 1, 2], object)), "generator.npz cannot be read"),  # pickle
    ],
)
def test_files_that_do_not_fit_are_refused_in_one_sentence(damage, said, run, tmp_path):
    for name in os.listdir(run):
        shutil.copy(run / name, tmp_path)
    path = tmp_path / "toy_vae.generator.json"
    damage(path)
    with pytest.raises(UserError, match=r".") as error:
        load_generator(str(path))
    text = str(error.value)
    assert said in text and "\n" not in text and str(tmp_path / "toy_vae.generator") in text
    assert "repeat the run" in text
