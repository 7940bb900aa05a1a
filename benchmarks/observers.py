"""What weaker observers of a run learn from it: those of all published updates, and of the last model alone.

`results(quick)` gives figures named `audit/...`; `python -m benchmarks.privacy --parts observers` prints them. The runs are
those of `benchmarks.audit` (2,000 clients, cohort 100, 50 Poisson rounds, 200 canaries, epsilon 8, 3 and 1 by the noise). The
strongest observer is measured there: the one whom the accountant grants the other clients' messages. Here nobody knows
those. The scores:

all updates        of each round's published sum, as `federated.canaries` adds them up;
last model         <c_j, w_0 - w_T>: how far the whole run moved the model along the canary's direction.

Estimates from the last model are those of two Gaussians fitted to the scores (Andrew et al. 2023, arXiv 2302.03098). A canary
of directions has no row in a synthetic table: what an observer of that alone learns is `tables/membership.csv` of a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from benchmarks import engine, report
from benchmarks.audit import CANARIES, DELTA, EPSILONS, ROUNDS, federation, overlaps
from fedjax_health.data.simulator import population_key
from fedjax_health.federated import canaries
from fedjax_health.federated.federation import Audit, Parts
from fedjax_health.federation_config import TrainConfig
from fedjax_health.privacy import accounting
from fedjax_health.privacy.audit_bounds import audit_bound, one_run
from fedjax_health.privacy.audit_estimate import estimate_composed, estimate_epsilon


def observed(parts: Parts, config: TrainConfig, noise: float, seeds: Sequence[int]) -> tuple[Audit, np.ndarray]:
    """What a run of each seed leaves: the audit, and the canaries' scores from the last model; f64[N, k] each.

    Args:
      parts, config: of `benchmarks.audit.federation`.
      noise: multiplier.
      seeds: [N].
    """
    program = engine.make_program(parts, config, population_key(0), len(seeds))
    numbers = engine.make_numbers(config, len(seeds)) | {
        "noise_multiplier": jnp.full((len(seeds),), noise, jnp.float32)
    }
    flat = jax.vmap(lambda tree: ravel_pytree(tree)[0])
    start = program.start(seeds)
    before = np.asarray(flat(start.params.client), np.float64)
    state, _ = program.run(start, program.place(numbers, population_key(0)))
    moved = before - np.asarray(flat(state.params.client), np.float64)
    index = jnp.arange(CANARIES, dtype=jnp.int32)
    every = jax.vmap(lambda j: canaries.direction(parts.canaries, j, moved.shape[1]))(index)  # pyright: ignore[reportArgumentType]
    audit = Audit(*(np.asarray(leaf, np.float64) for leaf in state.audit))  # pyright: ignore[reportArgumentType]
    return audit, moved @ np.asarray(every, np.float64).T


def results(quick: bool) -> list[dict[str, Any]]:
    """All figures.

    Args:
      quick: three runs instead of 20.
    """
    seeds = range(3 if quick else 20)
    parts, config = federation("poisson", ROUNDS, CANARIES, knows_clients=False)
    found = []
    for epsilon in EPSILONS:
        noise = accounting.calibrate_noise(lambda z: [(parts.sampler.account(z), ROUNDS)], epsilon, DELTA)
        accounted = accounting.epsilon_of([(parts.sampler.account(noise), ROUNDS)], DELTA)
        audit, last = observed(parts, config, noise, seeds)
        inserted = np.asarray(audit.inserted) > 0
        known = zip(np.asarray(audit.during), overlaps(parts, seeds, ROUNDS), inserted, strict=True)
        observers = {
            "all updates": (
                np.asarray(audit.loss),
                [estimate_composed(d, q, own, parts.sampler.account, ROUNDS, DELTA) for d, q, own in known],
            ),
            "last model": (
                last,
                [
                    estimate_epsilon(s[own], s[~own], DELTA, same_deviation=True)
                    for s, own in zip(last, inserted, strict=True)
                ],
            ),
        }
        for name, (scores, estimates) in observers.items():
            bounds = [
                audit_bound(s, own, DELTA, one_run, np.random.default_rng(seed))
                for s, own, seed in zip(scores, inserted, seeds, strict=True)
            ]
            at = f"audit/epsilon {epsilon:g}, {name}"
            found += [
                report.make_result(f"{at}: estimate", estimates, "epsilon", "accounted", [accounted]),
                report.make_result(f"{at}: lower bound", bounds, "epsilon", "accounted", [accounted]),
            ]
    return found
