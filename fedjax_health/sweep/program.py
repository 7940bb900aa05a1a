"""One compiled program that trains many runs: dealt over the devices, on each of which a federation is alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fedjax_health.attacks.shadows import AXIS, over_shadows
from fedjax_health.devices.round import METRICS
from fedjax_health.federated.federation import Data, Parts, State, init_state
from fedjax_health.federation_config import TrainConfig
from fedjax_health.train.loop import has_converged
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
    """A federation's training, mapped over N runs.

    Attributes:
      init: keys [N] -> State with leading axis N, dealt over the devices.
      chunk: (state, runs, active bool[N], population) -> (state, metrics f32[N, R]); R rounds of every active run. The others
        stay as they are and cost nothing where a device has one run at a time; the state is donated.
      traces: how often `chunk` was traced.
    """

    init: Callable[[Array], State]
    chunk: Callable[[State, Runs, Array, Any], tuple[State, Metrics]]
    traces: Callable[[], int]


def side_by_side(runs_a_device: int) -> int:
    """Runs that a device works on at once: one on a CPU, whose caches hold one and whose branches then stay branches, all of
    its share on an accelerator.

    Args:
      runs_a_device: its share.
    """
    return 1 if jax.default_backend() == "cpu" else runs_a_device


def make_program(parts: Parts, rounds_per_chunk: int, mesh: Mesh, at_once: int) -> Program:
    """The program of all runs of a static choice.

    Args:
      parts: the federation, for a mesh of one device.
      rounds_per_chunk: R.
      mesh: of `attacks.shadows.make_shadow_mesh`.
      at_once: of `side_by_side`; cannot change results beyond last digits.
    """
    round_fn, traces = parts.scheme.make_round(parts), 0

    def one(own: tuple[State, Runs, Array], common: Any) -> tuple[State, Metrics]:
        nonlocal traces
        traces += 1
        start, mine, active = own
        population = common if isinstance(mine.x, tuple) else common._replace(x=mine.x)
        data = Data(population, mine.include)

        def step(state: State, _: None) -> tuple[State, Metrics]:
            state, metrics = round_fn(state, mine.hyper, data)
            return state, {name: metrics[name].astype(jnp.float32) for name in KEPT}

        def work(state: State) -> tuple[State, Metrics]:
            return jax.lax.scan(step, state, None, rounds_per_chunk)

        def rest(state: State) -> tuple[State, Metrics]:
            return state, {name: jnp.zeros((rounds_per_chunk,), jnp.float32) for name in KEPT}

        return jax.lax.cond(active, work, rest, start)

    mapped, split = over_shadows(one, mesh, at_once), NamedSharding(mesh, PartitionSpec(AXIS))

    def chunk(state: State, runs: Runs, active: Array, population: Any) -> tuple[State, Metrics]:
        return mapped((state, runs, active), population)

    init = jax.jit(jax.vmap(lambda key: init_state(parts, key)), out_shardings=split)
    return Program(init, jax.jit(chunk, donate_argnums=0, out_shardings=split), lambda: traces)


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
    chunk: Callable[..., tuple[State, Metrics]],
    state: State,
    runs: Runs,
    population: Any,
    limits: np.ndarray,
    seeds: int,
    config: TrainConfig,
    private: bool,
) -> Outcome:
    """Calls the compiled chunk until every point is at its end: its limit, convergence, or a number that is none.

    A point ends as `train.loop.run_rounds` would end it: all its seeds with the first, or with one that fails.

    Args:
      chunk: of a Program, compiled.
      state: of `init`, donated.
      runs: of points 0, 0, ... 1, 1, ..., then as many more as fill the devices; dealt over these.
      population: what all read.
      limits: i64[P], most rounds of each point, done in whole chunks.
      seeds: runs of a point.
      config: rounds a chunk and the convergence rule.
      private: whether a point may end for reasons of published metrics only.
    """
    points, step = len(limits), config.rounds_per_chunk
    split = NamedSharding(runs.include.sharding.mesh, PartitionSpec(AXIS))  # pyright: ignore[reportAttributeAccessIssue]
    filler = np.zeros(len(runs.include) - points * seeds, bool)
    failed, converged, rounds = [""] * points, np.zeros(points, bool), np.zeros(points, np.int64)
    history: list[dict[str, np.ndarray]] = []
    seconds: list[np.ndarray] = []
    active = limits >= step
    while active.any():
        began = time.perf_counter()
        on = jax.device_put(np.concatenate([np.repeat(active, seeds), filler]), split)
        state, new = chunk(state, runs, on, population)
        history.append({name: np.asarray(value, np.float64) for name, value in jax.device_get(new).items()})
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
    empty = np.zeros((len(runs.include), 0))
    metrics = {name: np.concatenate([empty, *(h[name] for h in history)], 1) for name in KEPT}
    kept = jax.device_get(state._replace(memory=(), scheme=(), noise=()))
    return Outcome(kept, rounds, failed, converged, metrics, np.asarray(seconds).reshape(-1, points))


def _not_finite(mine: dict[str, np.ndarray], first: int, private: bool) -> str:
    for name in (NORM,) if private else ("sim/loss", NORM):
        bad = np.argwhere(~np.isfinite(mine[name]))
        if len(bad):
            seed, offset = bad[0]
            return f"round {first + int(offset) + 1}: {name} is {mine[name][seed, offset]} (seed {seed})"
    return ""
