"""What a run will publish, as events: the noise that fits the budget, and the ledger as it really went."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from dp_accounting import GaussianDpEvent, ZCDpEvent

from fedjax_health.config import PrivacyConfig
from fedjax_health.federated.cohort import CohortSampler
from fedjax_health.files import write_text
from fedjax_health.privacy import accounting, class_prior
from fedjax_health.privacy.event_fields import event_fields
from fedjax_health.privacy.figures import published
from fedjax_health.privacy.fit import statistics_noise
from fedjax_health.privacy.grid_limits import check_grids
from fedjax_health.privacy.one_shot import CATEGORIES, OneShotRelease, check_statistics
from fedjax_health.privacy.promise import REVEALED, not_covered, relation_of
from fedjax_health.privacy.revealed import RevealedSampledDpEvent
from fedjax_health.transforms.distributed import MOST_SLACK, NoiseGrid
from fedjax_health.types import UserError

QUERY_NAMES = ("distribution functions", "correlation")  # of a representation, in their order


@dataclasses.dataclass(frozen=True)
class Release:
    """One training whose result is published.

    Attributes:
      stage: such as "vitals/vae".
      domain: whose clients.
      sampler: what runs, and so what is accounted for.
      rounds: T.
      l2_clip_norm: sensitivity of the sum.
      passes: noisy sums that a record enters in a round of its client (record-level privacy: local epochs).
      also: what the same noisy sums release beside it, such as "and a share of the clients"; "" = nothing.
      least: fewest clients in any sum that the server sees; 1 = it sees single updates.
      grid: of distributed noise.
      teachers: k, where the noise is on votes of so many teachers (`federated.votes`) and `l2_clip_norm` is of votes; 0 = it
        is on sums of updates.
    """

    stage: str
    domain: str
    sampler: CohortSampler
    rounds: int
    l2_clip_norm: float
    passes: int = 1
    also: str = ""
    least: int = 1
    grid: NoiseGrid | None = None
    teachers: int = 0


@dataclasses.dataclass(frozen=True)
class PrivacyPlan:
    """Everything a run publishes; all domains' clients are taken to be the same people, so all events compose.

    Attributes:
      config: the privacy section.
      clients: K of the smallest domain.
      releases: in the order of training.
      delta: as used.
      noise_multiplier: of every training round (0 for mechanism "none").
      queries: sums over all clients that a domain's representation takes (see `privacy.fit`).
      one_shots: what is published without a training.
    """

    config: PrivacyConfig
    clients: int
    releases: tuple[Release, ...]
    delta: float
    noise_multiplier: float
    queries: int = 0
    one_shots: tuple[OneShotRelease, ...] = ()

    @property
    def formal(self) -> bool:
        """Whether there is a guarantee."""
        return self.config.mechanism != "none"

    @property
    def unit(self) -> str:
        """Who is hidden: "client" or "record"."""
        return "record" if self.config.mechanism == "record_gaussian" else "client"

    @property
    def relation(self) -> str:
        """How two worlds differ, of `relation_of`."""
        return relation_of(self.config.mechanism)

    def event(self, release: Release) -> Any:
        """Event of one round of a training; with correlated noise of one turn of a client (`sampler.separation` rounds).

        A record is summed once in each of E local passes: E Gaussian sums are one with the noise multiplier over sqrt(E); a
        client that noises its own message sends it once. The client is sampled, but nothing hides whether it takes part (see
        `revealed`). A sum of discrete Gaussians is 1 / 2 (1 / z + slack)^2-zCDP (see `distributed.slack`).
        """
        if self.config.mechanism not in REVEALED:
            return release.sampler.account(self.noise_multiplier)
        if self.config.mechanism == "distributed_gaussian":
            noise = ZCDpEvent(0.5 * (1.0 / self.noise_multiplier + MOST_SLACK) ** 2)
        else:
            noise = GaussianDpEvent(self.noise_multiplier / math.sqrt(release.passes))
        return RevealedSampledDpEvent(release.sampler.expected / release.sampler.size, noise)

    def priors(self) -> list[tuple[Any, int]]:
        """Events of the class-share histograms, one a domain."""
        return [(class_prior.event(self.config.prior_noise_multiplier), len(self.domains))]

    @property
    def domains(self) -> tuple[str, ...]:
        """Whose clients."""
        return tuple(dict.fromkeys(r.domain for r in (*self.releases, *self.one_shots)))

    def questions(self, domain: str) -> tuple[str, ...]:
        """Names of the noisy queries that a domain's clients answer beside their class shares."""
        more = any(o.categories for o in self.one_shots if o.domain == domain)
        return (*QUERY_NAMES[: self.queries], *((CATEGORIES,) if more else ()))

    @property
    def statistics_noise(self) -> float:
        """Noise multiplier of each query of a representation or one-shot generator; 0 without a mechanism or a query."""
        queries, c = sum(len(self.questions(domain)) for domain in self.domains), self.config
        if not (self.formal and queries):
            return 0.0
        return statistics_noise(c.epsilon, self.delta, c.representation_share, queries)

    def fits(self) -> list[tuple[Any, int]]:
        """Events of the representations' and one-shot generators' queries."""
        noise, queries = self.statistics_noise, sum(len(self.questions(domain)) for domain in self.domains)
        return [(GaussianDpEvent(noise), queries)] if noise else []

    def spent(self, rounds: dict[str, int]) -> list[tuple[Any, int]]:
        """Composition after the trainings named in `rounds` (stage -> rounds done), histograms and representations included."""
        trained = [(self.event(r), r.sampler.events(rounds.get(r.stage, 0))) for r in self.releases]
        return [*self.priors(), *self.fits(), *trained]

    def not_covered(self) -> list[str]:
        """What the guarantee says nothing about, in sentences."""
        return not_covered(self.config.mechanism, self.config.randomness, any(r.teachers for r in self.releases))

    def epsilon_table(self, release: Release, before: dict[str, int]) -> np.ndarray:
        """Epsilon of the run after 0 ... T rounds of a training, f64[T + 1]; NaN without a mechanism.

        Args:
          release: the training.
          before: rounds done by the trainings before it.
        """
        if not self.formal:
            return np.full(release.rounds + 1, np.nan)
        count, one = release.sampler.events, self.event(release)
        table = accounting.epsilon_table(self.spent(before), one, count(release.rounds), self.delta)
        return table[[count(t) for t in range(release.rounds + 1)]]

    def ledger(self, rounds: dict[str, int]) -> dict[str, Any]:
        """The ledger for the rounds that really ran, as JSON-ready values.

        Args:
          rounds: stage -> rounds done; a training not named has not run.

        Raises:
          UserError: the accountants contradict each other (see `second_opinion.opinions`).
        """
        c = self.config
        common: dict[str, Any] = {"unit": self.unit, "relation": self.relation, "mechanism": c.mechanism}
        common["randomness"] = c.randomness
        asked = dict.fromkeys(name for domain in self.domains for name in self.questions(domain))
        common["asked_of_clients"] = ["class shares", *asked]
        if self.one_shots:  # they cost what every other generator of the run rests on as well, and no training
            epsilon = accounting.epsilon_of(self.spent({}), self.delta) if self.formal else None
            common["one_shot"] = {"generators": [o.stage for o in self.one_shots], "epsilon_one_shot": epsilon}
            common["one_shot"]["alone"] = not self.releases
        common["server_sees_sums_of"] = min((r.least for r in self.releases), default=1)
        common["teachers"] = {r.stage: r.teachers for r in self.releases if r.teachers}
        if not self.formal:
            names = ("epsilon_total", "epsilon_rdp", "epsilon_replace_one", "delta_replace_one")
            names += ("replace_one_method", "delta", "target_epsilon")
            return {
                **common,
                **dict.fromkeys(names),
                "accountant": "none",
                "groups": [],
                "events": [],
                "not_covered": self.not_covered(),
            }
        figures = published(self.spent(rounds), self.delta)
        events = [
            self._event(f"class shares {domain}", f"label shares of {domain}", self.priors()[0][0], 1, 1.0, 1.0)
            for domain in self.domains
        ]
        for domain in self.domains:
            for what in self.questions(domain):
                released = f"in {'the one-shot' if what == CATEGORIES else 'every'} generator of {domain}"
                events.append(self._event(f"{what} {domain}", released, self.fits()[0][0], 1, 1.0, 1.0))
        for r in self.releases:
            if done := rounds.get(r.stage, 0):
                times = r.sampler.events(done)
                event = self.event(r)
                probability = getattr(event, "sampling_probability", 1.0)  # as accounted for
                released = f"synthetic/{r.stage.replace('/', '_')} and its generator{' ' + r.also if r.also else ''}"
                events.append(
                    self._event(f"train {r.stage}", released, event, done, r.l2_clip_norm, probability, times)
                )
        return {
            **common,
            "accountant": accounting.accountant_of(self.spent(rounds)),
            "delta": self.delta,
            "target_epsilon": c.epsilon,
            **figures,
            "events": events,
            "not_covered": self.not_covered(),
        }

    def _noise_of(self, name: str) -> float:
        if name.startswith("train"):
            return self.noise_multiplier
        return self.config.prior_noise_multiplier if name.startswith("class shares") else self.statistics_noise

    def _event(
        self, name: str, release: str, event: Any, rounds: int, bound: float, probability: float, times: int = 1
    ) -> dict[str, Any]:
        return {
            "name": name,
            "release": release,
            "event": type(event).__name__,
            "detail": str(event),
            "event_fields": event_fields(event),
            "epsilon": accounting.epsilon_of([(event, times)], self.delta),
            "rounds": rounds,
            "times": times,
            "noise_multiplier": self._noise_of(name),
            "l2_clip_norm": bound,
            "sampling_probability": probability,
        }


def make_plan(
    config: PrivacyConfig,
    clients: int,
    releases: list[Release],
    before: accounting.Composition = (),
    queries: int = 0,
    one_shots: Sequence[OneShotRelease] = (),
) -> PrivacyPlan:
    """Chooses delta and calibrates the noise for the whole run.

    Args:
      config: the privacy section.
      clients: K of the smallest domain.
      releases: every training whose result is published.
      before: what other runs published about the same clients; the calibrated noise leaves room for it.
      queries: sums over all clients that a domain's representation takes.
      one_shots: what is published without a training.

    Raises:
      UserError: delta not below 1/K, or a budget that no noise meets.
    """
    if config.mechanism == "none":
        return PrivacyPlan(config, clients, tuple(releases), float("nan"), 0.0, queries, tuple(one_shots))
    delta = config.delta or clients**-1.1
    if delta >= 1 / clients:
        raise UserError(
            f"privacy.delta={delta:g} is not below 1/K = 1/{clients} = {1 / clients:.3g}; at such a delta one client's whole "
            "record could be published; set it lower, or 0 for K^-1.1"
        )
    plan = PrivacyPlan(config, clients, tuple(releases), delta, config.noise_multiplier, queries, tuple(one_shots))
    if not releases:
        check_statistics(plan, before)
    elif not config.noise_multiplier:
        rounds = {r.stage: r.rounds for r in releases}
        noise = accounting.calibrate_noise(
            lambda z: [*before, *dataclasses.replace(plan, noise_multiplier=z).spent(rounds)], config.epsilon, delta
        )
        plan = dataclasses.replace(plan, noise_multiplier=noise)
    check_grids(plan)
    return plan


def write_ledger(path: str, ledger: dict[str, Any]) -> None:
    """Writes the ledger whole (temporary name, then rename).

    Args:
      path: final path.
      ledger: from `PrivacyPlan.ledger`.
    """
    write_text(path, json.dumps(ledger, indent=2, allow_nan=False) + "\n")
