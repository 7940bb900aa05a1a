"""The classifier of a domain's tables: what it is trained on, and over which federation."""

from __future__ import annotations

import numpy as np
from jax.sharding import Mesh

from fedjax_health import build, rng
from fedjax_health.config import Config
from fedjax_health.data.domain import Domain
from fedjax_health.evaluation import suite
from fedjax_health.evaluation.controls import WEIGHTED
from fedjax_health.evaluation.downstream import Downstream, Programs, make_downstream, make_programs, view_population
from fedjax_health.evaluation_config import ClassifierConfig
from fedjax_health.federation_config import TrainConfig
from fedjax_health.models.base import Classifier, Trainable
from fedjax_health.models.classifier import balanced_weights, make_classifier
from fedjax_health.prepared import Prepared
from fedjax_health.train.stage import federation_keys


def make_setting(config: Config, p: Prepared, promise: tuple[float, float] | None) -> suite.Setting:
    """What the evaluation of a domain needs.

    Args:
      config: the run.
      p: the domain.
      promise: (epsilon, delta) of the run, or None.
    """
    include = p.include[:, : int(p.domain.train.client.max()) + 1]
    return suite.Setting(p.domain, include, config.evaluation, config.seed, promise)


def make_classifier_of(config: Config, domain: Domain) -> Classifier:
    """The classifier of a domain, untrained.

    Args:
      config: the run.
      domain: its records.
    """
    return classifier_of(config.classifier, domain.encoder.layout.dim, domain.schema.num_classes)


def classifier_of(c: ClassifierConfig, dim: int, num_classes: int) -> Classifier:
    """The classifier of a section, untrained.

    Args:
      c: the section.
      dim: D, the width of model space.
      num_classes: L.
    """
    return make_classifier(dim, num_classes, c.hidden, c.dense, c.loss, c.focal_gamma, c.input_bound, c.input_dropout)


def programs_of(
    model: Trainable, train: TrainConfig, config: Config, p: Prepared, setting: suite.Setting, mesh: Mesh
) -> Programs:
    """What trains a model of evaluation through the federation of a domain.

    Args:
      model: a classifier, or another that learns from clients' records.
      train: how.
      config: the run.
      p: the domain.
      setting: of its evaluation.
      mesh: devices.
    """
    shared = p.domain._replace(population=view_population(p.domain.train, setting.include.shape[1]))
    parts = build.build_parts(model, shared, train, config, mesh, published=False)
    return make_programs(parts, train, p.domain.encoder, model if isinstance(model, Classifier) else None)


def make_downstream_of(
    config: Config, p: Prepared, setting: suite.Setting, mesh: Mesh, made: dict[str, Programs] | None = None
) -> Downstream:
    """The federated training of a domain's classifier.

    Args:
      config: the run.
      p: the domain.
      setting: of its evaluation.
      mesh: devices.
      made: programs of runs whose classifier, devices and clients are the same, by domain; what is not there yet is added.
    """
    domain, c, made = p.domain, config.classifier, {} if made is None else made
    if domain.name not in made:
        made[domain.name] = programs_of(make_classifier_of(config, domain), c.train, config, p, setting, mesh)
    keys = federation_keys(rng.named_seed(config.seed, domain.name, "classifier"), config.seeds)
    weights = None
    if c.class_weights == "balanced":
        weights = balanced_weights(p.shares)
    elif domain.task == "detection" and WEIGHTED in config.evaluation.controls:
        weights = np.ones_like(p.shares)  # traced, so that the control needs no program of its own
    programs = made[domain.name]
    return make_downstream(programs, c.train, domain.train, domain.encoder, setting.include, keys, weights)
