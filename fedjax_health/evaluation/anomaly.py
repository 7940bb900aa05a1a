"""Trains the anomaly detector on the benign records of a federation; see `models.anomaly`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health.data.encode import Encoder
from fedjax_health.evaluation.controls import Predict
from fedjax_health.evaluation.downstream import Trainer
from fedjax_health.evaluation.mixtures import Mixture, kept
from fedjax_health.models.anomaly import Anomaly
from fedjax_health.types import Table, UserError


def fit_anomaly(
    trainer: Trainer,
    anomaly: Anomaly,
    train: Table,
    encoder: Encoder,
    kl_weight: float,
    stage: str,
    seeds: int,
    keep: np.ndarray | None = None,
) -> Predict:
    """N detectors, trained on records of class 0 alone: a client without any takes part with nothing.

    Args:
      trainer: of `make_trainer`, over a federation that trains `anomaly.model`.
      anomaly: the detector.
      train: real records, client-major; what a trainer's mixtures read.
      encoder: of their schema.
      kl_weight: of the training.
      stage: name for messages.
      seeds: N.
      keep: bool[N, M], records that there are; None = all.

    Returns:
      (records, seed) -> f64[M, 2], (1 - surprise, surprise) in nats: not probabilities, and no types are named.

    Raises:
      UserError: no client holds a benign record.
    """
    benign = np.stack([train.label == 0] * seeds) & (True if keep is None else keep)
    if not benign.any(1).all():
        raise UserError(
            "an anomaly detector learns from benign records, and no training client holds one; leave it out"
        )
    nothing, none = Table(*(column[:0] for column in train)), np.zeros_like(trainer.at.count)
    spans = [kept(train, trainer.at, mine) for mine in benign]
    mixtures = [Mixture(nothing, at.first, at.count, at.first, none, order) for order, at in spans]
    released = trainer.train(mixtures, stage, {"kl_weight": jnp.full((seeds,), kl_weight, jnp.float32)})
    surprise = jax.jit(lambda params, values: anomaly.surprise(params, encoder.encode(values)))

    def alarm(table: Table, seed: int) -> np.ndarray:
        mine = jax.tree.map(lambda leaf: leaf[seed], released)
        s = np.asarray(surprise(mine, table.values.astype(np.float32)), np.float64)
        return np.stack([1.0 - s, s], 1)

    return alarm
