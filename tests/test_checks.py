"""Every cross-field rule of a config: the change that breaks it, and no other rule's sentence."""

from __future__ import annotations

import copy
import inspect

import pytest
import test_config
from broken_rules import IDEAL, INFINITE, LOCAL, MASKED, OPEN, RECORDS, RULES, VOTED, train

from configs import base
from fedjax_health import checks, checks_training, checks_votes, evaluation_config
from fedjax_health.config import from_config_dict
from fedjax_health.types import UserError

BASE = base.get_config().to_dict()


def convert(changes):
    raw = copy.deepcopy(BASE)
    for path, value in changes.items():
        *sections, key = path.split(".")
        target = raw
        for section in sections:
            target = target[section]
        assert key in target, path
        target[key] = value
    return from_config_dict(raw)


@pytest.mark.parametrize(("changes", "sentence"), RULES)
def test_a_broken_rule_is_one_sentence_of_its_own(changes, sentence):
    with pytest.raises(UserError) as error:
        convert(changes)
    assert sentence in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith("config ")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        OPEN | train(aggregation__rule="fixed_point"),
        OPEN | train(aggregation__rule="norm_bound", aggregation__weighting="examples"),
        OPEN | train(aggregation__rule="geometric_median", aggregation__weighting="examples"),
        OPEN | train(aggregation__rule="krum", compression__rotate=True),
        OPEN | train(algorithm="fedbuff", compression__bits=8),
        OPEN | train(algorithm="fednova", step_clip_norm=0.0),
        OPEN | train(sampler="fixed", l2_clip_norm=INFINITE),
        OPEN | train(hierarchy__institutions=4, algorithm="fedprox", compression__bits=8),
        OPEN | {"devices.over_commitment": 1.2, "devices.availability": "markov"},
        train(algorithm="scaffold", step_clip_norm=0.0, compression__sign=True),
        train(algorithm="mime_lite", step_clip_norm=0.0, sampler="full", server_optimizer="yogi"),
        {"devices.availability": "markov", "devices.deadline_seconds": 60.0},
        RECORDS,
        {"evaluation.rivals": ("aim",)},
        LOCAL | {"evaluation.rivals": ("aim",)},
        LOCAL | train(compression__sign=True, compression__error_feedback=True, sampler="full"),
        LOCAL | train(algorithm="scaffold", step_clip_norm=0.0) | {"data.population": "procedural"},
        {"privacy.canaries": 100},
        {"privacy.canaries": 100, "privacy.randomness": "system"},
        IDEAL | {"privacy.canaries": 100},
        LOCAL | {"privacy.randomness": "system"},
        train(clip_quantile=0.5, compression__rotate=True, compression__bits=8) | {"privacy.canaries": 100},
        OPEN | train(clip_quantile=0.9, algorithm="fedprox", aggregation__rule="fixed_point"),
        IDEAL | train(compression__rotate=True, aggregation__secure_bits=4),
        MASKED | train(algorithm="scaffold", step_clip_norm=0.0, aggregation__secure_degree=20),
        OPEN | MASKED | train(sampler="fixed") | {"devices.over_commitment": 1.2},
        VOTED | {"pategan.train.l2_clip_norm": INFINITE, "pategan.threshold": "zero"},
        LOCAL | {"pategan.train.cohort": 30},  # not among the models
        {"classifier.train.sampler": "fixed", "classifier.train.l2_clip_norm": INFINITE},  # never private
        {"evaluation.augmentation": "chosen", "evaluation.real_fractions": (1, 0.2, 0.05)},
    ],
)
def test_what_no_rule_forbids_is_allowed(changes):
    convert(changes)


SECTIONS = [  # (path, a value out of range) of every bound on one number
    *[(f"vae.train.{n}", 0) for n in ("rounds_per_chunk", "local_epochs", "local_steps", "concurrency", "max_staleness")],
    ("vae.train.server_learning_rate", 0.0),
    ("vae.train.proximal_weight", -0.1),
    ("vae.train.sampler", "poison"),
    ("vae.train.clip_quantile", 1.0),
    ("vae.train.clip_quantile", -0.1),
    ("vae.train.clip_learning_rate", 0.0),
    ("vae.train.aggregation.rule", "medain"),
    ("vae.train.aggregation.attack", "label_flop"),
    ("vae.train.aggregation.secure", "ideel"),
    ("vae.train.aggregation.attackers", -0.1),
    ("vae.train.aggregation.attack_scale", 0.0),
    ("vae.train.compression.sparsify", "topk"),
    ("vae.train.compression.keep_fraction", 0.0),
    ("vae.train.compression.keep_fraction", 1.5),
    ("vae.train.compression.bits", -1),
    ("vae.train.compression.down_bits", 17),
    ("vae.train.hierarchy.institutions", -1),
    ("vae.train.hierarchy.period", 0),
    ("devices.availability", "marcov"),
    ("devices.on_fraction", 0.0),
    ("devices.on_fraction", 1.1),
    ("devices.mean_on_seconds", 0.0),
    ("devices.failures_per_hour", -1.0),
    ("devices.deadline_seconds", -1.0),
    ("devices.over_commitment", 0.9),
    ("data.num_clients", 2**30 + 1),
    ("data.partition.scheme", "dirichlett"),
    ("data.representation", "cupola"),
    ("data.partition.num_clients", 1),
    ("data.partition.alpha", 0.0),
    ("data.partition.sites", -1),
    ("data.partition.site_gain", -0.1),
    ("data.partition.site_offset", -0.1),
    ("data.partition.site_noise", -0.1),
    ("data.partition.site_keep", 0.0),
    ("privacy.noise_bands", 0),
    ("privacy.least_share", 0.0),
    ("privacy.trial", -1),
    ("privacy.least_share", 1.1),
    ("privacy.randomness", "sytem"),
    ("evaluation.augmentation", "choosen"),
    ("evaluation.real_fractions", (1.0, 1.2)),
    ("vae.dense", "inner"),
    ("gan.dense", "inner"),
    ("classifier.dense", "inner"),
    ("classifier.loss", "focl"),
    ("classifier.focal_gamma", 0.5),
    ("classifier.class_weights", "balancd"),
    ("classifier.input_dropout", 1.0),
    ("classifier.input_bound", 0.5),
    ("evaluation.controls", ("smot",)),
    ("evaluation.controls", ("smote", "smote")),
    ("evaluation.unknown_share", 0.0),
    ("evaluation.unknown_share", 1.0),
    ("gan.generator_batch", 0), ("pategan.votes", 0), ("pategan.threshold", "means"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), SECTIONS)
def test_a_value_out_of_range_names_its_key(path, value):
    with pytest.raises(UserError) as error:
        convert({path: value})
    assert f"config {path}=" in str(error.value) and "\n" not in str(error.value)
    if isinstance(value, str):
        assert "did you mean" in str(error.value) or value == "inner"


@pytest.mark.parametrize(
    "module", [checks, checks_training, checks_votes, evaluation_config], ids=lambda module: module.__name__
)
def test_no_rule_stands_here_that_no_test_breaks(module):
    """Runs every broken config above and the one-number rules of test_config, and asks which rules ever said no."""
    source = inspect.getsource(module).splitlines()
    calls = {
        i + 1 for i, line in enumerate(source) if line.strip().startswith(("require(", "check_choice(", "positive("))
    }
    said_no: set[int] = set()
    for changes in (
        [c for c, _ in RULES] + [{p: v} for p, v in SECTIONS] + [{p: v} for p, v in test_config.OUT_OF_RANGE]
    ):
        with pytest.raises(UserError) as error:
            convert(changes)
        trace = error.tb
        lines = set()
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == module.__file__:
                lines.add(trace.tb_lineno)
            trace = trace.tb_next
        said_no |= lines
    starts = sorted(calls)
    hit = {max((s for s in starts if s <= line), default=0) for line in said_no}
    assert [f"{i}: {source[i - 1].strip()}" for i in starts if i not in hit and "def " not in source[i - 1]] == []
