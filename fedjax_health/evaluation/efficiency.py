"""What a training cost: measured time and memory, and the FLOPs, bytes, latency and energy of the simulated devices."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fedjax_health.devices.profile import CLASSES
from fedjax_health.devices.round import COUNTS
from fedjax_health.evaluation.rows import Figures, exact_row, mean_interval, seed_rows
from fedjax_health.types import Row


class Cost(NamedTuple):
    """What a round is made of.

    Attributes:
      flops: floating-point operations of one client's local training.
      bytes_up, bytes_down: of one client's update, and of the model it receives.
    """

    flops: float
    bytes_up: float
    bytes_down: float


def peak_memory_megabytes() -> float:
    """Largest resident memory of this process so far, MB (1e6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def _figures(simulated: Mapping[str, np.ndarray]) -> Figures:
    """Figures of one seed from the metrics of its rounds, f64[T] each."""
    seconds = simulated["sim/round_seconds"]
    alive = {c.name: float(simulated[f"sim/alive_{c.slug}"].sum()) for c in CLASSES}
    everybody = sum(alive.values())
    return {
        ("federation", "clients a round"): everybody / len(seconds),
        ("federation", "bytes up in all"): float(simulated["sim/bytes_up"].sum()),
        ("federation", "bytes down in all"): float(simulated["sim/bytes_down"].sum()),
        ("federation", "FLOPs in all"): float(simulated["sim/flops"].sum()),
        ("devices", "round latency median (s)"): float(np.median(seconds)),
        ("devices", "round latency p95 (s)"): float(np.quantile(seconds, 0.95)),
        ("devices", "simulated time in all (s)"): float(seconds.sum()),
        ("devices", "energy in all (J)"): float(simulated["sim/energy_joules"].sum()),
        **{
            ("devices", f"clients {name.removeprefix('sim/').replace('_', ' ')} in all"): float(simulated[name].sum())
            for name in COUNTS
        },
        **{
            ("devices", f"share of {name} among participants"): count / everybody if everybody else float("nan")
            for name, count in alive.items()
        },
    }


def training_rows(
    domain: str,
    model: str,
    cost: Cost,
    simulated: Mapping[str, np.ndarray],
    chunk_seconds: np.ndarray,
    rounds_per_chunk: int,
    compile_seconds: float,
) -> list[Row]:
    """Rows of the efficiency table for one training.

    Bytes, FLOPs and energy in all are those of every device that worked, also of those whose update did not count.

    Args:
      domain, model: where the rows stand.
      cost: of one client's round.
      simulated: every name in devices.round.METRICS -> f64[N, T] as recorded, T > 0.
      chunk_seconds: f64[chunks], wall time of every compiled call (all N federations together), s.
      rounds_per_chunk: R.
      compile_seconds: to trace and compile, s.
    """
    seeds, rounds = simulated["sim/round_seconds"].shape
    per_seed = [_figures({name: values[s] for name, values in simulated.items()}) for s in range(seeds)]
    nan = float("nan")

    rows = [
        exact_row(domain, model, "client", "FLOPs a round", cost.flops),
        exact_row(domain, model, "client", "bytes up a round", cost.bytes_up),
        exact_row(domain, model, "client", "bytes down a round", cost.bytes_down),
        exact_row(domain, model, "federation", "rounds", float(rounds)),
        *seed_rows(domain, model, per_seed),
        Row(domain, model, "machine", "compile (s)", compile_seconds, nan, nan, 1),
    ]
    if len(chunk_seconds):
        per_round = chunk_seconds / rounds_per_chunk / seeds
        interval = mean_interval(per_round) if len(per_round) > 1 else (float(per_round[0]), nan, nan)
        rows.append(Row(domain, model, "machine", "steady seconds a round and federation", *interval, len(per_round)))
    return rows


class Traffic(NamedTuple):
    """Bytes of one client's statistics.

    Attributes:
      up: its answers.
      down: what it receives to give them.
    """

    up: float
    down: float


def statistics_rows(domain: str, model: str, costs: Sequence[Traffic], clients: Sequence[int]) -> list[Row]:
    """Rows of a generator that is statistics of all clients, asked for once: first cells and shares, then products of scores.

    Args:
      domain, model: where the rows stand.
      costs: of one client, one a seed.
      clients: that were asked, one a seed.
    """
    per_seed: list[Figures] = [
        {
            ("client", "bytes up in all"): cost.up,
            ("client", "bytes down in all"): cost.down,
            ("federation", "rounds"): 2.0,
            ("federation", "clients a round"): float(asked),
            ("federation", "bytes up in all"): cost.up * asked,
            ("federation", "bytes down in all"): cost.down * asked,
        }
        for cost, asked in zip(costs, clients, strict=True)
    ]
    return seed_rows(domain, model, per_seed)


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
