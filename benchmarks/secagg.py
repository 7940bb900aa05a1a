"""What secure aggregation costs: masks inside the compiled program, and the protocol between real parties.

`python -m benchmarks.secagg [--quick] [--out FILE]`. The parts:

masked    1,000 clients of 50,000 parameters on a ring of degree 64, threshold 24, 30 % lost after masking: whether the sum is
          the ideal one bit for bit (also with half of them lost before masking), seconds of both, and temporary memory;
protocol  50 clients, degree 40, threshold 21, 1,000 and 50,000 parameters, nobody lost, and 30 % lost (a third each before
          shares, before masked updates, before signatures): bytes of a client that stays beside the closed formula, seconds
          of a client and of the server. All parties run in one process, in turn.

A range is that of the repeats, or of the clients where a figure is of one client.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import report, work
from fedjax_health.secure.masked import masked_sum
from fedjax_health.secure.protocol import losing, run_round
from fedjax_health.secure.protocol_client import Setup, make_identity
from fedjax_health.secure.protocol_messages import message_bytes
from fedjax_health.secure.ring import ring_sum
from fedjax_health.threefry import root_key

PACKAGES = ("jax", "jaxlib", "numpy", "cryptography")
CLIENTS, DEGREE, THRESHOLD = 50, 40, 21  # 15 lost then leave every secret its shares, whoever they are
LOST = 0.1  # at each of three stages


def masked_results(quick: bool) -> list[dict[str, Any]]:
    """Part `masked` of the module's docstring; quick: 100 clients of 2,000 parameters."""
    n, d, repeats = (100, 2_000, 2) if quick else (1_000, 50_000, 5)
    name = f"secagg/masked {n} clients x {d}"
    q = jax.random.bits(root_key(0), (n, d), jnp.uint32)
    order = np.random.default_rng(0).permutation(n)
    everyone, late, early = np.ones(n, bool), np.ones(n, bool), np.ones(n, bool)
    late[order[: 3 * n // 10]] = False
    early[order[: 3 * n // 20]] = False
    key = root_key(1)
    masked = jax.jit(functools.partial(masked_sum, degree=64, threshold=24)).lower(q, everyone, late, key).compile()
    ideal = jax.jit(ring_sum)
    equal: list[float] = []
    for member, alive in ((everyone, late), (early, late)):
        summed = masked(q, member, alive, key)
        same = np.array_equal(summed.total, ideal(q, member & alive))
        equal.append(float(bool(summed.ok) and same))
    seconds: dict[str, list[float]] = {"ideal": [], "masked": []}
    for _ in range(repeats):
        for kind, call in (
            ("ideal", lambda: jax.block_until_ready(ideal(q, late))),
            ("masked", lambda: jax.block_until_ready(masked(q, everyone, late, key))),
        ):
            seconds[kind].append(work.timed(call)[0])
    memory = masked.memory_analysis()
    found = [
        report.make_result(f"{name}: equal to the ideal sum", equal, "1 = bit for bit"),
        report.make_result(f"{name}: ideal", seconds["ideal"], "s"),
        report.make_result(f"{name}: masked", seconds["masked"], "s", f"{name}: ideal", seconds["ideal"]),
    ]
    if memory is not None:  # which not every backend tells
        found.append(report.make_result(f"{name}: temporary memory", [memory.temp_size_in_bytes / 1e6], "MB"))
    return found


def protocol_results(d: int, lost: float, repeats: int) -> list[dict[str, Any]]:
    """Part `protocol` of the module's docstring.

    Args:
      d: parameters.
      lost: share of the clients that drop out at each of three stages.
      repeats: rounds.
    """
    identities = {client: make_identity(client) for client in range(CLIENTS)}
    registry = {client: identity.verifying_key() for client, identity in identities.items()}
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2**32, (CLIENTS, d), np.uint32)
    each = round(lost * CLIENTS)
    gone = rng.permutation(CLIENTS)[: 3 * each].tolist()
    network = losing({stage: gone[i * each : (i + 1) * each] for i, stage in enumerate(("shares", "masked", "signed"))})
    rounds = [
        run_round(Setup(i, DEGREE, THRESHOLD, d, registry), identities, dict(enumerate(rows)), network)
        for i in range(repeats)
    ]
    live = np.isin(np.arange(CLIENTS), gone[: 2 * each], invert=True)
    ideal = np.asarray(ring_sum(jnp.asarray(rows), jnp.asarray(live)))
    # a neighbour is any other client with the same chance
    neighbours = [DEGREE * (CLIENTS - losses * each - 1) / (CLIENTS - 1) for losses in (1, 3)]
    formula = message_bytes(d, DEGREE, neighbours[0], neighbours[1], CLIENTS - 2 * each)
    name = f"secagg/protocol {CLIENTS} clients x {d}, {3 * each} lost"
    found = [
        report.make_result(f"{name}: equal", [float(np.array_equal(r.total, ideal)) for r in rounds], "1 = bit for bit")
    ]
    for way, counts in (("up", [r.bytes_up for r in rounds]), ("down", [r.bytes_down for r in rounds])):
        values = [row[client] for r, row in zip(rounds, counts, strict=True) for client in r.finished]
        predicted = report.make_result(f"{name}: bytes {way} a client, formula", [formula[way]], "bytes")
        mean = report.make_result(
            f"{name}: bytes {way} a client, mean",
            [statistics.fmean(values)],
            "bytes",
            predicted["name"],
            [formula[way]],
        )
        found += [predicted, mean, report.make_result(f"{name}: bytes {way} a client", values, "bytes")]
    seconds = [r.client_seconds[client] for r in rounds for client in r.finished]
    found.append(report.make_result(f"{name}: a client", seconds, "s"))
    found.append(report.make_result(f"{name}: server", [r.server_seconds for r in rounds], "s"))
    return found


def results(quick: bool) -> list[dict[str, Any]]:
    """All figures; quick: smaller, one or two repeats."""
    found = masked_results(quick)
    for d in (1_000,) if quick else (1_000, 50_000):
        for lost in (0.0, LOST):
            found += protocol_results(d, lost, 1 if quick else 5)
    return found


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer clients and parameters, one or two repeats")
    parser.add_argument("--out", help="file for the JSON object")
    args = parser.parse_args()
    device = f"{report.host()}; JAX on {jax.device_count()} x {jax.devices()[0].device_kind}"
    report.finish(report.make_report("secagg", device, work.versions(*PACKAGES), results(args.quick)), args.out)


if __name__ == "__main__":
    main()
