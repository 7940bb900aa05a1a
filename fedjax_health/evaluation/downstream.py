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
from fedjax_health.models.classifier import Classifier
from fedjax_health.train.loop import make_hyper, make_train, run_rounds
from fedjax_health.types import Array, Table

VIEWS = ("real", "synthetic", "real+synthetic")


class Fitted(NamedTuple):
    """N trained classifiers.

    Attributes:
      probabilities: (table, seed index) -> f64[M, L].
      loss: (table, seed index) -> f64[M], cross-entropy in nats.
    """

    probabilities: Callable[[Table, int], np.ndarray]
    loss: Callable[[Table, int], np.ndarray]


class Downstream(NamedTuple):
    """Trains classifiers; one compilation serves every view, every mixture and every generator.

    Attributes:
      fit: (view, synthetic tables [N] of M rows each, stage name) -> Fitted.
      fit_mixtures: (mixtures [N], stage name) -> Fitted.
      at: where the real records stand.
      traces: how often the chunk was traced.
    """

    fit: Callable[[str, list[Table], str], Fitted]
    fit_mixtures: Callable[[list[Mixture], str], Fitted]
    at: Held
    traces: Callable[[], int]


def view_population(train: Table, num_clients: int) -> Population:
    """Population of the classifier: a client's own records, synthetic ones, or both.

    Args:
      train: real records, client-major.
      num_clients: K.
    """
    return spans_population(num_clients, 2 * held(train, num_clients).most)


def make_downstream(
    parts: Parts,
    classifier: Classifier,
    config: TrainConfig,
    train: Table,
    encoder: Encoder,
    include: np.ndarray,
    keys: Array,
) -> Downstream:
    """Prepares federated training of the classifier. It is evaluation only: no noise, never published.

    All views and mixtures do the same number of steps on the same clients, so a difference between them is one of data.

    Args:
      parts: federation over `view_population`.
      classifier: the model in `parts`.
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
    program = make_train(parts, config, shared_population=False)
    compiled: list[Any] = []
    predict = jax.jit(lambda released, x: classifier.predict(released, encoder.encode(x)))

    def fit(view: str, synthetic: list[Table], stage: str) -> Fitted:
        return fit_mixtures([view_mixture(view, made, at) for made in synthetic], stage)

    def fit_mixtures(mixtures: list[Mixture], stage: str) -> Fitted:
        data = Data(make_spans(mixtures, real, train.label, encode), jnp.asarray(include))
        state = program.init(keys)
        hyper = make_hyper(
            {
                "client_learning_rate": config.client_learning_rate,
                "server_learning_rate": config.server_learning_rate,
                "l2_clip_norm": config.l2_clip_norm,
                "proximal_weight": config.proximal_weight,
            },
            seeds,
        )
        if not compiled:
            compiled.append(program.run_chunk.lower(state, hyper, data).compile())
        outcome = run_rounds(
            program._replace(run_chunk=compiled[0]),
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
        released = jax.device_get(outcome.state.average)

        def log_probability(table: Table, seed: int) -> np.ndarray:
            mine = jax.tree.map(lambda leaf: leaf[seed], released)
            return np.asarray(predict(mine, table.values.astype(np.float32)), np.float64)

        def loss(table: Table, seed: int) -> np.ndarray:
            return -log_probability(table, seed)[np.arange(len(table.label)), table.label]

        return Fitted(lambda table, seed: np.exp(log_probability(table, seed)), loss)

    return Downstream(fit, fit_mixtures, at, program.traces)
