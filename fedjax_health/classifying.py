"""The classifier of a domain's tables: what it is trained on, and over which federation."""

from __future__ import annotations

import numpy as np
from jax.sharding import Mesh

from fedjax_health import build, rng
from fedjax_health.config import Config
from fedjax_health.data.domain import Domain
from fedjax_health.evaluation import suite
from fedjax_health.evaluation.controls import WEIGHTED
from fedjax_health.evaluation.downstream import Downstream, make_downstream, view_population
from fedjax_health.evaluation_config import ClassifierConfig
from fedjax_health.models.base import Classifier
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


def make_downstream_of(config: Config, p: Prepared, setting: suite.Setting, mesh: Mesh) -> Downstream:
    """The federated training of a domain's classifier.

    Args:
      config: the run.
      p: the domain.
      setting: of its evaluation.
      mesh: devices.
    """
    domain, c = p.domain, config.classifier
    classifier = make_classifier_of(config, domain)
    shared = domain._replace(population=view_population(domain.train, setting.include.shape[1]))
    parts = build.build_parts(classifier, shared, c.train, config, mesh, published=False)
    keys = federation_keys(rng.named_seed(config.seed, domain.name, "classifier"), config.seeds)
    weights = None
    if c.class_weights == "balanced":
        weights = balanced_weights(p.shares)
    elif domain.task == "detection" and WEIGHTED in config.evaluation.controls:
        weights = np.ones_like(p.shares)  # traced, so that the control needs no program of its own
    return make_downstream(parts, classifier, c.train, domain.train, domain.encoder, setting.include, keys, weights)
