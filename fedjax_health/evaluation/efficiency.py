"""What a training cost: measured time and memory, and the FLOPs, bytes, latency and energy of the simulated devices."""

from __future__ import annotations

import resource
import sys
from typing import NamedTuple

import numpy as np

from fedjax_health.devices.profile import simulate_rounds
from fedjax_health.evaluation.rows import Figures, exact_row, mean_interval, seed_rows
from fedjax_health.types import Row


class Cost(NamedTuple):
    """What a round is made of.

    Attributes:
      flops: floating-point operations of one client's local training.
      bytes_up, bytes_down: of one client's update, and of the model it receives.
    """

    flops: float
    bytes_up: int
    bytes_down: int


def peak_memory_megabytes() -> float:
    """Largest resident memory of this process so far, MB (1e6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def training_rows(
    domain: str,
    model: str,
    cost: Cost,
    cohort: np.ndarray,
    chunk_seconds: np.ndarray,
    rounds_per_chunk: int,
    compile_seconds: float,
    generator: np.random.Generator,
) -> list[Row]:
    """Rows of the efficiency table for one training.

    Args:
      domain, model: where the rows stand.
      cost: of one client's round.
      cohort: [N, T], clients that took part in each round of each seed.
      chunk_seconds: f64[chunks], wall time of every compiled call (all N federations together), s.
      rounds_per_chunk: R.
      compile_seconds: to trace and compile, s.
      generator: draws the simulated devices.
    """
    per_seed: list[Figures] = []
    for sizes in cohort:
        simulated = simulate_rounds(sizes.astype(int), cost.flops, cost.bytes_up, cost.bytes_down, generator)
        clients = float(sizes.sum())
        per_seed.append(
            {
                ("federation", "clients a round"): float(sizes.mean()),
                ("federation", "bytes up in all"): clients * cost.bytes_up,
                ("federation", "bytes down in all"): clients * cost.bytes_down,
                ("federation", "FLOPs in all"): clients * cost.flops,
                ("devices", "round latency median (s)"): float(np.median(simulated.latency_seconds)),
                ("devices", "round latency p95 (s)"): float(np.quantile(simulated.latency_seconds, 0.95)),
                ("devices", "energy in all (J)"): float(simulated.energy_joules.sum()),
            }
        )
    nan = float("nan")

    rows = [
        exact_row(domain, model, "client", "FLOPs a round", cost.flops),
        exact_row(domain, model, "client", "bytes up a round", cost.bytes_up),
        exact_row(domain, model, "client", "bytes down a round", cost.bytes_down),
        exact_row(domain, model, "federation", "rounds", float(cohort.shape[1])),
        *seed_rows(domain, model, per_seed),
        Row(domain, model, "machine", "compile (s)", compile_seconds, nan, nan, 1),
    ]
    if len(chunk_seconds):
        per_round = chunk_seconds / rounds_per_chunk / cohort.shape[0]
        interval = mean_interval(per_round) if len(per_round) > 1 else (float(per_round[0]), nan, nan)
        rows.append(Row(domain, model, "machine", "steady seconds a round and federation", *interval, len(per_round)))
    return rows


def run_rows(wall_seconds: float) -> list[Row]:
    """Rows of the whole run: wall time of this process and its peak memory.

    Args:
      wall_seconds: s.
    """
    nan = float("nan")
    return [
        Row("-", "-", "machine", "wall time (s)", wall_seconds, nan, nan, 1),
        Row("-", "-", "machine", "peak memory (MB)", peak_memory_megabytes(), nan, nan, 1),
    ]
