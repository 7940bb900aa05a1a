"""Trains all points of a piece, stage by stage, each stage by one compiled program."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fedjax_health import build, prepare
from fedjax_health.attacks.shadows import make_shadow_mesh
from fedjax_health.data.representation import layout_of
from fedjax_health.federated.federation import init_state
from fedjax_health.privacy.plan import Release
from fedjax_health.randomness import BY_SEED, noise_seed, training_keys
from fedjax_health.sweep.program import Outcome, Runs, make_program, train_runs
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


class Stage(NamedTuple):
    """One training of all points, compiled.

    Attributes:
      train: number of the block -> its points' outcome.
      blocks: points of each block, whose runs fit memory together.
      reasons: what limits each point's rounds.
      compile_seconds: to trace and compile.
      traces: how often the program was traced.
    """

    train: Callable[[int], Outcome]
    blocks: list[np.ndarray]
    reasons: list[str]
    compile_seconds: float
    traces: Callable[[], int]


def train_points(points: Sequence[Point], batching: str = "auto") -> list[Ran]:
    """Trains every point's every stage, in the order of the plan.

    Args:
      points: of one piece; all have as many seeds.
      batching: of `design.BATCHINGS`.
    """
    found = [Ran({}, {}, "", 0.0, 0.0, 0) for _ in points]
    for number in range(len(points[0].plan.releases)):
        name = points[0].plan.releases[number].stage
        stage = make_stage(points, [point.plan.releases[number] for point in points], found, batching)
        for block, mine in enumerate(stage.blocks):
            outcome = stage.train(block)
            for place, i in enumerate(mine):
                found[i] = _after(found[i], outcome, place, name, points[i].config.seeds, stage, stage.reasons[i])
            LOG.info("%s: %d of %d points", name, mine[-1] + 1, len(points))
        found = [ran._replace(traces=ran.traces + stage.traces()) for ran in found]
    return found


def make_stage(
    points: Sequence[Point], releases: Sequence[Release], before: Sequence[Ran] = (), batching: str = "auto"
) -> Stage:
    """Compiles one training for all points.

    Args:
      points: of one piece.
      releases: the same stage of each point's plan.
      before: what the stages before it left; () = it is the first.
      batching: of `design.BATCHINGS`.
    """
    first, seeds, (domain, model) = points[0], points[0].config.seeds, releases[0].stage.split("/")
    p, mesh, train = first.of(domain), make_shadow_mesh(), build.model_config(model, first.config).train
    before = before or [Ran({}, {}, "", 0.0, 0.0, 0)] * len(points)
    allowed = [_limit(point, release, ran) for point, release, ran in zip(points, releases, before, strict=True)]
    step = _block(first, domain, model, len(points), mesh)
    size = -(-step * seeds // mesh.size) * mesh.size
    shared = p.data._replace(x=jnp.zeros(0)) if p.fitted else p.data
    blocks = [np.arange(start, min(start + step, len(points))) for start in range(0, len(points), step)]

    def runs_in(block: int) -> Runs:
        which = np.resize([i * seeds + s for i in blocks[block] for s in range(seeds)], size)
        return runs_of(points, domain, model, which.tolist())

    runs = runs_in(0)
    program = make_program(batching, p.parts[model], train, mesh, runs, shared)

    def run(block: int) -> Outcome:
        mine = runs if block == 0 else runs_in(block)
        limits = np.asarray([allowed[i][0] for i in blocks[block]])
        return train_runs(program, mine, limits, seeds, train, first.plan.formal)

    return Stage(run, blocks, [reason for _, reason in allowed], program.compile_seconds, program.traces)


def _limit(point: Point, release: Release, ran: Ran) -> tuple[int, str]:
    """Rounds that a point may do; none once a stage before it failed."""
    if ran.failed:
        return 0, "failed"
    budget = point.config.privacy.epsilon if point.plan.formal else float("inf")
    return round_limit(release.rounds, point.plan.epsilon_table(release, ran.done), budget)


def runs_of(points: Sequence[Point], domain: str, model: str, which: Sequence[int]) -> Runs:
    """Some runs of a stage.

    Args:
      points: of one piece.
      domain, model: the stage.
      which: numbers; run r is seed r % seeds of point r // seeds.
    """
    config, first = points[0].config, points[0].of(domain)
    seeds = config.seeds

    def of(point: Point) -> Runs:
        p = point.of(domain)
        values = build.training_numbers(build.model_config(model, point.config), point.plan.noise_multiplier)
        hyper = {**make_hyper(values, seeds), "class_prior": jnp.asarray(p.shares)}
        drawn = noise_seed(config.seed, point.config.privacy.trial)
        return Runs(training_keys(BY_SEED, drawn, f"{domain}/{model}", seeds), hyper, jnp.asarray(p.include))

    each = {i: of(points[i]) for i in dict.fromkeys(r // seeds for r in which)}
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


def _after(ran: Ran, outcome: Outcome, place: int, name: str, seeds: int, stage: Stage, reason: str) -> Ran:
    """A point's results with those of one more stage."""
    mine, done, seconds = (
        slice(place * seeds, (place + 1) * seeds),
        int(outcome.rounds[place]),
        outcome.seconds[:, place],
    )
    ran = ran._replace(
        seconds=ran.seconds + float(seconds.sum()), compile_seconds=ran.compile_seconds + stage.compile_seconds
    )
    if ran.failed or outcome.failed[place]:
        return ran._replace(failed=ran.failed or f"stage {name!r} {outcome.failed[place]}")
    state: Any = jax.tree.map(lambda leaf: leaf[mine], outcome.state)
    metrics = {key: value[mine, :done] for key, value in outcome.metrics.items()}
    reason = "converged" if outcome.converged[place] else reason
    trained = Trained(state, done, reason, stage.compile_seconds, seconds[seconds > 0])
    return ran._replace(trained={**ran.trained, name: trained}, metrics={**ran.metrics, name: metrics})
