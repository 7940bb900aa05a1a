"""All generative models side by side, on simulated vitals: small networks and short trainings, to compare them, not to publish.

python -m launch.main --config=configs/models.py          2,000 devices, epsilon 24 for all six (8.3 for one); 8 min, 2 cores
python -m launch.main --config=configs/models.py:smoke    the same stages in miniature, one seed, 2 to 3 minutes

A run's budget is shared by its models: of one that you mean to publish train that one. With
`--config.gan.discriminator_steps=adaptive`, and its like for the other GANs, the discriminator decides when the generator is
updated.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs import base
from fedjax_health.checks import MODELS


def get_config(variant: str = "") -> ConfigDict:
    """Every model of the registry.

    Args:
      variant: "" or "smoke".
    """
    config: Any = base.get_config()
    config.name = "models"
    config.models = MODELS
    config.data.representation = "public"  # in which the figures in the README were measured
    config.data.num_clients = 2_000
    config.privacy.epsilon = 24.0
    for section in base.generative(config):
        section.hidden = (32, 32)
        section.train.rounds, section.train.rounds_per_chunk = 300, 50
    if variant == "smoke":
        config.name = "models_smoke"
        config.quick_compile = True
        config.seeds = 1
        config.data.num_clients = 300
        config.evaluation.max_rows = 300
        for section in (*base.generative(config), config.classifier):
            section.hidden = (16,)
            section.train.rounds, section.train.rounds_per_chunk, section.train.cohort = 10, 10, 40
    elif variant:
        raise ValueError(f"configs/models.py knows no variant {variant!r}; known: smoke")
    return config
