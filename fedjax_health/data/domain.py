"""One domain ready for a run: its population for the compiled program, and its tables for the evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fedjax_health.config import DataConfig
from fedjax_health.data import simulator as sim
from fedjax_health.data.encode import Encoder, make_encoder
from fedjax_health.data.partition import partition_table
from fedjax_health.data.population import Population, make_store, procedural_population, stored_population
from fedjax_health.data.schema import Schema
from fedjax_health.data.source import NO_GROUPS, Source
from fedjax_health.data.split import split_clients, take_clients
from fedjax_health.types import Table, UserError


class Domain(NamedTuple):
    """A domain after the split.

    Attributes:
      name: as in the config.
      task: "diagnosis" or "detection".
      schema, encoder: the columns, and the way to model space and back.
      population, data: training clients as the compiled program reads them.
      train: their records (procedural: of the first `reference_clients`), client ids as in the population.
      validation, test: held-out clients, always the data's own; `test` is the official test set where there is one.
      notes: what was changed in the input, and how it was dealt to clients, a sentence each.
      groups: parts of `test` that are also judged by themselves, name -> bool[M_test]; they may overlap.
    """

    name: str
    task: str
    schema: Schema
    encoder: Encoder
    population: Population
    data: Any
    train: Table
    validation: Table
    test: Table
    notes: tuple[str, ...]
    groups: Mapping[str, np.ndarray] = NO_GROUPS


def domain_from_source(name: str, source: Source, config: DataConfig, seed: int) -> Domain:
    """Splits a stored source by client, deals its training records as `partition` says, and encodes them.

    An official test set is the test set as it is, and `test_fraction` is not read.

    Args:
      name: domain name.
      source: all records.
      config: fractions, `partition`.
      seed: the run's seed.

    Raises:
      UserError: too few clients, a split that leaves training with one class, or a partition that cannot be.
    """
    train, validation, test = split_clients(
        source.table, config.validation_fraction, config.test_fraction, seed, name, source.test
    )
    train, notes = partition_table(train, source.schema, config.partition, seed, name)
    _require_classes(name, source.schema, train, validation, test)
    encoder = make_encoder(source.schema)
    clients = int(train.client.max()) + 1
    store = make_store(train, encoder, clients)
    population = _population(train, clients)
    notes = (*source.notes, *notes)
    return Domain(
        name, source.task, source.schema, encoder, population, store, train, validation, test, notes, source.groups
    )


def domain_from_simulator(name: str, simulator: sim.Simulator, config: DataConfig, seed: int) -> Domain:
    """Simulated clients: 0 … K-1 train, the next ones validate, the last ones test; then `partition` deals the first.

    Args:
      name: domain name.
      simulator: makes a client's records from its key.
      config: `num_clients`, fractions, `population`, `partition`.
      seed: seed of the simulated world.

    Raises:
      UserError: one class only, or a partition that cannot be (a procedural population has none).
    """
    dealt = config.partition.scheme != "natural"
    if config.population == "procedural" and (dealt or config.partition.sites):
        raise UserError(
            f"{name}: data.population='procedural' makes records as it trains and cannot deal or skew them; set it to "
            "'stored', or data.partition.scheme to 'natural' and data.partition.sites to 0"
        )
    k = config.num_clients
    kept = k if config.population == "stored" else min(k, config.reference_clients)
    held_out = max(k if config.population == "stored" else kept, 2)
    validation = max(1, round(held_out * config.validation_fraction))
    test = max(1, round(held_out * config.test_fraction))
    encoder = make_encoder(simulator.schema)
    root = sim.population_key(seed)
    # held-out clients have ids from K on, whichever population trains
    ids = np.concatenate([np.arange(kept), np.arange(k, k + validation + test)]).astype(np.int32)
    table = sim.simulate_clients(simulator, ids, root)
    parts = np.split(np.arange(len(ids)), [kept, kept + validation])
    natural, val, tst = (take_clients(table, part) for part in parts)
    train, notes = partition_table(natural, simulator.schema, config.partition, seed, name)
    _require_classes(name, simulator.schema, train, val, tst)
    k = config.partition.num_clients if dealt else k
    if config.population == "stored":
        population: Population = _population(train, k)
        data: Any = make_store(train, encoder, k)
    else:
        population, data = procedural_population(simulator, encoder, k), root
    return Domain(name, simulator.task, simulator.schema, encoder, population, data, train, val, tst, notes)


def _require_classes(name: str, schema: Schema, train: Table, validation: Table, test: Table) -> None:
    label = schema.label
    for what, table in (("training", train), ("validation", validation), ("test", test)):
        positive = int(np.count_nonzero(table.label))
        if positive in (0, len(table.label)):
            found = label.categories[0] if positive == 0 else "positive classes"
            raise UserError(
                f"{name}: the {what} clients hold only {found!r} in label {label.name!r} ({len(table.label)} rows); give "
                "more clients, another seed, or larger held-out fractions"
            )


def _population(train: Table, clients: int) -> Population:
    count = np.bincount(train.client, minlength=clients)
    return stored_population(clients, int(count.max()), int(count.min()))
