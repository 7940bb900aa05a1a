"""How far the accountant is from dp-accounting's own, how much Renyi accounting would cost, and how long a plan takes.

`python -m benchmarks.accounting [--quick] [--out FILE]`: random plans (clients, cohort, rounds, noise, histograms' noise).
The independent computation composes its own events with dp_accounting.pld.PLDAccountant at the same discretisation, 1e-3.
"""

from __future__ import annotations

import argparse
import math
import time
from typing import Any, NamedTuple

import dp_accounting
import numpy as np
from dp_accounting import dp_event, pld

from benchmarks import report, work
from fedjax_health.config import PrivacyConfig
from fedjax_health.federated.cohort import make_poisson
from fedjax_health.privacy import second_opinion
from fedjax_health.privacy.plan import Release, make_plan

PACKAGES = ("dp-accounting", "numpy", "scipy")


class Drawn(NamedTuple):
    """A random plan.

    Attributes:
      clients: K.
      cohort: qK.
      rounds: T.
      noise: z of a round.
      prior_noise: of the class-share histogram.
    """

    clients: int
    cohort: int
    rounds: int
    noise: float
    prior_noise: float


def draw(count: int, seed: int = 0) -> list[Drawn]:
    """Plans: K in [100, 20000], q in [0.5 %, 25 %], T in [10, 2000], all log-uniform; z in [0.6, 3], prior in [5, 50].

    Args:
      count: how many.
      seed: of NumPy's generator.
    """
    generator = np.random.default_rng(seed)
    plans = []
    for _ in range(count):
        clients, rounds = (round(math.exp(generator.uniform(*np.log(ends)))) for ends in ((100, 2e4), (10, 2e3)))
        cohort = max(1, round(clients * math.exp(generator.uniform(*np.log((0.005, 0.25))))))
        plans.append(Drawn(clients, cohort, rounds, generator.uniform(0.6, 3.0), generator.uniform(5.0, 50.0)))
    return plans


def ours(plan: Drawn) -> tuple[second_opinion.Opinions, float]:
    """Both epsilons of a plan as a run accounts for it, and its delta K^-1.1."""
    config = PrivacyConfig("central_gaussian", 8.0, 0.0, plan.noise, plan.prior_noise)
    sampler = make_poisson(plan.clients, float(plan.cohort), 1)
    made = make_plan(config, plan.clients, [Release("vitals/vae", "vitals", sampler, plan.rounds, 1.0)])
    return second_opinion.opinions(made.spent({"vitals/vae": plan.rounds}), made.delta), made.delta


def independent(plan: Drawn, more_rounds: float = 1.0, more_sampling: float = 1.0) -> float:
    """Epsilon by dp-accounting's accountant from events written down here, at delta K^-1.1.

    Args:
      plan: what is accounted for.
      more_rounds, more_sampling: factors of T (rounded up) and q that make it a wrong plan.
    """
    k, q = plan.clients, plan.cohort / plan.clients * more_sampling
    slots = min(k, math.ceil(plan.cohort + 6.0 * math.sqrt(plan.cohort * (1.0 - plan.cohort / k))))
    one_round = (
        dp_event.TruncatedSubsampledGaussianDpEvent(k, q, slots, plan.noise)
        if slots < k
        else dp_event.PoissonSampledDpEvent(q, dp_event.GaussianDpEvent(plan.noise))
    )
    trained = dp_event.SelfComposedDpEvent(one_round, math.ceil(plan.rounds * more_rounds))
    accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, 1e-3)
    accountant.compose(dp_event.ComposedDpEvent([dp_event.GaussianDpEvent(plan.prior_noise), trained]))
    return accountant.get_epsilon(k**-1.1)


def results(quick: bool) -> list[dict[str, Any]]:
    """The module's figures over 50 random plans; quick: 10.

    Args:
      quick: fewer plans.
    """
    differences, ratios, seconds = [], [], []
    for plan in draw(10 if quick else 50):
        start = time.perf_counter()
        (exact, renyi), _ = ours(plan)
        seconds.append(time.perf_counter() - start)
        differences.append(abs(exact / independent(plan) - 1.0))
        ratios.append(renyi / exact)
    finite = [ratio for ratio in ratios if math.isfinite(ratio)]
    return [
        report.make_result("accounting/worst relative difference from PLDAccountant", [max(differences)], "share"),
        report.make_result("accounting/least RDP epsilon over PLD epsilon", [min(finite)], "ratio"),
        report.make_result("accounting/RDP epsilon over PLD epsilon", finite, "ratio"),
        report.make_result(
            "accounting/plans that overflow leaves no RDP epsilon", [len(ratios) - len(finite)], "plans"
        ),
        report.make_result("accounting/both epsilons of a plan", seconds, "s"),
    ]


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10 plans instead of 50")
    parser.add_argument("--out", help="file for the JSON object")
    args = parser.parse_args()
    found = report.make_report("accounting", report.host(), work.versions(*PACKAGES), results(args.quick))
    report.finish(found, args.out)


if __name__ == "__main__":
    main()
