"""Simulated vitals with record-level privacy: each device clips and noises every record's gradient before anything leaves it.

python -m launch.main --config=configs/records.py          10,000 devices, epsilon 8 for one record
python -m launch.main --config=configs/records.py:smoke    the same stages in miniature

Not even the server sees an update without noise. In exchange the promise hides one record, an hour of one patient, not the
patient: compare it with no other run's epsilon.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs import base, iot


def get_config(variant: str = "") -> ConfigDict:
    """Record-level DP-SGD on the clients.

    Args:
      variant: "" or "smoke".
    """
    config: Any = iot.get_config(variant)
    config.name = "records_smoke" if variant else "records"
    config.data.domains = ("vitals",)
    config.models = ("vae",)
    config.privacy.mechanism = "record_gaussian"
    for section in base.generative(config):
        section.train.local = "epochs"  # a batch may hold a record only once
    config.vae.train.batch_size = 12
    config.vae.train.l2_clip_norm = 1.0
    return config
