"""Local differential privacy on paper: its event, relation and figures, the class shares, and who may not be mixed with it."""

from __future__ import annotations

import contextlib
import io
import json
import math
import types
from typing import Any

import numpy as np
import pytest
import scipy.stats
import toy
from dp_accounting import GaussianDpEvent

from fedjax_health import prepare
from fedjax_health.config import PrivacyConfig
from fedjax_health.federated.cohort import make_full, make_poisson
from fedjax_health.prepared import Prepared
from fedjax_health.privacy import accounting
from fedjax_health.privacy.class_prior import noisy_class_shares
from fedjax_health.privacy.plan import Release, make_plan, write_ledger
from fedjax_health.privacy.revealed import RevealedSampledDpEvent
from fedjax_health.randomness import BY_SEED
from fedjax_health.types import Table
from launch import budget

K, T, DELTA = 2000, 30, 1e-5
CONFIG = PrivacyConfig("local_gaussian", 8.0, DELTA, 2.0, 4.0)
SAMPLERS = [make_poisson(K, 200.0, 8), make_full(K, 8)]


def plan_of(sampler, config=CONFIG):
    return make_plan(config, K, [Release("vitals/vae", "vitals", sampler, T, 0.5)])


def exact_delta(epsilon, q, z, prior, rounds, moved=1.0):
    """Of m ~ Binomial(T, q) Gaussians and the class shares, together one Gaussian: Balle and Wang 2018, Theorem 8."""
    m = np.arange(rounds + 1)
    mu = moved * np.sqrt(m / z**2 + 1 / prior**2)
    delta = scipy.stats.norm.cdf(mu / 2 - epsilon / mu) - np.exp(epsilon) * scipy.stats.norm.cdf(-mu / 2 - epsilon / mu)
    return float(np.sum(scipy.stats.binom.pmf(m, rounds, q) * delta))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=["poisson", "full"])
def test_figures_are_those_of_how_often_a_client_sends(sampler):
    ledger, q = plan_of(sampler).ledger({"vitals/vae": T}), sampler.expected / K
    for epsilon, moved in ((ledger["epsilon_total"], 1.0), (ledger["epsilon_replace_one"], 2.0)):
        assert exact_delta(epsilon, q, 2.0, 4.0, T, moved) <= DELTA  # pessimistic
        assert exact_delta(0.98 * epsilon - 0.01, q, 2.0, 4.0, T, moved) > DELTA  # and hardly so
    assert ledger["epsilon_total"] <= ledger["epsilon_rdp"] < 1.5 * ledger["epsilon_total"]


def test_the_figure_for_a_group_bounds_the_messages_of_its_members():
    pair = plan_of(SAMPLERS[0]).ledger({"vitals/vae": T})["groups"][0]
    # each member sends its own: twice as many rounds, and two vectors of class shares
    assert pair["size"] == 2 and exact_delta(pair["epsilon"], 0.1, 2.0, 4.0 / math.sqrt(2.0), 2 * T) <= DELTA


def test_the_ledger_says_what_is_hidden_from_whom():
    ledger = plan_of(SAMPLERS[0]).ledger({"vitals/vae": T})
    assert (ledger["unit"], ledger["relation"], ledger["mechanism"]) == ("client", "zero_out_one", "local_gaussian")
    prior, trained = ledger["events"]
    assert trained["detail"] == str(RevealedSampledDpEvent(0.1, GaussianDpEvent(2.0)))
    assert prior["detail"] == str(GaussianDpEvent(4.0)) and prior["noise_multiplier"] == 4.0
    assert any("who sends a message, and when" in sentence for sentence in ledger["not_covered"])
    central = plan_of(SAMPLERS[0], PrivacyConfig("central_gaussian", 8.0, DELTA, 2.0, 4.0)).ledger({"vitals/vae": T})
    assert central["relation"] == "add_or_remove_one"
    assert 2 * central["epsilon_total"] < ledger["epsilon_total"]  # where sampling hides, it amplifies
    assert set(ledger["not_covered"]) > set(central["not_covered"])


def test_noise_is_calibrated_for_the_whole_run_and_the_table_stops_in_time():
    plan = plan_of(SAMPLERS[0], PrivacyConfig("local_gaussian", 8.0, DELTA, 0.0, 4.0))
    table = plan.epsilon_table(plan.releases[0], {})
    assert 7.8 < table[-1] <= 8.0
    for t in (1, 10, T):
        assert exact_delta(table[t], 0.1, plan.noise_multiplier, 4.0, t) <= DELTA


def test_a_run_plans_for_the_sampler_and_the_clients_that_it_has():
    section = types.SimpleNamespace(train=toy.train_config())
    config: Any = types.SimpleNamespace(
        privacy=PrivacyConfig("local_gaussian", 8.0, 0.0, 2.0, 4.0),
        vae=section,
        gan=None,
        wgan_gp=None,
        representation="public",
    )
    parts, none = toy.make_parts(toy.linear(), toy.train_config()), None
    plan = prepare.plan_privacy(config, [Prepared(toy.domain(), none, none, {"vae": parts})])  # pyright: ignore[reportArgumentType]
    assert plan.clients == parts.population.size and plan.delta == pytest.approx(plan.clients**-1.1)
    assert plan.event(plan.releases[0]) == RevealedSampledDpEvent(8.0 / plan.clients, GaussianDpEvent(2.0))


def test_class_shares_carry_the_noise_of_every_included_client():
    clients, z, found = 4000, 0.2, {True: [], False: []}
    labels = np.tile(np.asarray([0, 1], np.int32), clients)
    table = Table(np.zeros((2 * clients, 1), np.float32), labels, np.repeat(np.arange(clients, dtype=np.int32), 2))
    include = np.arange(clients) % 2 == 0
    for draw in range(800):
        for local, kept in found.items():
            generator = np.random.default_rng([7, draw])
            share = noisy_class_shares(table, include, 2, z, generator, local).astype(np.float64)
            kept.append(2000 * (share[0] - share[1]) / (z * math.sqrt(2.0 * 2000 if local else 2.0)))
    assert scipy.stats.kstest(found[True], "norm").pvalue > 1e-3
    for wrong in (2 / 3, 3 / 2, math.sqrt(2.0), 1 / math.sqrt(2000.0)):
        assert scipy.stats.kstest(np.asarray(found[True]) / wrong, "norm").pvalue < 1e-6
    assert 0.9 < np.std(found[False]) < 1.1


def test_the_run_takes_local_shares_for_local_noise_only(monkeypatch):
    seen = []
    monkeypatch.setattr(
        prepare, "noisy_class_shares", lambda *given: seen.append((given[3], given[5])) or np.ones(2, np.float32)
    )
    monkeypatch.setattr(prepare.build, "build_domain", lambda name, config: toy.domain())
    for mechanism in ("local_gaussian", "central_gaussian", "record_gaussian"):
        privacy = types.SimpleNamespace(mechanism=mechanism, prior_noise_multiplier=4.0, trial=0)
        data = types.SimpleNamespace(audit_fraction=0.2)
        config: Any = types.SimpleNamespace(
            data=data, privacy=privacy, seed=0, seeds=1, models=(), representation="public"
        )
        plan: Any = None
        prepare.measure(prepare.bare_domain("toy", config, None), plan, config, BY_SEED)
    assert seen == [(4.0, True), (4.0, False), (4.0, False)]


PLAN = [f"--clients={K}", "--cohort=200", f"--rounds={T}", "--prior_noise_multiplier=4", f"--delta={DELTA}"]


def asked(*arguments):
    """Exit code, figures and what is said of the budget command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = budget.main(["budget", *PLAN, *arguments, "--json"])
    return code, json.loads(out.getvalue() or "{}"), err.getvalue()


def test_the_budget_command_and_a_run_agree(tmp_path):
    _, found, _ = asked("--mechanism=local_gaussian", "--noise_multiplier=2")
    ledger = plan_of(SAMPLERS[0]).ledger({"vitals/vae": T})
    same = ("epsilon_total", "epsilon_rdp", "epsilon_replace_one", "groups")
    assert {name: found[name] for name in same} == {name: ledger[name] for name in same}
    path = str(tmp_path / "ledger.json")
    write_ledger(path, ledger)
    _, further, _ = asked("--mechanism=local_gaussian", "--noise_multiplier=2", "--epsilon=15", f"--spent={path}")
    event, before = RevealedSampledDpEvent(0.1, GaussianDpEvent(2.0)), (GaussianDpEvent(4.0), 2)
    left = further["rounds_left"]
    totals = [accounting.epsilon_of([(event, T + rounds), before], DELTA) for rounds in (left, left + 1)]
    assert totals[0] <= 15.0 < totals[1]


def test_what_the_budget_command_cannot_add_up_is_refused(tmp_path):
    paths = {}
    for mechanism in ("central_gaussian", "local_gaussian"):
        paths[mechanism] = str(tmp_path / f"{mechanism}.json")
        made = plan_of(SAMPLERS[0], PrivacyConfig(mechanism, 8.0, DELTA, 2.0, 4.0)).ledger({"vitals/vae": 2})
        write_ledger(paths[mechanism], made)
    refused = [
        (["--epsilon=20", f"--spent={paths['local_gaussian']}"], "so that their epsilons do not add up"),
        (
            ["--epsilon=20", "--mechanism=local_gaussian", f"--spent={paths['central_gaussian']}"],
            "so that their epsilons do not add up",
        ),
        (["--epsilon=8", "--mechanism=local_gaussian", "--trials=5"], "trials=5.0 of mechanism='local_gaussian'"),
        (["--epsilon=8", "--mechanism=local"], "mechanism='local' is not one of"),
    ]
    for arguments, sentence in refused:
        code, _, said = asked(*arguments)
        assert code == 2 and sentence in said and said.count("\n") == 1
