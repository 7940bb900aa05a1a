"""A run's shadow federations: each is the federation it would be alone, a function of its mask, from one trace."""

from __future__ import annotations

import dataclasses
import functools
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from configs import base
from fedjax_health import build, experiment, prepare, shadow_pipeline, shadow_stage, shadow_table
from fedjax_health import config as configuration
from fedjax_health.attacks.base import public_space
from fedjax_health.attacks.updates import ATTRIBUTION, INNER, LOSS
from fedjax_health.attacks_config import check_attacks
from fedjax_health.data.population import make_store
from fedjax_health.data.representation import calibrated, normal_knots
from fedjax_health.evaluation.membership import FPRS
from fedjax_health.evaluation.rows import read_rows
from fedjax_health.federated.federation import Data
from fedjax_health.neighbours import nearest_distance
from fedjax_health.synthesis.calibrate import ROWS, make_calibrate
from fedjax_health.train.loop import make_train
from fedjax_health.types import UserError

pytestmark = pytest.mark.quick_compile
CLIENTS, SHADOWS = 120, 6
SMALL = {"rounds": 4, "rounds_per_chunk": 2, "cohort": 40, "batch_size": 3, "local_steps": 1, "clients_per_chunk": 4}


def config(kind: str = "public", **attacks: int) -> configuration.Config:
    raw = base.get_config()
    raw.models, raw.seeds, raw.data.domains, raw.data.representation = ("vae",), 2, ("toy",), kind
    raw.attacks.shadows, raw.attacks.shadow_targets = SHADOWS, 50
    raw.attacks.update(attacks)
    for section in (raw.vae, raw.classifier):
        section.hidden = (8,)
        section.train.update(SMALL)
    raw.vae.latent = 2
    return configuration.from_config_dict(raw)


def make_world(c: configuration.Config, changed: Any = None) -> shadow_stage.World:
    """Shadows of the toy domain; `changed` are clients whose records are all others'."""
    domain = toy.domain(CLIENTS)
    if changed is not None:
        values = domain.train.values.copy()
        mine = np.isin(domain.train.client, changed)
        values[mine, 1:3] = [260.0, 30.0]
        # a copula fills missing cells class by class from one stream of chance: other labels deal it out otherwise
        flipped = mine & (c.representation == "public")
        train = domain.train._replace(values=values, label=domain.train.label ^ flipped.astype(np.int32))
        domain = domain._replace(train=train, data=make_store(train, domain.encoder, CLIENTS))
    bare = prepare.with_federations(domain, np.ones((c.seeds, CLIENTS), bool), c, toy.sharding.make_mesh(1))
    return shadow_stage.make_world(c, prepare.plan_privacy(c, [bare]), bare)


@functools.cache
def world_of(kind: str, changed: bool = False) -> shadow_stage.World:
    c = config(kind, update_rounds=2 if kind == "public" else 0)
    return make_world(c, outsiders(world_of(kind)) if changed else None)


@functools.cache
def found(kind: str, changed: bool = False) -> tuple[shadow_stage.World, shadow_stage.Found]:
    world = world_of(kind, changed)
    return world, shadow_stage.run_shadows(world, "vae", 4, ("real", "synthetic"))


def outsiders(world: shadow_stage.World) -> np.ndarray:
    """Targets that are not in shadow 0, all but one of them in another."""
    return world.targets[~world.member[0]]


def test_everything_of_the_run_is_in_the_shadows():
    world, scores = found("public")
    assert scores.traces == 1
    assert set(scores.record) == {"real", "synthetic", "own", "nearest"}
    assert all(f.shape == (SHADOWS, len(world.scored.label)) for f in scores.record.values())
    assert all(np.isfinite(f).all() and f.std(0).min() > 0 for f in (scores.record["own"], scores.record["real"]))
    assert world.prepared.parts["vae"].canaries is None and world.plan.noise_multiplier > 0
    shares = world.prepared.shares
    assert shares.shape == (SHADOWS, 2) and len(np.unique(shares[:, 0])) == SHADOWS


def test_a_shadow_is_the_federation_that_a_run_would_train_alone():
    world, scores = found("public")
    c, p, s = world.config, world.prepared, 3
    train = make_train(p.parts["vae"], c.vae.train)
    hyper = {
        k: jnp.full((1,), v, jnp.float32) for k, v in build.training_numbers(c.vae, world.plan.noise_multiplier).items()
    }
    hyper["class_prior"] = jnp.asarray(p.shares[s : s + 1])
    state = train.init(shadow_stage._keys(world, "vae")[s : s + 1])
    for _ in range(2):
        state, _ = train.run_chunk(state, hyper, Data(p.data, jnp.asarray(p.include[s : s + 1])))
    params = jax.tree.map(lambda leaf: leaf[0], state.params)
    key = shadow_stage.root_key(shadow_stage.rng.named_seed(c.seed, "toy", "vae", "common"))
    x = p.domain.encoder.encode(jnp.asarray(world.scored.values, jnp.float32))
    alone = p.parts["vae"].model.score(params, x, jnp.asarray(world.scored.label), key)
    np.testing.assert_allclose(scores.record["own"][s], alone, rtol=1e-4, atol=1e-4)
    assert np.abs(scores.record["own"][2] - alone).max() > 0.01


@pytest.mark.parametrize("kind", ["public", pytest.param("copula", marks=pytest.mark.long)])
def test_records_of_clients_that_are_out_do_not_matter(kind):
    """Class shares, representation, generator and models of shadow 0: nothing of them reads who is out."""
    world, before = found(kind)
    other, after = found(kind, changed=True)
    np.testing.assert_array_equal(world.prepared.include, other.prepared.include)
    same = ~np.isin(world.scored.client, np.flatnonzero(~world.member[0]))
    for name, f in before.record.items():
        np.testing.assert_allclose(after.record[name][0, same], f[0, same], rtol=2e-5, atol=2e-5, err_msg=name)
        moved = np.abs(after.record[name][1:, same] - f[1:, same]).max(1)
        assert (moved > 1e-3).all(), name  # they are in, in the other shadows


def test_memory_is_bounded_by_blocks_that_change_nothing(monkeypatch):
    world = world_of("copula")
    monkeypatch.setattr(shadow_stage, "BLOCK_BYTES", 1)
    few = shadow_stage._block_size(world)
    assert few == world.mesh.size == 4
    many = next(iter(shadow_stage._blocks(world, "vae", 8)))
    blocks = list(shadow_stage._blocks(world, "vae", few))
    assert len(blocks) == 2
    for name in ("include", "shares", "x", "records"):
        parts = np.concatenate([np.asarray(getattr(block, name)) for block in blocks])
        np.testing.assert_array_equal(parts, getattr(many, name), err_msg=name)


def test_rows_of_table_3_and_updates():
    world, scores = found("public")
    assert set(scores.client) == {LOSS, INNER, ATTRIBUTION} and scores.client[LOSS].shape == (SHADOWS, 50)
    rows = shadow_table.table(world, "vae", scores)
    settings = {r.row.split(":")[0]: r.model for r in rows}
    assert settings == {
        "model-on-real": "-", "model-on-synthetic": "vae", "federated+synthetic": "vae", "generator": "vae",
        "published-models": "vae", "published-updates": "vae", "published-updates-together": "vae",
    }  # fmt: skip
    assert len({(r.row, r.metric) for r in rows}) == len(rows) == 5 * (4 * 5 + 3 * 2)  # 4 signals, 5 attacks, 5 metrics
    assert all(0 <= r.value <= (100 if "%" in r.metric else 1) for r in rows if r.metric not in FPRS)


def test_the_public_space_and_distances_are_those_of_the_other_attacks():
    table, encoder = toy.domain(CLIENTS).test, toy.encoder()
    points = shadow_pipeline.space(encoder, jnp.asarray(table.values), jnp.asarray(table.label), 2)
    theirs = public_space(table, toy.SCHEMA)
    assert points.shape[1] <= theirs.shape[1]  # a bit is one dimension here and two there
    mine, other = shadow_pipeline.distance(points[10:], points[:10]), nearest_distance(theirs[10:], theirs[:10])
    np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-4)
    assert float(shadow_pipeline.distance(points[:3], points)[1]) == 0.0


def test_log_odds_keep_what_a_probability_near_one_loses():
    logits = jnp.array([[40.0, 0.0, -1.0], [0.0, 2.0, 1.0]], jnp.float32)
    found = shadow_pipeline.log_odds(jax.nn.log_softmax(logits), jnp.array([0, 1]))
    np.testing.assert_allclose(found, [40 - np.log1p(np.exp(-1)), 2 - np.log(1 + np.e)], rtol=1e-6)


@pytest.mark.parametrize("kind", ["scores", "copula"])
def test_calibration_in_the_program_is_that_of_a_run(kind):
    world = world_of("copula")
    fitted = world.prepared.fitted[0]
    missing = (-1, 6, -1)

    def draw(network, label, key):
        x = jax.random.normal(key, (label.shape[0], 7)) * 2.0 + label[:, None].astype(jnp.float32)
        return x.at[:, 6].set((x[:, 6] > 1.0).astype(jnp.float32))

    drawn = []

    def kept(network, label, key):
        drawn.append((np.asarray(draw(network, label, key)), np.asarray(label)))
        return jnp.asarray(drawn[-1][0])

    shares = jnp.array([0.7, 0.3], jnp.float32)
    device = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), fitted)
    if kind == "scores":
        device = device._replace(factor=jnp.broadcast_to(jnp.eye(3, dtype=jnp.float32), device.factor.shape))
    got = make_calibrate(kept, kind, missing)((), shares, toy.keys(0)[0], device)
    x, label = (np.concatenate(part) for part in zip(*drawn, strict=True))
    assert len(label) == ROWS * (1 if kind == "scores" else 2)
    want = calibrated(jax.tree.map(np.asarray, device), kind, x, label, missing)
    np.testing.assert_allclose(got.own, want.own, rtol=1e-4, atol=2e-4)
    np.testing.assert_allclose(got.factor, want.factor, rtol=1e-4, atol=2e-4)
    if kind == "scores":  # the spread of 2 is taken out of the margins, or before them
        assert np.abs(np.asarray(got.own) - normal_knots()).max() > 1.0
    else:
        assert np.abs(np.asarray(got.factor)).max() < 0.7 * np.abs(np.asarray(device.factor)).max()


def test_rules_of_the_section():
    for changes, message in (
        ({"shadows": 3}, "attacks.shadows=3 must be 0"),
        ({"shadow_targets": -1}, "attacks.shadow_targets=-1"),
        ({"shadows": 0, "update_rounds": 1}, "attacks.update_rounds=1 compares shadow federations"),
    ):
        with pytest.raises(UserError, match=message):
            config(**changes)
    c = config(update_rounds=1)
    buffered = dataclasses.replace(c.vae, train=dataclasses.replace(c.vae.train, algorithm="fedbuff"))
    with pytest.raises(UserError, match="models=\\['vae'\\] have others"):
        check_attacks(dataclasses.replace(c, vae=buffered))


def test_a_run_has_them_when_asked_and_its_ledger_is_as_without(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "build_domain", lambda name, config: toy.domain(CLIENTS)._replace(name=name))
    monkeypatch.setattr(experiment, "train", lambda *_: types.SimpleNamespace(rounds=4))
    for name in ("audit", "cost_rows", "synthesise"):
        monkeypatch.setattr(experiment, name, lambda *_: [])
    monkeypatch.setattr(experiment, "evaluate", lambda *_: None)
    monkeypatch.setattr(experiment, "render_report", lambda path: path)
    monkeypatch.setattr(experiment, "show", lambda *_: None)
    world, scores = found("public")
    asked = []

    def run_shadows(world, model, rounds, views):
        asked.append((model, rounds, views))
        return scores

    monkeypatch.setattr(shadow_table, "run_shadows", run_shadows)
    c = config(generators=1)
    two = dataclasses.replace(c, data=dataclasses.replace(c.data, domains=("other", "toy")))
    assert (
        shadow_table.shadow_tables(two, world.plan, world.prepared, {}) == [] and not asked
    )  # the other's is the first
    ledgers = []
    for shadows in (SHADOWS, 0):
        folder = str(tmp_path / str(shadows))
        experiment.run(config(shadows=shadows), folder)
        ledgers.append((tmp_path / str(shadows) / "privacy_ledger.json").read_text())
        rows = read_rows(str(tmp_path / str(shadows) / "tables" / "membership.csv"))
        assert len(rows) == (5 * (4 * 5 + 3 * 2) if shadows else 0)
    assert asked == [("vae", 4, ("real", "synthetic"))]
    assert ledgers[0] == ledgers[1]
    rows = {(r.row, r.metric): r.n for r in read_rows(str(tmp_path / str(SHADOWS) / "tables" / "membership.csv"))}
    assert rows["model-on-synthetic:lira", "auc"] == SHADOWS
    assert rows["model-on-synthetic:lira", "tpr_at_1pct_fpr"] == world.member.sum()


def test_a_representation_is_fitted_on_who_is_in():
    """The part of a shadow that is made on the host: of the same masks and other records of those who are out, the same."""
    world, other = world_of("copula"), world_of("copula", changed=True)
    for before, after in zip(world.prepared.fitted[0], other.prepared.fitted[0], strict=True):
        width = min(np.shape(before)[-1], np.shape(after)[-1])  # padded to that of the widest shadow
        np.testing.assert_array_equal(np.asarray(before)[..., :width], np.asarray(after)[..., :width])
    assert not np.array_equal(world.prepared.fitted[1].factor, other.prepared.fitted[1].factor)
    np.testing.assert_array_equal(world.prepared.shares[0], other.prepared.shares[0])
