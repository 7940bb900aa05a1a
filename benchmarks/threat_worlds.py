"""Worlds of `benchmarks.detection_threats`: independent simulated logs, or NSL-KDD dealt anew, each with a detector."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from configs import base, nsl_kdd
from fedjax_health import build
from fedjax_health.attacks.evasion import LogBenign
from fedjax_health.classifying import make_classifier_of
from fedjax_health.config import Config, from_config_dict
from fedjax_health.data.domain import Domain
from fedjax_health.data.source import NO_GROUPS
from fedjax_health.evaluation.arena import Arena, log_benign_of, make_arena, rows_where
from fedjax_health.evaluation.mixtures import held, spans_population
from fedjax_health.federated import sharding
from fedjax_health.models.base import Classifier
from fedjax_health.train.stage import federation_keys

SEEDS, QUICK_SEEDS = 5, 2
DEVICES, QUICK_DEVICES = 1000, 200  # of a world that train; a quarter as many validate, half as many test
ROUNDS, QUICK_ROUNDS = 200, 50
GENERATIONS, QUICK_GENERATIONS = 3, 1  # of hardening in rounds
TEST_RECORDS, QUICK_TEST_RECORDS = 4000, 1000  # of KDDTest+, drawn anew for each seed
MAX_FPR = 0.05
FIRST_SEED = 0  # worlds 100 and on were for trying things out


class Worlds(NamedTuple):
    """Independent worlds, one a seed.

    Attributes:
      domains: of each world.
      config: of the first; how detectors train.
      classifier: the detector.
      log_benign: its answer.
    """

    domains: list[Domain]
    config: Config
    classifier: Classifier
    log_benign: LogBenign


def make_worlds(quick: bool) -> Worlds:
    """Simulated logs: every seed has devices of its own, also to validate and test on.

    Args:
      quick: fewer and smaller worlds.
    """
    raw = base.get_config()
    raw.data.domains, raw.models, raw.privacy.mechanism = ("threats",), ("vae",), "none"
    raw.data.num_clients = QUICK_DEVICES if quick else DEVICES
    raw.data.validation_fraction, raw.data.test_fraction = 0.25, 0.5
    raw.classifier.train.rounds = QUICK_ROUNDS if quick else ROUNDS
    config = from_config_dict(raw)
    seeds = range(FIRST_SEED, FIRST_SEED + (QUICK_SEEDS if quick else SEEDS))
    domains = [build.build_domain("threats", dataclasses.replace(config, seed=s)) for s in seeds]
    return with_detector(domains, config)


def nsl_kdd_worlds(quick: bool, folder: str) -> Worlds:
    """NSL-KDD: every seed deals the training records to devices anew, holds out others of them, and tests on other records.

    Args:
      quick: fewer seeds, rounds and test records.
      folder: with nsl_kdd/.
    """
    raw: Any = nsl_kdd.get_config()
    raw.data.path = os.path.join(folder, "nsl_kdd")
    # the detector whose figures docs/evasion.md gives, before input_bound and input_dropout were
    raw.classifier.update(input_bound=0.0, input_dropout=0.0)
    raw.classifier.train.update(rounds=QUICK_ROUNDS if quick else ROUNDS, batch_size=64, server_learning_rate=0.01)
    config = from_config_dict(raw)
    domains = []
    for s in range(FIRST_SEED, FIRST_SEED + (QUICK_SEEDS if quick else SEEDS)):
        domain = build.build_domain("nsl_kdd", dataclasses.replace(config, seed=s))
        count = len(domain.test.label)
        kept = np.random.default_rng(s).permutation(count)[: QUICK_TEST_RECORDS if quick else TEST_RECORDS]
        domains.append(domain._replace(test=rows_where(domain.test, np.sort(kept)), groups=NO_GROUPS))
    return with_detector(domains, config)


def generations_of(quick: bool) -> int:
    """Rounds of hardening in rounds."""
    return QUICK_GENERATIONS if quick else GENERATIONS


def with_detector(domains: Sequence[Domain], config: Config) -> Worlds:
    """Worlds with the detector of a config.

    Args:
      domains: of one schema.
      config: the run.
    """
    one = domains[0]
    classifier = make_classifier_of(config, one)
    return Worlds(list(domains), config, classifier, log_benign_of(classifier, one.encoder))


def arena_of(worlds: Worlds, classifier: Classifier, generations: int) -> Arena:
    """Where a detector is trained in all worlds at once.

    Args:
      worlds: as made.
      classifier: that of the worlds, or hardened.
      generations: of evasive flows that there is room for beside a device's own records.
    """
    domains, config = worlds.domains, worlds.config
    clients = max(int(w.train.client.max()) for w in domains) + 1
    most = (1 + generations) * max(held(w.train, clients).most for w in domains)
    room = generations * max(int((w.train.label > 0).sum()) for w in domains)
    shared = domains[0]._replace(population=spans_population(clients, most))
    train = config.classifier.train
    parts = build.build_parts(classifier, shared, train, config, sharding.make_mesh(), published=False)
    keys = federation_keys(FIRST_SEED, len(domains))
    return make_arena(parts, classifier, train, domains, room, MAX_FPR, keys)
