"""Your own table: any CSV or Parquet file plus a schema file (README, "Your own table").

python -m launch.main --config=configs/table.py --config.data.path=FILE --config.data.schema=FILE.json
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Client-level differential privacy; sizes that suit from about a hundred clients."""
    config = base.get_config()
    config.name = "table"
    config.data.domains = ("table",)
    config.data.validation_fraction, config.data.test_fraction = 0.1, 0.2
    for section in (*base.generative(config), config.classifier):
        section.train.cohort, section.train.batch_size = 50, 8
    return config
