"""MIMIC-III (the demo or the full set): hourly vitals of intensive-care stays, a patient is a client.

    python -m launch.main --config=configs/mimic3.py --config.data.path=FOLDER [--config.data.label=sepsis]

Set for the 100 patients of the demo, which are too few for a client-level guarantee that means anything: the mechanism is
"none". With the full set: --config.privacy.mechanism=central_gaussian.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """No mechanism; about a third of the training patients a round."""
    config = base.get_config()
    config.name = "mimic3"
    config.data.domains = ("mimic3",)
    config.data.validation_fraction, config.data.test_fraction = 0.15, 0.25
    config.privacy.mechanism = "none"
    for section in (*base.generative(config), config.classifier):
        section.train.cohort = 24
    return config
