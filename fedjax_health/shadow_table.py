"""Rows of table 3 by shadow federations: each signal of a pipeline under each attack that compares worlds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from fedjax_health import rng
from fedjax_health.attacks.lira import lira, lira_offline
from fedjax_health.attacks.rmia import OFFLINE, rmia
from fedjax_health.attacks.updates import ATTRIBUTION, INNER, LOSS
from fedjax_health.config import Config
from fedjax_health.evaluation.downstream import VIEWS
from fedjax_health.evaluation.shadow_rows import by_client, shadow_rows
from fedjax_health.prepared import Prepared
from fedjax_health.privacy.plan import PrivacyPlan
from fedjax_health.shadow_pipeline import NEAREST, OWN
from fedjax_health.shadow_stage import Found, World, make_world, run_shadows
from fedjax_health.types import Row

REAL, SYNTHETIC = VIEWS[:2]
SETTINGS = {  # signal -> what is attacked, the first half of a row
    **{view: f"model-on-{view}" for view in VIEWS},
    NEAREST: "federated+synthetic",
    OWN: "generator",
    LOSS: "published-models",
    INNER: "published-updates",
    ATTRIBUTION: "published-updates-together",
}


class Scores(NamedTuple):
    """An attack's scores: row, f64[S, M], bool[S, M], and which columns are in or out together i[M]."""

    row: str
    score: np.ndarray
    member: np.ndarray
    cluster: np.ndarray


def log_probability(signal: str, score: np.ndarray) -> np.ndarray:
    """Log p of a record, of which a client's mean is the likelihood of all it holds: of log-odds phi, -log(1 + e^-phi), which
    is minus the diagnostic model's loss; of anything else the score itself.

    A client's mean of log-odds would be that of its easiest records, where they are largest and say least.

    Args:
      signal: name.
      score: f64[S, R].
    """
    return -np.logaddexp(0.0, -score) if signal in VIEWS else score


def attacks(signal: str, world: World, found: Found) -> Iterator[Scores]:
    """All attacks on one signal: of a client the mean of log p over its records, of a record its log-odds.

    Args:
      signal: name in `found`.
      world: masks and whose records were scored.
      found: of its shadows.
    """
    member, setting, n = world.member, SETTINGS[signal], len(world.targets)
    each = np.arange(n)
    if signal in found.client:
        for name, attack in (("lira", lira), ("shadow-threshold", lambda f, _: f)):
            yield Scores(f"{setting}:{name}", attack(found.client[signal], member), member, each)
        return
    record, owner = found.record[signal], world.scored.client
    ours = owner < n
    log_p = by_client(log_probability(signal, record), owner)
    client = log_p[:, :n]
    yield Scores(f"{setting}:shadow-threshold", client, member, each)
    yield Scores(f"{setting}:lira", lira(client, member), member, each)
    yield Scores(f"{setting}:lira-offline", lira_offline(client, member), member, each)
    share = OFFLINE if signal in VIEWS else 1.0
    yield Scores(f"{setting}:rmia", rmia(client, member, log_p[:, n:], share), member, each)
    whose = member[:, owner[ours]]
    yield Scores(f"{setting}:lira-record", lira(record[:, ours], whose), whose, owner[ours])


def table(world: World, model: str, found: Found) -> list[Row]:
    """Rows of one generator; a model on real records knows none, and stands under "-".

    Args:
      world: its shadows.
      model: the generator.
      found: their scores.
    """
    rows = []
    for signal in (*found.record, *found.client):
        for row, score, member, cluster in attacks(signal, world, found):
            generator = rng.host_rng(
                world.config.seed, rng.Stream.ATTACK, world.prepared.domain.name, model, row, "interval"
            )
            of = "-" if signal == REAL else model
            rows += shadow_rows(world.prepared.domain.name, of, row, score, member, cluster, generator)
    return rows


def shadow_tables(config: Config, plan: PrivacyPlan, p: Prepared, done: Mapping[str, int]) -> list[Row]:
    """All rows of a domain. Evaluation by the operator: real data is read, nothing is published, no ledger moves.

    Args:
      config: the run, with attacks.shadows > 0.
      plan: its noise, which the shadows' trainings have as well.
      p: the domain.
      done: rounds of each training, "<domain>/<model>" -> T.
    """
    every, rows = [(domain, model) for domain in config.data.domains for model in config.models], []
    attacked = every[: config.attacks.generators or len(every)]
    chosen = [model for domain, model in attacked if domain == p.domain.name]
    if not chosen:
        return []
    world = make_world(config, plan, p)
    for i, model in enumerate(chosen):
        views = (REAL, SYNTHETIC) if i == 0 else (SYNTHETIC,)
        rows += table(world, model, run_shadows(world, model, done.get(f"{p.domain.name}/{model}", 0), views))
    return rows
