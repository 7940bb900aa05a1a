"""What it costs to reach an accuracy, by algorithm and compressor; and what attackers do to it, by rule.

`python -m benchmarks.communication [--quick] [--out FILE] [--parts costs,attacks]` trains work A's perceptron with 400 clients,
40 a round, 100 rounds, five seeds side by side in one program; a figure is their mean with its 95 % t interval.

natural    work A's clients as they are                      } 100 more clients validate,
dirichlet  their records dealt with label shares Dir(0.1)    } 200 more test; disjoint by client
vitals     simulated patients, diagnosis

Learning rates: every algorithm has the same grid, CLIENT_RATES x SERVER_RATES, and takes the pair with the best validation
accuracy, on average over the run, without compression and with a seed of its own; compressors keep their algorithm's rates,
and attacks those of FedAvg. The accuracy to reach is FedAvg's on validation: 98 % of its gain. Rounds, bytes and simulated
seconds (default fleet) until validation first shows it, looked at every second round, are given where every seed reaches
it. Accuracies are those of the test clients, a mean over the last five looks.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from benchmarks import report, work

if __name__ == "__main__":
    work.use_host_devices(os.cpu_count() or 1)

import jax
import numpy as np
import scipy.stats

from benchmarks.trials import (
    CLIENT_RATES,
    EVERY,
    SEEDS,
    SERVER_RATES,
    Curve,
    final,
    make_records,
    same_rates,
    train,
    tune,
)
from fedjax_health.evaluation.rows import mean_interval

PACKAGES = ("jax", "jaxlib", "numpy", "flax", "optax", "scipy")
PARTS = ("costs", "attacks")
ROUNDS, GAIN = 100, 0.98
ALGORITHMS = {
    "fedavg": {},
    "fedprox": {"algorithm": "fedprox"},
    "scaffold": {"algorithm": "scaffold"},
    "fednova": {"algorithm": "fednova"},
    "mime_lite": {"algorithm": "mime_lite"},
    "fedbuff": {"algorithm": "fedbuff", "concurrency": 80},
    "fedadam": {"server_optimizer": "adam"},
}
COMPRESSORS = {
    "none": {},
    "8 bit": {"bits": 8},
    "4 bit rotated": {"bits": 4, "rotate": True},
    "top 10 % feedback": {"sparsify": "top_k", "keep_fraction": 0.1, "error_feedback": True},
    "sign feedback": {"sign": True, "error_feedback": True},
}
RULES = ("mean", "median", "trimmed_mean", "krum", "multi_krum", "geometric_median", "norm_bound")
ATTACKS = {"none": 1.0, "label_flip": 1.0, "sign_flip": 5.0, "alie": 1.5, "ipm": 5.0, "gaussian": 10.0}  # with strength
ATTACKERS, ASSUMED = 0.2, 0.3  # of a cohort of 40, more than a fifth may attack by chance


def mean_result(
    name: str, values: np.ndarray, unit: str, against: tuple[str, np.ndarray] | None = None
) -> dict[str, Any]:
    """A result that is a mean over seeds with its 95 % t interval.

    Args:
      name, unit: as in `report.make_result`.
      values: f64[n], n > 1.
      against: name and values of what it is compared with; the ratio is that of the means.
    """
    value, low, high = mean_interval(values)
    result = {"name": name, "value": value, "low": low, "high": high, "n": len(values), "unit": unit}
    return result | ({"against": against[0], "ratio": value / float(np.mean(against[1]))} if against else {})


def share_result(name: str, hits: np.ndarray) -> dict[str, Any]:
    """A result that is a share of seeds with its 95 % interval (Clopper and Pearson 1934).

    Args:
      name: as in `report.make_result`.
      hits: bool[n].
    """
    n, k = len(hits), int(hits.sum())
    interval = scipy.stats.binomtest(k, n).proportion_ci()
    return {"name": name, "value": k / n, "low": interval.low, "high": interval.high, "n": n, "unit": "share"}


def rate_results(name: str, rates: tuple[float, float]) -> list[dict[str, Any]]:
    """The chosen rates; the range is that of the grid, and n its size.

    Args:
      name: data set and algorithm.
      rates: of the client and the server.
    """
    grids = (("client", CLIENT_RATES), ("server", SERVER_RATES))
    return [
        {
            "name": f"{name} {who} rate",
            "value": rate,
            "low": min(grid),
            "high": max(grid),
            "n": len(grid),
            "unit": "rate",
        }
        for rate, (who, grid) in zip(rates, grids, strict=True)
    ]


def costs_until(curve: Curve, target: float) -> dict[str, np.ndarray] | None:
    """Rounds, MB and seconds until validation first reaches a target; None if it does not with every seed.

    Args:
      curve: of `train`.
      target: accuracy.
    """
    reached = curve.validation >= target
    if not reached.any(1).all():
        return None
    at = np.argmax(reached, 1)
    up, down, seconds = (values[np.arange(len(at)), at] for values in (curve.up, curve.down, curve.seconds))
    return {
        "rounds": EVERY * at.astype(float),
        "MB up": up / 1e6,
        "MB in all": (up + down) / 1e6,
        "s simulated": seconds,
    }


def costs_part(quick: bool, rounds: int) -> list[dict[str, Any]]:
    """Algorithms and compressors; quick: two of each, on one data set."""
    found = []
    for records in map(make_records, ("dirichlet",) if quick else ("dirichlet", "vitals")):
        target, baseline = 0.0, {}
        for algorithm in ("fedavg", "scaffold") if quick else ALGORITHMS:
            rates = tune(records, ALGORITHMS[algorithm], rounds, True)
            found += rate_results(f"{records.name}: {algorithm}", rates)
            each = same_rates(rates)
            for compressor in ("none", "8 bit") if quick else COMPRESSORS:
                if (algorithm == "fednova" and compressor != "none") or (
                    algorithm == "fedbuff" and "rotate" in COMPRESSORS[compressor]
                ):
                    continue  # the project refuses them: a step count must not be lossy, a rotation is one round's
                changes = {**ALGORITHMS[algorithm], "compression": COMPRESSORS[compressor]}
                curve = train(records, changes, each, SEEDS, rounds, True)
                name, first = f"{records.name}: {algorithm} + {compressor}", f"{records.name}: fedavg + none"
                if name == first:
                    start = curve.validation[:, 0].mean()
                    target = float(start + GAIN * (final(curve.validation).mean() - start))
                    found.append(
                        mean_result(f"{records.name}: accuracy to reach", np.full(len(SEEDS), target), "share")
                    )
                found.append(mean_result(f"{name}: accuracy", final(curve.test), "share"))
                share = np.asarray((curve.validation >= target).any(1))
                found.append(share_result(f"{name}: seeds that reach it", share))
                costs = costs_until(curve, target) or {}
                baseline = costs if name == first else baseline
                for what, values in costs.items():
                    other = None if name == first or what not in baseline else (f"{first}: {what}", baseline[what])
                    found.append(mean_result(f"{name}: {what}", values, what, other))
                print(
                    f"{name}: {final(curve.test).mean():.4f}, rates {rates}, {costs.get('rounds')} rounds", flush=True
                )
    return found


def attacks_part(quick: bool, rounds: int) -> list[dict[str, Any]]:
    """Attacks and rules; quick: three rules, one attack, and one data set."""
    sets = [make_records(name) for name in (("natural",) if quick else ("natural", "dirichlet"))]
    rates = {records.name: tune(records, {}, rounds, False) for records in sets}
    found = [row for name, pair in rates.items() for row in rate_results(f"{name}: attacked", pair)]
    clean: dict[str, np.ndarray] = {}
    for rule in RULES[:3] if quick else RULES:
        for attack in ("none", "sign_flip") if quick else ATTACKS:
            aggregation = {"rule": rule, "attack": attack, "assumed_attackers": ASSUMED}
            aggregation |= {"attackers": ATTACKERS * (attack != "none"), "attack_scale": ATTACKS[attack]}
            for records in sets:
                each = same_rates(rates[records.name])
                test = final(train(records, {"aggregation": aggregation}, each, SEEDS, rounds, False).test)
                clean.setdefault(records.name, test)  # the first is the mean, not attacked
                name = f"{records.name}: {rule} under {attack}"
                found += [
                    mean_result(f"{name}: accuracy", test, "share"),
                    mean_result(f"{name}: less than the clean mean", clean[records.name] - test, "share"),
                ]
                print(f"{name}: {test.mean():.4f}", flush=True)
    return found


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="few algorithms, compressors, rules and attacks; 30 rounds"
    )
    parser.add_argument("--out", help="file for the JSON object")
    parser.add_argument("--parts", default=",".join(PARTS), help="which of costs,attacks")
    args = parser.parse_args()
    if unknown := set(args.parts.split(",")) - set(PARTS):
        parser.error(f"--parts names {sorted(unknown)}; known are {', '.join(PARTS)}")
    rounds = 30 if args.quick else ROUNDS
    parts = {"costs": costs_part, "attacks": attacks_part}
    found = [row for name in args.parts.split(",") for row in parts[name](args.quick, rounds)]
    device = f"{report.host()}; JAX on {jax.device_count()} x {jax.devices()[0].device_kind}"
    report.finish(report.make_report("communication", device, work.versions(*PACKAGES), found), args.out)


if __name__ == "__main__":
    main()
