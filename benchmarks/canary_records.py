"""What a synthetic table, or a generator's own score, proves about who took part: canary records, in or out by a coin.

`results(quick)` gives figures named `audit/...`; `python -m benchmarks.privacy --parts canary_records` prints them. 2,000
clients of simulated vitals, 200 of them canaries (`attacks.canary_records`): a canary's records are one public point far from
all patients, and it is in or out by an independent fair coin. A run without noise and runs at epsilon 8, 3 and 1 train a VAE,
all clients in every round so that the whole run is a Gaussian mechanism, and publish the one-shot copula beside it. Observers:

table, nearest        distance of a canary's record to the nearest row of the synthetic table;
table, DOMIAS         log density of the synthetic table there, less that of reference records;
table, rare values    how often the table has the values of a canary's columns, one by one, beside how often reference
                      records do;
generator             the generator's own score: of the VAE its ELBO, by the encoder as well, which the server has and does not
                      publish; of the copula its density in model space, of what is published alone;
published functions   the mass that the distribution functions in both generators' files give to a canary's values.

Figures are 95 % lower bounds on epsilon, each by itself, never estimates: nothing follows where one lies below the accounted
epsilon. "in one run" is the median over the runs, "all runs" takes their canaries together. Half of the canaries choose the
rule, so that m of them all guessed right prove no more than epsilon log(p / (1 - p)), p = .05^(2 / m).
"""

from __future__ import annotations

import math
import tempfile
from typing import Any

import numpy as np

from benchmarks import report
from configs import base
from fedjax_health import build, experiment, prepare
from fedjax_health.attacks.base import Published
from fedjax_health.attacks.canary_records import (
    draw_canaries,
    function_scores,
    lower_bounds,
    make_nearest_row,
    make_rare_values,
    with_canary_clients,
)
from fedjax_health.attacks.domias import make_domias
from fedjax_health.config import Config, from_config_dict
from fedjax_health.data.domain import Domain
from fedjax_health.data.population import make_store, stored_population
from fedjax_health.federated import sharding
from fedjax_health.prepared import Prepared
from fedjax_health.randomness import BY_SEED
from fedjax_health.train.metrics import Writer
from fedjax_health.train.stage import Trained
from fedjax_health.types import Table

CLIENTS, CANARIES, RECORDS = 2000, 200, 24
EPSILONS = (math.inf, 8.0, 3.0, 1.0)
SEEDS, ROUNDS = 5, 60
ATTACKS = {"nearest": make_nearest_row, "DOMIAS": make_domias, "rare values": make_rare_values}


def configured(epsilon: float, quick: bool) -> Config:
    """A run of the benchmark.

    Args:
      epsilon: budget; infinite = no noise.
      quick: two seeds and a sixth of the rounds.
    """
    raw = base.get_config()
    raw.models, raw.seeds = ("vae", "copula"), 2 if quick else SEEDS
    raw.data.num_clients, raw.data.domains, raw.data.representation = CLIENTS - CANARIES, ("vitals",), "copula"
    raw.privacy.mechanism = "central_gaussian" if math.isfinite(epsilon) else "none"
    raw.privacy.epsilon = epsilon if math.isfinite(epsilon) else 8.0
    raw.vae.hidden = (32,)
    train = raw.vae.train
    train.sampler, train.cohort, train.rounds = "full", CLIENTS, ROUNDS // 6 if quick else ROUNDS
    train.rounds_per_chunk, train.server_learning_rate, train.ema_decay = train.rounds, 0.03, 0.8
    return from_config_dict(raw)


def audited(config: Config) -> tuple[Prepared, Table]:
    """The domain with its canaries, whose coins are those of `include`, and one record of each.

    Args:
      config: the run.
    """
    domain = build.build_domain("vitals", config)
    canaries = draw_canaries(domain.schema, CANARIES, np.random.default_rng(1))
    whole = _with(domain, with_canary_clients(domain.train, canaries, RECORDS))
    coins = np.random.default_rng(2).random((config.seeds, CANARIES)) < 0.5
    include = np.concatenate([np.ones((config.seeds, CLIENTS - CANARIES), bool), coins], 1)
    return prepare.with_federations(whole, include, config, sharding.make_mesh()), canaries


def _with(domain: Domain, train: Table) -> Domain:
    count = np.bincount(train.client, minlength=CLIENTS)
    population = stored_population(CLIENTS, int(count.max()), int(count.min()))
    return domain._replace(train=train, population=population, data=make_store(train, domain.encoder, CLIENTS))


def scores(config: Config) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, float | None], float]:
    """What each observer of a run says of each canary.

    Args:
      config: the run.

    Returns:
      (observer -> f64[N, m], coins bool[N, m], model -> accounted epsilon, delta).
    """
    bare, canaries = audited(config)
    plan = prepare.plan_privacy(config, [bare])
    p, done = prepare.measure(bare, plan, config, BY_SEED), {}
    trained: dict[str, Trained] = {}
    with tempfile.TemporaryDirectory() as folder, Writer(folder) as writer:
        for release in plan.releases:
            trained[release.stage] = experiment.train(config, plan, release, p, done, folder, writer, BY_SEED)
            done[release.stage] = trained[release.stage].rounds
        subjects = experiment.synthesise(config, p, trained, folder)
    found: dict[str, np.ndarray] = {}
    for subject in subjects:
        for name, make in ATTACKS.items():
            attack = make()
            found[f"{subject.name}: table, {name}"] = np.stack(
                [
                    attack.score(Published(t, p.domain.validation, None), canaries, p.domain.schema, np.random.default_rng(s))
                    for s, t in enumerate(subject.tables)
                ]
            )  # fmt: skip
        found[f"{subject.name}: generator"] = np.stack([subject.score(canaries, s) for s in range(config.seeds)])
    functions = [function_scores(fitted, p.domain.schema, canaries) for fitted in p.fitted]
    found["copula: published functions"] = np.stack(functions)
    ledger = plan.ledger(done)
    accounted = {"vae": ledger["epsilon_total"], "copula": ledger["one_shot"]["epsilon_one_shot"]}
    return found, p.include[:, -CANARIES:], accounted, plan.delta if plan.formal else CLIENTS**-1.1


def results(quick: bool) -> list[dict[str, Any]]:
    """All figures.

    Args:
      quick: two seeds, a sixth of the rounds, and epsilon infinite and 1 only.
    """
    rows = []
    for epsilon in (EPSILONS[0], EPSILONS[-1]) if quick else EPSILONS:
        observed, coins, accounted, delta = scores(configured(epsilon, quick))
        at = f"audit/canary records, epsilon {epsilon:g}"
        for model, total in accounted.items():
            if total is not None:
                rows.append(report.make_result(f"{at}, {model}: accounted", [total], "epsilon"))
        for observer, each in observed.items():
            runs = [lower_bounds(s, own, delta, seed) for seed, (s, own) in enumerate(zip(each, coins, strict=True))]
            together = lower_bounds(each.ravel(), coins.ravel(), delta, 0)
            for bound in together:
                name = f"{at}, {observer}, {bound}"
                rows.append(report.make_result(f"{name}: lower bound in one run", [r[bound] for r in runs], "epsilon"))
                rows.append(report.make_result(f"{name}: lower bound, all runs", [together[bound]], "epsilon"))
    return rows
