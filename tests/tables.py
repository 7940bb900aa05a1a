"""Tables that can be followed record by record, for the tests of partitioners."""

from __future__ import annotations

import dataclasses

import numpy as np
import toy

from fedjax_health.data.schema import Column, Schema
from fedjax_health.data.simulator import simulate_table
from fedjax_health.federation_config import PartitionConfig
from fedjax_health.types import Table

PRIOR = np.array([0.6, 0.3, 0.1])
NATURAL = PartitionConfig(
    scheme="natural", num_clients=1, alpha=1.0, sites=0, site_gain=0.0, site_offset=0.0, site_noise=0.0, site_keep=1.0
)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def config(**changes) -> PartitionConfig:
    return dataclasses.replace(NATURAL, **changes)


def patients(sizes, seed: int = 0) -> Table:
    """The values of a record are its own number and its patient's; classes as in PRIOR."""
    client = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    values = np.stack([np.arange(len(client)), client], 1).astype(np.float32)
    return Table(values, generator(seed).choice(3, len(client), p=PRIOR).astype(np.int32), client)


RECORDS = patients(np.ones(4000, int))
PATIENTS = patients(generator(1).integers(1, 9, 120))


def same_records(dealt: Table, table: Table) -> bool:
    order = np.argsort(dealt.values[:, 0])
    return np.array_equal(dealt.values[order], table.values) and np.array_equal(dealt.label[order], table.label)


SENSORS = Schema(
    "sensors",
    (
        Column(name="pressure", low=-1e6, high=1e6, center=0.0, scale=20.0),
        Column(name="rate", low=0.0, high=1e6, scale=0.5, center=5.0, transform="log1p"),
        Column(name="ward", kind="categorical", categories=("a", "b", "c")),
        Column(name="glucose", low=-1e6, high=1e6, center=0.0, scale=5.0, nullable=True),
        Column(name="sick", kind="binary", role="label"),
    ),
)


def sensor_table(clients: int, each: int) -> Table:
    g, n = generator(8), clients * each
    values = np.stack(
        [g.normal(100, 30, n), np.expm1(g.normal(5, 0.5, n)), g.integers(0, 3, n), g.normal(90, 15, n)], 1
    ).astype(np.float32)
    values[g.random(n) < 0.2, 3] = np.nan
    return Table(values, g.integers(0, 2, n).astype(np.int32), np.repeat(np.arange(clients, dtype=np.int32), each))


TOY = simulate_table(toy.SIMULATOR, 200, seed=0)
