"""Simulated vitals with distributed noise: each device puts its share of it into a secure sum, and the server sees only that.

python -m launch.main --config=configs/distributed.py          10,000 devices, epsilon 8 for one device's data
python -m launch.main --config=configs/distributed.py:smoke    the same stages in miniature

As with local noise the promise holds against the server, which sees who sends, so that sampling amplifies nothing; but the
noise of a cohort is that of one sum, not of every message. Devices may be lost in a round: the others' noise is enough.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs import base, iot


def get_config(variant: str = "") -> ConfigDict:
    """Discrete noise inside the secure sum.

    Args:
      variant: "" or "smoke".
    """
    config: Any = iot.get_config(variant)
    config.name = "distributed_smoke" if variant else "distributed"
    config.data.domains = ("vitals",)
    config.models = ("vae",)
    config.privacy.mechanism = "distributed_gaussian"
    config.privacy.prior_noise_multiplier = (
        4.0  # on each device's shares: with thousands of them the sum is precise enough
    )
    for section in base.generative(config):
        section.train.aggregation.secure = "ideal"
    config.devices.failures_per_hour = 60.0
    if not variant:  # the local config's cohorts and rounds; noise of one sum leaves room for the default model
        config.vae.train.cohort, config.vae.train.rounds = 1_000, 400
    return config
