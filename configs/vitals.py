"""Simulated vitals without a guarantee: how good the generators get, federated by patient, before noise.

python -m launch.main --config=configs/vitals.py          12,000 devices, no privacy
python -m launch.main --config=configs/vitals.py:smoke    the same stages in miniature

A quarter of the devices is held out, since figures against fewer of them are of the sample more than of the generator. Judged on
up to 20,000 records a side. The real records are also cut to a fifth and a twentieth of the devices (Table 2).
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "") -> ConfigDict:
    """The scenario.

    Args:
      variant: "" or "smoke".
    """
    config: Any = base.get_config()
    config.name = "vitals"
    config.models = ("copula", "vae", "wgan_gp")
    config.privacy.mechanism = "none"
    config.data.representation = "copula"
    config.data.num_clients, config.data.test_fraction = 12_000, 0.25
    config.evaluation.max_rows = 20_000
    config.evaluation.real_fractions = (1.0, 0.2, 0.05)
    config.vae.hidden, config.vae.latent, config.vae.kl_weight, config.vae.decoder = (128, 128), 8, 1.0, "causal"
    config.wgan_gp.hidden, config.wgan_gp.latent = (128, 128), 24
    for section in (config.vae, config.wgan_gp):
        # the mean gradient of a cohort, and Adam on the server: one large batch of many devices' records
        section.train.update(
            {"rounds": 2_500, "rounds_per_chunk": 250, "local_steps": 1, "batch_size": 16, "cohort": 100,
             "client_learning_rate": 1.0, "step_clip_norm": 0.0, "l2_clip_norm": 1e6, "ema_decay": 0.995}
        )  # fmt: skip
    config.vae.train.server_learning_rate = 2e-3
    config.wgan_gp.train.server_learning_rate, config.wgan_gp.generator_learning_rate = 2e-3, 3e-4
    if variant == "smoke":
        config.name = "vitals_smoke"
        config.quick_compile = True
        config.seeds = 1
        config.data.num_clients = 300
        config.evaluation.max_rows = 300
        for section in (config.vae, config.wgan_gp, config.classifier):
            section.hidden = (16,)
            section.train.rounds, section.train.rounds_per_chunk, section.train.cohort = 10, 10, 40
    elif variant:
        raise ValueError(f"configs/vitals.py knows no variant {variant!r}; known: smoke")
    return config
