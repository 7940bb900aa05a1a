"""What an attack on disclosure is: what it guesses about members, about others, and what blind guesses reach."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fedjax_health.data.schema import Schema
from fedjax_health.types import Table


class Counted(NamedTuple):
    """Guesses that were right, of how many."""

    right: int
    guesses: int


class Outcome(NamedTuple):
    """What came of one attack; outcomes of several seeds add up.

    Attributes:
      attack: guesses from the synthetic table about members.
      baseline: blind guesses about members.
      control: the attack's guesses about people whom the generator never saw: what the population alone gives away.
      scale: factor on the rate of `control` where that is a share of guesses in which others are fewer than members; else 1.
    """

    attack: Counted
    baseline: Counted
    control: Counted
    scale: float = 1.0


class People(NamedTuple):
    """Members and others, all records of each, exchangeable by client."""

    member: Table
    outsider: Table


class Disclosure(NamedTuple):
    """An attack that wants to know something of a person, and not whether the person took part.

    Attributes:
      name: row of the attack in the table.
      threat_model: what the attacker must have, in words.
      attempt: (synthetic, people, schema, queries, rng) -> Outcome by what is attacked ("" = the whole); never more guesses
        than `queries`, and as many as said where there is less to guess.
    """

    name: str
    threat_model: str
    attempt: Callable[[Table, People, Schema, int, np.random.Generator], dict[str, Outcome]]


def one_a_client(table: Table, most: int, rng: np.random.Generator) -> Table:
    """One record of each of at most `most` clients, both at random: guesses about them are trials of their own.

    Args:
      table: client-major.
      most: clients.
      rng: host generator.
    """
    _, first, count = np.unique(table.client, return_index=True, return_counts=True)
    rows = (first + rng.integers(count))[rng.permutation(len(first))[:most]]
    return Table(*(column[rows] for column in table))


def secrets(schema: Schema, most: int) -> list[int]:
    """Positions on the F + 1 axis of columns and label that are worth guessing: the label, groups, then the others.

    Args:
      schema: columns.
      most: columns.
    """
    columns = schema.inputs
    order = sorted(range(len(columns)), key=lambda j: columns[j].role != "group")
    return [len(columns), *order][:most]


def name_of(schema: Schema, j: int) -> str:
    """Name of a column or, at F, of the label."""
    return schema.label.name if j == len(schema.inputs) else schema.inputs[j].name
