"""Generative models side by side, on simulated vitals: small networks and short trainings, to compare them, not to publish.

python -m launch.main --config=configs/models.py          2,000 devices, epsilon 24 for all six (8.3 for one); 8 min, 2 cores
python -m launch.main --config=configs/models.py:pategan  PATE-GAN alone, 2,000 devices, 400 teachers, epsilon 8; 4 min
python -m launch.main --config=configs/models.py:smoke    all seven in miniature, one seed, 2 to 3 minutes

A run's budget is shared by its models: of one that you mean to publish train that one. PATE-GAN has a run of its own, since its
noise is on votes and nothing amplifies it: in one run with the others they would all get as much. With
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
      variant: "", "pategan" or "smoke".
    """
    config: Any = base.get_config()
    config.name = "models"
    config.models = tuple(name for name in MODELS if name != "pategan")
    config.data.representation = "public"  # in which the figures in the README were measured
    config.data.num_clients = 2_000
    config.privacy.epsilon = 24.0
    for section in base.generative(config):
        section.hidden = (32, 32)
        section.train.rounds, section.train.rounds_per_chunk = 300, 50
    if variant == "pategan":
        config.name, config.models = "models_pategan", ("pategan",)
        config.privacy.epsilon = 8.0
    elif variant == "smoke":
        config.name, config.models = "models_smoke", MODELS
        config.pategan.teachers = 20
        config.quick_compile = True
        config.seeds = 1
        config.data.num_clients = 300
        config.evaluation.max_rows = 300
        for section in (*base.generative(config), config.classifier):
            section.hidden = (16,)
            section.train.rounds, section.train.rounds_per_chunk, section.train.cohort = 10, 10, 40
    elif variant:
        raise ValueError(f"configs/models.py knows no variant {variant!r}; known: pategan, smoke")
    return config
