"""What a run would cost before any data is touched, and what a run that has been leaves over."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

import dp_accounting

from fedjax_health.config import PrivacyConfig
from fedjax_health.data.representation import QUERIES
from fedjax_health.data.schema import REPRESENTATIONS
from fedjax_health.federated.cohort import make_poisson
from fedjax_health.privacy import accounting
from fedjax_health.privacy.accounting import Composition
from fedjax_health.privacy.event_fields import event_of
from fedjax_health.privacy.figures import published
from fedjax_health.privacy.one_shot import OneShotRelease
from fedjax_health.privacy.plan import Release, make_plan
from fedjax_health.privacy.promise import relation_of
from fedjax_health.privacy.tuning import tuned_epsilon
from fedjax_health.types import UserError

SHARES = (25, 50, 75, 100)  # per cent of the rounds
MOST_ROUNDS = 1_000_000  # looked for
MECHANISMS = ("central_gaussian", "local_gaussian", "distributed_gaussian")
LEAST_NOISE = 0.1  # below, epsilon is in the hundreds and the distributions no longer fit memory


class Request(NamedTuple):
    """A plan in numbers: Poisson-sampled cohorts of one population, all trainings of a run together.

    Attributes:
      clients: K of the smallest domain.
      cohort: qK, clients expected in a round.
      rounds: T, of all trainings together.
      epsilon: target, add-or-remove-one client; None = say what the noise gives.
      noise_multiplier: z of every round; None = calibrated for the target.
      delta: 0 = K^-1.1, and at most that of the ledger in `spent`.
      prior_noise_multiplier: of the class-share histograms.
      domains: how many such histograms.
      trials: mean number of trials of a sweep, drawn from a geometric law, whose best is published; None = no sweep.
      mechanism: "central_gaussian", "local_gaussian" or "distributed_gaussian" (whose integer grid is the run's to check).
      representation: of `schema.REPRESENTATIONS`, whose queries are in the plan; other than "public" needs `epsilon`, or that
        of the config in its place.
      representation_share: share of the budget for them.
      copula: whether the one-shot copula is published, too, which has a query of its own in every domain; needs representation
        "copula".
    """

    clients: int
    cohort: int
    rounds: int
    epsilon: float | None = None
    noise_multiplier: float | None = None
    delta: float = 0.0
    prior_noise_multiplier: float = 20.0
    domains: int = 1
    trials: float | None = None
    mechanism: str = "central_gaussian"
    representation: str = "public"
    representation_share: float = 0.45
    copula: bool = False


class Spent(NamedTuple):
    """What an earlier run published.

    Attributes:
      events: (event, count) pairs.
      delta: of its ledger.
      relation: of the neighbours its epsilon is for.
    """

    events: list[tuple[dp_accounting.DpEvent, int]]
    delta: float
    relation: str


def read_spent(path: str) -> Spent:
    """Rebuilds the events of a run's privacy_ledger.json.

    Args:
      path: of the ledger.

    Raises:
      UserError: no such file, no ledger, one without a guarantee or for another unit than clients, or one from before
        ledgers held event_fields.
    """
    try:
        with open(path, encoding="utf-8") as file:
            ledger = json.load(file)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a run's privacy_ledger.json") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); give a run's privacy_ledger.json") from error
    if not isinstance(ledger, dict) or not isinstance(ledger.get("events"), list):
        raise UserError(f"{path} holds no list of events; give a run's privacy_ledger.json")
    delta = ledger.get("delta")
    if not isinstance(delta, float) or not 0.0 < delta < 1.0:
        raise UserError(f"{path} has delta {delta}: that run had no guarantee, so that nothing bounds what it spent")
    if ledger.get("unit") != "client":
        raise UserError(
            f"{path} protects one {ledger.get('unit')}, which says too little about a client; give a client's"
        )
    events = []
    for entry in ledger["events"]:
        # of correlated noise a client's turns, not rounds; older ledgers hold rounds alone
        times = entry.get("times", entry.get("rounds")) if isinstance(entry, dict) else None
        if not isinstance(times, int) or "event_fields" not in entry:
            raise UserError(f"{path}: an event has no event_fields or rounds; run again with this version to get them")
        events.append((event_of(entry["event_fields"]), times))
    return Spent(events, delta, ledger.get("relation", "add_or_remove_one"))


def rounds_left(before: Composition, one_round: dp_accounting.DpEvent, epsilon: float, delta: float) -> int:
    """Most rounds after which the whole composition still meets (epsilon, delta): max { t : eps(before + t) <= epsilon }.

    Args:
      before: what is published anyway.
      one_round: event of one round.
      epsilon, delta: target, add-or-remove-one client.

    Returns:
      Rounds, 0 where `before` leaves none, at most 1,000,000.

    Raises:
      UserError: an event that is not covered.
    """

    def fits(rounds: int) -> bool:
        return accounting.epsilon_of([*before, (one_round, rounds)], delta) <= epsilon

    if not fits(1):
        return 0
    low, high = 1, 2
    while fits(high):
        low, high = high, 2 * high
        if low >= MOST_ROUNDS:
            return MOST_ROUNDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return min(low, MOST_ROUNDS)


def budget(request: Request, spent: Spent | None = None) -> dict[str, Any]:
    """All that can be said of a plan without data; the plan and the sampler are those of a run.

    Args:
      request: the plan; with `spent` it needs a target.
      spent: what an earlier run on the same clients published; every epsilon then includes it.

    Returns:
      JSON-ready: the request's fields, "sampling_probability", "delta", "epsilon_after" (rounds -> epsilon), the figures of
      `figures.published`, and with `spent` "epsilon_spent", "rounds_left" (of this noise and sampler, the plan's histograms
      included); with `copula`
      "epsilon_copula", of the statistics alone; with `trials` "epsilon_tuned", of the best of a sweep (see
      `tuning.tuned_epsilon`).

    Raises:
      UserError: a value out of range, a target that cannot be met, accountants that contradict each other.
    """
    _check(request, spent)
    names = [f"domain {i}" for i in range(request.domains)]
    sampler = make_poisson(request.clients, float(request.cohort), 1)
    releases = [Release(name, name, sampler, 0 if i else request.rounds, 1.0) for i, name in enumerate(names)]
    delta = request.delta
    if spent is not None and not delta:
        delta = min(spent.delta, request.clients**-1.1)
    target, before = request.epsilon or math.inf, [] if spent is None else spent.events
    config = PrivacyConfig(
        request.mechanism,
        target,
        delta,
        request.noise_multiplier or 0.0,
        request.prior_noise_multiplier,
        request.representation_share,
    )
    if spent is not None and request.noise_multiplier is None:
        _check_room(spent, target, delta)
    one_shots = [OneShotRelease(f"{name}/copula", name, True) for name in names if request.copula]
    plan = make_plan(config, request.clients, releases, before, QUERIES[request.representation], one_shots)

    def after(rounds: int) -> list[tuple[Any, int]]:
        return [*before, *plan.spent({names[0]: rounds})]

    at = [math.ceil(request.rounds * share / 100) for share in SHARES]
    found = {
        **request._asdict(),
        "noise_multiplier": plan.noise_multiplier,
        "sampling_probability": request.cohort / request.clients,
        "delta": plan.delta,
        "epsilon_after": {str(rounds): accounting.epsilon_of(after(rounds), plan.delta) for rounds in at},
        **published(after(request.rounds), plan.delta),
    }
    found["target_epsilon"] = found.pop("epsilon")
    trials = found.pop("trials")
    if request.copula:
        found["epsilon_copula"] = accounting.epsilon_of(after(0), plan.delta)
    if trials is not None:
        tuned = tuned_epsilon(after(request.rounds), trials, 1.0, plan.delta)
        found["epsilon_tuned"] = tuned if math.isfinite(tuned) else None
    if spent is not None:
        found["epsilon_spent"] = accounting.epsilon_of(before, plan.delta)
        found["rounds_left"] = rounds_left(after(0), plan.event(releases[0]), target, plan.delta)
    return found


def _check_room(spent: Spent, target: float, delta: float) -> None:
    gone = accounting.epsilon_of(spent.events, delta)
    if gone >= target:
        raise UserError(
            f"the ledger has spent epsilon {gone:.5g} at delta={delta:.3g} already, which leaves nothing of {target:g}; "
            "raise epsilon"
        )


def _check(request: Request, spent: Spent | None) -> None:
    r = request

    def require(ok: bool, sentence: str) -> None:
        if not ok:
            raise UserError(sentence)

    require(
        r.mechanism in MECHANISMS, f"mechanism={r.mechanism!r} is not one of {', '.join(MECHANISMS)}; give one of them"
    )
    require(
        r.representation in REPRESENTATIONS,
        f"representation={r.representation!r} is not one of {', '.join(REPRESENTATIONS)}; give one of them",
    )
    require(
        r.representation == "public" or (r.mechanism == "central_gaussian" and r.epsilon is not None),
        f"representation={r.representation!r} needs mechanism=central_gaussian, and an epsilon of which its queries take "
        "a share; give both, or leave it out",
    )
    require(
        not r.copula or r.representation == "copula",
        f"copula=true is drawn in the space of representation=copula and not {r.representation!r}; give that, or leave it out",
    )
    require(0 < r.representation_share < 1, f"representation_share={r.representation_share} must be between 0 and 1")
    require(
        r.trials is None or r.mechanism == "central_gaussian",
        f"trials={r.trials} of mechanism={r.mechanism!r} cannot be accounted for; leave trials out",
    )
    require(2 <= r.clients <= 2**30, f"clients={r.clients} must be between 2 and 2^30")
    require(1 <= r.cohort <= r.clients, f"cohort={r.cohort} must be between 1 and the {r.clients} clients")
    require(1 <= r.rounds <= MOST_ROUNDS, f"rounds={r.rounds} must be between 1 and {MOST_ROUNDS}")
    require(1 <= r.domains <= 1000, f"domains={r.domains} must be between 1 and 1000")
    require(0.0 <= r.delta < 1.0, f"delta={r.delta} must be in [0, 1); 0 means K^-1.1")
    require(r.epsilon is None or 0.0 < r.epsilon < math.inf, f"epsilon={r.epsilon} must be positive")
    noises = (("noise_multiplier", r.noise_multiplier), ("prior_noise_multiplier", r.prior_noise_multiplier))
    for name, noise in noises:
        require(
            noise is None or LEAST_NOISE <= noise < math.inf,
            f"{name}={noise} must be at least {LEAST_NOISE}; less noise gives no guarantee worth the name",
        )
    relation = relation_of(r.mechanism)
    require(
        spent is None or spent.relation == relation,
        f"the ledger is for the relation {spent and spent.relation!r} and {r.mechanism} for {relation!r}, so that their "
        "epsilons do not add up; give a ledger of the same mechanism",
    )
    if spent is None:
        require(
            (r.epsilon is None) != (r.noise_multiplier is None),
            "give either epsilon, for which the noise is calibrated, or noise_multiplier, whose epsilon is computed",
        )
    else:
        require(r.epsilon is not None, "what is left after a ledger depends on the target; give epsilon")
