"""One measurement of a sweep in a process of its own: `python -m benchmarks.sweep_world PART [--quick]`.

together   all runs in one program, from the start of the process to the last trained model
alone      one of them as a process, from start to end
steady     all runs in one program and each of them alone, in turn; how far apart their results are, on one device
           as well, where all numbers are summed in the same order

The last line of the output is one JSON object. A run trains a VAE on simulated vitals; nothing is judged.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

from benchmarks import work

NOISE = (0.5, 0.6, 0.8, 1.0, 1.3, 1.7, 2.2, 3.0)
SEEDS = 4
CONFIG = "configs/iot.py:smoke"


def settings(noise: float, seeds: int, quick: bool) -> tuple[tuple[str, Any], ...]:
    """One point: 300 devices, 100 rounds of 40, a network of 32 units; quick: 20 rounds.

    Args:
      noise: multiplier; the budget is far off, so that all do as many rounds.
      seeds: N.
      quick: whether it is to be short.
    """
    return (
        ("data.domains", ("vitals",)),
        ("models", ("vae",)),
        ("attacks.shadows", 0),
        ("vae.train.rounds", 20 if quick else 100),
        ("vae.train.rounds_per_chunk", 10 if quick else 50),
        ("privacy.epsilon", 1000.0),
        ("privacy.noise_multiplier", noise),
        ("seeds", seeds),
    )


def make_configs(seeds: int, quick: bool) -> list[Any]:
    """Configs of all points.

    Args:
      seeds: N.
      quick: see `settings`.
    """
    from fedjax_health.sweep.pieces import config_of, load_file

    base = load_file(CONFIG)
    return [config_of(CONFIG, settings(noise, seeds, quick), base) for noise in NOISE]


def together(quick: bool) -> dict[str, Any]:
    """Part `together`."""
    from fedjax_health.sweep.training import train_points
    from fedjax_health.sweep.world import make_points

    ran = train_points(make_points(make_configs(SEEDS, quick)))
    assert not any(r.failed for r in ran)
    return {"traces": ran[0].traces, "compile_seconds": ran[0].compile_seconds}


class Alone:
    """The runs one by one, each by `make_train` over all devices, as `launch.main` trains one seed.

    Args:
      points: of `make_points`, for `SEEDS` seeds or one.
      devices: over which the clients are dealt, 0 = all.
    """

    def __init__(self, points: list[Any], devices: int = 0):
        from fedjax_health import prepare
        from fedjax_health.federated import sharding
        from fedjax_health.sweep.training import runs_of
        from fedjax_health.train.loop import make_train

        config, p = points[0].config, points[0].prepared[0]
        self._train = config.vae.train
        parts = prepare.with_federations(p.domain, p.include, config, sharding.make_mesh(devices)).parts["vae"]
        self._made = make_train(parts, self._train)
        self.runs = runs_of(points, "vitals", "vae", list(range(len(points) * config.seeds)))
        self._data = p.data

    def train(self, number: int) -> Any:
        """The averaged network of one run."""
        import jax

        from fedjax_health.federated.federation import Data

        one = jax.tree.map(lambda leaf: leaf[number : number + 1], self.runs)
        state, data = self._made.init(one.key), Data(self._data, one.include)
        for _ in range(self._train.rounds // self._train.rounds_per_chunk):
            state, _metrics = self._made.run_chunk(state, one.hyper, data)
        return jax.device_get(jax.tree.map(lambda leaf: leaf[0], state.average))


def alone(quick: bool) -> dict[str, Any]:
    """Part `alone`."""
    from fedjax_health.sweep.world import make_points

    Alone(make_points(make_configs(1, quick)[:1])).train(0)
    return {}


def steady(quick: bool) -> dict[str, Any]:
    """Part `steady`: seconds of both, in turn, and the greatest difference between any two parameters."""
    import jax
    import numpy as np

    from fedjax_health.sweep.training import make_stage
    from fedjax_health.sweep.world import make_points

    points = make_points(make_configs(SEEDS, quick))
    stage, single = make_stage(points, [point.plan.releases[0] for point in points]), Alone(points)
    count = len(points) * SEEDS
    outcome, many = stage.train(0), [single.train(i) for i in range(count)]
    on_one = Alone(points, 1)
    few = [on_one.train(i) for i in range(count)]
    made = [jax.tree.map(lambda leaf, i=i: leaf[i], outcome.state.average) for i in range(count)]
    largest = max(float(np.max(np.abs(leaf))) for mine in many for leaf in jax.tree.leaves(mine))
    ways: dict[str, Callable[[], Any]] = {
        "together": lambda: stage.train(0),
        "alone": lambda: [single.train(i) for i in range(count)],
    }
    times: dict[str, list[float]] = {f"{way}{kind}": [] for way in ways for kind in ("", "_cpu")}
    for _ in range(3 if quick else 7):
        for way, call in ways.items():
            began = time.perf_counter(), time.process_time()
            call()
            times[way].append(time.perf_counter() - began[0])
            times[f"{way}_cpu"].append(time.process_time() - began[1])
    apart = {"one_device": _apart(made, few), "all_devices": _apart(made, many), "devices": _apart(few, many)}
    return {**times, "apart": apart, "largest": largest, "traces": stage.traces(), "runs": count}


def _apart(some: list[Any], others: list[Any]) -> list[float]:
    """Greatest difference of any parameter, run by run."""
    import jax
    import numpy as np

    return [
        max(
            float(np.max(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64))))
            for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(other), strict=True)
        )
        for mine, other in zip(some, others, strict=True)
    ]


def main() -> None:
    """Runs one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("together", "alone", "steady"))
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    work.use_host_devices(os.cpu_count() or 1)
    found = {"together": together, "alone": alone, "steady": steady}[args.part](args.quick)
    found["cpu"] = time.process_time()
    import jax

    device = jax.devices()[0]
    print(json.dumps({**found, "devices": jax.device_count(), "kind": device.device_kind, "platform": device.platform}))


if __name__ == "__main__":
    main()
