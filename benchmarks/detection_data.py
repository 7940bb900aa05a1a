"""Data sets of `benchmarks.detection`: simulated logs, WUSTL-EHMS-2020 by block, NSL-KDD on its official test set."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from configs import base, nsl_kdd
from fedjax_health.config import from_config_dict
from fedjax_health.data import threats
from fedjax_health.data.domain import domain_from_source
from fedjax_health.data.nsl_kdd import SCHEMA as NSL_KDD
from fedjax_health.data.nsl_kdd import load_nsl_kdd
from fedjax_health.data.schema import Schema
from fedjax_health.data.simulator import population_key, simulate_clients
from fedjax_health.data.split import inclusion_masks
from fedjax_health.data.wustl_ehms import load_wustl_ehms
from fedjax_health.evaluation_config import ClassifierConfig, EvaluationConfig
from fedjax_health.types import Table, UserError

DEVICES, VALIDATION, TEST = 800, 200, 600  # simulated
LEFT_OUT = 0.2  # share of the training devices that a seed leaves out, so that seeds differ by their data, too
BLOCKS = (0.15, 0.3)  # share of WUSTL's blocks that validate, and that test, drawn anew in each seed
WUSTL = ("network", "biometrics", "all")
BATCH = 32  # records a step
NAMES = ("threats", *(f"wustl-{features}" for features in WUSTL), "nsl_kdd")


class World(NamedTuple):
    """One data set, N times split.

    Attributes:
      name: of `NAMES`.
      schema: its columns.
      table: records of all clients that any seed trains on, client-major.
      include: bool[N, K], training clients of a seed.
      validation, test: of each seed; client ids are those of the devices, the same in every seed.
      groups: of each seed, parts of `test` that are judged by themselves.
      classifier: the detector, and how it is trained.
      unknown_share: of the anomaly detector in the joined one.
    """

    name: str
    schema: Schema
    table: Table
    include: np.ndarray
    validation: tuple[Table, ...]
    test: tuple[Table, ...]
    groups: tuple[Mapping[str, np.ndarray], ...]
    classifier: ClassifierConfig
    unknown_share: float = EvaluationConfig.unknown_share

    @property
    def seeds(self) -> int:
        """N."""
        return len(self.include)

    def training(self, keep: np.ndarray, seed: int) -> Table:
        """Records of a seed's training clients.

        Args:
          keep: bool[M], those that there are.
          seed: index on the N axis.
        """
        there = self.include[seed][self.table.client] & keep
        return Table(*(column[there] for column in self.table))


def _of(table: Table, clients: np.ndarray) -> Table:
    there = np.isin(table.client, clients)
    return Table(*(column[there] for column in table))


def detector(cohort: int) -> ClassifierConfig:
    """The detector that data sets share which have none of their own.

    Args:
      cohort: clients a round.
    """
    raw: Any = base.get_config()
    raw.classifier.train.update(rounds=150, rounds_per_chunk=50, cohort=cohort, batch_size=BATCH)
    return from_config_dict(raw).classifier


def simulated(seeds: int, devices: int = DEVICES) -> World:
    """Simulated logs: 800 training devices of which each seed leaves out a fifth, 200 and 600 others.

    Args:
      seeds: N.
      devices: for training.
    """
    ids = np.arange(devices + VALIDATION + TEST, dtype=np.int32)
    table = simulate_clients(threats.make_threats(), ids, population_key(0))
    train, validation, test = (
        _of(table, part) for part in np.split(ids, [devices, devices + VALIDATION])
    )  # fmt: skip
    include = inclusion_masks(devices, LEFT_OUT, seeds, 0, "threats")
    each = ((validation,) * seeds, (test,) * seeds, ({},) * seeds)
    return World("threats", threats.THREATS, train, include, *each, detector(30))


def blocks(features: str, folder: pathlib.Path, seeds: int) -> World:
    """WUSTL-EHMS-2020: blocks of 200 rows, of which each seed draws its own to train on, to validate and to test.

    Args:
      features: of `WUSTL`.
      folder: of its file.
      seeds: N.
    """
    source = load_wustl_ehms(str(folder), features)
    table, count = source.table, int(source.table.client.max()) + 1
    validate, test = round(BLOCKS[0] * count), round(BLOCKS[1] * count)
    include, parts = np.zeros((seeds, count), bool), []
    for s in range(seeds):
        order = np.random.default_rng([0, s]).permutation(count)
        include[s, order[validate + test :]] = True
        parts.append((_of(table, order[:validate]), _of(table, order[validate : validate + test])))
    validation, tested = zip(*parts, strict=True)
    return World(
        f"wustl-{features}", source.schema, table, include, validation, tested, ({},) * seeds, detector(24)
    )  # fmt: skip


def connections(folder: pathlib.Path, seeds: int) -> World:
    """NSL-KDD: the 20 % training file dealt to 200 devices with shares of their own; KDDTest+ whole.

    Args:
      folder: of its files.
      seeds: N.
    """
    config = from_config_dict(nsl_kdd.get_config())
    domain = domain_from_source("nsl_kdd", load_nsl_kdd(str(folder)), config.data, 0)
    clients = int(domain.train.client.max()) + 1
    include = inclusion_masks(clients, LEFT_OUT, seeds, 0, "nsl_kdd")
    each = ((domain.validation,) * seeds, (domain.test,) * seeds, (domain.groups,) * seeds)
    own = config.classifier, config.evaluation.unknown_share
    return World("nsl_kdd", domain.schema, domain.train, include, *each, *own)


def load(name: str, data: str, seeds: int) -> World:
    """A data set by its name.

    Args:
      name: of `NAMES`.
      data: folder with `wustl_ehms/` and `nsl_kdd/`.
      seeds: N.

    Raises:
      UserError: an unknown name, or a file that is missing.
    """
    folder = pathlib.Path(data)
    if name == "threats":
        return simulated(seeds)
    if name == "nsl_kdd":
        return connections(folder / name, seeds)
    if name not in NAMES:
        raise UserError(f"data set {name!r} is not one of {', '.join(NAMES)}; name one of them")
    return blocks(name.removeprefix("wustl-"), folder / "wustl_ehms", seeds)


def types(name: str) -> tuple[str, ...]:
    """Classes of a data set whose types of attack are left out one by one, the benign one first.

    Args:
      name: "threats" or "nsl_kdd".
    """
    return (threats.THREATS if name == "threats" else NSL_KDD).label.categories
