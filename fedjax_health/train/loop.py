"""A compiled chunk of R rounds for N federations side by side, and the thin host loop that calls it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from fedjax_health.federated import distributed
from fedjax_health.federated.canaries import with_directions
from fedjax_health.federated.federation import Data, Parts, State, init_state
from fedjax_health.federation_config import TrainConfig
from fedjax_health.types import Array, Hyper, Metrics, UserError


class Train(NamedTuple):
    """A federation as two pure functions, mapped over N federations.

    Attributes:
      init: keys [N] -> State with leading axis N.
      run_chunk: (state, hyper f32[N] each, data) -> (state, metrics f32[N, R]); compiled once, the state is donated.
        `data.include` has a leading axis N; the population is shared unless `shared_population` was False.
      traces: how often run_chunk was traced.
    """

    init: Callable[[Array], State]
    run_chunk: Callable[[State, Hyper, Data], tuple[State, Metrics]]
    traces: Callable[[], int]


def make_train(parts: Parts, config: TrainConfig, shared_population: bool = True) -> Train:
    """The experiment as a pure function: one jit is a run, the leading axis N is a set of seeds or shadow federations.

    Args:
      parts: the federation.
      config: rounds a chunk.
      shared_population: whether all N federations read the same records.
    """
    round_fn = parts.scheme.make_round(parts)
    traces = 0

    def chunk(state: State, hyper: Hyper, data: Data) -> tuple[State, Metrics]:
        nonlocal traces
        traces += 1
        own = round_fn if parts.canaries is None else parts.scheme.make_round(with_directions(parts))
        return jax.lax.scan(lambda s, _: own(s, hyper, data), state, None, length=config.rounds_per_chunk)

    axes = Data(None if shared_population else 0, 0)  # pyright: ignore[reportArgumentType]

    def mapped(state: State, hyper: Hyper, data: Data) -> tuple[State, Metrics]:
        if data.include.shape[0] > 1:
            return jax.vmap(chunk, in_axes=(0, 0, axes))(state, hyper, data)
        # one federation is not mapped: a mapped loop of varying length would run every branch for its one member
        only = Data(jax.tree.map(lambda leaf: leaf if shared_population else leaf[0], data.population), data.include[0])
        own, numbers = jax.tree.map(lambda leaf: leaf[0], (state, hyper))
        result = chunk(own, numbers, only)
        return jax.tree.map(lambda leaf: leaf[None], result)

    # on every device from the start, as run_chunk leaves it: a second placement would be a second compilation, and what XLA
    # leaves in pieces (teachers, one lane each) a compiled chunk would not take back
    replicated = NamedSharding(parts.mesh, PartitionSpec())
    run_chunk = jax.jit(mapped, donate_argnums=0, out_shardings=replicated)
    init = jax.jit(jax.vmap(functools.partial(init_state, parts)), out_shardings=replicated)
    return Train(init, run_chunk, lambda: traces)


class Outcome(NamedTuple):
    """What the host loop hands back: the final State (leading axis N), rounds done, and why it stopped."""

    state: State
    rounds: int
    reason: str


def has_converged(norms: np.ndarray, window: int, tolerance: float) -> bool:
    """Convergence on a public quantity: |mean of the last window / mean of the one before - 1| < tolerance, for all N.

    Args:
      norms: f64[N, rounds], norm of the published mean update.
      window: rounds in a window; 0 = never.
      tolerance: relative change.
    """
    if window == 0 or norms.shape[1] < 2 * window:
        return False
    last, before = norms[:, -window:].mean(1), norms[:, -2 * window : -window].mean(1)
    return bool(np.all(np.abs(last / np.maximum(before, 1e-30) - 1.0) < tolerance))


def run_rounds(
    train: Train,
    config: TrainConfig,
    state: State,
    hyper: Hyper,
    data: Data,
    *,
    stage: str,
    round_limit: int,
    limit_reason: str,
    on_chunk: Callable[[State, int, dict[str, np.ndarray], float], None],
    norms: np.ndarray,
    private: bool = False,
) -> Outcome:
    """Calls the compiled chunk until a stop rule holds; metrics leave the device once a chunk.

    Args:
      train: compiled functions.
      config: chunk size and convergence rule.
      state: where to start (fresh or restored).
      hyper, data: traced inputs.
      stage: name for messages, such as "vitals/vae".
      round_limit: rounds allowed by the config or the privacy budget, whichever is less; rounds are done in whole
        chunks, the last of which may not pass the limit.
      limit_reason: what set the limit.
      on_chunk: (state, first round of the chunk, metrics f32[N, R], seconds); called after the finite check.
      norms: f64[N, rounds done], history of public/update_norm (empty when fresh).
      private: whether the run's end may depend on published metrics only.

    Raises:
      UserError: a parameter, or without privacy a loss, is not finite; names stage and round. on_chunk is then not
        called, so the last good checkpoint stays. Or another process was lost.
    """
    done = int(jax.device_get(state.round)[0])
    reason = limit_reason
    while done + config.rounds_per_chunk <= round_limit:
        # the published federation alone decides: the other seeds' norms are releases that no ledger holds
        if has_converged(norms[:1], config.convergence_window, config.convergence_tolerance):
            reason = "converged"
            break
        start = time.perf_counter()
        with distributed.guarded(f"stage {stage!r} after round {done}"):
            state, metrics = train.run_chunk(state, hyper, data)
            host = {name: np.asarray(value) for name, value in jax.device_get(metrics).items()}
        seconds = time.perf_counter() - start
        _check_finite(host, stage, done, private)
        norms = np.concatenate([norms, host["public/update_norm"].astype(np.float64)], 1)
        on_chunk(state, done, host, seconds)
        done += config.rounds_per_chunk
    return Outcome(state, done, reason)


def _check_finite(metrics: dict[str, np.ndarray], stage: str, first_round: int, private: bool) -> None:
    # in a private run what is published alone decides: a client whose records are not numbers, and whose update the clip makes
    # zero, must not be able to end it, nor may its loss be told by that end
    for name in ("public/parameter_norm",) if private else ("sim/loss", "public/parameter_norm"):
        bad = ~np.isfinite(metrics[name])
        if bad.any():
            seed, offset = np.argwhere(bad)[0]
            raise UserError(
                f"stage {stage!r} round {first_round + int(offset) + 1}: {name} is {metrics[name][seed, offset]} (seed "
                f"{int(seed)}); the last good checkpoint is kept. Lower client_learning_rate or l2_clip_norm and start in "
                "a new workdir"
            )


def make_hyper(values: dict[str, float], seeds: int) -> Hyper:
    """Traced numbers, one for each federation: a change of value never recompiles.

    Args:
      values: name to number.
      seeds: N.

    Returns:
      name to f32[N].
    """
    return {name: jnp.full((seeds,), value, jnp.float32) for name, value in values.items()}
