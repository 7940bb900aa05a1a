"""Simulated health-IoT devices, both domains: hourly vitals with a diagnosis, and security logs with attacks.

python -m launch.main --config=configs/iot.py          10,000 devices, epsilon 8 in all
python -m launch.main --config=configs/iot.py:smoke    the same stages in miniature, under a minute
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "") -> ConfigDict:
    """The default scenario.

    Args:
      variant: "" or "smoke".
    """
    config = base.get_config()
    config.name = "iot"
    config.data.domains = ("vitals", "threats")
    config.data.representation = "public"  # in which its published figures were measured
    config.attacks.shadows, config.attacks.generators = 8, 1  # of the vitals' VAE: 57 s of CPU, 32 of them to compile
    if variant == "smoke":
        config.attacks.shadows = 0
        config.name = "iot_smoke"
        config.quick_compile = True
        config.data.num_clients = 300
        config.evaluation.max_rows = 300
        for section in (config.vae, config.wgan_gp, config.classifier):
            section.hidden = (32,)
            section.train.rounds, section.train.rounds_per_chunk, section.train.cohort = 20, 10, 40
    elif variant:
        raise ValueError(f"configs/iot.py knows no variant {variant!r}; known: smoke")
    return config
