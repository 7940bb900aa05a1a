"""Training, validation and test clients: disjoint by client, from the seed."""

from __future__ import annotations

import numpy as np

from fedjax_health import rng
from fedjax_health.types import Table, UserError


def take_clients(table: Table, clients: np.ndarray) -> Table:
    """Records of some clients, renumbered 0 … len(clients) - 1 in the order given.

    Args:
      table: client-major.
      clients: i[n], ids present in the table, no repeats.
    """
    count = np.bincount(table.client, minlength=int(clients.max(initial=-1)) + 1)
    offset = np.concatenate([[0], np.cumsum(count)[:-1]])
    rows = np.concatenate([np.arange(int(offset[c]), int(offset[c] + count[c])) for c in clients] or [np.zeros(0, int)])
    client = np.repeat(np.arange(len(clients), dtype=np.int32), count[clients])
    return Table(table.values[rows], table.label[rows], client)


def split_clients(
    table: Table, validation_fraction: float, test_fraction: float, seed: int, name: str, official: Table | None = None
) -> tuple[Table, Table, Table]:
    """Random split by client.

    Args:
      table: all records, client-major, dense ids.
      validation_fraction, test_fraction: share of clients, each at least one client.
      seed: the run's seed.
      name: domain, so that two domains are split independently.
      official: the data's own test set, which is returned as it is, and for which no client of `table` is held out.

    Returns:
      (train, validation, test), each with dense ids of its own.

    Raises:
      UserError: too few clients for three parts.
    """
    total = int(table.client.max()) + 1
    validation = max(1, round(total * validation_fraction))
    test = max(1, round(total * test_fraction)) if official is None else 0
    if total - validation - test < 2:
        raise UserError(
            f"{name}: {total} clients are too few for {validation} validation and {test} test clients and two to train on; "
            "give more clients or lower data.validation_fraction and data.test_fraction"
        )
    order = rng.host_rng(seed, rng.Stream.SPLIT, name).permutation(total)
    parts = np.split(order, [validation, validation + test])
    val, tst, train = (take_clients(table, np.sort(part)) for part in parts)
    return train, val, tst if official is None else official


def inclusion_masks(num_clients: int, audit_fraction: float, seeds: int, seed: int, name: str) -> np.ndarray:
    """Which training clients exist for each federation; the others are its attackers' non-members.

    A fixed number is left out, uniformly at random and independently of the data, so members and non-members are
    exchangeable.

    Args:
      num_clients: K.
      audit_fraction: share left out, at least one client.
      seeds: N.
      seed: the run's seed.
      name: domain.

    Returns:
      bool[N, K].
    """
    out = max(1, round(num_clients * audit_fraction))
    masks = np.ones((seeds, num_clients), bool)
    for row in range(seeds):
        chosen = rng.host_rng(seed, rng.Stream.INCLUDE, name, str(row)).permutation(num_clients)[:out]
        masks[row, chosen] = False
    return masks
