"""Sizes and steps that `Synthesizer` trains a table's VAE with."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from configs import base
from fedjax_health import sections
from fedjax_health.federation_config import TrainConfig

BATCH = 256  # of central training
SHARDS = 40  # clients that central rows are dealt to: one of them trains a step a round


@dataclasses.dataclass(frozen=True)
class Preset:
    """Sizes and steps of a VAE.

    Attributes:
      hidden, latent: of the network.
      representation: of `schema.REPRESENTATIONS`.
      train: how.
      decoder: of the VAE.
    """

    hidden: tuple[int, ...]
    latent: int
    representation: str
    train: TrainConfig
    decoder: str = "independent"


def preset(count: np.ndarray, epsilon: float, federated: bool) -> Preset:
    """What `Synthesizer` trains; chosen on PhysioNet 2019 vitals (`benchmarks.quality`).

    Args:
      count: i64[K], records of each client; of one client each where training is central and a guarantee hides a row.
      epsilon: budget, infinite without a guarantee.
      federated: whether there is a client column.
    """
    rows, clients, batch = int(count.sum()), len(count), min(16, int(count.max()))
    step: dict[str, Any] = {
        "local_steps": 1,
        "client_learning_rate": 1.0,
        "step_clip_norm": 0.0,
        "rounds_per_chunk": 250,
    }
    if math.isfinite(epsilon):
        cohort = max(min(100, clients // 2), round(0.05 * clients))
        return Preset((64, 64), 4, "copula", _train(
            **step, rounds=1000, cohort=cohort, batch_size=batch, server_learning_rate=3e-3, l2_clip_norm=0.3, ema_decay=0.99,
        ))  # fmt: skip
    if federated:
        return Preset((128, 128), 8, "scores", _train(
            **step, rounds=2000, cohort=min(200, clients), batch_size=batch, server_learning_rate=2e-3, l2_clip_norm=1e6,
            ema_decay=0.995, aggregation={**base.train()["aggregation"], "weighting": "examples"},
        ))  # fmt: skip
    rounds = 250 * math.ceil(min(max(60 * rows / BATCH, 2000), 12_000) / 250)
    return Preset((128, 128), 8, "copula", _train(
        **step, rounds=rounds, cohort=1, sampler="fixed", batch_size=min(BATCH, max(rows // SHARDS, 1)),
        server_learning_rate=1e-3, l2_clip_norm=1e6, ema_decay=0.995,
    ), "causal")  # fmt: skip


def _train(**changes: Any) -> TrainConfig:
    return sections.section(TrainConfig, base.train(**changes), "train")
