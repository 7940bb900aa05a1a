"""The audit by canaries in one run: 2,000 clients, cohort 100, 200 canaries; 20 federations side by side stand for 20 runs.

`results(quick)` gives figures named `audit/...`; `python -m benchmarks.privacy --parts audit` prints them. For epsilon 8, 3
and 1 (by the noise, over 50 Poisson rounds): what is accounted, the estimate, and the runs' 95 % lower bounds; for one round
of all clients the estimate over the analytic epsilon, and the share of runs within 15 % of it, with 400 canaries and with as
many as the noise asks for (see `audit_estimate.estimate_noise_multiplier`); and what 200 canaries cost in time.

The observer sees every published update and knows the real clients' messages; `benchmarks.observers` measures weaker ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dp_accounting
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import engine, report, work
from benchmarks.case import LAYERS, ROWS, cheap_simulator
from fedjax_health.data.encode import make_encoder
from fedjax_health.data.population import procedural_population
from fedjax_health.data.simulator import population_key
from fedjax_health.federated.canaries import together, with_canaries
from fedjax_health.federated.federation import Parts
from fedjax_health.federation_config import TrainConfig
from fedjax_health.privacy import accounting
from fedjax_health.privacy.audit_bounds import audit_bound, one_run
from fedjax_health.privacy.audit_estimate import estimate_composed
from fedjax_health.threefry import root_key

CLIENTS, COHORT, ROUNDS, CANARIES = 2000, 100, 50, 200
ONE_ROUND = ((0.5, 300), (0.5, 400), (1.0, 400), (1.0, 600), (2.0, 400), (2.0, 1800))  # noise multiplier, canaries
WITHIN = 0.15  # of the analytic epsilon
AT_ONCE = 20  # runs side by side
EPSILONS, DELTA = (8.0, 3.0, 1.0), 1e-5


def federation(sampler: str, rounds: int, canaries: int, knows_clients: bool = True) -> tuple[Parts, TrainConfig]:
    """A federation of simulated clients, private, with as many canaries (0 = none).

    Args:
      sampler: "poisson" or "full".
      rounds: of a run.
      canaries: k.
      knows_clients: whether the observer knows the real clients' messages.
    """
    simulator = cheap_simulator()
    population = procedural_population(simulator, make_encoder(simulator.schema), CLIENTS)
    steps = {"local": "steps", "local_steps": 1, "batch_size": ROWS, "l2_clip_norm": engine.CLIP}
    config = engine.make_config(COHORT, rounds, sampler=sampler, **steps)
    parts = engine.make_parts(engine.make_model(layers=LAYERS), population, LAYERS[0], config, private=True)
    return (with_canaries(parts, canaries, root_key(5), knows_clients=knows_clients) if canaries else parts), config


def scores(parts: Parts, config: TrainConfig, noise: float, seeds: Sequence[int]) -> Any:
    """The canaries' scores after a run of each seed, f64[N, k] each.

    Args:
      parts, config: of `federation`.
      noise: multiplier.
      seeds: [N].
    """
    program = engine.make_program(parts, config, population_key(0), len(seeds))
    numbers = engine.make_numbers(config, len(seeds)) | {
        "noise_multiplier": jnp.full((len(seeds),), noise, jnp.float32)
    }
    state, _ = program.run(program.start(seeds), program.place(numbers, population_key(0)))
    return type(state.audit)(*(np.asarray(leaf, np.float64) for leaf in state.audit))


def overlaps(parts: Parts, seeds: Sequence[int], rounds: int) -> np.ndarray:
    """What the auditor of each seed's run knows of its canaries' overlaps, f32[N, k, k].

    Args:
      parts: of `federation`.
      seeds: [N].
      rounds: of a run.
    """
    keys = jax.vmap(root_key)(jnp.asarray(seeds, jnp.uint32))
    return np.asarray(jax.jit(jax.vmap(lambda key: together(parts, key, rounds)))(keys))


def composed_part(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Accounted, estimated and proven epsilon of 50 Poisson rounds."""
    parts, config = federation("poisson", ROUNDS, CANARIES)
    found = []
    for epsilon in EPSILONS:
        noise = accounting.calibrate_noise(lambda z: [(parts.sampler.account(z), ROUNDS)], epsilon, DELTA)
        accounted = accounting.epsilon_of([(parts.sampler.account(noise), ROUNDS)], DELTA)
        audit = scores(parts, config, noise, seeds)
        inserted = audit.inserted > 0
        estimates = [
            estimate_composed(during, took, own, parts.sampler.account, ROUNDS, DELTA)
            for during, took, own in zip(audit.during, overlaps(parts, seeds, ROUNDS), inserted, strict=True)
        ]
        bounds = [
            audit_bound(loss, own, DELTA, one_run, np.random.default_rng(seed))
            for loss, own, seed in zip(audit.loss, inserted, seeds, strict=True)
        ]
        name = f"audit/epsilon {epsilon:g}"
        found += [
            report.make_result(f"{name}: accounted", [accounted], "epsilon"),
            report.make_result(f"{name}: estimate", estimates, "epsilon", f"{name}: accounted", [accounted]),
            report.make_result(f"{name}: lower bound", bounds, "epsilon", f"{name}: accounted", [accounted]),
            report.make_result(
                f"{name}: runs whose bound is too high", [float(np.sum(np.array(bounds) > accounted))], "runs"
            ),
        ]
    return found


def one_round_part(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Estimate over analytic epsilon of one round in which all take part, a run a seed."""
    found = []
    for noise, canaries in ONE_ROUND:
        parts, config = federation("full", 1, canaries)
        analytic, ratios = dp_accounting.get_epsilon_gaussian(noise, DELTA), []
        # all runs of one round have the same overlaps: every canary takes part
        overlap = overlaps(parts, [0], 1)[0]
        for start in range(0, len(seeds), AT_ONCE):
            audit = scores(parts, config, noise, seeds[start : start + AT_ONCE])
            ratios += [
                estimate_composed(during, overlap, own, dp_accounting.GaussianDpEvent, 1, DELTA) / analytic
                for during, own in zip(audit.during, audit.inserted > 0, strict=True)
            ]
        name = f"audit/one full round, noise {noise:g}, {canaries} canaries"
        within = float(np.mean(np.abs(np.asarray(ratios) - 1) <= WITHIN))
        found += [
            report.make_result(f"{name}: estimate over analytic", ratios, "ratio"),
            report.make_result(f"{name}: runs within 15 %", [within], "share"),
        ]
    return found


def cost_part(repeats: int) -> list[dict[str, Any]]:
    """Milliseconds a round with and without canaries, in turn."""
    runs = {}
    for canaries in (0, CANARIES):
        parts, config = federation("poisson", ROUNDS, canaries)
        program = engine.make_program(parts, config, population_key(0))
        runs[canaries] = program, program.place(engine.make_numbers(config), population_key(0))

    def once(canaries: int) -> float:
        program, inputs = runs[canaries]
        start = program.start([0])
        return 1e3 * work.timed(lambda: program.run(start, inputs))[0] / ROUNDS

    passes = [[once(canaries) for canaries in runs] for _ in range(repeats + 1)][1:]
    without, beside = ([row[i] for row in passes] for i in range(2))
    base = report.make_result("audit/round without canaries", without, "ms")
    return [base, report.make_result("audit/round with 200 canaries", beside, "ms", base["name"], without)]


def results(quick: bool) -> list[dict[str, Any]]:
    """All figures.

    Args:
      quick: three runs instead of 20 (of one round: of 100).
    """
    few, many = (range(3),) * 2 if quick else (range(AT_ONCE), range(100))
    return [*composed_part(few), *one_round_part(many), *cost_part(3 if quick else 7)]
