"""Config: the shipped defaults are valid; every broken rule is refused in one sentence that names the key."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import json
import pathlib

import pytest

from fedjax_health import config as configuration
from fedjax_health.sections import first_difference
from fedjax_health.types import UserError


def _load_base():
    path = pathlib.Path(__file__).parents[1] / "configs" / "base.py"
    spec = importlib.util.spec_from_file_location("base_config_under_test", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


BASE = _load_base().to_dict()


def _changed(changes: dict) -> dict:
    raw = copy.deepcopy(BASE)
    for path, value in changes.items():
        *sections, key = path.split(".")
        target = raw
        for section in sections:
            target = target[section]
        target[key] = value
    return raw


def test_defaults_convert_from_both_forms():
    a, b = configuration.from_config_dict(BASE), configuration.from_config_dict(_load_base())
    assert a == b
    assert a.models == ("vae", "wgan_gp") and isinstance(a.vae.hidden, tuple)
    with pytest.raises(dataclasses.FrozenInstanceError):
        a.seed = 1  # pyright: ignore[reportAttributeAccessIssue]


def test_whole_numbers_stand_for_floats_and_lists_for_tuples():
    c = configuration.from_config_dict(_changed({"privacy.epsilon": 8, "vae.hidden": [3, 4]}))
    assert c.privacy.epsilon == 8.0 and isinstance(c.privacy.epsilon, float)
    assert c.vae.hidden == (3, 4)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("seeed", 1, "unknown config key 'seeed'; did you mean 'seed'"),
        ("privacy.epsilom", 1.0, "unknown config key 'privacy.epsilom'; did you mean 'epsilon'"),
        ("vae.train.zzzzzz", 1, "unknown config key 'vae.train.zzzzzz'; known keys: rounds"),
        ("seed", 1.5, "'seed' must be int, got 1.5"),
        ("seed", True, "'seed' must be int, got True"),
        ("privacy.epsilon", "8", "'privacy.epsilon' must be float, got '8'"),
        ("privacy.epsilon", True, "'privacy.epsilon' must be float"),
        ("models", "vae", "'models' must be a list of str"),
        ("vae.hidden", (64, "64"), "'vae.hidden' must be int"),
        ("vae", 3, "'vae' must be a section"),
    ],
)
def test_wrong_keys_and_types(path, value, message):
    with pytest.raises(UserError) as error:
        configuration.from_config_dict(_changed({path: value}))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_missing_key():
    raw = copy.deepcopy(BASE)
    del raw["privacy"]["epsilon"]
    with pytest.raises(UserError, match="'privacy' lacks the key 'epsilon'"):
        configuration.from_config_dict(raw)


OUT_OF_RANGE = [
    ("seed", -1),
    ("seeds", 0),
    ("models", ()),
    ("models", ("vae", "vae")),
    ("models", ("vea",)),
    ("data.domains", ()),
    ("data.population", "store"),
    ("data.task", "diagnose"),
    ("data.num_clients", 1),
    ("data.reference_clients", 0),
    ("data.validation_fraction", 0.0),
    ("data.test_fraction", 1.0),
    ("data.audit_fraction", -0.1),
    ("privacy.mechanism", "gaussian"),
    ("privacy.epsilon", 0.0),
    ("privacy.epsilon", -1.0),
    ("privacy.epsilon", float("nan")),
    ("privacy.delta", 1.0),
    ("privacy.noise_multiplier", -0.1),
    ("privacy.prior_noise_multiplier", 0.0),
    ("privacy.representation_share", 1.0),
    ("vae.hidden", ()),
    ("vae.hidden", (64, -1)),
    ("vae.latent", 0),
    ("vae.kl_weight", 0.0),
    ("vae.decoder", "autoregressive"),
    ("gan.placement", "splits"),
    ("wgan_gp.penalty", 0.0),
    ("wgan_gp.generator", "autoregressive"),
    ("medgan.generator", "causal"),
    ("wgan_gp.generator_steps", 0),
    ("acgan.generator_batch", 0),
    ("medgan.reconstruction_weight", 0.0),
    ("diffusion.hidden", ()),
    ("wgan_gp.generator_learning_rate", -1.0),
    ("classifier.hidden", (0,)),
    ("evaluation.max_rows", 99),
    ("evaluation.synthetic_rows", -1),
    ("evaluation.max_false_positive_rate", 0.0),
    ("evaluation.rivals", ("mst",)),
    ("vae.train.rounds", 0),
    ("vae.train.rounds", 601),
    ("vae.train.cohort", -100),
    ("vae.train.clients_per_chunk", -1),
    ("vae.train.batch_size", -1),
    ("vae.train.local", "epoch"),
    ("vae.train.algorithm", "fedprx"),
    ("vae.train.server_optimizer", "fedadam"),
    ("vae.train.server_schedule", "linear"),
    ("vae.train.sampler", "fixed"),
    ("vae.train.aggregation.rule", "median"),
    ("vae.train.aggregation.attackers", 1.0),
    ("vae.train.compression.bits", 17),
    ("vae.train.hierarchy.institutions", 4),
    ("devices.shares", (0.5, 0.5)),
    ("devices.over_commitment", 1.3),
    ("devices.availability", "markov"),
    ("data.partition.alpha", 0.0),
    ("vae.train.client_optimizer", "adamw"),
    ("vae.train.client_learning_rate", 0.0),
    ("vae.train.l2_clip_norm", -0.3),
    ("vae.train.step_clip_norm", -1.0),
    ("vae.train.ema_decay", 1.0),
    ("vae.train.convergence_window", -1),
    ("vae.train.convergence_tolerance", -0.5),
    ("vae.train.aggregation.weighting", "examples"),
    ("classifier.train.aggregation.weighting", "records"),
]


@pytest.mark.parametrize(("path", "value"), OUT_OF_RANGE)
def test_a_broken_rule_names_the_key(path, value):
    with pytest.raises(UserError) as error:
        configuration.from_config_dict(_changed({path: value}))
    message = str(error.value)
    assert path in message and "\n" not in message


def test_rules_across_fields():
    cases = [
        ({"data.domains": ("physionet2019",), "data.population": "procedural"}, "simulated domains only"),
        (
            {"data.domains": ("table",), "data.validation_fraction": 0.5, "data.test_fraction": 0.5},
            "leave clients to train",
        ),
        ({"vae.train.aggregation.weighting": "examples"}, "not covered by the accountant"),
        (
            {"vae.train.algorithm": "scaffold"},
            "exact for plain SGD only",
        ),
        (
            {"classifier.train.aggregation.rule": "krum", "classifier.train.aggregation.weighting": "examples"},
            "counts every client once",
        ),
    ]
    for changes, message in cases:
        with pytest.raises(UserError, match=message):
            configuration.from_config_dict(_changed(changes))


def test_what_is_not_used_is_not_checked():
    open_run = {"privacy.mechanism": "none", "privacy.epsilon": 0.0, "vae.train.aggregation.weighting": "examples"}
    assert configuration.from_config_dict(_changed(open_run)).vae.train.aggregation.weighting == "examples"
    simulated = {"data.validation_fraction": 0.5, "data.test_fraction": 0.6}
    configuration.from_config_dict(_changed(simulated))
    configuration.from_config_dict(_changed({"classifier.train.aggregation.weighting": "examples"}))


def test_json_identity_and_first_difference():
    a = configuration.from_config_dict(BASE)
    b = configuration.from_config_dict(_changed({"vae.train.cohort": 50, "wgan_gp.latent": 3}))
    old, new = (json.loads(configuration.to_json(c)) for c in (a, b))
    assert configuration.to_json(a) == configuration.to_json(configuration.from_config_dict(BASE))
    assert first_difference(old, old) is None
    assert first_difference(old, new) == "vae.train.cohort: was 100, now 50"
    assert first_difference({"a": 1}, {"a": 1, "b": {"c": 2}}) == "b: was None, now {'c': 2}"
    assert configuration.from_config_dict(old) == a  # what is saved can be read again
