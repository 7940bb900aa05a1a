"""The small things everything stands on: addressed keys, pytrees, the registry, whole files, and a run's folder."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_health import registry, rng, tree
from fedjax_health import workdir as folder
from fedjax_health.config import Config, from_config_dict
from fedjax_health.files import replacing, write_text
from fedjax_health.types import UserError


def _bits(key) -> tuple[int, ...]:
    return tuple(int(v) for v in np.ravel(jax.random.key_data(key)))


# keys


def test_every_address_has_its_own_key():
    addresses = set()
    for seed in range(2):
        for t in range(3):
            for stream in rng.Stream:
                key = rng.stream_key(jax.random.key(seed), t, stream)
                addresses.add(_bits(key))
                addresses |= {_bits(rng.client_key(key, jnp.int32(k))) for k in range(3)}
    assert len(addresses) == 2 * 3 * len(rng.Stream) * 4


def test_a_traced_round_and_client_give_the_same_key():
    root = jax.random.key(7)
    traced = jax.jit(lambda t, k: rng.client_key(rng.stream_key(root, t, rng.Stream.CLIENT), k))
    plain = rng.client_key(rng.stream_key(root, 5, rng.Stream.CLIENT), jnp.int32(9))
    assert _bits(traced(jnp.int32(5), jnp.int32(9))) == _bits(plain)


def test_streams_are_never_renumbered():
    assert {s.name: int(s) for s in rng.Stream} == {
        "INIT": 1, "COHORT": 2, "CLIENT": 3, "NOISE": 4, "REFINE": 5, "SYNTHESIS": 6, "INCLUDE": 7, "SPLIT": 8,
        "SIMULATE": 9, "EVALUATE": 10, "ATTACK": 11, "CLASS_PRIOR": 12, "DEVICES": 13,
        "DOWNLOAD": 14, "TRANSFORM": 15, "AGGREGATE": 16, "POISON": 17, "CANARY": 18, "SPREAD": 19,
        "BALLOT": 20,
    }  # fmt: skip


def test_two_seeds_differ_in_every_stream():
    for stream in rng.Stream:
        device = [jax.random.normal(rng.stream_key(jax.random.key(s), 0, stream), (4,)) for s in (0, 1)]
        assert not np.array_equal(*device)
        host = [rng.host_rng(s, stream, "toy").standard_normal(4) for s in (0, 1)]
        assert not np.array_equal(*host)
        np.testing.assert_array_equal(host[0], rng.host_rng(0, stream, "toy").standard_normal(4))


def test_named_seed_is_stable_and_the_path_matters():
    assert rng.named_seed(0, "vitals", "vae") == 1552130276  # crc32 of "0/vitals/vae" without its top bit
    seeds = [rng.named_seed(*a) for a in ((0,), (1,), (0, "a", "b"), (0, "b", "a"), (0, "ab"), (10, "a"), (1, "0a"))]
    assert len(set(seeds)) == len(seeds) and all(0 <= s < 2**31 for s in seeds)


# pytrees

TREE = {"a": jnp.array([3.0, 0.0], jnp.float32), "b": (jnp.array([[4.0]], jnp.float32),)}


def test_tree_arithmetic():
    assert tree.size(TREE) == 3 and tree.size(jax.eval_shape(lambda: TREE)) == 3
    double = tree.add(TREE, TREE)
    for a, b in zip(
        jax.tree.leaves(tree.scale(jnp.float32(2.0), TREE)) + jax.tree.leaves(tree.subtract(double, double)),
        jax.tree.leaves(double) + jax.tree.leaves(tree.zeros_like(TREE)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_where_keeps_the_other_sides_nan_out():
    bad = jax.tree.map(lambda leaf: leaf * jnp.nan, TREE)
    assert bool(tree.all_finite(tree.where(jnp.bool_(True), TREE, bad)))
    assert not bool(tree.all_finite(tree.where(jnp.bool_(False), TREE, bad)))


def test_global_norm_and_its_gradient_at_zero():
    assert float(tree.global_norm(TREE)) == 5.0
    slope = jax.grad(tree.global_norm)
    np.testing.assert_allclose(slope(TREE)["a"], [0.6, 0.0], rtol=1e-6)
    zero = tree.zeros_like(TREE)
    assert float(tree.global_norm(zero)) == 0.0 and not np.asarray(slope(zero)["a"]).any()
    assert float(tree.global_norm({})) == 0.0
    assert np.isnan(tree.global_norm({"a": jnp.array([jnp.nan, 1.0], jnp.float32)}))  # must not pass for a norm of 0


def test_all_finite_sees_one_bad_number():
    assert bool(tree.all_finite(TREE)) and bool(tree.all_finite({}))
    for bad in (jnp.nan, jnp.inf, -jnp.inf):
        assert not bool(tree.all_finite({**TREE, "c": jnp.array([0.0, bad], jnp.float32)}))


def test_split_key_like_gives_each_leaf_its_own_key():
    keys = tree.split_key_like(jax.random.key(0), TREE)
    assert jax.tree.structure(keys) == jax.tree.structure(TREE)
    assert len({_bits(key) for key in jax.tree.leaves(keys)}) == 2


# registry


def test_lookup_finds_or_says_the_nearest():
    known = {"vae": 1, "wgan_gp": 2}
    assert registry.lookup("model", "vae", known) == 1
    with pytest.raises(UserError, match=r"unknown model 'wgan'; did you mean 'wgan_gp'\? known: vae, wgan_gp"):
        registry.lookup("model", "wgan", known)
    with pytest.raises(UserError, match=r"unknown model 'zzz'; known: vae, wgan_gp"):
        registry.lookup("model", "zzz", known)


# files


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_text(str(path), "grüße\n")
    assert path.read_text(encoding="utf-8") == "grüße\n"
    assert path.stat().st_mode & 0o777 == 0o644

    def interrupted():
        with replacing(str(path)) as temporary:
            pathlib.Path(temporary).write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text(encoding="utf-8") == "grüße\n"
    assert os.listdir(path.parent) == ["a.txt"]  # no temporary file stays


# a run's folder


def _raw() -> dict:
    path = pathlib.Path(__file__).parents[1] / "configs" / "base.py"
    spec = importlib.util.spec_from_file_location("base_config_of_workdir", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config().to_dict()


RAW = _raw()


def _config(seed: int = 0) -> Config:
    return from_config_dict({**copy.deepcopy(RAW), "seed": seed})


def test_same_config_resumes_and_another_is_refused(tmp_path):
    path = str(tmp_path / "run")
    folder.open_workdir(path, _config())
    saved = pathlib.Path(path, "config.json").read_text()
    folder.open_workdir(path, _config())
    with pytest.raises(UserError, match=r"another config \(seed: was 0, now 1\); give another --workdir"):
        folder.open_workdir(path, _config(1))
    assert pathlib.Path(path, "config.json").read_text() == saved


def test_folders_that_are_not_a_run_are_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        folder.open_workdir(str(tmp_path), _config())
    assert os.listdir(tmp_path) == ["mine.txt"]
    with pytest.raises(UserError, match="cannot be made"):
        folder.open_workdir(str(tmp_path / "mine.txt" / "run"), _config())
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        folder.open_workdir(str(tmp_path / "broken"), _config())


def test_manifest_says_what_made_the_run(tmp_path):
    content = folder.manifest(_config(3))
    assert content["status"] == "running" and content["seed"] == 3
    assert content["seeds"] == list(range(RAW["seeds"]))
    assert content["versions"]["jax"] == jax.__version__
    assert content["device"].startswith(f"{jax.device_count()} x cpu")
    folder.write_manifest(str(tmp_path), content)
    assert json.loads((tmp_path / "manifest.json").read_text()) == content
