"""The federations of a config without its records: who there will be, how many records each has, and nothing more."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health import build, rng
from fedjax_health.config import Config
from fedjax_health.data import simulator as sim
from fedjax_health.data.domain import Domain
from fedjax_health.data.encode import make_encoder
from fedjax_health.data.population import Store, procedural_population, stored_population
from fedjax_health.data.schema import Schema
from fedjax_health.registry import lookup
from fedjax_health.types import Table, UserError

COUNTED_AT_ONCE = 4096
COUNTED_OF_PROCEDURAL = 4096  # clients whose records are counted where no store needs to know all


class Assumed(NamedTuple):
    """What a user says about files that are not read.

    Attributes:
      clients: in the whole data set, before the split; 0 = not said.
      records: of a client, mean; 0 = not said.
      most: records of the largest client; 0 = all have as many.
    """

    clients: int = 0
    records: int = 0
    most: int = 0


class Shaped(NamedTuple):
    """A domain without records.

    Attributes:
      domain: tables are empty, `data` holds shapes.
      counts: i64[n], records of training clients (procedural: of the first ones).
      how: where the counts come from, in words.
    """

    domain: Domain
    counts: np.ndarray
    how: str


def shape_domain(name: str, config: Config, assumed: Assumed) -> Shaped:
    """A domain of the config in shapes alone.

    Args:
      name: domain.
      config: the run.
      assumed: for a domain of files, unless the config says where they are.

    Raises:
      UserError: neither files nor assumptions, assumptions about simulated clients, or a number out of range.
    """
    if name not in build.SIMULATORS and not any(assumed):
        lookup("data domain", name, {**build.SIMULATORS, **build.SCHEMAS})
        if not config.data.path:
            raise UserError(
                f"domain {name!r} needs sizes in place of its files; give --clients=N and --records=MEAN (and --most=M), or "
                "--config.data.path=PATH to count in the files"
            )
        return _of_files(name, config)
    if name not in build.SIMULATORS:
        return _assumed(name, config, assumed)
    if any(assumed):
        raise UserError(
            f"domain {name!r} is simulated, so that --clients, --records and --most say nothing about it; set "
            "--config.data.num_clients"
        )
    dealt = config.data.partition.scheme != "natural" or config.data.partition.sites
    if dealt and config.data.population == "stored":
        return _of_files(name, config)
    return _simulated(name, config)


def _of_files(name: str, config: Config) -> Shaped:
    """Reads or deals the records, and keeps their shapes."""
    domain = build.build_domain(name, config)
    counts = np.bincount(domain.train.client, minlength=domain.population.size)
    return Shaped(
        domain._replace(data=jax.eval_shape(lambda: domain.data)), counts, f"{len(counts):,} clients, counted"
    )


def _simulated(name: str, config: Config) -> Shaped:
    simulator, size = build.SIMULATORS[name](), config.data.num_clients
    root = sim.population_key(config.seed)
    procedural = config.data.population == "procedural"
    counted = min(size, COUNTED_OF_PROCEDURAL) if procedural else size

    @jax.jit
    def count(ids: Any) -> Any:  # the compiler drops what makes the records
        return jax.vmap(lambda k: simulator.simulate(rng.client_key(root, k))[2])(ids)

    starts = range(0, counted, COUNTED_AT_ONCE)
    ids = [jnp.arange(start, start + COUNTED_AT_ONCE, dtype=jnp.int32) for start in starts]
    counts = np.concatenate([np.asarray(count(i)) for i in ids])[:counted].astype(np.int64)
    schema = simulator.schema
    encoder = make_encoder(schema)
    if procedural:
        population, data = procedural_population(simulator, encoder, size), jax.eval_shape(lambda: root)
        how = f"{size:,} clients, records of the first {counted:,} counted"
    else:
        population = stored_population(size, int(counts.max()), int(counts.min()))
        data = _store(int(counts.sum()), encoder.layout.dim, size)
        how = f"{size:,} clients with {counts.sum():,} records, counted"
    nobody = _empty(schema)
    domain = Domain(name, simulator.task, schema, encoder, population, data, nobody, nobody, nobody, ())
    return Shaped(domain, counts, how)


def _assumed(name: str, config: Config, assumed: Assumed) -> Shaped:
    """Training clients as `split.split_clients` leaves them; the records of new clients are dealt evenly."""
    if assumed.clients < 1 or assumed.records < 1 or 0 < assumed.most < assumed.records:
        raise UserError(
            f"--clients={assumed.clients}, --records={assumed.records} and --most={assumed.most} describe no data; clients and "
            "records are at least 1, and most is at least records"
        )
    schema, data = build.SCHEMAS[name](config), config.data
    held_out = sum(max(1, round(assumed.clients * f)) for f in (data.validation_fraction, data.test_fraction))
    size = assumed.clients - held_out
    if size < 2:
        raise UserError(
            f"{name}: of --clients={assumed.clients} {held_out} are held out, and two must train; give more"
        )
    mean, most = assumed.records, assumed.most or assumed.records
    if data.partition.scheme != "natural":
        grow = size / data.partition.num_clients
        size, mean, most = data.partition.num_clients, round(mean * grow), round(most * grow)
    # the largest clients first, then small ones, so that the mean is as said
    large = 0 if most == mean else max(1, round(size * mean / (2 * most)))
    small = (size * mean - large * most) // max(1, size - large)
    counts = np.concatenate([np.full(large, most), np.full(size - large, small)]).astype(np.int64)
    encoder = make_encoder(schema)
    population = stored_population(size, int(counts.max()), int(counts.min()))
    nobody = _empty(schema)
    store = _store(int(counts.sum()), encoder.layout.dim, size)
    how = f"{size:,} training clients with {counts.sum():,} records, the largest {counts.max():,}: assumed, no file was read"
    return Shaped(Domain(name, data.task, schema, encoder, population, store, nobody, nobody, nobody, ()), counts, how)


def _empty(schema: Schema) -> Table:
    return Table(np.zeros((0, len(schema.inputs)), np.float32), np.zeros(0, np.int32), np.zeros(0, np.int32))


def _store(records: int, dim: int, clients: int) -> Store:
    shape = jax.ShapeDtypeStruct
    integers = [shape((n,), jnp.int32) for n in (records, clients, clients)]
    return Store(shape((records, dim), jnp.float32), *integers)  # pyright: ignore[reportArgumentType]
