"""Detectors and generators of `benchmarks.detection`: compiled once a data set, and then trained on any of its records."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.detection_data import BATCH, World
from configs import base
from fedjax_health import rng, sections
from fedjax_health.build_federation import build_federation
from fedjax_health.classifying import classifier_of
from fedjax_health.config import VaeConfig
from fedjax_health.data.encode import make_encoder
from fedjax_health.devices.round import make_ideal
from fedjax_health.evaluation import controls
from fedjax_health.evaluation.anomaly import fit_anomaly
from fedjax_health.evaluation.arena import rows_where
from fedjax_health.evaluation.augmentation import raised
from fedjax_health.evaluation.controls import Predict
from fedjax_health.evaluation.downstream import Downstream, Trainer, make_downstream, make_programs, make_trainer
from fedjax_health.evaluation.joined import joined
from fedjax_health.evaluation.mixtures import Mixture, dealt_mixture, held, kept, spans_population, view_mixture
from fedjax_health.federated import sharding
from fedjax_health.federation_config import TrainConfig
from fedjax_health.models.anomaly import Anomaly, make_anomaly
from fedjax_health.models.base import GenerativeModel, Trainable
from fedjax_health.models.classifier import balanced_weights
from fedjax_health.models.vae import make_vae
from fedjax_health.synthesis.sample import Published, decoder_of, make_sampler
from fedjax_health.train.stage import federation_keys
from fedjax_health.types import Table

FOCAL = "focal"
VIEWS = ("real", "synthetic", "real+synthetic")
MIXED = ("random-oversampling", "smote", "real+gaussian-copula", "real+balanced")  # attacks raised to balance
ROWS = (*VIEWS, "class-weights", FOCAL, *MIXED, controls.ANOMALY, controls.JOINED, controls.TREES)
VAE_ROUNDS, CHUNK, VAE_COHORT = 600, 50, 20
QUICK = 3  # by which a generator's rounds are cut


class Fits(NamedTuple):
    """Detectors of one variant of the training records.

    Attributes:
      rows: row -> detector.
      seconds: row -> wall time of its N trainings, and of the generator's under "generator"; the first of each kind compiles.
    """

    rows: dict[str, Predict]
    seconds: dict[str, float]


class Learners:
    """What can be trained on the records of a data set; a training is compiled when it is first asked for."""

    def __init__(self, world: World, quick: bool = False):
        """Nothing is trained yet.

        Args:
          world: the data set.
          quick: fewer rounds.
        """
        self.world, self.encoder = world, make_encoder(world.schema)
        train = world.classifier.train
        self.train = dataclasses.replace(train, rounds=train.rounds_per_chunk) if quick else train
        # a step's gradient is the message, and the server's Adam makes steps of it
        generator = base.train(
            rounds=VAE_ROUNDS // (QUICK if quick else 1), rounds_per_chunk=CHUNK, cohort=VAE_COHORT, batch_size=BATCH,
            local_steps=1, client_learning_rate=1.0, step_clip_norm=0.0, server_learning_rate=3e-3, l2_clip_norm=1e6,
            ema_decay=0.98,
        )  # fmt: skip
        self.vae = VaeConfig((64, 64), "auto", 8, 0.7, sections.section(TrainConfig, generator, "train"))
        self.at = held(world.table, world.include.shape[1])
        self._made: dict[str, Any] = {}

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def _federation(self, model: Trainable, train: TrainConfig) -> Any:
        population = spans_population(len(self.at.count), 2 * self.at.most)
        return build_federation(
            model, population, self.encoder.layout.dim, self.world.schema.num_classes, train, sharding.make_local_mesh(),
            lambda asked: make_ideal(), 1.0, "none",
        )  # fmt: skip

    def _keys(self, name: str) -> Any:
        return federation_keys(rng.named_seed(0, self.world.name, name), self.world.seeds)

    def classifier(self, loss: str = "") -> Downstream:
        """Federated training of the classifier.

        Args:
          loss: of `models.classifier.LOSSES`; "" = the data set's own.
        """

        def make() -> Downstream:
            w = self.world
            section = dataclasses.replace(w.classifier, loss=loss) if loss else w.classifier
            model = classifier_of(section, self.encoder.layout.dim, w.schema.num_classes)
            parts, ones = self._federation(model, self.train), np.ones((w.seeds, w.schema.num_classes), np.float32)
            programs = make_programs(parts, self.train, self.encoder, model)
            return make_downstream(
                programs, self.train, w.table, self.encoder, w.include, self._keys("classifier"), ones
            )  # fmt: skip

        return self._once(loss, make)

    def _trainer(self, model: GenerativeModel, train: TrainConfig, name: str) -> Trainer:
        w = self.world
        programs = make_programs(self._federation(model, train), train, self.encoder)
        return make_trainer(
            programs, train, w.table, self.encoder, w.include, self._keys(name)
        )  # fmt: skip

    def generator(self) -> tuple[Trainer, Callable[..., Table]]:
        """Federated training of the conditional VAE, and the sampler of what it releases."""

        def make() -> tuple[Trainer, Callable[..., Table]]:
            model = make_vae(self.encoder.layout, self.world.schema.num_classes, self.vae)
            sample = make_sampler(model, decoder_of(self.world.schema, "public"))
            return self._trainer(model, self.vae.train, "vae"), sample

        return self._once("vae", make)

    def anomaly(self) -> tuple[Trainer, Anomaly]:
        """Federated training of the anomaly detector."""

        def make() -> tuple[Trainer, Anomaly]:
            anomaly = make_anomaly(self.encoder.layout, self.vae)
            return self._trainer(anomaly.model, self.vae.train, "anomaly"), anomaly

        return self._once("anomaly", make)


def fit(learners: Learners, keep: np.ndarray, wanted: Callable[[str], bool]) -> Fits:
    """Trains detectors, and the generator that some of them need, on what is left of the training records.

    Args:
      learners: of a data set.
      keep: bool[N, M], the records that each seed's federation has: generator, controls and detectors see no other.
      wanted: whether a row of `ROWS` is; what a joined detector is made of comes along.
    """
    asked = {row for row in ROWS if wanted(row)}
    if controls.JOINED in asked:
        asked |= {"real", controls.ANOMALY}
    world, at, seeds = learners.world, learners.at, range(learners.world.seeds)
    classes = world.schema.num_classes
    real = [world.training(keep[s], s) for s in seeds]
    counts = [np.bincount(t.label, minlength=classes).astype(np.int64) for t in real]
    amounts = [raised(n) for n in counts]
    spans = [kept(world.table, at, keep[s]) for s in seeds]
    nothing = Table(*(column[:0] for column in world.table))
    rows: dict[str, Predict] = {}
    seconds: dict[str, float] = {}

    def draws(*names: str) -> list[np.random.Generator]:
        return [rng.host_rng(0, rng.Stream.EVALUATE, world.name, *names, str(s)) for s in seeds]

    def add(row: str, make: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        found = make()
        seconds[row] = time.perf_counter() - began
        if row in ROWS:
            rows[row] = found
        return found

    def view(name: str, made: Sequence[Table]) -> list[Mixture]:
        return [view_mixture(name, made[s], spans[s][1])._replace(order=spans[s][0]) for s in seeds]

    def dealt(pools: Sequence[Table]) -> list[Mixture]:
        return [
            dealt_mixture(pools[s], amounts[s], spans[s][1], world.include[s], g)._replace(order=spans[s][0])
            for s, g in enumerate(draws("dealt"))
        ]

    def classify(mixtures: list[Mixture], row: str, loss: str = "", weights: Any = None) -> Predict:
        return learners.classifier(loss).fit_mixtures(mixtures, f"{world.name}/{row}", weights).probabilities

    generators = [row for row in ("synthetic", "real+synthetic", "real+balanced") if row in asked]
    networks = add("generator", lambda: _networks(learners, view("real", [nothing] * len(seeds)))) if generators else []

    def made(shares: Sequence[np.ndarray], number: Sequence[int], name: str) -> list[Table]:
        sample, keys = learners.generator()[1], learners._keys(name)
        return [
            sample(Published(networks[s]), (shares[s] / max(shares[s].sum(), 1)).astype(np.float32), keys[s], number[s])
            for s in seeds
        ]

    if "real" in asked:
        add("real", lambda: classify(view("real", [nothing] * len(seeds)), "real"))
    if "class-weights" in asked:
        shares = np.stack([np.maximum(n / n.sum(), 1e-3) for n in counts])
        add("class-weights", lambda: classify(
            view("real", [nothing] * len(seeds)), "class-weights", weights=balanced_weights(shares)
        ))  # fmt: skip
    if FOCAL in asked:
        add(FOCAL, lambda: classify(view("real", [nothing] * len(seeds)), FOCAL, FOCAL))
    if set(generators) & set(VIEWS):
        table = made(counts, [len(world.table.label)] * len(seeds), "table")
        for row in set(generators) & set(VIEWS):
            add(row, lambda row=row: classify(view(row, table), row))
    for row, make in controls.MAKERS.items():
        if row in asked:
            add(row, lambda row=row, make=make: classify(
                dealt([make(real[s], world.schema, amounts[s], g) for s, g in enumerate(draws(row))]), row
            ))  # fmt: skip
    if "real+balanced" in asked:
        # twice what is asked for, so that a class that comes up less often than its share has enough
        add("real+balanced", lambda: classify(
            dealt(made(amounts, [2 * int(n.sum()) + 100 for n in amounts], "balance")), "real+balanced"
        ))  # fmt: skip
    if controls.TREES in asked:
        add(controls.TREES, lambda: controls.fit_boosted(real, world.schema, list(seeds)))
    if controls.ANOMALY in asked:
        add(controls.ANOMALY, lambda: _anomaly(learners, keep))
    if controls.JOINED in asked:
        benign = [rows_where(table, table.label == 0) for table in world.validation]
        rows[controls.JOINED] = joined(rows["real"], rows[controls.ANOMALY], benign, world.unknown_share)
    return Fits(rows, seconds)


def _networks(learners: Learners, mixtures: list[Mixture]) -> list[Any]:
    weight = jnp.full((learners.world.seeds,), learners.vae.kl_weight, jnp.float32)
    released = learners.generator()[0].train(mixtures, f"{learners.world.name}/vae", {"kl_weight": weight})
    return [jax.tree.map(lambda leaf, s=s: leaf[s], released) for s in range(learners.world.seeds)]


def _anomaly(learners: Learners, keep: np.ndarray) -> Predict:
    trainer, anomaly = learners.anomaly()
    world = learners.world
    benign = keep[:, world.table.label == 0].tobytes()  # nothing else is read: variants that differ in attacks share it
    return learners._once(f"anomaly/{hashlib.sha256(benign).hexdigest()}", lambda: fit_anomaly(
        trainer, anomaly, world.table, learners.encoder, learners.vae.kl_weight, f"{world.name}/anomaly", world.seeds, keep
    ))  # fmt: skip
