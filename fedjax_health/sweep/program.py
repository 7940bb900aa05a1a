"""One compiled program that trains many runs: each by itself on a thread of its own, or all side by side over the devices."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fedjax_health.attacks.shadows import AXIS, over_shadows
from fedjax_health.devices.round import METRICS
from fedjax_health.federated.federation import Data, Parts, State, init_state
from fedjax_health.federation_config import TrainConfig
from fedjax_health.train.loop import has_converged, make_train
from fedjax_health.types import Array, Hyper, Metrics

NORM = "public/parameter_norm"
KEPT = (*METRICS, "sim/loss", "public/update_norm", NORM)  # of a round's metrics, those that leave the device


class Runs(NamedTuple):
    """Federations that differ in numbers alone, leading axis N on every leaf.

    Attributes:
      key: typed root keys.
      hyper: f32[N] each, class_prior f32[N, L].
      include: bool[N, K].
      x: f32[N, M, D], training records as each run's representation encodes them; () where all read the same.
    """

    key: Array
    hyper: Hyper
    include: Array
    x: Any = ()


class Program(NamedTuple):
    """N runs of one federation, trained by one compiled chunk of R rounds.

    Attributes:
      start: runs -> their states.
      advance: (states, runs, active bool[N]) -> (states, metrics KEPT -> f64[N, R]); the runs that are not active stay as they
        are. States are donated.
      collect: states -> State on the host, leading axis N, without what clients remember.
      compile_seconds: to trace and compile.
      traces: how often the chunk was traced.
    """

    start: Callable[[Runs], Any]
    advance: Callable[[Any, Runs, np.ndarray], tuple[Any, dict[str, np.ndarray]]]
    collect: Callable[[Any], State]
    compile_seconds: float
    traces: Callable[[], int]


def make_program(batching: str, parts: Parts, config: TrainConfig, mesh: Mesh, runs: Runs, population: Any) -> Program:
    """Compiles the program of a stage.

    Args:
      batching: of `design.BATCHINGS`; auto is threads on a CPU, vmap on accelerators.
      parts: the federation, for a mesh of one device.
      config: rounds a chunk.
      mesh: of `attacks.shadows.make_shadow_mesh`.
      runs: any that are to be trained; N is always that of these.
      population: what all read.
    """
    if batching == "auto":
        batching = "threads" if jax.default_backend() == "cpu" else "vmap"
    make = make_threads if batching == "threads" else make_vmapped
    return make(parts, config, mesh, runs, population)


def make_threads(parts: Parts, config: TrainConfig, mesh: Mesh, runs: Runs, population: Any) -> Program:
    """Every run by the program of one run alone on one device, as many at once as there are devices.

    A run is then equal to the last bit to the run alone on one device: it is the same program. On a CPU it is also the fastest
    way: no run waits for another, branches stay branches, and what is cached stays cached. Of several accelerators it uses one.

    Args:
      parts, config, mesh, runs, population: as for `make_program`.
    """
    shared = isinstance(runs.x, tuple)
    train, workers = make_train(parts, config, shared), mesh.size

    def inputs(own: Runs) -> tuple[Hyper, Data]:
        data = population if shared else jax.tree.map(lambda leaf: leaf[None], population)._replace(x=own.x)
        return own.hyper, Data(data, own.include)

    def of(every: Runs, run: int) -> Runs:
        return jax.tree.map(lambda leaf: leaf[run : run + 1], every)

    def start(every: Runs) -> list[State]:
        return [train.init(every.key[run : run + 1]) for run in range(len(every.key))]

    began = time.perf_counter()
    first = of(runs, 0)
    compiled = train.run_chunk.lower(train.init(first.key), *inputs(first)).compile()  # pyright: ignore[reportFunctionMemberAccess]
    compile_seconds = time.perf_counter() - began

    def advance(states: list[State], every: Runs, active: np.ndarray) -> tuple[list[State], dict[str, np.ndarray]]:
        def one(run: int) -> tuple[State, dict[str, np.ndarray]]:
            state, metrics = compiled(states[run], *inputs(of(every, run)))
            return state, {name: np.asarray(metrics[name][0], np.float64) for name in KEPT}

        found = {name: np.zeros((len(active), config.rounds_per_chunk)) for name in KEPT}
        moved, alive = list(states), np.flatnonzero(active).tolist()
        with ThreadPoolExecutor(workers) as pool:
            for run, (state, metrics) in zip(alive, pool.map(one, alive), strict=True):
                moved[run] = state
                for name in KEPT:
                    found[name][run] = metrics[name]
        return moved, found

    def collect(states: list[State]) -> State:
        kept = [jax.device_get(_published(state)) for state in states]
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *kept)

    return Program(start, advance, collect, compile_seconds, train.traces)


def make_vmapped(parts: Parts, config: TrainConfig, mesh: Mesh, runs: Runs, population: Any) -> Program:
    """All runs in one call: dealt over the devices, and side by side on each.

    Args:
      parts, config, mesh, runs, population: as for `make_program`; N must be a multiple of the devices.
    """
    round_fn, rounds, traces = parts.scheme.make_round(parts), config.rounds_per_chunk, 0
    split, whole = NamedSharding(mesh, PartitionSpec(AXIS)), NamedSharding(mesh, PartitionSpec())

    def one(own: tuple[State, Runs, Array], common: Any) -> tuple[State, Metrics]:
        nonlocal traces
        traces += 1
        state, mine, active = own
        data = Data(common if isinstance(mine.x, tuple) else common._replace(x=mine.x), mine.include)

        def step(state: State, _: None) -> tuple[State, Metrics]:
            state, metrics = round_fn(state, mine.hyper, data)
            return state, {name: metrics[name].astype(jnp.float32) for name in KEPT}

        def work(state: State) -> tuple[State, Metrics]:
            return jax.lax.scan(step, state, None, rounds)

        def rest(state: State) -> tuple[State, Metrics]:
            return state, {name: jnp.zeros((rounds,), jnp.float32) for name in KEPT}

        return jax.lax.cond(active, work, rest, state)

    mapped = over_shadows(one, mesh, len(runs.key) // mesh.size)
    init = jax.jit(jax.vmap(lambda key: init_state(parts, key)), out_shardings=split)
    shared = jax.device_put(population, whole)

    def chunk(state: State, runs: Runs, active: Array, population: Any) -> tuple[State, Metrics]:
        return mapped((state, runs, active), population)

    def start(every: Runs) -> State:
        return init(jax.device_put(every.key, split))

    def placed(every: Runs, active: np.ndarray) -> tuple[Runs, Array]:
        return jax.device_put((every, active), split)

    began = time.perf_counter()
    lowered = jax.jit(chunk, donate_argnums=0, out_shardings=split).lower(
        start(runs), *placed(runs, np.ones(len(runs.key), bool)), shared
    )
    compiled = lowered.compile()
    compile_seconds = time.perf_counter() - began

    def advance(state: State, every: Runs, active: np.ndarray) -> tuple[State, dict[str, np.ndarray]]:
        state, new = compiled(state, *placed(every, active), shared)
        return state, {name: np.asarray(value, np.float64) for name, value in jax.device_get(new).items()}

    return Program(start, advance, lambda state: jax.device_get(_published(state)), compile_seconds, lambda: traces)


def _published(state: State) -> State:
    return state._replace(memory=(), scheme=(), noise=())


class Outcome(NamedTuple):
    """What became of N runs of P points.

    Attributes:
      state: final State on the host, leading axis N, without what clients remember.
      rounds: i64[P] done by each.
      failed: what was not a number, of each point; "" where nothing was.
      converged: bool[P].
      metrics: KEPT -> f64[N, T], of which each run's first `rounds` are its own.
      seconds: f64[chunks, P], of every call each point's share.
    """

    state: State
    rounds: np.ndarray
    failed: list[str]
    converged: np.ndarray
    metrics: dict[str, np.ndarray]
    seconds: np.ndarray


def train_runs(
    program: Program, runs: Runs, limits: np.ndarray, seeds: int, config: TrainConfig, private: bool
) -> Outcome:
    """Calls the compiled chunk until every point is at its end: its limit, convergence, or a number that is none.

    A point ends as `train.loop.run_rounds` would end it: all its seeds with the first, or with one that fails.

    Args:
      program: compiled.
      runs: of points 0, 0, ... 1, 1, ..., then as many more as fill the devices, which stay as they are.
      limits: i64[P], most rounds of each point, done in whole chunks.
      seeds: runs of a point.
      config: rounds a chunk and the convergence rule.
      private: whether a point may end for reasons of published metrics only.
    """
    points, step = len(limits), config.rounds_per_chunk
    filler = np.zeros(len(runs.key) - points * seeds, bool)
    failed, converged, rounds = [""] * points, np.zeros(points, bool), np.zeros(points, np.int64)
    history: list[dict[str, np.ndarray]] = []
    seconds: list[np.ndarray] = []
    active, states = limits >= step, program.start(runs)
    while active.any():
        began = time.perf_counter()
        states, new = program.advance(states, runs, np.concatenate([np.repeat(active, seeds), filler]))
        history.append(new)
        seconds.append((time.perf_counter() - began) * active / active.sum())
        norms = np.concatenate([h["public/update_norm"] for h in history], 1)
        for i in np.flatnonzero(active):
            mine = slice(i * seeds, (i + 1) * seeds)
            failed[i] = _not_finite({name: value[mine] for name, value in history[-1].items()}, int(rounds[i]), private)
            rounds[i] += step
            converged[i] = has_converged(
                norms[i * seeds : i * seeds + 1], config.convergence_window, config.convergence_tolerance
            )
        active = active & (rounds + step <= limits) & ~converged & np.asarray([not text for text in failed])
    empty = np.zeros((len(runs.key), 0))
    metrics = {name: np.concatenate([empty, *(h[name] for h in history)], 1) for name in KEPT}
    collected = program.collect(states)
    return Outcome(collected, rounds, failed, converged, metrics, np.asarray(seconds).reshape(-1, points))


def _not_finite(mine: dict[str, np.ndarray], first: int, private: bool) -> str:
    for name in (NORM,) if private else ("sim/loss", NORM):
        bad = np.argwhere(~np.isfinite(mine[name]))
        if len(bad):
            seed, offset = bad[0]
            return f"round {first + int(offset) + 1}: {name} is {mine[name][seed, offset]} (seed {seed})"
    return ""
