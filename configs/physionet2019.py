"""PhysioNet/CinC 2019 early sepsis: hourly vitals of intensive-care patients, a patient is a client.

python -m launch.main --config=configs/physionet2019.py --config.data.path=FOLDER    (p*.psv files)
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Client-level differential privacy over the training patients; sepsis hours are rare (1.4 %)."""
    config = base.get_config()
    config.name = "physionet2019"
    config.data.domains = ("physionet2019",)
    config.data.validation_fraction, config.data.test_fraction = 0.1, 0.2
    config.evaluation.max_rows = 5_000
    return config
