"""Simulated vitals: how good the generators get, federated by patient, before noise and with it.

python -m launch.main --config=configs/vitals.py            12,000 devices, no privacy
python -m launch.main --config=configs/vitals.py:private    2,500 devices, epsilon 3: the one-shot copula alone
python -m launch.main --config=configs/vitals.py:smoke      the first in miniature

A quarter or half as many devices more are held out: figures against few devices are of the sample more than of the generator.
Judged on up to 10,000 records a side. Without a guarantee the real records are also cut to a fifth and a twentieth of them.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs import base


def train_openly(config: Any) -> None:
    """The trainings of both generators where no noise hides anybody, in copula space.

    Args:
      config: changed in place.
    """
    config.models = ("copula", "vae", "wgan_gp")
    config.privacy.mechanism = "none"
    config.data.representation = "copula"
    config.vae.hidden, config.vae.latent, config.vae.kl_weight, config.vae.decoder = (128, 128), 8, 1.0, "causal"
    config.wgan_gp.hidden, config.wgan_gp.latent, config.wgan_gp.generator = (128, 128), 24, "causal"
    for section in (config.vae, config.wgan_gp):
        # the mean gradient of a cohort is the message, and the server's optimiser steps along it: one large batch. Records of a
        # device resemble one another, so few records of many devices are a better one; rates fall to 0, that all comes to rest
        section.train.update(
            {"local_steps": 1, "client_learning_rate": 1.0, "step_clip_norm": 0.0, "l2_clip_norm": 1e6,
             "server_learning_rate": 2e-3, "server_schedule": "cosine"}
        )  # fmt: skip
    config.vae.train.update(rounds=2_500, rounds_per_chunk=250, cohort=400, batch_size=4, ema_decay=0.995)
    # a critic without momentum, some seven times as fast as the generator, and many rounds
    config.wgan_gp.train.update(rounds=20_000, rounds_per_chunk=500, cohort=960, batch_size=1, ema_decay=0.999)
    config.wgan_gp.train.update(server_optimizer="rmsprop", server_learning_rate=4e-3)
    config.wgan_gp.generator_learning_rate = 6e-4


def get_config(variant: str = "") -> ConfigDict:
    """The scenario.

    Args:
      variant: "", "private" or "smoke".
    """
    config: Any = base.get_config()
    config.name = "vitals"
    config.data.num_clients, config.data.test_fraction = 12_000, 0.25
    config.evaluation.max_rows = 10_000
    config.evaluation.real_fractions = (1.0, 0.2, 0.05)
    train_openly(config)
    if variant == "private":
        config.name = "vitals_private"
        # nothing is trained: at 2,000 devices it adds less than its share of the budget takes from the statistics
        config.models = ("copula",)
        config.privacy.mechanism, config.privacy.epsilon = "central_gaussian", 3.0
        config.privacy.representation_share = 0.95  # the class shares take the rest, down to epsilon 1
        config.data.num_clients, config.data.test_fraction = 2_500, 0.95
        config.evaluation.max_rows, config.evaluation.real_fractions = 5_000, (1.0,)
        # of a VAE that is asked for all the same
        config.vae.hidden, config.vae.latent, config.vae.decoder = (64, 64), 4, "independent"
        config.vae.train.update(rounds=1_000, cohort=100, batch_size=16, l2_clip_norm=0.3, ema_decay=0.99)
        config.vae.train.update(server_learning_rate=3e-3, server_schedule="constant")
    elif variant == "smoke":
        config.name = "vitals_smoke"
        config.quick_compile = True
        config.seeds = 1
        config.data.num_clients = 300
        config.evaluation.max_rows = 300
        for section in (config.vae, config.wgan_gp, config.classifier):
            section.hidden = (16,)
            section.train.rounds, section.train.rounds_per_chunk, section.train.cohort = 10, 10, 40
    elif variant:
        raise ValueError(f"configs/vitals.py knows no variant {variant!r}; known: private, smoke")
    return config
