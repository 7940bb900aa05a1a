"""Simulated vitals with local differential privacy: each device noises its whole update before anything leaves it.

python -m launch.main --config=configs/local.py          10,000 devices, epsilon 8 for one device's data
python -m launch.main --config=configs/local.py:smoke    the same stages in miniature

Nobody but the device itself has to be trusted: the server sees noised updates and noised class shares only. The noise of
a message is that of the whole cohort's sum with central noise, and sampling amplifies nothing against a server that sees
who sends; so cohorts are large and the model is small, and it learns less than with central noise at the same epsilon.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs import iot


def get_config(variant: str = "") -> ConfigDict:
    """Local noise on the clients.

    Args:
      variant: "" or "smoke".
    """
    config: Any = iot.get_config(variant)
    config.name = "local_smoke" if variant else "local"
    config.data.domains = ("vitals",)
    config.models = ("vae",)
    config.privacy.mechanism = "local_gaussian"
    config.privacy.prior_noise_multiplier = (
        4.0  # on each device's shares: with thousands of them the sum is precise enough
    )
    if not variant:  # chosen on validation clients; every parameter more is noise in every message
        config.vae.hidden = (16,)
        config.vae.train.cohort, config.vae.train.rounds = 1_000, 400
        config.vae.train.server_learning_rate = 0.02
    return config
