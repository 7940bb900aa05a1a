"""A whole partition by config: what it changes, what it says, and who is never dealt."""

from __future__ import annotations

import numpy as np
import pytest
import toy
from tables import (
    NATURAL,
    PATIENTS,
    SENSORS,
    TOY,
    config,
    same_records,
    sensor_table,
)

from fedjax_health.config import DataConfig
from fedjax_health.data.domain import domain_from_simulator, domain_from_source
from fedjax_health.data.partition import label_skew, partition_table
from fedjax_health.data.source import Source
from fedjax_health.data.split import split_clients
from fedjax_health.federation_config import PartitionConfig
from fedjax_health.types import UserError


def test_natural_is_the_same_object():
    table, notes = partition_table(PATIENTS, SENSORS, NATURAL, 0, "toy")
    assert table is PATIENTS and notes == ()


@pytest.mark.parametrize("scheme", ["iid", "dirichlet", "quantity"])
def test_partition_deals_whole_natural_clients_and_says_so(scheme):
    table, (note,) = partition_table(PATIENTS, SENSORS, config(scheme=scheme, num_clients=10), 0, "toy")
    assert same_records(table, PATIENTS)
    assert max(len(set(table.client[table.values[:, 1] == p])) for p in range(120)) == 1
    assert f"{len(PATIENTS.label)} training records of 120 natural clients were dealt to 10 new clients" in note
    assert "the unit of privacy is the new client" in note and f"{label_skew(table):.3f} in total variation" in note


def test_partition_depends_on_seed_and_name_only():
    changes = config(scheme="dirichlet", num_clients=10, sites=2, site_noise=1.0, site_keep=0.5)
    table = sensor_table(30, 5)
    one, again, other, named = (
        partition_table(table, SENSORS, changes, seed, name)[0]
        for seed, name in ((0, "toy"), (0, "toy"), (1, "toy"), (0, "other"))
    )
    np.testing.assert_array_equal(one.values, again.values)
    np.testing.assert_array_equal(one.client, again.client)
    for different in (other, named):
        assert one.values.shape != different.values.shape or not np.array_equal(one.values, different.values)


def test_sites_of_natural_clients():
    changes = config(sites=4, site_gain=0.1, site_keep=0.5)
    table, (note,) = partition_table(TOY, toy.SCHEMA, changes, 0, "toy")
    assert set(table.client) == set(TOY.client) and len(table.label) < len(TOY.label)
    assert "4 sites" in note and "gain (SD 0.1)" in note and f"({len(table.label)} of {len(TOY.label)})" in note


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheme": "shards"}, "scheme='shards' is not one of natural, iid"),
        ({"sites": -1}, "sites=-1 must be 0"),
        ({"sites": 121}, "toy: config data.partition.sites=121 is more than the 120 training clients"),
        ({"sites": 2, "site_gain": -0.1}, "site_gain=-0.1 must be finite"),
        ({"sites": 2, "site_offset": np.inf}, "site_offset=inf must be finite"),
        ({"sites": 2, "site_noise": np.nan}, "site_noise=nan must be finite"),
        ({"sites": 2, "site_keep": 0.0}, "site_keep=0.0 must be in"),
        ({"sites": 2, "site_keep": 1.1}, "site_keep=1.1 must be in"),
        ({"scheme": "iid", "num_clients": 121}, "num_clients=121 must be from 2 to 120"),
    ],
)
def test_mistakes_are_told(changes, message):
    with pytest.raises(UserError, match=message):
        partition_table(PATIENTS, SENSORS, config(**changes), 0, "toy")


def data_config(partition: PartitionConfig, population: str = "stored") -> DataConfig:
    return DataConfig(
        domains=("toy",), path="", schema="", task="diagnosis", label="", features="all", population=population,
        num_clients=60, validation_fraction=0.2, test_fraction=0.2, audit_fraction=0.2, reference_clients=24,
        representation="public",
        partition=partition,
    )  # fmt: skip


DEALT = config(scheme="dirichlet", num_clients=9, alpha=0.5)


def test_domain_of_a_source_deals_inside_the_training_split_only():
    source = Source(toy.SCHEMA, "diagnosis", TOY, ("Read.",))
    natural, dealt = (domain_from_source("toy", source, data_config(p), 0) for p in (NATURAL, DEALT))
    assert natural.notes == ("Read.",) and dealt.notes[0] == "Read." and "9 new clients" in dealt.notes[1]
    assert dealt.population.size == 9 and dealt.data.count.shape == (9,)
    assert dealt.population.max_count == int(dealt.data.count.max())
    assert sorted(map(tuple, np.nan_to_num(dealt.train.values, nan=-1.0))) == sorted(
        map(tuple, np.nan_to_num(natural.train.values, nan=-1.0))
    )
    train, *held_out = split_clients(TOY, 0.2, 0.2, 0, "toy")
    assert len(train.label) == len(dealt.train.label)
    for part, other in zip((dealt.validation, dealt.test), held_out, strict=True):
        np.testing.assert_array_equal(part.values, other.values)
        np.testing.assert_array_equal(part.client, other.client)


def test_domain_of_a_simulator():
    natural, dealt = (domain_from_simulator("toy", toy.SIMULATOR, data_config(p), 0) for p in (NATURAL, DEALT))
    assert natural.population.size == 60 and natural.notes == ()
    assert dealt.population.size == 9 and dealt.data.count.shape == (9,) and "9 new clients" in dealt.notes[0]
    assert int(dealt.data.count.sum()) == len(natural.train.label)
    np.testing.assert_array_equal(dealt.test.values, natural.test.values)
    # sites leave the number of clients alone, even where the last ones have no records
    sited = domain_from_simulator("toy", toy.SIMULATOR, data_config(config(sites=3, site_offset=0.5)), 0)
    assert sited.population.size == 60 and sited.data.count.shape == (60,) and "3 sites" in sited.notes[0]


@pytest.mark.parametrize("partition", [DEALT, config(sites=3)], ids=["dealt", "sites"])
def test_a_procedural_population_cannot_be_dealt(partition):
    with pytest.raises(UserError, match="cannot deal or skew"):
        domain_from_simulator("toy", toy.SIMULATOR, data_config(partition, "procedural"), 0)
    assert domain_from_simulator("toy", toy.SIMULATOR, data_config(NATURAL, "procedural"), 0).population.size == 60
