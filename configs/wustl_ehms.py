"""WUSTL-EHMS-2020: network flows and biometrics of a hospital testbed under attack; a client is a block of 200 rows.

    python -m launch.main --config=configs/wustl_ehms.py --config.data.path=FILE_OR_FOLDER

One testbed and 82 blocks: too few clients for a client-level guarantee that means anything, so the mechanism is "none" and
the report says so.
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
    config.vae.train.rounds = 1_000
    config.vae.latent = 10
    return config
