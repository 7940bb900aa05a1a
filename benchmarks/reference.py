"""The work written by hand in JAX: the plain program anyone would write, and the tuned one, the rate to beat.

`python -m benchmarks.reference [--quick] [--out FILE] [--work A1,A2] [--chunk 10,100,0] [--dense outer,dot]
[--unroll 1,4]` measures the plain form, each tuned form, and the matmul rate of the machine. It needs jax (0.10 or 0.11)
and numpy, no more. On a GPU the tuned form is one vmap of the whole cohort and plain products, unless the flags say else.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks import report, work
from benchmarks.peers.line import Line, print_line

if __name__ == "__main__":
    work.use_host_devices(os.cpu_count() or 1)

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Params = list[tuple[jax.Array, jax.Array]]
AXIS = "clients"
PACKAGES = ("jax", "jaxlib", "numpy")


class Program(NamedTuple):
    """A compiled program, and what it cost to make.

    Attributes:
      run: inputs -> final parameters.
      inputs: (parameters, x, y, cohorts, key), on the device.
      updates: client updates of a run.
      compile_s: seconds of tracing, lowering and compiling.
      form: what was chosen, in words.
    """

    run: Callable[..., Params]
    inputs: tuple[Any, ...]
    updates: int
    compile_s: float
    form: str


@jax.custom_vjp
def _outer(h: jax.Array, w: jax.Array) -> jax.Array:
    return h @ w


# XLA's CPU backend runs h.T @ d of a vmapped layer as a slow generic product; as a sum of outer products it is few loops
_outer.defvjp(
    lambda h, w: (h @ w, (h, w)),
    lambda saved, d: (
        d @ saved[1].T,
        functools.reduce(jnp.add, [saved[0][row, :, None] * d[row, None, :] for row in range(work.BATCH)]),
    ),
)
DENSE = {"dot": jnp.matmul, "outer": _outer}


def _ranked_order(key: jax.Array) -> jax.Array:
    # a sort of 64 numbers costs a seventh of the time, ranks by counting nothing; low bits = index, so that none are equal
    bits = jax.random.bits(key, (work.ROWS,))
    bits = bits - bits % jnp.uint32(work.ROWS) + jnp.arange(work.ROWS, dtype=jnp.uint32)
    return jnp.sum(bits[:, None] > bits[None, :], 1, dtype=jnp.int32)


ORDER = {"sort": lambda key: jax.random.permutation(key, work.ROWS), "rank": _ranked_order}


def make_train(dense: str, order: str, chunk: int, unroll: int, devices: int) -> Callable[..., Params]:
    """All rounds as one function; the result depends on `order` alone, up to rounding.

    Args:
      dense: weight gradient of a layer: "dot", or "outer" (a sum of outer products).
      order: shuffle: "sort", or "rank".
      chunk: clients of a device that train side by side; a multiple of it is a device's part of the cohort.
      unroll: local steps written out in the loop's body.
      devices: over which the cohort is cut.

    Returns:
      (parameters, x f32[K, 64, 16], y f32[K, 64], cohorts i32[T, C], key) -> parameters after T rounds.
    """
    product = DENSE[dense]

    def loss(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
        for w, b in params[:-1]:
            x = jax.nn.relu(product(x, w) + b[None])
        w, b = params[-1]
        logit = (product(x, w) + b[None])[:, 0]
        return jnp.mean(jax.nn.softplus(logit) - logit * y)

    def step(params: Params, batch: tuple[jax.Array, jax.Array]) -> tuple[Params, None]:
        gradient = jax.grad(loss)(params, *batch)
        return jax.tree.map(lambda p, g: p - work.RATE * g, params, gradient), None

    def local(params: Params, key: jax.Array, x: jax.Array, y: jax.Array) -> Params:
        index = ORDER[order](key)
        batches = (x[index].reshape(-1, work.BATCH, work.FEATURES), y[index].reshape(-1, work.BATCH))
        return lax.scan(step, params, batches, unroll=unroll)[0]

    def total(params: Params, key: jax.Array, x: jax.Array, y: jax.Array, clients: jax.Array) -> Params:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, clients)
        trained = jax.vmap(local, (None, 0, 0, 0))(params, keys, x[clients], y[clients])
        return jax.tree.map(lambda p: jnp.sum(p, 0), trained)

    def train(params: Params, x: jax.Array, y: jax.Array, cohorts: jax.Array, key: jax.Array) -> Params:
        def one_round(params: Params, now: tuple[jax.Array, jax.Array]) -> tuple[Params, None]:
            number, clients = now
            of_chunk = functools.partial(total, params, jax.random.fold_in(key, number), x, y)

            def add(acc: Params, part: jax.Array) -> tuple[Params, None]:
                return jax.tree.map(jnp.add, acc, of_chunk(part)), None

            acc = lax.scan(add, jax.tree.map(jnp.zeros_like, params), clients.reshape(-1, chunk))[0]
            flat, unravel = ravel_pytree(acc)  # one array: the devices meet once a round, not once a leaf
            acc = unravel(lax.psum(flat, AXIS)) if devices > 1 else acc
            return jax.tree.map(lambda p: p / (len(clients) * devices), acc), None

        return lax.scan(one_round, params, (jnp.arange(len(cohorts)), cohorts))[0]

    if devices == 1:
        return train
    whole, cut = PartitionSpec(), PartitionSpec(None, AXIS)
    mesh = Mesh(np.array(jax.devices()[:devices]), (AXIS,))
    return jax.shard_map(train, mesh=mesh, in_specs=(whole, whole, whole, cut, whole), out_specs=whole, check_vma=False)


def _divisor(number: int, most: int) -> int:
    return next(size for size in range(min(number, most), 0, -1) if number % size == 0)


def make_program(cohort: int, rounds: int, *, dense: str, order: str, chunk: int, unroll: int, devices: int) -> Program:
    """The program, compiled.

    Args:
      cohort, rounds, dense, order, unroll: the work's size, and as in `make_train`.
      chunk: most clients side by side on a device, 0 for all: the greatest divisor of the device's part is taken.
      devices: most devices: the greatest divisor of the cohort is taken.
    """
    devices = _divisor(cohort, devices)
    chunk = _divisor(cohort // devices, chunk or cohort)
    arrays = (work.init_params(), *work.make_data()[:2], work.cohorts(cohort, rounds))
    inputs = (*jax.tree.map(jnp.asarray, arrays), jax.random.key(0))
    train = jax.jit(make_train(dense, order, chunk, unroll, devices))
    compile_s, run = work.timed(lambda: train.lower(*inputs).compile())
    inputs = jax.device_put(inputs, run.input_shardings[0])  # or each run would copy them to the devices first
    form = f"{dense} {order} chunk={chunk} unroll={unroll} devices={devices}"
    return Program(run, inputs, cohort * rounds, compile_s, form)


def plain(cohort: int, rounds: int = work.ROUNDS) -> Program:
    """What anyone would write: a scan of rounds, a vmap of the cohort's clients, `random.permutation`, one device.

    Args:
      cohort: clients a round.
      rounds: training rounds.
    """
    return make_program(cohort, rounds, dense="dot", order="sort", chunk=0, unroll=1, devices=1)


def tuned(
    cohort: int, rounds: int = work.ROUNDS, *, dense: str | None = None, chunk: int | None = None, unroll: int = 1
) -> Program:
    """The fastest known form for this backend: on a CPU chunks of 10 clients on each core, else the whole cohort at once.

    Args:
      cohort: clients a round.
      rounds: training rounds.
      dense: "outer" or "dot"; None chooses by backend.
      chunk: clients side by side on a device, 0 for all; None chooses by backend.
      unroll: local steps written out.
    """
    best, count = ("outer", 10) if jax.default_backend() == "cpu" else ("dot", 0), jax.device_count()
    dense, chunk = dense or best[0], best[1] if chunk is None else chunk
    return make_program(cohort, rounds, dense=dense, order="rank", chunk=chunk, unroll=unroll, devices=count)


def rates(programs: list[Program], repeats: int) -> tuple[list[list[float]], list[float], list[Params]]:
    """Client updates a second of each repeat, the programs in turn, so that a slow minute of the machine hits all alike.

    Args:
      programs: of `plain` or `tuned`.
      repeats: timed runs of each, after a first that is not counted.

    Returns:
      Rates of each program's repeats, seconds of its first run (without compilation), and its final parameters.
    """
    runs = [lambda program=program: jax.block_until_ready(program.run(*program.inputs)) for program in programs]
    first = [work.timed(run) for run in runs]
    passes = [[work.timed(run)[0] for run in runs] for _ in range(repeats)]
    found = [[p.updates / s for s in column] for p, column in zip(programs, zip(*passes, strict=True), strict=True)]
    return found, [seconds for seconds, _ in first], [params for _, params in first]


def matmul_rate(size: int = 4096, repeats: int = 5) -> list[float]:
    """GFLOP/s of one f32 matrix product at JAX's default precision, its rows cut over all devices: what the machine can do.

    Args:
      size: rows and columns; the greatest divisor of it is the number of devices used.
      repeats: timed runs, after one that is not counted.
    """
    mesh = Mesh(np.array(jax.devices()[: _divisor(size, jax.device_count())]), (AXIS,))
    rows, whole = PartitionSpec(AXIS), PartitionSpec()
    multiply = jax.jit(jax.shard_map(jnp.matmul, mesh=mesh, in_specs=(rows, whole), out_specs=rows))
    values = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    left, right = (jax.device_put(values, NamedSharding(mesh, spec)) for spec in (rows, whole))
    seconds = [work.timed(lambda: jax.block_until_ready(multiply(left, right)))[0] for _ in range(repeats + 1)]
    return [2e-9 * size**3 / second for second in seconds[1:]]


def peer_line(variant: str, name: str, rounds: int, repeats: int) -> Line:
    """This process as one system among peers (see `benchmarks.compare`).

    Args:
      variant: "plain" or "tuned".
      name: "A1" or "A2".
      rounds, repeats: as in `plain` and `rates`.
    """
    with work.peak_memory() as peak:
        program = {"plain": plain, "tuned": tuned}[variant](work.COHORT[name], rounds)
        found, first_s, params = rates([program], repeats)
        score = work.accuracy(jax.device_get(params[0]), work.make_data())
        start_s = program.compile_s + first_s[0]
        return Line(f"reference-{variant}", name, rounds, found[0], start_s, score, peak(), work.versions(*PACKAGES))


def compare_forms(name: str, forms: list[dict[str, Any]], rounds: int, repeats: int) -> list[dict[str, Any]]:
    """Results of the plain form and each tuned one: rate, compile time, accuracy, and share of the matmul rate.

    Args:
      name: "A1" or "A2".
      forms: keyword arguments of `tuned`.
      rounds, repeats: as in `plain` and `rates`.
    """
    cohort = work.COHORT[name]
    labelled = {f"{name} plain": plain(cohort, rounds)}
    for program in (tuned(cohort, rounds, **form) for form in forms):
        labelled[f"{name} tuned {program.form}"] = program  # two settings may come to the same form
    labels, programs = list(labelled), list(labelled.values())
    found, _, params = rates(programs, repeats)
    limit = matmul_rate(repeats=repeats)
    results = [report.make_result(f"{name} matmul 4096", limit, "GFLOP/s")]
    for label, program, values, layers in zip(labels, programs, found, params, strict=True):
        base = {} if program is programs[0] else {"against": labels[0], "baseline": found[0]}
        arithmetic = [1e-9 * work.update_flops() * value for value in values]
        results += [
            report.make_result(label, values, "updates/s", **base),
            report.make_result(f"{label} arithmetic", arithmetic, "GFLOP/s", f"{name} matmul 4096", limit),
            report.make_result(f"{label} compile", [program.compile_s], "s"),
            report.make_result(f"{label} accuracy", [work.accuracy(jax.device_get(layers), work.make_data())], "share"),
        ]
        print(f"{label}: {max(values):,.0f} updates/s at best, compiled in {program.compile_s:.2f} s", flush=True)
    return results


def main() -> None:
    """Measures, or gives one line as a peer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="A1 alone, 10 rounds, 3 repeats")
    parser.add_argument("--out", help="file for the JSON object")
    parser.add_argument("--work", type=functools.partial(work.names, work.COHORT), help="A1, A2 or A1,A2")
    parser.add_argument("--rounds", type=int, help="training rounds of a repeat")
    parser.add_argument("--repeats", type=int, help="timed repeats of each program, taken in turn")
    parser.add_argument("--chunk", type=work.numbers, default=[None], help="clients side by side on a device (0: all)")
    parser.add_argument("--dense", type=functools.partial(work.names, DENSE), default=[None], help="outer,dot")
    parser.add_argument("--unroll", type=work.numbers, default=[1], help="local steps written out, such as 1,4")
    parser.add_argument("--peer-line", choices=("plain", "tuned"), help="one variant, one JSON line")
    args = parser.parse_args()
    names = args.work or (["A1"] if args.quick or args.peer_line else ["A1", "A2"])
    rounds, repeats = args.rounds or (10 if args.quick else work.ROUNDS), args.repeats or (3 if args.quick else 7)
    if args.peer_line:
        return print_line(peer_line(args.peer_line, names[0], rounds, repeats))
    forms = [
        {"dense": d, "chunk": c, "unroll": u} for d, c, u in itertools.product(args.dense, args.chunk, args.unroll)
    ]
    results = [result for name in names for result in compare_forms(name, forms, rounds, repeats)]
    device = f"{report.host()}; JAX on {jax.device_count()} x {jax.devices()[0].device_kind}"
    report.finish(report.make_report("reference", device, work.versions(*PACKAGES), results), args.out)


if __name__ == "__main__":
    main()
