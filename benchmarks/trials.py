"""Data sets of federated clients, and five federations side by side that are trained and tuned on them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import engine, work
from fedjax_health.data.encode import make_encoder
from fedjax_health.data.partition import deal_dirichlet
from fedjax_health.data.population import Store, stored_population
from fedjax_health.data.simulator import population_key, simulate_clients
from fedjax_health.data.split import take_clients
from fedjax_health.data.vitals import make_vitals
from fedjax_health.federation_config import TrainConfig
from fedjax_health.types import Table

CLIENTS, VALIDATION, TEST, COHORT, EVERY = 400, 100, 200, 40, 2
ALPHA, LAST = 0.1, 5  # LAST: looks whose mean is "final", since one round's model jumps about
SEEDS, TUNING_SEED = (0, 1, 2, 3, 4), 100
CLIENT_RATES = (0.1, 0.3, 1.0, 3.0, 10.0)  # as many as seeds: one program
SERVER_RATES = (0.003, 0.03, 0.3, 1.0, 3.0)


class Records(NamedTuple):
    """A data set of 400 training clients, 100 for validation and 200 for test; disjoint by client.

    Attributes:
      name: of the data set.
      bounds: fewest and most records of a training client.
      store: of the training clients, on the host.
      validation, test: (x f32[M, D], y bool[M]) of other clients.
    """

    name: str
    bounds: tuple[int, int]
    store: Store
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def _make_records(name: str, train: Table, validation: Table, test: Table) -> Records:
    count = np.bincount(train.client).astype(np.int32)
    offset = np.concatenate([[0], np.cumsum(count)[:-1]]).astype(np.int32)
    store = Store(train.values, train.label, offset, count)  # pyright: ignore[reportArgumentType]
    held_out = [(table.values, table.label > 0) for table in (validation, test)]
    return Records(name, (int(count.min()), int(count.max())), store, *held_out)


def make_records(name: str) -> Records:
    """A data set.

    Args:
      name: "natural" (work A's clients), "dirichlet" (their training records dealt with label shares Dir(0.1)), or "vitals"
        (simulated patients, diagnosis).
    """
    ends = np.cumsum([0, CLIENTS, VALIDATION, TEST])
    if name == "vitals":
        simulator = make_vitals()
        table = simulate_clients(simulator, np.arange(ends[-1]), population_key(0))
        table = table._replace(values=np.array(jax.jit(make_encoder(simulator.schema).encode)(table.values)))
    else:
        data = work.make_data()
        client = np.repeat(np.arange(work.CLIENTS, dtype=np.int32), work.ROWS)
        table = Table(data.x.reshape(-1, work.FEATURES), data.y.reshape(-1).astype(np.int32), client)
    train, validation, test = (take_clients(table, np.arange(first, end)) for first, end in itertools.pairwise(ends))
    if name == "dirichlet":
        train = deal_dirichlet(train, CLIENTS, ALPHA, np.random.default_rng(0))
    return _make_records(name, train, validation, test)


@functools.lru_cache(maxsize=1)
def _program(bounds: tuple[int, int], shape: tuple[int, int], config: TrainConfig, fleet: bool) -> engine.Program:
    """The program for records of a shape: the same one for two data sets that agree in it."""
    empty = Store(np.zeros(shape, np.float32), np.zeros(shape[0], np.int32), *np.zeros((2, CLIENTS), np.int32))  # pyright: ignore[reportArgumentType]
    model = engine.make_model("dot", (shape[1], work.HIDDEN, work.HIDDEN, 1))
    population = stored_population(CLIENTS, bounds[1], bounds[0])
    parts = engine.make_parts(model, population, shape[1], config, fleet=fleet)
    return engine.make_program(parts, config, empty, len(SEEDS))


@jax.jit
def _accuracy(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    predict = engine.make_model().predict
    return jax.vmap(lambda own: jnp.mean((predict(own, x) > 0) == y, dtype=jnp.float32))(params)


class Curve(NamedTuple):
    """Five federations, looked at before the first round and after every EVERY rounds: f64[5, looks] each.

    Attributes:
      validation, test: accuracy in [0, 1].
      up, down: bytes sent so far by all clients, and to them.
      seconds: simulated time so far.
    """

    validation: np.ndarray
    test: np.ndarray
    up: np.ndarray
    down: np.ndarray
    seconds: np.ndarray


def train(
    records: Records,
    changes: dict[str, Any],
    rates: np.ndarray,
    seeds: Sequence[int],
    rounds: int,
    fleet: bool,
) -> Curve:
    """Trains five federations side by side.

    Args:
      records: data set.
      changes: of `engine.make_config`.
      rates: f32[2, 5], client's and server's learning rate.
      seeds: [5].
      rounds: a multiple of EVERY.
      fleet: simulate the devices, else bytes and seconds are 0.
    """
    config = engine.make_config(COHORT, EVERY, **changes)
    program = _program(records.bounds, records.store.x.shape, config, fleet)  # pyright: ignore[reportArgumentType]
    numbers = engine.make_numbers(config, len(SEEDS))
    numbers |= {"client_learning_rate": jnp.asarray(rates[0]), "server_learning_rate": jnp.asarray(rates[1])}
    inputs, state = program.place(numbers, records.store), program.start(seeds)

    def look(metrics: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        scores = [np.asarray(_accuracy(state.params.client, *held)) for held in (records.validation, records.test)]
        nothing = np.zeros((len(SEEDS), 1))
        names = ("sim/bytes_up", "sim/bytes_down", "sim/round_seconds")
        return (*scores, *(metrics.get(name, nothing).sum(1) for name in names))

    looks = [look({})]
    for _ in range(rounds // EVERY):
        state, metrics = program.run(state, inputs)
        looks.append(look(metrics))
    validation, test, *costs = (np.stack(column, 1).astype(np.float64) for column in zip(*looks, strict=True))
    return Curve(validation, test, *(np.cumsum(cost, 1) for cost in costs))


def final(accuracy: np.ndarray) -> np.ndarray:
    """Mean of the last looks, f64[5, looks] -> f64[5]."""
    return accuracy[:, -LAST:].mean(1)


def same_rates(rates: tuple[float, float]) -> np.ndarray:
    """One client's and server's rate for all five, f32[2, 5]."""
    return np.repeat(np.asarray(rates, np.float32)[:, None], len(SEEDS), 1)


def tune(records: Records, changes: dict[str, Any], rounds: int, fleet: bool) -> tuple[float, float]:
    """The client's and the server's rate of the grid with the best mean validation accuracy over all looks.

    The mean over the run, and not its end, since what is compared is how fast an accuracy is reached as well as which.

    Args:
      records, changes, rounds, fleet: as in `train`.
    """
    found = {}
    for server in SERVER_RATES:
        rates = np.asarray([CLIENT_RATES, [server] * len(CLIENT_RATES)], np.float32)
        curve = train(records, changes, rates, [TUNING_SEED] * len(CLIENT_RATES), rounds, fleet)
        found |= {(client, server): score for client, score in zip(CLIENT_RATES, curve.validation.mean(1), strict=True)}
    return max(found, key=lambda pair: found[pair])
