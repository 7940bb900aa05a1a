"""Record-level DP-SGD on one device: work B through the project's own VAE and direction, beside peers, in turn.

`python -m benchmarks.dp_sgd [--quick] [--out FILE] [--passes 5]`. All names start with `dp_sgd/`; a rate is examples a second:
the plain gradient, the private direction by ghost norms and by one gradient a record, Opacus (hooks, ghost) and jax-privacy
(default, micro-batches). Peers have environments of their own, as in `benchmarks.compare`; --quick measures no peer.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import compare, report, work, work_b
from benchmarks.work_b import BATCH, CLIP, EPOCHS, FEATURES, HIDDEN, LATENT, NOISE, RATE, ROWS
from fedjax_health.config import VaeConfig
from fedjax_health.data.encode import make_encoder
from fedjax_health.data.schema import Column, Schema
from fedjax_health.federated.record_sgd import Direction, make_direction
from fedjax_health.models import record
from fedjax_health.models.base import GenerativeModel, ModelParams
from fedjax_health.models.vae import make_vae
from fedjax_health.threefry import root_key
from fedjax_health.types import Array, Batch, UserError

PACKAGES = ("jax", "jaxlib", "numpy", "flax", "optax")
PEERS = {
    "opacus hooks": ("opacus", "opacus_sgd", "hooks"),
    "opacus ghost": ("opacus", "opacus_sgd", "ghost"),
    "jax-privacy": ("jax_privacy", "jax_privacy_sgd", "default"),
    "jax-privacy microbatch 64": ("jax_privacy", "jax_privacy_sgd", "microbatch"),
}
HYPER = {"kl_weight": 1.0, "l2_clip_norm": CLIP, "noise_multiplier": NOISE}


def make_model() -> GenerativeModel:
    """The VAE of work B; it has a label of two classes besides."""
    columns = [Column(name=f"x{i}", low=-8.0, high=8.0, center=0.0, scale=1.0) for i in range(FEATURES)]
    schema = Schema("b", (*columns, Column(name="y", kind="binary", role="label")))
    config = VaeConfig(hidden=(HIDDEN, HIDDEN), dense="dot", latent=LATENT, kl_weight=1.0, train=None)  # pyright: ignore[reportArgumentType]
    return make_vae(make_encoder(schema).layout, 2, config)


def make_run(model: GenerativeModel, direction: Direction) -> Callable[[], Any]:
    """Five epochs of Adam as one compiled program.

    Args:
      model: gives the start.
      direction: of a batch.
    """
    x, label = jnp.asarray(work_b.make_rows()), jnp.zeros((BATCH,), jnp.int32)
    hyper = {name: jnp.float32(value) for name, value in HYPER.items()}
    start, rule, all_there = model.init(jax.random.key(0)).client, optax.adam(RATE), jnp.ones((BATCH,), bool)

    def step(carry: Any, inputs: tuple[Array, Array]) -> tuple[Any, None]:
        client, state = carry
        rows, key = inputs
        update, _ = direction(ModelParams(client, ()), Batch(rows, label, all_there), hyper, key)
        change, state = rule.update(update, state)
        return (optax.apply_updates(client, change), state), None

    def epoch(carry: Any, key: Array) -> tuple[Any, None]:
        order = jax.random.permutation(key, ROWS)
        inputs = x[order].reshape(-1, BATCH, FEATURES), jax.random.split(key, ROWS // BATCH)
        return jax.lax.scan(step, carry, inputs)[0], None

    train = jax.jit(lambda key: jax.lax.scan(epoch, (start, rule.init(start)), jax.random.split(key, EPOCHS))[0][0])
    return lambda: jax.block_until_ready(train(root_key(1)))


def norm_error(model: GenerativeModel) -> float:
    """Greatest relative difference of the ghost norms of a batch from those of each record's own gradient."""
    params = model.init(jax.random.key(2)).client
    rows = jnp.asarray(work_b.make_rows()[:BATCH])
    batch = Batch(rows, jnp.zeros((BATCH,), jnp.int32), jnp.ones((BATCH,), bool))
    hyper, key = {"kl_weight": jnp.float32(1.0)}, jax.random.key(3)

    def loss(client: Any, of: Batch, own: Array, ops: record.Ops) -> Array:
        assert model.record_loss is not None
        return model.record_loss(client, of, hyper, own, ops)

    ghost = jax.jit(lambda: record.square_norms(record.taps_of(loss, params, batch, key)[0]))()
    each = jax.jit(jax.jacrev(lambda p: loss(p, batch, key, record.PLAIN)))(params)
    square = sum(np.square(np.asarray(leaf, np.float64)).reshape(BATCH, -1).sum(1) for leaf in jax.tree.leaves(each))
    return float(np.max(np.abs(np.sqrt(np.asarray(ghost, np.float64) / square) - 1.0)))


def ask(name: str) -> dict[str, Any]:
    """Rates and versions of a peer's process.

    Args:
      name: in PEERS.

    Raises:
      UserError: it fails.
    """
    environment, module, mode = PEERS[name]
    dropped = ("PYTHONPATH", "XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")
    variables = {key: value for key, value in os.environ.items() if key not in dropped} | {"JAX_PLATFORMS": "cpu"}
    command = [compare.python(environment), "-m", f"benchmarks.peers.{module}", "--mode", mode]
    done = subprocess.run(command, cwd=compare.ROOT, env=variables, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise UserError(f"{name} ended with status {done.returncode}; it said:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().rsplit("\n", 1)[-1])


def results(quick: bool, passes: int = 5) -> list[dict[str, Any]]:
    """All figures; the first is the plain gradient's rate.

    Args:
      quick: without peers, one pass.
      passes: over all systems.
    """
    model = make_model()
    mapped = model._replace(record_loss=None)
    runs = {
        "plain": make_run(model, model.field),
        "ghost": make_run(model, make_direction(model, BATCH)),
        "one gradient a record": make_run(mapped, make_direction(mapped, BATCH)),
    }
    peers = () if quick else tuple(PEERS)
    for environment in dict.fromkeys(PEERS[name][0] for name in peers):
        if not compare.installed(environment):
            compare.build(environment)
    for run in runs.values():
        run()
    rates: dict[str, list[float]] = {name: [] for name in (*runs, *peers)}
    for _ in range(1 if quick else passes):
        for name, run in runs.items():
            rates[name].append(ROWS * EPOCHS / work.timed(run)[0])
        for name in peers:
            rates[name] += ask(name)["rates"]
    found = [
        report.make_result(
            f"dp_sgd/{name}", values, "examples/s", "dp_sgd/ghost" if name != "ghost" else None, rates["ghost"]
        )
        for name, values in rates.items()
    ]
    error = report.make_result("dp_sgd/norms: greatest relative error", [norm_error(model)], "share")
    return [*found, error]


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="no peers, one pass")
    parser.add_argument("--out", help="file for the JSON object")
    parser.add_argument("--passes", type=int, default=5)
    args = parser.parse_args()
    device = f"{report.host()}; JAX on {jax.device_count()} x {jax.devices()[0].device_kind}"
    whole = report.make_report("dp_sgd", device, work.versions(*PACKAGES), results(args.quick, args.passes))
    for result in whole["results"]:
        print(
            f"{result['name']}: {result['value']:,.4g} {result['unit']}, ratio {result.get('ratio', 1.0):.3f}",
            flush=True,
        )
    report.finish(whole, args.out)


if __name__ == "__main__":
    main()
