"""Trains all points of a piece, stage by stage, each stage by one compiled program."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fedjax_health import build, prepare
from fedjax_health.attacks.shadows import AXIS, make_shadow_mesh
from fedjax_health.data.representation import layout_of
from fedjax_health.federated.federation import init_state
from fedjax_health.privacy.plan import Release
from fedjax_health.randomness import BY_SEED, noise_seed, training_keys
from fedjax_health.sweep.program import Outcome, Runs, make_program, side_by_side, train_runs
from fedjax_health.sweep.world import Point
from fedjax_health.train.loop import make_hyper
from fedjax_health.train.stage import Trained, round_limit

LOG = logging.getLogger("fedjax_health")
MEMORY_SHARE = 0.25  # of a machine's free memory, for the runs that are under way


class Ran(NamedTuple):
    """One point's trainings.

    Attributes:
      trained: stage -> result, as `train.stage.train_stage` gives it but for what clients remember.
      metrics: stage -> name -> f64[seeds, rounds].
      failed: why a stage has no model, as a sentence; "" where all have.
      seconds: wall time of its trainings, of the program's time the share of its runs; compiling not counted.
      compile_seconds: of the piece, all stages.
      traces: how often a program was traced, all stages.
    """

    trained: dict[str, Trained]
    metrics: dict[str, dict[str, np.ndarray]]
    failed: str
    seconds: float
    compile_seconds: float
    traces: int

    @property
    def done(self) -> dict[str, int]:
        """Stage -> rounds."""
        return {stage: t.rounds for stage, t in self.trained.items()}


def train_points(points: Sequence[Point]) -> list[Ran]:
    """Trains every point's every stage, in the order of the plan.

    Args:
      points: of one piece; all have as many seeds.
    """
    found = [Ran({}, {}, "", 0.0, 0.0, 0) for _ in points]
    for number in range(len(points[0].plan.releases)):
        releases = [point.plan.releases[number] for point in points]
        found = _stage(points, releases, found)
    return found


def _stage(points: Sequence[Point], releases: Sequence[Release], before: list[Ran]) -> list[Ran]:
    first, stage, seeds = points[0], releases[0].stage, points[0].config.seeds
    domain, model = stage.split("/")
    p, mesh = first.of(domain), make_shadow_mesh()
    train = build.model_config(model, first.config).train
    allowed = [_limit(point, release, ran) for point, release, ran in zip(points, releases, before, strict=True)]
    block = _block(first, domain, model, len(points), mesh)
    size = -(-block * seeds // mesh.size) * mesh.size
    program = make_program(p.parts[model], train.rounds_per_chunk, mesh, side_by_side(size // mesh.size))
    split, whole = NamedSharding(mesh, PartitionSpec(AXIS)), NamedSharding(mesh, PartitionSpec())
    shared = jax.device_put(p.data._replace(x=jnp.zeros(0)) if p.fitted else p.data, whole)
    chunk, compile_seconds, after = None, 0.0, []
    for start in range(0, len(points), block):
        mine = np.arange(start, min(start + block, len(points)))
        which = np.resize([i * seeds + s for i in mine for s in range(seeds)], size)
        runs = jax.device_put(_runs(points, domain, model, which), split)
        state = program.init(runs.key)
        if chunk is None:
            began = time.perf_counter()
            on = jax.device_put(np.ones(size, bool), split)
            chunk = program.chunk.lower(state, runs, on, shared).compile()  # pyright: ignore[reportFunctionMemberAccess]
            compile_seconds = time.perf_counter() - began
        limits = np.asarray([allowed[i][0] for i in mine])
        outcome = train_runs(chunk, state, runs, shared, limits, seeds, train, first.plan.formal)
        for place, i in enumerate(mine):
            after.append(_after(before[i], outcome, place, stage, seeds, allowed[i][1], compile_seconds))
        LOG.info("%s: %d of %d runs", stage, len(after) * seeds, len(points) * seeds)
    return [ran._replace(traces=ran.traces + program.traces()) for ran in after]


def _limit(point: Point, release: Release, ran: Ran) -> tuple[int, str]:
    """Rounds that a point may do; none once a stage before it failed."""
    if ran.failed:
        return 0, "failed"
    budget = point.config.privacy.epsilon if point.plan.formal else float("inf")
    return round_limit(release.rounds, point.plan.epsilon_table(release, ran.done), budget)


def _runs(points: Sequence[Point], domain: str, model: str, which: np.ndarray) -> Runs:
    """Some runs of a stage, by number: run r is seed r % seeds of point r // seeds."""
    config, first = points[0].config, points[0].of(domain)
    seeds = config.seeds

    def of(point: Point) -> Runs:
        p = point.of(domain)
        values = build.training_numbers(build.model_config(model, point.config), point.plan.noise_multiplier)
        hyper = {**make_hyper(values, seeds), "class_prior": jnp.asarray(p.shares)}
        drawn = noise_seed(config.seed, point.config.privacy.trial)
        return Runs(training_keys(BY_SEED, drawn, f"{domain}/{model}", seeds), hyper, jnp.asarray(p.include))

    each = {i: of(points[i]) for i in np.unique(which // seeds)}
    rows = [jax.tree.map(lambda leaf, s=r % seeds: leaf[s], each[r // seeds]) for r in which]
    runs = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
    if not first.fitted:
        return runs
    fitted = prepare.padded([points[r // seeds].of(domain).fitted[r % seeds] for r in which])
    return runs._replace(x=prepare.stores(first.domain, config.representation, fitted, config.seed).x)


def _block(point: Point, domain: str, model: str, points: int, mesh: Mesh) -> int:
    """Points whose runs fit memory together; all of them if they do."""
    p, seeds = point.of(domain), point.config.seeds
    state = jax.eval_shape(lambda key: init_state(p.parts[model], key), jax.eval_shape(jax.random.key, 0))
    own = 2 * 4 * sum(leaf.size for leaf in jax.tree.leaves(state))  # before and after a chunk
    if p.fitted:
        own += 4 * layout_of(p.domain.schema, point.config.representation).dim * len(p.domain.train.label)
    runs = int(_free_bytes() * MEMORY_SHARE / own) // mesh.size * mesh.size
    return min(points, max(1, runs // seeds))


def _free_bytes() -> int:
    """Memory for arrays: of all devices where they say so, else of this machine."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    if all(stats):
        return sum(int(s["bytes_limit"]) - int(s["bytes_in_use"]) for s in stats)  # pyright: ignore[reportOptionalSubscript]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _after(ran: Ran, outcome: Outcome, place: int, stage: str, seeds: int, reason: str, compile_seconds: float) -> Ran:
    """A point's results with those of one more stage."""
    mine, done, seconds = (
        slice(place * seeds, (place + 1) * seeds),
        int(outcome.rounds[place]),
        outcome.seconds[:, place],
    )
    ran = ran._replace(
        seconds=ran.seconds + float(seconds.sum()), compile_seconds=ran.compile_seconds + compile_seconds
    )
    if ran.failed or outcome.failed[place]:
        return ran._replace(failed=ran.failed or f"stage {stage!r} {outcome.failed[place]}")
    state: Any = jax.tree.map(lambda leaf: leaf[mine], outcome.state)
    metrics = {name: value[mine, :done] for name, value in outcome.metrics.items()}
    reason = "converged" if outcome.converged[place] else reason
    trained = Trained(state, done, reason, compile_seconds, seconds[seconds > 0])
    return ran._replace(trained={**ran.trained, stage: trained}, metrics={**ran.metrics, stage: metrics})
