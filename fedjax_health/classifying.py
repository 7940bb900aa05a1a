"""The classifiers of a domain's tables: what they are trained on, and over which federation."""

from __future__ import annotations

from jax.sharding import Mesh

from fedjax_health import build, rng
from fedjax_health.config import Config
from fedjax_health.evaluation import suite
from fedjax_health.evaluation.downstream import Downstream, make_downstream, view_population
from fedjax_health.models.classifier import make_classifier
from fedjax_health.prepared import Prepared
from fedjax_health.train.stage import federation_keys
from fedjax_health.types import Table


def make_setting(config: Config, p: Prepared, promise: tuple[float, float] | None) -> suite.Setting:
    """What the evaluation of a domain needs.

    Args:
      config: the run.
      p: the domain.
      promise: (epsilon, delta) of the run, or None.
    """
    include = p.include[:, : int(p.domain.train.client.max()) + 1]
    return suite.Setting(p.domain, include, config.evaluation, config.seed, promise)


def make_downstream_of(config: Config, p: Prepared, setting: suite.Setting, mesh: Mesh) -> Downstream:
    """The federated training of a domain's classifier.

    Args:
      config: the run.
      p: the domain.
      setting: of its evaluation.
      mesh: devices.
    """
    domain, train = p.domain, config.classifier.train
    layout, classes = domain.encoder.layout, domain.schema.num_classes
    classifier = make_classifier(layout.dim, classes, config.classifier.hidden, config.classifier.dense)
    clients = setting.include.shape[1]
    shared = domain._replace(population=view_population(domain.train, clients))
    parts = build.build_parts(classifier, shared, train, config, mesh, published=False)
    keys = federation_keys(rng.named_seed(config.seed, domain.name, "classifier"), config.seeds)
    return make_downstream(parts, classifier, train, domain.train, domain.encoder, setting.include, keys)


def fit_classifiers(
    config: Config,
    p: Prepared,
    setting: suite.Setting,
    subjects: list[suite.Subject],
    rivals: dict[str, list[Table]],
    mesh: Mesh,
) -> suite.Fits:
    """The classifier trained through the federation on real, synthetic and both.

    Args:
      config, p, setting, mesh: as for `make_downstream_of`.
      subjects: generators and their tables.
      rivals: of `rivals.rival_tables`.
    """
    return suite.fit_all(setting, subjects, rivals, make_downstream_of(config, p, setting, mesh))
