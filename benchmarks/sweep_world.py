"""One measurement of a sweep in a process of its own: `python -m benchmarks.sweep_world PART [--quick]`.

together   all runs by one program, from the start of the process to the last trained model
alone      one of them as a process, from start to end
steady     all runs by one program, on threads and side by side, and each of them alone, in turn; how far apart these are
growth     how far apart they are every 10 rounds; with --double in float64, where last digits are nine digits further down

The last line of the output is one JSON object. A run trains a VAE on simulated vitals; nothing is judged.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import work

NOISE = (0.5, 0.6, 0.8, 1.0, 1.3, 1.7, 2.2, 3.0)
SEEDS = 4
CONFIG = "configs/iot.py:smoke"


STEP = 10  # rounds between two looks of `growth`


def use_double() -> None:
    """Makes this process compute in float64 wherever the project says float32; before anything of it is imported.

    Draws keep their 32 random bits, so that the trainings are those of float32 but for rounding.
    """
    import jax
    import jax.numpy as jnp
    from jax.extend import random as extended

    jax.config.update("jax_enable_x64", True)
    jnp.float32 = jnp.float64  # pyright: ignore[reportAttributeAccessIssue]
    define = extended.define_prng_impl

    def widened(*, random_bits: Callable[..., Any], **rest: Any) -> Any:
        def bits(key: Any, width: int, shape: Any) -> Any:
            return (
                random_bits(key, 32, shape).astype(jnp.uint64) << 32 if width == 64 else random_bits(key, width, shape)
            )

        return define(random_bits=bits, **rest)

    extended.define_prng_impl = widened  # pyright: ignore[reportAttributeAccessIssue]


def settings(noise: float, seeds: int, quick: bool, chunk: int = 0) -> tuple[tuple[str, Any], ...]:
    """One point: 300 devices, 100 rounds of 40, a network of 32 units; quick: 20 rounds.

    Args:
      noise: multiplier; the budget is far off, so that all do as many rounds.
      seeds: N.
      quick: whether it is to be short.
      chunk: rounds of a call; 0 = half of all.
    """
    rounds = 20 if quick else 100
    return (
        ("data.domains", ("vitals",)),
        ("models", ("vae",)),
        ("attacks.shadows", 0),
        ("vae.train.rounds", rounds),
        ("vae.train.rounds_per_chunk", chunk or rounds // 2),
        ("privacy.epsilon", 1000.0),
        ("privacy.noise_multiplier", noise),
        ("seeds", seeds),
    )


def make_configs(seeds: int, quick: bool, chunk: int = 0) -> list[Any]:
    """Configs of all points.

    Args:
      seeds: N.
      quick, chunk: see `settings`.
    """
    from fedjax_health.sweep.pieces import config_of, load_file

    base = load_file(CONFIG)
    return [config_of(CONFIG, settings(noise, seeds, quick, chunk), base) for noise in NOISE]


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

    def states(self, number: int) -> Iterator[Any]:
        """The state of one run after every chunk."""
        import jax

        from fedjax_health.federated.federation import Data

        one = jax.tree.map(lambda leaf: leaf[number : number + 1], self.runs)
        state, data = self._made.init(one.key), Data(self._data, one.include)
        for _ in range(self._train.rounds // self._train.rounds_per_chunk):
            state, _metrics = self._made.run_chunk(state, one.hyper, data)
            yield state

    def looks(self, number: int) -> list[Any]:
        """The averaged network of one run after every chunk."""
        import jax

        return [jax.device_get(jax.tree.map(lambda leaf: leaf[0], state.average)) for state in self.states(number)]

    def train(self, number: int) -> Any:
        """The averaged network of one run."""
        import jax

        *_, last = self.states(number)
        return jax.device_get(jax.tree.map(lambda leaf: leaf[0], last.average))


def alone(quick: bool) -> dict[str, Any]:
    """Part `alone`."""
    from fedjax_health.sweep.world import make_points

    Alone(make_points(make_configs(1, quick)[:1])).train(0)
    return {}


def steady(quick: bool) -> dict[str, Any]:
    """Part `steady`: seconds of every way, in turn, and the greatest difference between any two parameters."""
    import jax

    from fedjax_health.sweep.training import make_stage
    from fedjax_health.sweep.world import make_points

    points = make_points(make_configs(SEEDS, quick))
    releases = [point.plan.releases[0] for point in points]
    stages = {way: make_stage(points, releases, batching=way) for way in ("threads", "vmap")}
    singles = {"one_device": Alone(points, 1), "all_devices": Alone(points)}
    count = len(points) * SEEDS
    ways: dict[str, Callable[[], Any]] = {
        **{way: lambda stage=stage: stage.train(0).state.average for way, stage in stages.items()},
        **{way: lambda own=own: [own.train(i) for i in range(count)] for way, own in singles.items()},
    }
    networks = {way: call() for way, call in ways.items()}
    for way in stages:
        networks[way] = [jax.tree.map(lambda leaf, i=i, way=way: leaf[i], networks[way]) for i in range(count)]
    times: dict[str, list[float]] = {f"{way}{kind}": [] for way in ways for kind in ("", "_cpu")}
    for _ in range(3 if quick else 7):
        for way, call in ways.items():
            began = time.perf_counter(), time.process_time()
            call()
            times[way].append(time.perf_counter() - began[0])
            times[f"{way}_cpu"].append(time.process_time() - began[1])
    apart = {way: _apart(networks[way], networks["one_device"]) for way in ways if way != "one_device"}
    largest = max(float(np.max(np.abs(leaf))) for leaf in jax.tree.leaves(networks["one_device"]))
    traces = {way: stage.traces() for way, stage in stages.items()}
    return {**times, "apart": apart, "largest": largest, "traces": traces, "runs": count}


def growth(quick: bool) -> dict[str, Any]:
    """Part `growth`: differences to the run alone on one device every 10 rounds, [looks][runs]."""
    import jax

    from fedjax_health.attacks.shadows import make_shadow_mesh
    from fedjax_health.sweep.program import make_program
    from fedjax_health.sweep.training import runs_of
    from fedjax_health.sweep.world import make_points

    points = make_points(make_configs(SEEDS, quick, STEP))
    p, train, count = points[0].prepared[0], points[0].config.vae.train, len(points) * SEEDS
    every = runs_of(points, "vitals", "vae", list(range(count)))
    mesh, active = make_shadow_mesh(), np.ones(count, bool)
    programs = {way: make_program(way, p.parts["vae"], train, mesh, every, p.data) for way in ("threads", "vmap")}
    states = {way: program.start(every) for way, program in programs.items()}
    over_all = Alone(points)
    alone = [over_all.looks(i) for i in range(count)]
    found: dict[str, list[list[float]]] = {"vmap": [], "all_devices": []}
    for look in range(train.rounds // STEP):
        networks: dict[str, list[Any]] = {"all_devices": [looks[look] for looks in alone]}
        for way, program in programs.items():
            states[way], _ = program.advance(states[way], every, active)
            whole = program.collect(states[way]).average
            networks[way] = [jax.tree.map(lambda leaf, i=i, whole=whole: leaf[i], whole) for i in range(count)]
        for way, apart in found.items():
            apart.append(_apart(networks[way], networks["threads"]))
    kind = str(jax.tree.leaves(networks["threads"])[0].dtype)
    return {"apart": found, "rounds": [STEP * (i + 1) for i in range(train.rounds // STEP)], "dtype": kind}


def _apart(some: list[Any], others: list[Any]) -> list[float]:
    """Greatest difference of any parameter, run by run."""
    import jax

    return [
        max(
            float(np.max(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64))))
            for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(other), strict=True)
        )
        for mine, other in zip(some, others, strict=True)
    ]


PARTS = {"together": together, "alone": alone, "steady": steady, "growth": growth}


def main() -> None:
    """Runs one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=tuple(PARTS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--double", action="store_true")
    args = parser.parse_args()
    work.use_host_devices(os.cpu_count() or 1)
    if args.double:
        use_double()
    found = PARTS[args.part](args.quick)
    found["cpu"] = time.process_time()
    import jax

    device = jax.devices()[0]
    print(json.dumps({**found, "devices": jax.device_count(), "kind": device.device_kind, "platform": device.platform}))


if __name__ == "__main__":
    main()
