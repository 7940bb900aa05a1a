# pandas' own annotations are unions that a chained expression does not narrow
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportAttributeAccessIssue=false
"""Data sets of `benchmarks.quality`: PhysioNet 2019 complete and with all its gaps, and simulated vitals; split by client."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

import numpy as np
import pandas as pd

from fedjax_health.data import vitals
from fedjax_health.data.frames import frame_from_table, table_from_frame
from fedjax_health.data.schema import Column, Schema
from fedjax_health.data.simulator import population_key, simulate_clients
from fedjax_health.types import Table, UserError

FILE = "physionet2019/training_setB.psv.gz"
HELD_OUT = 0.3  # share of clients
# public ranges, and rounded adult reference values as `data.clinical` has them
VITALS = (
    ("HR", 20, 300, 80, 20), ("O2Sat", 20, 100, 97, 3), ("SBP", 20, 300, 120, 25), ("MAP", 10, 300, 80, 15),
    ("DBP", 5, 300, 65, 15), ("Resp", 1, 100, 18, 5), ("Glucose", 10, 1000, 4.8, 0.4), ("Age", 14, 100, 60, 18),
)  # fmt: skip
ALWAYS = ("Age", "Gender", "SepsisLabel")  # never missing
SIMULATED = {"vitals-2000": 2_000, "vitals-10000": 10_000}
NAMES = ("physionet2019", "physionet2019-gaps", *SIMULATED)


class DataSet(NamedTuple):
    """Records of training and of other clients.

    Attributes:
      name: of `NAMES`.
      train, test: one row a record, with the client's column.
      fine, whole: schemas without and under a guarantee, with the client's column.
      digits: decimals to which records are rounded without and under a guarantee; None = as they are.
      means: columns whose means are tested for equivalence.
    """

    name: str
    train: pd.DataFrame
    test: pd.DataFrame
    fine: Schema
    whole: Schema
    digits: tuple[int | None, int | None]
    means: tuple[str, ...]

    @property
    def client(self) -> str:
        """The client's column."""
        assert self.fine.client is not None
        return self.fine.client.name

    def schema(self, private: bool, client: bool = True) -> Schema:
        """The columns, with the client's or without.

        Args:
          private: whether under a guarantee.
          client: whether the client is one of them.
        """
        schema = self.whole if private else self.fine
        return schema if client else alone(schema)

    def rounded(self, frame: pd.DataFrame, private: bool) -> pd.DataFrame:
        """A frame at the resolution at which it is judged."""
        digits = self.digits[private]
        return frame if digits is None else frame.round(digits)

    def coded(self, frame: pd.DataFrame, private: bool) -> Table:
        """Real records as a table, client by client."""
        return table_from_frame(self.rounded(frame, private), self.schema(private), None, self.name)[0]

    def coded_rows(self, frame: pd.DataFrame, private: bool) -> Table:
        """Synthetic rows as a table, each of its own; a generator that has lost a class is judged all the same."""
        schema = self.schema(private, False)
        label = schema.label.name
        guard = self.train.drop_duplicates(label)[[c.name for c in schema.columns]]  # one row of each class
        both = pd.concat([frame[list(guard)], guard], ignore_index=True)
        table = table_from_frame(self.rounded(both, private), schema, None, "synthetic rows")[0]
        return Table(*(column[: len(frame)] for column in table))


def alone(schema: Schema) -> Schema:
    """A schema without its client's column: every row is a client of its own.

    Args:
      schema: with or without one.
    """
    return Schema(schema.name, tuple(c for c in schema.columns if c.role != "client"))


def make_schema(decimals: int, client: bool = True, gaps: bool = False) -> Schema:
    """Columns of PhysioNet 2019.

    Args:
      decimals: resolution at which vitals are published.
      client: whether the patient is a client.
      gaps: whether vitals may be missing.
    """
    columns = [
        Column(
            name=name, low=low, high=high, center=center, scale=scale, decimals=decimals,
            transform="log1p" if name == "Glucose" else "identity", nullable=gaps and name not in ALWAYS,
        )
        for name, low, high, center, scale in VITALS
    ]  # fmt: skip
    own = [Column(name="patient", role="client")] if client else []
    coded = (Column(name="Gender", kind="binary"), Column(name="SepsisLabel", kind="binary", role="label"))
    return Schema("vitals", (*own, *columns, *coded))


def read(folder: str, gaps: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and test hours of PhysioNet 2019, 70/30 by patient.

    Args:
      folder: with `physionet2019/`.
      gaps: all hours, with what is missing; else those with all of eight vitals and age.
    """
    names = ["patient", *(v[0] for v in VITALS), "Gender", "SepsisLabel"]
    whole = pd.read_csv(pathlib.Path(folder) / FILE, sep="|", usecols=names)
    whole = whole.dropna(subset=list(ALWAYS)) if gaps else whole.dropna()
    patients = pd.unique(whole["patient"])
    order = np.random.default_rng(0).permutation(len(patients))
    train = whole["patient"].isin(patients[order[: int(0.7 * len(patients))]])
    return whole[train], whole[~train]


def simulated(clients: int) -> tuple[pd.DataFrame, pd.DataFrame, Schema]:
    """Simulated vitals of training clients and of others, and their schema with the client's column "device".

    Args:
      clients: that train; 30 % of all are others.
    """
    ids = np.arange(round(clients / (1.0 - HELD_OUT)), dtype=np.int32)
    table = simulate_clients(vitals.make_vitals(), ids, population_key(0))
    frame = frame_from_table(table, vitals.VITALS).assign(device=table.client)
    train = frame["device"] < clients
    schema = Schema("vitals", (Column(name="device", role="client"), *vitals.VITALS.columns))
    return frame[train], frame[~train], schema


def load(name: str, folder: str) -> DataSet:
    """A data set by its name.

    Args:
      name: of `NAMES`.
      folder: with `physionet2019/`.

    Raises:
      UserError: an unknown name.
    """
    if name in SIMULATED:
        train, test, schema = simulated(SIMULATED[name])
        return DataSet(name, train, test, schema, schema, (None, None), ("heart_rate", "spo2", "glucose"))
    if name not in NAMES:
        raise UserError(f"data set {name!r} is not one of {', '.join(NAMES)}; name one of them")
    gaps = name.endswith("gaps")
    schemas = [make_schema(d, gaps=gaps) for d in (2, 0)]
    return DataSet(name, *read(folder, gaps), *schemas, (2, 0), ("HR", "O2Sat", "Glucose"))


def dealt(frame: pd.DataFrame, client: str, seed: int) -> pd.DataFrame:
    """Rows dealt at random to as many clients as there are, in equal numbers (to within one).

    Args:
      frame: records.
      client: the client's column, which is replaced.
      seed: of the dealing.
    """
    count = frame[client].nunique()
    order = np.random.default_rng(seed).permutation(len(frame))
    return frame.iloc[order].assign(**{client: np.sort(np.arange(len(frame)) % count)})


def one_a_patient(table: Table, rows: int, seed: int) -> Table:
    """Records drawn by patient first, so that each counts the same.

    Args:
      table: client-major.
      rows: how many.
      seed: of the draw.
    """
    generator, count = np.random.default_rng(seed), np.bincount(table.client)
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    patient = generator.integers(len(count), size=rows)
    row = first[patient] + (generator.random(rows) * count[patient]).astype(np.int64)
    return Table(table.values[row], table.label[row], table.client[row])
