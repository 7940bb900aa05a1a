"""The classifiers of a run, trained through the federation, and what a detection is compared with besides."""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import Mesh

from fedjax_health import rng
from fedjax_health.classifying import make_classifier_of, make_downstream_of, programs_of
from fedjax_health.config import Config
from fedjax_health.evaluation import suite
from fedjax_health.evaluation.anomaly import fit_anomaly
from fedjax_health.evaluation.arena import rows_where
from fedjax_health.evaluation.controls import ANOMALY, JOINED, MOST_ROWS, TREES, Predict, fit_boosted, fit_controls
from fedjax_health.evaluation.downstream import Downstream, Programs, make_trainer
from fedjax_health.evaluation.joined import joined
from fedjax_health.evaluation.on_device import BATCHES, device_rows
from fedjax_health.models.anomaly import make_anomaly
from fedjax_health.prepared import Prepared
from fedjax_health.train.stage import federation_keys
from fedjax_health.types import Row, Table


def fit_classifiers(
    config: Config,
    p: Prepared,
    setting: suite.Setting,
    subjects: list[suite.Subject],
    rivals: dict[str, list[Table]],
    mesh: Mesh,
    made: dict[str, Programs] | None = None,
) -> suite.Fits:
    """The classifier trained through the federation on real, synthetic and both; of a detection its controls as well.

    Args:
      config: the run.
      p: the domain.
      setting: of its evaluation.
      subjects: generators and their tables.
      rivals: of `rivals.rival_tables`.
      mesh: devices.
      made: of `make_downstream_of`.
    """
    made = {} if made is None else made
    downstream = make_downstream_of(config, p, setting, mesh, made)
    fits = suite.fit_all(setting, subjects, rivals, downstream)
    if p.domain.task != "detection":
        return fits
    real = fits.by_row["-", "real"].probabilities
    return fits._replace(detectors=fit_detectors(config, p, setting, subjects, mesh, downstream, real, made))


def detector_costs(config: Config, p: Prepared, fits: suite.Fits) -> list[Row]:
    """What the detector asks of a device for each flow: size, operations, time here, predicted time and energy there.

    Args:
      config: the run.
      p: the domain, a detection.
      fits: of `fit_classifiers`; the detector of the first seed that was trained on real records is measured.
    """
    domain = p.domain
    mine = jax.tree.map(lambda leaf: leaf[0], fits.by_row["-", "real"].released)
    flows = np.resize(domain.test.values, (max(BATCHES), len(domain.schema.inputs)))
    return device_rows(domain.name, make_classifier_of(config, domain), mine, domain.encoder, flows)


def fit_detectors(
    config: Config,
    p: Prepared,
    setting: suite.Setting,
    subjects: list[suite.Subject],
    mesh: Mesh,
    downstream: Downstream,
    real: Predict,
    made: dict[str, Programs],
) -> dict[tuple[str, str], Predict]:
    """What evaluation.controls names, by (generator or "-", row); with the anomaly detector also the joined one.

    Args:
      config: the run.
      p: the domain.
      setting: of its evaluation.
      subjects: generators and their tables.
      mesh: devices.
      downstream: trains the classifier.
      real: the classifier on real records.
      made: of `make_downstream_of`.
    """
    domain, wanted, seeds = p.domain, config.evaluation.controls, range(config.seeds)
    stage = f"{domain.name}/classifier"
    found = fit_controls(setting, subjects, downstream, p.shares, stage)
    if "anomaly" in wanted:
        anomaly = make_anomaly(domain.encoder.layout, config.vae)
        train, address = config.vae.train, f"{domain.name}/{ANOMALY}"
        if address not in made:
            made[address] = programs_of(anomaly.model, train, config, p, setting, mesh)
        keys = federation_keys(rng.named_seed(config.seed, domain.name, "anomaly"), config.seeds)
        trainer = make_trainer(made[address], train, domain.train, domain.encoder, setting.include, keys)
        found["-", ANOMALY] = fit_anomaly(
            trainer, anomaly, domain.train, domain.encoder, config.vae.kl_weight, f"{domain.name}/anomaly", config.seeds
        )
        benign = rows_where(domain.validation, domain.validation.label == 0)
        found["-", JOINED] = joined(real, found["-", ANOMALY], [benign] * config.seeds, config.evaluation.unknown_share)
    if TREES in wanted:
        tables = [
            suite.rows_of_clients(
                domain.train, suite.included(setting, s, True), MOST_ROWS,
                setting.generator(rng.Stream.EVALUATE, TREES, str(s)),
            )
            for s in seeds
        ]  # fmt: skip
        own = [rng.named_seed(setting.seed, TREES, str(s)) for s in seeds]
        found["-", TREES] = fit_boosted(tables, domain.schema, own)
    return found
