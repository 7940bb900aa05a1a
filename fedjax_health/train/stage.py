"""One training of a run, from its last checkpoint or from the start, with metrics, progress and checkpoints."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health import rng
from fedjax_health.federated import distributed
from fedjax_health.federated.federation import Data, Parts, State
from fedjax_health.federation_config import TrainConfig
from fedjax_health.files import write_text
from fedjax_health.threefry import root_key
from fedjax_health.train.checkpoint import Checkpoints
from fedjax_health.train.loop import make_train, run_rounds
from fedjax_health.train.metrics import Progress, Writer
from fedjax_health.types import Hyper, UserError

SAVE_SECONDS = 5.0  # least time between two checkpoints of a stage


class Trained(NamedTuple):
    """A finished stage.

    Attributes:
      state: final State, leading axis N; of several processes, on the first device of this one.
      rounds: rounds done.
      reason: why it stopped: "round limit", "privacy budget" or "converged".
      compile_seconds: to trace and compile the chunk (less when a persistent compilation cache holds it).
      chunk_seconds: f64[chunks], wall time of every compiled call.
    """

    state: State
    rounds: int
    reason: str
    compile_seconds: float
    chunk_seconds: np.ndarray


def federation_keys(seed: int, seeds: int) -> jax.Array:
    """Root keys of N federations, typed [N]; the first one is that of the published run."""
    return rng.numbered_keys(root_key(seed), seeds)


def round_limit(rounds: int, epsilon: np.ndarray, budget: float) -> tuple[int, str]:
    """How many rounds a training may do, and what says so: "round limit" or "privacy budget".

    Args:
      rounds: of the config.
      epsilon: f64[T + 1], spent by the whole run after each round; NaN without a mechanism.
      budget: the run's epsilon.
    """
    within = np.isnan(epsilon) | (epsilon <= budget)
    allowed = int(np.max(np.nonzero(within)[0], initial=0))
    return min(rounds, allowed), "round limit" if allowed >= rounds else "privacy budget"


def train_stage(
    stage: str,
    parts: Parts,
    config: TrainConfig,
    keys: jax.Array,
    hyper: Hyper,
    data: Data,
    epsilon: np.ndarray,
    budget: float,
    workdir: str,
    writer: Writer | None,
    forget: bool = False,
    shared_population: bool = True,
) -> Trained:
    """Trains N federations to the end of a stage.

    Args:
      stage: "<domain>/<model>"; names the checkpoints and the metrics.
      parts: the federation.
      config: rounds and stop rules.
      keys: typed keys [N].
      hyper: f32[N] (class_prior f32[N, L]).
      data: population and include bool[N, K].
      epsilon: f64[T + 1], spent by the whole run after each round; NaN without a mechanism.
      budget: the run's epsilon; training stops before passing it.
      workdir: the run's folder.
      writer: metrics; None in a process that writes no files (see `distributed.is_main`), where workdir is not touched.
      forget: whether the keys are a secret. Checkpoints then hold none, the last one no noise of earlier rounds either, and the
        stage can never go on from there; a finished one needs no keys.
      shared_population: whether all N federations read the same encoded records.

    Raises:
      UserError: a loss that is not finite, a checkpoint that cannot be read, or another process that was lost.
    """
    allowed, reason = round_limit(config.rounds, epsilon, budget)
    limit = int(distributed.from_main(np.int32(allowed)))
    train = make_train(parts, config, shared_population)
    keys, hyper, data = distributed.replicate((keys, hyper, data), parts.mesh)
    timing = os.path.join(workdir, "checkpoints", stage.replace("/", "_"), "timing.json")
    with Checkpoints(os.path.dirname(timing), withhold=forget) as checkpoints:
        compile_seconds, chunk_seconds = 0.0, []
        end, latest = checkpoints.end(), checkpoints.latest()
        if end is not None and end + config.rounds_per_chunk <= limit:
            reason = "converged"  # nothing else ends a stage before its limit
        limit = limit if end is None else end
        if forget:
            _check_keys(keys, latest, end, os.path.dirname(timing))
        if latest is None:
            state = train.init(keys)
            checkpoints.save(0, state)  # so that there is always a last good one
        else:
            state = checkpoints.restore(jax.eval_shape(train.init, keys))
            if forget:  # a copy, since the state is donated
                state = state._replace(key=jax.jit(jnp.copy)(keys))
            if writer is not None and os.path.isfile(timing):
                with open(timing, encoding="utf-8") as file:
                    compile_seconds, chunk_seconds = json.load(file)
        start = int(jax.device_get(state.round)[0])
        norms = _history(stage, start, keys.shape[0], writer)
        if start + config.rounds_per_chunk <= limit:
            began = time.perf_counter()
            train = train._replace(run_chunk=train.run_chunk.lower(state, hyper, data).compile())
            compile_seconds = time.perf_counter() - began
        last_save = time.perf_counter()

        def save(now: State, rounds: int) -> None:
            checkpoints.save(rounds, now)
            write_text(timing, json.dumps([compile_seconds, chunk_seconds]) + "\n")

        with contextlib.nullcontext() if writer is None else Progress(stage, limit, start) as progress:

            def on_chunk(now: State, first: int, metrics: dict[str, np.ndarray], seconds: float) -> None:
                nonlocal last_save
                if writer is None or progress is None:
                    return
                chunk_seconds.append(seconds)
                done = first + config.rounds_per_chunk
                spent = epsilon[first + 1 : done + 1]
                metrics = {**metrics, "privacy/epsilon": np.broadcast_to(spent, metrics["sim/loss"].shape)}
                writer.write_rounds(stage, first + 1, metrics, seconds)
                progress.update(done, float(metrics["sim/loss"].mean()), float(spent[-1]))
                if time.perf_counter() - last_save > SAVE_SECONDS:
                    save(now, done)
                    last_save = time.perf_counter()

            outcome = run_rounds(
                train,
                config,
                state,
                hyper,
                data,
                stage=stage,
                round_limit=limit,
                limit_reason=reason,
                on_chunk=on_chunk,
                norms=norms,
                private=not np.isnan(epsilon).all(),
            )
        if forget:
            checkpoints.finish(outcome.rounds, outcome.state._replace(noise=jax.tree.map(_zeros, outcome.state.noise)))
            if writer is not None:
                write_text(timing, json.dumps([compile_seconds, chunk_seconds]) + "\n")
        elif checkpoints.latest() != outcome.rounds and writer is not None:
            save(outcome.state, outcome.rounds)
    return Trained(
        distributed.local(outcome.state), outcome.rounds, outcome.reason, compile_seconds, np.asarray(chunk_seconds)
    )


def _zeros(leaf: jax.Array) -> np.ndarray:
    return np.zeros(leaf.shape, leaf.dtype)


def _check_keys(keys: jax.Array, latest: int | None, end: int | None, folder: str) -> None:
    """Without its secret, whose place zeros then hold, nothing may be trained."""
    if not np.asarray(jax.random.key_data(distributed.local(keys))).any() and (end is None or latest != end):
        raise UserError(
            f"{folder!r} holds no final checkpoint, and the secret that its training drew from is gone; start in a new workdir"
        )


def _history(stage: str, start: int, seeds: int, writer: Writer | None) -> np.ndarray:
    """Norms of the updates so far, f64[N, rounds], the same in all processes; the file then ends where training goes on."""
    norms = np.zeros((seeds, 0))
    if writer is not None:
        writer.truncate(stage, start + 1)
        norms = writer.history(stage, "public/update_norm", seeds)
    if jax.process_count() == 1:
        return norms
    rounds = int(distributed.from_main(np.int32(norms.shape[1])))
    return distributed.from_main(norms if writer is not None else np.zeros((seeds, rounds)))
