"""Feature skew: clients of one site share sensors that are calibrated, noisy and sampled in the site's own way."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fedjax_health import rng
from fedjax_health.data.encode import public_scaling
from fedjax_health.data.equations import completed
from fedjax_health.data.schema import Column, Schema
from fedjax_health.federation_config import PartitionConfig
from fedjax_health.types import Table, UserError


class Sites(NamedTuple):
    """What the sites of a population are like; columns are `schema.inputs`, of which only numeric ones are used.

    Attributes:
      site: i64[K], site of each client.
      gain: f64[S, F], relative error of a column's gain, 0 = exact.
      offset: f64[S, F], in the column's scale.
      noise: f64[S, F], SD of the added noise, in the column's scale, >= 0.
      keep: f64[S], share of a client's records that are kept, in (0, 1].
    """

    site: np.ndarray
    gain: np.ndarray
    offset: np.ndarray
    noise: np.ndarray
    keep: np.ndarray


def check_sites(config: PartitionConfig) -> None:
    """Checks the numbers of the sites.

    Args:
      config: sites and their skews.

    Raises:
      UserError: the first number out of range.
    """
    if config.sites < 0:
        raise UserError(f"config data.partition.sites={config.sites} must be 0 (none) or positive")
    for field in ("site_gain", "site_offset", "site_noise"):
        value = getattr(config, field)
        if not 0 <= value < math.inf:
            raise UserError(f"config data.partition.{field}={value} must be finite and 0 or more")
    if not 0 < config.site_keep <= 1:
        raise UserError(f"config data.partition.site_keep={config.site_keep} must be in (0, 1]; 1 keeps all records")


def draw_sites(num_clients: int, num_columns: int, config: PartitionConfig, seed: int, name: str) -> Sites:
    """Draws the sites: gain ~ N(0, site_gain²), offset ~ N(0, site_offset²), noise ~ |N(0, site_noise²)|, keep uniform.

    Args:
      num_clients: K; clients are spread evenly over the sites, in random order.
      num_columns: F.
      config: sites (S, from 1 to K), their deviations, and the least share kept.
      seed: the run's seed.
      name: domain.

    Raises:
      UserError: more sites than clients.
    """
    if config.sites > num_clients:
        raise UserError(
            f"{name}: config data.partition.sites={config.sites} is more than the {num_clients} training clients; lower it"
        )
    generator = rng.host_rng(seed, rng.Stream.SPLIT, name, "sites")
    gain, offset, noise = generator.standard_normal((3, config.sites, num_columns))
    return Sites(
        site=generator.permutation(num_clients) % config.sites,
        gain=config.site_gain * gain,
        offset=config.site_offset * offset,
        noise=config.site_noise * np.abs(noise),
        keep=generator.uniform(config.site_keep, 1.0, config.sites),
    )


def apply_sites(table: Table, schema: Schema, sites: Sites, seed: int, name: str) -> Table:
    """Measures a table with the sites' sensors: t(x) ← t(x (1 + gain)) + (offset + noise N(0, 1)) scale, t the transform.

    A gain acts on physical units; offset and noise act where `scale` is defined, after the transform (which is the
    identity for most columns). Results are clipped to the public range, rounded to the published resolution and bounded
    by `at_most`, and equations are kept. Missing stays missing; categories and labels are untouched.

    Args:
      table: M records of K clients, client-major; a client may have none.
      schema: its columns.
      sites: of K clients.
      seed: the run's seed.
      name: domain.

    Returns:
      Table of the kept records in their old order, ⌈keep * count⌉ of each client: at least one where it had one.
    """
    generator = rng.host_rng(seed, rng.Stream.SPLIT, name, "measure")
    site = sites.site[table.client]
    rows = _kept_rows(table.client, sites.keep[sites.site], generator)
    values = table.values.astype(np.float64)
    for number, column in enumerate(schema.inputs):
        if column.kind == "numeric":
            error = sites.offset[site, number] + sites.noise[site, number] * generator.standard_normal(len(site))
            values[:, number] = _measured(values[:, number], column, sites.gain[site, number], error)
    bounded = [(number, schema.index(c.at_most)) for number, c in enumerate(schema.inputs) if c.at_most]
    for _ in bounded:  # once for each link of a chain a <= b <= c
        for number, other in bounded:
            above = values[:, number] > values[:, other]  # False where either is missing
            values[above, number] = values[above, other]
    measured = completed(values[rows].astype(np.float32), schema)
    return Table(measured, table.label[rows], table.client[rows])


def _measured(cells: np.ndarray, column: Column, gain: np.ndarray, error: np.ndarray) -> np.ndarray:
    """f64[M] in units, inside the public range and at the published resolution; NaN where cells are."""
    x, shift, log = cells * (1.0 + gain), error * public_scaling(column)[1], column.transform == "log1p"
    x = (np.log1p(np.maximum(x, 0.0)) if log else x) + shift
    x = np.expm1(np.minimum(x, 80.0)) if log else x  # far above every range, far below overflow
    x = np.clip(x, column.low, column.high)
    if column.decimals is not None:
        x = np.clip(np.round(x, column.decimals), column.low, column.high)
    return x


def _kept_rows(client: np.ndarray, keep: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A random ⌈keep * count⌉ of each client's rows, ascending: i64."""
    count = np.bincount(client, minlength=len(keep))
    order = np.lexsort((generator.random(len(client)), client))  # shuffled inside each client
    first = np.cumsum(count) - count
    rank = np.arange(len(client)) - first[client]
    limit = np.ceil(keep * count)
    return np.sort(order[rank < limit[client]])
