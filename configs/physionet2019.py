"""PhysioNet/CinC 2019 early sepsis: hourly vitals of intensive-care patients, a patient is a client.

python -m launch.main --config=configs/physionet2019.py --config.data.path=FOLDER    (p*.psv files)
python -m launch.main --config=configs/physionet2019.py:open --config.data.path=FOLDER    no privacy, as configs/vitals.py
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs import base, vitals


def get_config(variant: str = "") -> ConfigDict:
    """Client-level differential privacy over the training patients; sepsis hours are rare (1.4 %).

    Args:
      variant: "" or "open".
    """
    config: Any = base.get_config()
    config.name = "physionet2019"
    config.data.domains = ("physionet2019",)
    config.data.validation_fraction, config.data.test_fraction = 0.1, 0.2
    config.evaluation.max_rows = 5_000
    if variant == "open":
        config.name = "physionet2019_open"
        vitals.train_openly(config)
        # a narrower critic, half the rates of configs/vitals.py and more rounds: what docs/quality.md measured here
        config.wgan_gp.hidden, config.wgan_gp.generator_learning_rate = (64, 64), 3e-4
        config.wgan_gp.train.update(rounds=15_000, cohort=480, server_learning_rate=2e-3, ema_decay=0.998)
    elif variant:
        raise ValueError(f"configs/physionet2019.py knows no variant {variant!r}; known: open")
    return config
