"""Simulated health-IoT devices, both domains: hourly vitals with a diagnosis, and security logs with attacks."""

from __future__ import annotations

from configs import base
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The default scenario.

    Args:
      variant: "" or "smoke".
    """
    config = base.get_config()
    config.name = "iot"
    config.data.domains = ("vitals", "threats")
    if variant == "smoke":
        config.name = "iot_smoke"
        config.data.num_clients = 400
        config.evaluation.max_rows = 1_000
        for section in (config.vae, config.wgan_gp, config.classifier):
            section.hidden = (32,)
            section.train.update(base.train(**{**section.train.to_dict(), "rounds": 20, "rounds_per_chunk": 10, "cohort": 40}))
    elif variant:
        raise ValueError(f"configs/iot.py knows no variant {variant!r}; known: smoke")
    return config
