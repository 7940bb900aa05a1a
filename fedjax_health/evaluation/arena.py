"""Federated detectors of N worlds side by side: each world has its own training, validation and test devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health.attacks.evasion import Flows, LogBenign, Target
from fedjax_health.data.domain import Domain
from fedjax_health.data.encode import Encoder
from fedjax_health.evaluation.detection import detection_threshold
from fedjax_health.evaluation.mixtures import Spans, held
from fedjax_health.evaluation.utility import positive_score
from fedjax_health.federated.federation import Data, Parts
from fedjax_health.federation_config import TrainConfig
from fedjax_health.models.base import Classifier
from fedjax_health.train.loop import make_hyper, make_train, run_rounds
from fedjax_health.types import Array, Params, Table


def padded(tables: Sequence[Table], rows: int = 0) -> Flows:
    """Tables of N worlds as arrays with a leading axis N, zeros at the end.

    Args:
      tables: one a world.
      rows: n; 0 = the most that a table has.
    """
    n = max(rows, *(len(t.label) for t in tables))
    values = np.zeros((len(tables), n, tables[0].values.shape[1]), np.float32)
    label = np.zeros((len(tables), n), np.int32)
    for s, table in enumerate(tables):
        values[s, : len(table.label)], label[s, : len(table.label)] = table.values, table.label
    count = np.array([len(t.label) for t in tables], np.int32)
    return Flows(*map(jnp.asarray, (values, label, count)))


def rows_where(table: Table, kept: np.ndarray) -> Table:
    """Some rows of a table.

    Args:
      table: M rows.
      kept: bool[M] or indices.
    """
    return Table(*(column[kept] for column in table))


def log_benign_of(classifier: Classifier, encoder: Encoder) -> LogBenign:
    """Log p(benign) of a classifier, in the units of the records.

    Args:
      classifier: class 0 is benign.
      encoder: of the records.
    """
    return lambda released, values: classifier.predict(released, encoder.encode(values))[:, 0]


class Arena(NamedTuple):
    """Where detectors of N worlds are trained and judged.

    Attributes:
      fit: (rows beside each device's own: one client-major table a world, or None; stage name) -> released parameters [N].
      scores: (released, one table a world) -> f64[M, L] each, class probabilities.
      target: released -> Target [N], thresholds chosen on each world's validation devices.
      alarms: (target, one table a world) -> bool[M] each.
      traces: how often the training was traced.
    """

    fit: Callable[[Sequence[Table] | None, str], Params]
    scores: Callable[[Params, Sequence[Table]], list[np.ndarray]]
    target: Callable[[Params], Target]
    alarms: Callable[[Target, Sequence[Table]], list[np.ndarray]]
    traces: Callable[[], int]


def make_arena(
    parts: Parts,
    classifier: Classifier,
    config: TrainConfig,
    worlds: Sequence[Domain],
    room: int,
    max_fpr: float,
    keys: Array,
) -> Arena:
    """Prepares the training. Nothing of it is published and nothing is private: evaluation only.

    Args:
      parts: federation over `spans_population(K, most)`; `most` bounds a device's own rows and those beside them.
      classifier: the model in `parts`.
      config: how it trains.
      worlds: one a seed, K training clients each, of one schema.
      room: most rows of a world that are ever beside the real ones.
      max_fpr: of the operating point, on validation devices.
      keys: typed keys [N].
    """
    encode = jax.jit(worlds[0].encoder.encode)
    clients = parts.population.size
    real = padded([w.train for w in worlds])
    x, total = encode(real.values), real.label.shape[1]
    program = make_train(parts, config, shared_population=False)
    log_probability = jax.jit(jax.vmap(lambda released, values: classifier.predict(released, encode(values))))
    own = [held(w.train, clients) for w in worlds]

    def fit(beside: Sequence[Table] | None, stage: str) -> Params:
        tables = beside or [rows_where(w.train, np.zeros(0, np.int64)) for w in worlds]
        made, others = padded(tables, room), [held(t, clients) for t in tables]
        spans = [[h.first for h in own], [h.count for h in own]]
        spans += [[total + h.first for h in others], [h.count for h in others]]
        data = Spans(
            jnp.concatenate([x, encode(made.values)], 1),
            jnp.concatenate([real.label, made.label], 1),
            *(jnp.asarray(np.stack(s).astype(np.int32)) for s in spans),
        )
        numbers = ("client_learning_rate", "server_learning_rate", "l2_clip_norm", "proximal_weight", "rounds")
        outcome = run_rounds(
            program,
            config,
            program.init(keys),
            make_hyper({name: getattr(config, name) for name in numbers}, len(worlds)),
            Data(data, jnp.ones((len(worlds), clients), bool)),
            stage=stage,
            round_limit=config.rounds,
            limit_reason="round limit",
            on_chunk=lambda *_: None,
            norms=np.empty((len(worlds), 0)),
        )
        return jax.device_get(outcome.state.average)

    def scores(released: Params, tables: Sequence[Table]) -> list[np.ndarray]:
        found = np.exp(np.asarray(log_probability(released, padded(tables).values), np.float64))
        return [p[: len(t.label)] for p, t in zip(found, tables, strict=True)]

    def target(released: Params) -> Target:
        validation = [w.validation for w in worlds]
        found = zip(validation, scores(released, validation), strict=True)
        thresholds = [detection_threshold(t.label, p, max_fpr) for t, p in found]
        return Target(released, jnp.asarray(thresholds, jnp.float32))

    def alarms(target: Target, tables: Sequence[Table]) -> list[np.ndarray]:
        found = zip(scores(target.released, tables), np.asarray(target.threshold, np.float64), strict=True)
        return [positive_score(p) >= threshold for p, threshold in found]

    return Arena(fit, scores, target, alarms, program.traces)
