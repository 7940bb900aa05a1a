"""One measurement of shadow federations in a process of its own: `python -m benchmarks.shadow_world PART [--quick]`.

overfitted   64 shadows of 100 devices, all of them targets, trained long without noise; figures of every attack
private      64 shadows of 1,000 devices at epsilon 1, and the ceiling
many         64 shadows of a small private run in one program: traces, seconds, memory
one          one shadow of the same as a process, from start to end
work_d       64 models of work D through the project's own client and mapping

The last line of the output is one JSON object. Quick: 24 shadows (work D keeps its 64).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Callable
from typing import Any

from benchmarks import work, work_d

START = time.perf_counter()
TPR, FEW = "tpr_at_1pct_fpr", 24
LESS = ": LiRA less "  # in rows that compare two attacks


def make_config(clients: int, targets: int, shadows: int, epsilon: float = math.inf, **trained: Any) -> Any:
    """Simulated vitals with one VAE.

    Args:
      clients: training devices.
      targets: of them, 0 = all.
      shadows: S.
      epsilon: of the run; infinite = no mechanism.
      **trained: keys of both trainings.
    """
    from configs import iot
    from fedjax_health.config import from_config_dict

    raw: Any = iot.get_config("smoke")
    raw.data.domains, raw.models, raw.data.num_clients = ("vitals",), ("vae",), clients
    raw.attacks.shadows, raw.attacks.shadow_targets = shadows, targets
    raw.privacy.mechanism = "none" if math.isinf(epsilon) else "central_gaussian"
    raw.privacy.epsilon = 8.0 if math.isinf(epsilon) else epsilon
    for section in (raw.vae, raw.classifier):
        section.train.update(trained)
    return from_config_dict(raw)


def attacked(config: Any, views: tuple[str, ...]) -> dict[str, Any]:
    """Shadows of a config and every attack's figures.

    Args:
      config: of `make_config`.
      views: of the diagnostic models.

    Returns:
      rows [row, metric, value, low, high, n], ceiling (metric -> value) or None, traces, seconds, and what `work` measured.
    """
    from fedjax_health import prepare, shadow_stage, shadow_table
    from fedjax_health.evaluation.membership import dp_ceiling

    (p,), plan = prepare.load(config)
    world = shadow_stage.make_world(config, plan, p)
    rounds = config.vae.train.rounds
    found = shadow_stage.run_shadows(world, "vae", rounds, views)
    rows = [[r.row, *r[3:]] for r in shadow_table.table(world, "vae", found)]
    rows += [row for signal in (*views, "own") for row in compared(world, found, signal)]
    ceiling = None
    if plan.formal:
        ledger = plan.ledger({"vitals/vae": rounds})
        ceiling = {metric: v for (_, metric), v in dp_ceiling(ledger["epsilon_total"], ledger["delta"]).items()}
        ceiling["epsilon"] = ledger["epsilon_total"]
    return {"rows": rows, "ceiling": ceiling, "traces": found.traces, "seconds": found.seconds}


def compared(world: Any, found: Any, signal: str) -> list[list[Any]]:
    """LiRA with pooled variance less the threshold for all targets, and less LiRA with each target's own variance, in
    TPR at 1 % FPR, over the same resamples.

    Args:
      world, found: shadows.
      signal: which score.

    Returns:
      Rows "<signal>: <difference>".
    """
    import numpy as np

    from fedjax_health import shadow_table
    from fedjax_health.attacks.lira import lira
    from fedjax_health.evaluation.shadow_rows import by_client, tpr_rates

    n, member = len(world.targets), world.member
    score = by_client(shadow_table.log_probability(signal, found.record[signal]), world.scored.client)[:, :n]
    tried = {"pooled": lira(score, member), "threshold": score, "own": lira(score, member, pooled=False)}
    rates = {name: tpr_rates(f, member, np.arange(n), np.random.default_rng(0)) for name, f in tried.items()}
    rows = []
    for other, words in (("threshold", "threshold"), ("own", "LiRA with own variances")):
        value = rates["pooled"].value[TPR] - rates[other].value[TPR]
        low, high = np.quantile(rates["pooled"].drawn[TPR] - rates[other].drawn[TPR], [0.025, 0.975])
        name = f"{shadow_table.SETTINGS[signal]}{LESS}{words}"
        rows.append([name, TPR, value, min(float(low), value), max(float(high), value), int(member.sum())])
    return rows


def overfitted(quick: bool) -> dict[str, Any]:
    """Part `overfitted`."""
    config = make_config(100, 0, FEW if quick else work_d.MODELS, rounds=300, rounds_per_chunk=50, cohort=50)
    return attacked(config, ("real", "synthetic"))


def private(quick: bool) -> dict[str, Any]:
    """Part `private`."""
    config = make_config(1_000, 400, FEW if quick else work_d.MODELS, 1.0, rounds=100, rounds_per_chunk=50, cohort=100)
    return attacked(config, ("synthetic",))


def many(quick: bool) -> dict[str, Any]:
    """Part `many`."""
    with work.peak_memory() as peak:
        found = attacked(make_config(300, 100, FEW if quick else work_d.MODELS, 8.0), ("real", "synthetic"))
        return {**found, "memory_mb": peak(), "total_s": time.perf_counter() - START}


def one(quick: bool) -> dict[str, Any]:
    """Part `one`: the data, the compilation and the training of a single shadow, as a script a shadow would have them."""
    del quick
    from fedjax_health import prepare, shadow_stage

    config = make_config(300, 100, 4, 8.0)
    (p,), plan = prepare.load(config)
    world = shadow_stage.make_world(config, plan, p)
    alone = world._replace(
        config=dataclasses.replace(world.config, seeds=1),
        mesh=shadow_stage.make_shadow_mesh(1),
        prepared=world.prepared._replace(include=world.prepared.include[:1]),
    )
    found = shadow_stage.run_shadows(alone, "vae", config.vae.train.rounds, ("real", "synthetic"))
    return {"total_s": time.perf_counter() - START, "seconds": found.seconds}


def work_d_part(quick: bool) -> dict[str, Any]:
    """Part `work_d`: a model is a federation of one client that trains all epochs in one round."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from benchmarks import engine
    from fedjax_health.attacks.shadows import make_shadow_mesh, over_shadows
    from fedjax_health.data.population import Store, stored_population
    from fedjax_health.federated import sharding
    from fedjax_health.federated.federation import Data
    from fedjax_health.shadow_pipeline import train
    from fedjax_health.threefry import root_key

    model = engine.make_model("dot")
    changes = {"batch_size": work_d.BATCH, "local_epochs": work_d.EPOCHS, "client_optimizer": "adam"}
    config = engine.make_config(1, 1, **changes, client_learning_rate=work_d.RATE)
    population = stored_population(1, work_d.ROWS, work_d.ROWS)
    parts = engine.make_parts(model, population, work.FEATURES, config, mesh=sharding.make_mesh(1))
    numbers = {name: value[0] for name, value in engine.make_numbers(config).items()}
    x, y = work_d.make_pool()

    def shadow(own: Any, common: Any) -> Any:
        rows = own["rows"]
        offset, count = jnp.zeros((1,), jnp.int32), jnp.full((1,), work_d.ROWS, jnp.int32)
        mine = Store(common["x"][rows], common["y"][rows], offset, count)
        client = train(parts, 1, own["key"], common["numbers"], Data(mine, jnp.ones((1,), bool))).params.client
        z = model.predict(client, mine.x)
        return jnp.mean(jax.nn.softplus(z) - z * mine.y.astype(jnp.float32))

    keys = jax.vmap(root_key)(jnp.arange(work_d.MODELS, dtype=jnp.uint32))
    own = {"key": keys, "rows": jnp.asarray(work_d.halves())}
    common = {"x": jnp.asarray(x), "y": jnp.asarray(y, jnp.int32), "numbers": numbers}
    program = jax.jit(over_shadows(shadow, make_shadow_mesh())).lower(own, common).compile()
    found = work_d.measure(lambda: jax.block_until_ready(program(own, common)), work_d.MODELS, 1 if quick else 3)
    return {**found, "loss": float(np.mean(program(own, common)))}


PARTS: dict[str, Callable[[bool], dict[str, Any]]] = {
    "overfitted": overfitted,
    "private": private,
    "many": many,
    "one": one,
    "work_d": work_d_part,
}


def main() -> None:
    """Measures one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    work.use_host_devices(1 if args.part == "one" else 2)
    print(json.dumps(PARTS[args.part](args.quick)), flush=True)


if __name__ == "__main__":
    main()
