"""The diagnostic (or detection) classifier, trained through the federation on real, synthetic and real+synthetic records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health.data.encode import Encoder
from fedjax_health.data.population import Population
from fedjax_health.evaluation.mixtures import Held, Mixture, held, make_spans, spans_population, view_mixture
from fedjax_health.federated.federation import Data, Parts
from fedjax_health.federation_config import TrainConfig
from fedjax_health.models.base import Classifier
from fedjax_health.models.classifier import WEIGHTS
from fedjax_health.train.loop import Train, make_hyper, make_train, run_rounds
from fedjax_health.types import Array, Hyper, Params, Table

VIEWS = ("real", "synthetic", "real+synthetic")


class Fitted(NamedTuple):
    """N trained classifiers.

    Attributes:
      probabilities: (table, seed index) -> f64[M, L].
      loss: (table, seed index) -> f64[M], cross-entropy in nats.
      released: their parameters, leading axis N; None where the classifier is chosen seed by seed.
    """

    probabilities: Callable[[Table, int], np.ndarray]
    loss: Callable[[Table, int], np.ndarray]
    released: Params | None = None


class Downstream(NamedTuple):
    """Trains classifiers; one compilation serves every view, every mixture, every generator and all class weights.

    Attributes:
      fit: (view, synthetic tables [N] of M rows each, stage name) -> Fitted.
      fit_mixtures: (mixtures [N], stage name, class weights f32[N, L] or None = as the config has them) -> Fitted.
      at: where the real records stand.
      traces: how often the chunk was traced.
    """

    fit: Callable[[str, list[Table], str], Fitted]
    fit_mixtures: Callable[..., Fitted]
    at: Held
    traces: Callable[[], int]


class Programs(NamedTuple):
    """What is compiled to train a model of evaluation, once for all federations of the same clients, N at a time.

    Attributes:
      train: of `make_train`.
      predict: (released, values f32[M, F]) -> log-probabilities f32[M, L]; None where the model is no classifier.
    """

    train: Train
    predict: Callable[[Any, np.ndarray], Array] | None = None


class Trainer(NamedTuple):
    """N federations over `view_population` that are trained side by side and, being evaluation, without noise.

    Attributes:
      train: (mixtures [N], stage name, further traced numbers with leading axis N) -> what is released, leading axis N.
      at: where the real records stand.
      traces: how often the chunk was traced.
    """

    train: Callable[[list[Mixture], str, Hyper], Any]
    at: Held
    traces: Callable[[], int]


def view_population(train: Table, num_clients: int) -> Population:
    """Population of the classifier: a client's own records, synthetic ones, or both.

    Args:
      train: real records, client-major.
      num_clients: K.
    """
    return spans_population(num_clients, 2 * held(train, num_clients).most)


def make_programs(
    parts: Parts, config: TrainConfig, encoder: Encoder, classifier: Classifier | None = None
) -> Programs:
    """Programs that are compiled when they are first used.

    Args:
      parts: federation over `view_population`.
      config: how it trains.
      encoder: of its records.
      classifier: the model in `parts` where it is one.
    """
    ask = None if classifier is None else jax.jit(lambda released, x: classifier.predict(released, encoder.encode(x)))
    return Programs(make_train(parts, config, shared_population=False), ask)


def make_trainer(
    programs: Programs, config: TrainConfig, train: Table, encoder: Encoder, include: np.ndarray, keys: Array
) -> Trainer:
    """Prepares trainings on mixtures. All of them do the same number of steps on the same clients, so a difference between
    two of one model is one of data; one compilation serves all.

    Args:
      programs: of `make_programs`.
      config: how it trains.
      train: real records, client-major.
      encoder: of their schema.
      include: bool[N, K], which clients exist for each seed.
      keys: typed keys [N].
    """
    clients, seeds = include.shape[1], include.shape[0]
    at = held(train, clients)
    encode = jax.jit(encoder.encode)
    real = np.asarray(encode(train.values))

    def run(mixtures: list[Mixture], stage: str, numbers: Hyper) -> Any:
        data = Data(make_spans(mixtures, real, train.label, encode), jnp.asarray(include))
        state = programs.train.init(keys)
        own = ("client_learning_rate", "server_learning_rate", "l2_clip_norm", "proximal_weight", "rounds")
        hyper = make_hyper({name: getattr(config, name) for name in own}, seeds) | numbers
        outcome = run_rounds(
            programs.train,
            config,
            state,
            hyper,
            data,
            stage=stage,
            round_limit=config.rounds,
            limit_reason="round limit",
            on_chunk=lambda *_: None,
            norms=np.empty((seeds, 0)),
        )
        return jax.device_get(outcome.state.average)

    return Trainer(run, at, programs.train.traces)


def make_downstream(
    programs: Programs,
    config: TrainConfig,
    train: Table,
    encoder: Encoder,
    include: np.ndarray,
    keys: Array,
    weights: np.ndarray | None = None,
) -> Downstream:
    """Prepares federated training of the classifier. It is evaluation only: no noise, never published.

    Args:
      programs: of `make_programs`, with its classifier.
      config, train, encoder, include, keys: as for `make_trainer`.
      weights: f32[N, L], class weights of the loss; None = 1.
    """
    trainer, predict = make_trainer(programs, config, train, encoder, include, keys), programs.predict
    assert predict is not None

    def fit(view: str, synthetic: list[Table], stage: str) -> Fitted:
        return fit_mixtures([view_mixture(view, made, trainer.at) for made in synthetic], stage)

    def fit_mixtures(mixtures: list[Mixture], stage: str, own: np.ndarray | None = None) -> Fitted:
        w = weights if own is None else own
        numbers = {} if w is None else {WEIGHTS: jnp.asarray(w, jnp.float32)}
        released = trainer.train(mixtures, stage, numbers)

        def log_probability(table: Table, seed: int) -> np.ndarray:
            mine = jax.tree.map(lambda leaf: leaf[seed], released)
            return np.asarray(predict(mine, table.values.astype(np.float32)), np.float64)

        def loss(table: Table, seed: int) -> np.ndarray:
            return -log_probability(table, seed)[np.arange(len(table.label)), table.label]

        return Fitted(lambda table, seed: np.exp(log_probability(table, seed)), loss, released)

    return Downstream(fit, fit_mixtures, trainer.at, trainer.traces)
