"""Dealing the records of a table to new clients: evenly, skewed by label, or in power-law sizes.

What is dealt is a *unit*: one record, or all records of one group (a patient). A unit is never split, so a guarantee about
a new client also covers every unit inside it.
"""

from __future__ import annotations

import math

import numpy as np

from fedjax_health import rng
from fedjax_health.data.feature_skew import apply_sites, check_sites, draw_sites
from fedjax_health.data.schema import Schema
from fedjax_health.federation_config import PartitionConfig
from fedjax_health.types import Table, UserError

SCHEMES = ("natural", "iid", "dirichlet", "quantity")
FIT_SWEEPS = 200  # of proportional fitting; extreme draws may need more, and the dealing copes with what is left


def partition_table(
    table: Table, schema: Schema, config: PartitionConfig, seed: int, name: str
) -> tuple[Table, tuple[str, ...]]:
    """Deals training records to new clients, whole natural clients at a time, then skews the features of their sites.

    Only ever give it the training clients: dealing after the split keeps a natural client out of two splits.

    Args:
      table: training records, client-major; where every row is a client of its own, records are dealt.
      schema: its columns.
      config: scheme, number of new clients, skews; "natural" with sites = 0 returns the table itself.
      seed: the run's seed.
      name: domain, so that two domains are dealt independently.

    Returns:
      (Table with new dense client ids 0 … K-1, client-major, records of a client in their old order; one sentence for
      each change). "natural" keeps the clients' ids.

    Raises:
      UserError: an unknown scheme, fewer natural clients than new ones, or a number out of range.
    """
    if config.scheme not in SCHEMES:
        raise UserError(f"config data.partition.scheme={config.scheme!r} is not one of {', '.join(SCHEMES)}")
    check_sites(config)
    notes: list[str] = []
    if config.scheme != "natural":
        generator, clients = rng.host_rng(seed, rng.Stream.SPLIT, name, "deal"), config.num_clients
        if config.scheme == "iid":
            dealt, how = deal_iid(table, clients, generator, table.client), "evenly at random"
        elif config.scheme == "dirichlet":
            dealt = deal_dirichlet(table, clients, config.alpha, generator, table.client)
            how = f"with label shares from Dirichlet({config.alpha:g} x prior)"
        else:
            dealt = deal_quantity(table, clients, config.alpha, generator, table.client)
            how = f"in sizes proportional to rank^-{config.alpha:g}"
        natural = len(np.unique(table.client))
        notes.append(
            f"{len(table.label):,} training records of {natural:,} natural clients were dealt to {clients:,} new clients "
            f"{how}, whole natural clients at a time (label shares of a new client are on average {label_skew(dealt):.3f} in "
            "total variation from those of all): the unit of privacy is the new client, and the dealing itself, which looks "
            "at all training records, is not part of the guarantee; held-out clients stay natural."
        )
        table = dealt
    if config.sites:
        sites = draw_sites(int(table.client.max(initial=-1)) + 1, len(schema.inputs), config, seed, name)
        before, table = len(table.label), apply_sites(table, schema, sites, seed, name)
        notes.append(
            f"Training clients were grouped into {config.sites:,} sites whose numeric columns differ in gain (SD "
            f"{config.site_gain:g}), offset (SD {config.site_offset:g} scales) and added noise (SD {config.site_noise:g} "
            f"scales), and which kept {sites.keep.min():.0%} to {sites.keep.max():.0%} of a client's records "
            f"({len(table.label):,} of {before:,}); held-out clients were not changed."
        )
    return table, tuple(notes)


def label_skew(table: Table) -> float:
    """Mean over clients of the total variation ½ Σ_c |q_kc - q_c| between a client's label shares and those of all records.

    Args:
      table: M > 0 records; clients without records do not count.

    Returns:
      A number in [0, 1); 0 = every client has the shares of all.
    """
    _, client = np.unique(table.client, return_inverse=True)
    count = np.zeros((client.max() + 1, table.label.max() + 1))
    np.add.at(count, (client, table.label), 1.0)
    share = count / count.sum(1, keepdims=True)
    return float(0.5 * np.abs(share - count.sum(0, keepdims=True) / count.sum()).sum(1).mean())


def deal_iid(table: Table, num_clients: int, generator: np.random.Generator, by: np.ndarray | None = None) -> Table:
    """Deals units uniformly at random, each client ⌊U/K⌋ or ⌈U/K⌉ of them.

    Args:
      table: M records.
      num_clients: K, from 2 to the number of units U.
      generator: source of randomness.
      by: [M], group of each record; None makes every record a unit.

    Returns:
      Table of the same records, client-major, ids 0 … K-1, each client with at least one unit.

    Raises:
      UserError: K out of range.
    """
    unit, units = _units(table, by)
    _check_clients(num_clients, units)
    return _regroup(table, generator.permutation(np.arange(units) % num_clients)[unit])


def deal_quantity(
    table: Table, num_clients: int, alpha: float, generator: np.random.Generator, by: np.ndarray | None = None
) -> Table:
    """Deals power-law sizes: the client of rank r gets max(1, c r^-alpha) units, c such that all are dealt.

    Sizes are rounded by largest remainder; ranks are given to client ids at random.

    Args:
      table: M records.
      num_clients: K, from 2 to the number of units U.
      alpha: exponent >= 0; 0 = equal sizes, 1 = Zipf's law.
      generator: source of randomness.
      by: [M], group of each record; None makes every record a unit.

    Returns:
      As `deal_iid`.

    Raises:
      UserError: K or alpha out of range.
    """
    unit, units = _units(table, by)
    _check_clients(num_clients, units)
    if not 0 <= alpha < math.inf:
        raise UserError(f"config data.partition.alpha={alpha} must be finite and 0 or more for 'quantity'")
    share = np.arange(1, num_clients + 1, dtype=np.float64) ** -alpha
    sizes = np.ones(num_clients, np.int64)
    above = num_clients  # ranks whose share is more than the one unit that everybody gets; shares fall with the rank
    while above > 1 and (units - num_clients + above) * share[above - 1] < share[:above].sum():
        above -= 1
    sizes[:above] = _largest_remainder(units - num_clients + above, share[:above])
    owner = np.repeat(generator.permutation(num_clients), sizes)
    return _regroup(table, generator.permutation(owner)[unit])


def deal_dirichlet(
    table: Table, num_clients: int, alpha: float, generator: np.random.Generator, by: np.ndarray | None = None
) -> Table:
    """Label skew: client k draws class shares q_k ~ Dirichlet(alpha * prior) and gets about M/K records in these shares.

    That many records of each class exist only on average, so the drawn table (M/K) q is first fitted to the sizes and to
    the class totals (iterative proportional fitting: the nearest table in relative entropy, odds ratios kept). Then units
    are dealt one by one, largest first, each to the client with room for it that lacks its records most.

    Args:
      table: M records.
      num_clients: K, from 2 to the number of units U.
      alpha: concentration > 0; towards 0 clients have one class, towards infinity the prior. Clients that draw the same
        single class in the same share, and more of it than exists, share the shortage: with few clients the skew stops
        growing at about alpha = 0.05.
      generator: source of randomness.
      by: [M], group of each record; None makes every record a unit.

    Returns:
      As `deal_iid`. Sizes are ⌊M/K⌋ or ⌈M/K⌉ records where units are records, else as near as the greedy gets.

    Raises:
      UserError: K or alpha out of range.

    Source: Hsu, Qi, Brown 2019, arXiv 1909.06335; fitting: Deming, Stephan 1940.
    """
    unit, units = _units(table, by)
    _check_clients(num_clients, units)
    if not 0 < alpha < math.inf:
        raise UserError(f"config data.partition.alpha={alpha} must be finite and above 0 for 'dirichlet'")
    classes, label = np.unique(table.label, return_inverse=True)
    histogram = np.zeros((units, len(classes)))
    np.add.at(histogram, (unit, label), 1.0)
    total = histogram.sum(0)
    share = generator.dirichlet(alpha * total / total.sum(), num_clients)
    sizes = generator.permutation(_largest_remainder(len(label), np.ones(num_clients)))
    return _regroup(table, _fill(histogram, _fit(share, sizes, total), sizes, generator)[unit])


def _fit(share: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The table f64[K, L] nearest to rows * share with these row and column sums (which have the same total)."""
    fitted = np.maximum(share, 1e-100)  # a share drawn as exactly 0 could not give way where the margins need it
    for _ in range(FIT_SWEEPS):
        fitted *= columns[None, :] / fitted.sum(0, keepdims=True)
        fitted *= rows[:, None] / fitted.sum(1, keepdims=True)
    return fitted


def _fill(histogram: np.ndarray, target: np.ndarray, sizes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Owner i64[U] of each unit (class counts f64[U, L]): greedy descent of |target - dealt|^2, no client left empty."""
    units, lacking, room = len(histogram), target.copy(), sizes.astype(np.float64)
    empty, still_empty = np.ones(len(sizes), bool), len(sizes)
    weight = histogram.sum(1)
    order = generator.permutation(units)
    owner = np.empty(units, np.int64)
    for dealt, unit in enumerate(order[np.argsort(-weight[order], kind="stable")]):
        # the last units are for those who have none
        allowed = empty if units - dealt == still_empty else room >= weight[unit]
        if not allowed.any():
            allowed = room == room.max()
        client = np.argmax(np.where(allowed, lacking @ histogram[unit], -np.inf))
        owner[unit] = client
        lacking[client] -= histogram[unit]
        room[client] -= weight[unit]
        still_empty -= int(empty[client])
        empty[client] = False
    return owner


def _units(table: Table, by: np.ndarray | None) -> tuple[np.ndarray, int]:
    """Dense unit i64[M] of each record, and U."""
    unit = np.arange(len(table.label)) if by is None else np.unique(by, return_inverse=True)[1]
    return unit, int(unit.max(initial=-1)) + 1


def _check_clients(num_clients: int, units: int) -> None:
    if not 2 <= num_clients <= units:
        raise UserError(
            f"config data.partition.num_clients={num_clients} must be from 2 to {units}, the training records or natural "
            "clients there are to deal; change it or give more data"
        )


def _largest_remainder(total: int, share: np.ndarray) -> np.ndarray:
    """Non-negative integers with this total, in proportion to share > 0: i64[K]; ties go to the first."""
    quota = total * share / share.sum()
    floor = np.floor(quota).astype(np.int64)
    floor[np.argsort(floor - quota, kind="stable")[: total - floor.sum()]] += 1
    return floor


def _regroup(table: Table, owner: np.ndarray) -> Table:
    order = np.argsort(owner, kind="stable")
    return Table(table.values[order], table.label[order], owner[order].astype(np.int32))
