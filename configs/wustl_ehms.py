"""WUSTL-EHMS-2020: network flows and biometrics of a hospital testbed under attack; a client is a block of 200 rows.

    python -m launch.main --config=configs/wustl_ehms.py --config.data.path=FILE_OR_FOLDER
    python -m launch.main --config=configs/wustl_ehms.py --config.data.path=FILE_OR_FOLDER --config.data.features=network

One testbed and 82 blocks: too few clients for a client-level guarantee that means anything, so the mechanism is "none" and
the report says so. The VAE makes the free quantities of a flow one after the other; what follows from them is computed.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """No mechanism; every training block takes part in every round."""
    config = base.get_config()
    config.name = "wustl_ehms"
    config.data.domains = ("wustl_ehms",)
    config.data.validation_fraction, config.data.test_fraction = 0.15, 0.3
    config.privacy.mechanism = "none"
    for section in (*base.generative(config), config.classifier):
        section.train.cohort, section.train.batch_size = 24, 64
    config.vae.hidden, config.vae.latent, config.vae.kl_weight, config.vae.decoder = (128, 128), 8, 1.0, "causal"
    # the mean gradient of the blocks, and Adam on the server: one large batch
    config.vae.train.update(
        rounds=1_500, rounds_per_chunk=250, batch_size=16, client_learning_rate=1.0, server_learning_rate=2e-3,
        step_clip_norm=0.0, l2_clip_norm=1e6, ema_decay=0.995,
    )  # fmt: skip
    return config
