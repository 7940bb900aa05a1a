"""The budget command: the figures of a run's own plan, what is left after a ledger, and refusals in one sentence."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import pathlib
import subprocess
import sys

import dp_accounting
import numpy as np
import pytest

from fedjax_health.config import PrivacyConfig
from fedjax_health.federated.cohort import make_poisson
from fedjax_health.privacy import accounting
from fedjax_health.privacy.one_shot import OneShotRelease
from fedjax_health.privacy.plan import Release, make_plan, write_ledger
from launch import budget

ROOT = pathlib.Path(__file__).parents[2]
PLAN = ["--clients=400", "--cohort=40", "--rounds=60"]
SAMPLER = make_poisson(400, 40.0, 8)


@functools.cache
def figures(*arguments: str) -> dict:
    """The JSON object of a command line that succeeds."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert budget.main(["budget", *PLAN, *arguments, "--json"]) == 0
    assert err.getvalue() == "" and out.getvalue().count("\n") == 1
    return json.loads(out.getvalue())


@pytest.fixture(scope="module")
def ledger(tmp_path_factory) -> str:
    """Of a run that spent 4 of 20 rounds."""
    config = PrivacyConfig("central_gaussian", 8.0, 0.0, 1.0, 20.0)
    plan = make_plan(config, 400, [Release("vitals/vae", "vitals", SAMPLER, 20, 0.5)])
    path = str(tmp_path_factory.mktemp("run") / "privacy_ledger.json")
    write_ledger(path, plan.ledger({"vitals/vae": 4}))
    return path


def test_the_best_of_a_sweep_costs_more_than_a_run():
    one = figures("--noise_multiplier=1.5")
    few, many = (figures("--noise_multiplier=1.5", f"--trials={n}")["epsilon_tuned"] for n in (2, 50))
    assert (
        "epsilon_tuned" not in one and one["epsilon_total"] < one["epsilon_rdp"] < few < many < 4 * one["epsilon_rdp"]
    )
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        assert budget.main(["budget", *PLAN, "--epsilon=6", "--trials=0.5"]) == 2
    assert err.getvalue().startswith("error: a sweep of 0.5 trials")


def test_the_command_and_a_run_agree():
    found = figures("--epsilon=6")
    releases = [Release("vitals/vae", "vitals", SAMPLER, 60, 0.5)]
    plan = make_plan(PrivacyConfig("central_gaussian", 6.0, 0.0, 0.0, 20.0), 400, releases)
    run = plan.ledger({"vitals/vae": 60})
    assert (found["noise_multiplier"], found["delta"]) == (plan.noise_multiplier, plan.delta)
    same = ("epsilon_total", "epsilon_rdp", "epsilon_replace_one", "delta_replace_one", "replace_one_method", "groups")
    assert {name: found[name] for name in same} == {name: run[name] for name in same}
    assert found["sampling_probability"] == 0.1 and found["target_epsilon"] == 6.0
    table = plan.epsilon_table(releases[0], {})
    assert list(found["epsilon_after"]) == ["15", "30", "45", "60"]
    assert found["epsilon_after"] == {t: pytest.approx(table[int(t)], rel=1e-6) for t in found["epsilon_after"]}
    assert 5.8 < found["epsilon_total"] <= 6.0


def test_a_one_shot_copula_has_a_query_of_its_own_and_leaves_training_its_share():
    whole = ["--epsilon=6", "--representation=copula"]
    without, beside = figures(*whole), figures(*whole, "--copula")
    assert "epsilon_copula" not in without and without["copula"] is False
    assert beside["noise_multiplier"] == pytest.approx(without["noise_multiplier"], rel=2e-3)
    delta, share = beside["delta"], 0.45
    # at one share of the budget the number of queries does not matter, only the histogram comes on top
    mu = share / dp_accounting.get_sigma_gaussian(6.0, delta)
    expected = dp_accounting.get_epsilon_gaussian(1.0 / np.hypot(mu, 1.0 / 20.0), delta)
    assert beside["epsilon_copula"] == pytest.approx(expected, rel=0.01)
    releases = [Release("vitals/vae", "vitals", SAMPLER, 60, 0.5)]
    config = PrivacyConfig("central_gaussian", 6.0, 0.0, 0.0, 20.0)
    plan = make_plan(config, 400, releases, queries=2, one_shots=[OneShotRelease("vitals/copula", "vitals", True)])
    assert plan.noise_multiplier == beside["noise_multiplier"] and plan.fits()[0][1] == 3


def test_noise_gives_its_epsilon():
    calibrated = figures("--epsilon=6")
    given = figures(f"--noise_multiplier={calibrated['noise_multiplier']!r}")
    assert given["epsilon_total"] == calibrated["epsilon_total"] and given["target_epsilon"] is None
    assert figures("--noise_multiplier=2")["epsilon_total"] < given["epsilon_total"]
    two = figures(f"--noise_multiplier={calibrated['noise_multiplier']!r}", "--domains=2", "--prior_noise_multiplier=5")
    assert two["epsilon_total"] > given["epsilon_total"]


def test_rounds_left_after_a_ledger(ledger):
    found = figures("--epsilon=5", "--noise_multiplier=1.2", f"--spent={ledger}")
    spent = [(SAMPLER.account(1.0), 4), (accounting.dp_event.GaussianDpEvent(20.0), 2)]  # a histogram of each run

    def total(rounds: int) -> float:
        return accounting.epsilon_of([*spent, (SAMPLER.account(1.2), rounds)], 400**-1.1)

    left = found["rounds_left"]
    assert total(left) <= 5.0 < total(left + 1)
    assert found["epsilon_total"] == pytest.approx(total(60), rel=1e-6)
    assert found["epsilon_spent"] < found["epsilon_after"]["15"]
    assert left < figures("--epsilon=5.5", "--noise_multiplier=1.2", f"--spent={ledger}")["rounds_left"]
    assert figures("--epsilon=1", "--noise_multiplier=1.2", f"--spent={ledger}")["rounds_left"] == 0


def test_noise_for_a_further_run_is_calibrated_on_top_of_the_ledger(ledger):
    fresh, further = figures("--epsilon=6"), figures("--epsilon=6", f"--spent={ledger}")
    assert further["noise_multiplier"] > fresh["noise_multiplier"]
    assert 5.8 < further["epsilon_total"] <= 6.0 and further["rounds_left"] >= 60


def test_lines_for_people(capsys):
    assert budget.main(["budget", *PLAN, "--noise_multiplier", "2.0"]) == 0
    said = capsys.readouterr().out
    for name in ("sampling probability", "epsilon after 15 rounds", "epsilon rdp", "epsilon replace one", "delta"):
        assert f"\n{name} " in said
    assert "target" not in said
    assert budget.main(["budget", "--help"]) == 0 and "--prior_noise_multiplier" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*PLAN], "give either epsilon"),
        ([*PLAN, "--epsilon=3", "--noise_multiplier=1"], "give either epsilon"),
        (["--cohort=10", "--rounds=3", "--epsilon=3"], "--clients is missing"),
        ([*PLAN, "--epsilon=-3"], "epsilon=-3.0 must be positive"),
        ([*PLAN, "--epsilon=nan"], "epsilon=nan must be positive"),
        ([*PLAN, "--cohort=500", "--epsilon=3"], "cohort=500 must be between 1 and the 400 clients"),
        ([*PLAN, "--rounds=0", "--epsilon=3"], "rounds=0"),
        ([*PLAN, "--domains=0", "--epsilon=3"], "domains=0"),
        ([*PLAN, "--noise_multiplier=0.01"], "noise_multiplier=0.01 must be at least 0.1"),
        ([*PLAN, "--epsilon=3", "--prior_noise_multiplier=0"], "prior_noise_multiplier=0.0 must be at least"),
        ([*PLAN, "--epsilon=3", "--delta=0.5"], "not below 1/K"),
        ([*PLAN, "--epsilon=3", "--delta=-0.5"], "delta=-0.5 must be in"),
        ([*PLAN, "--epsilon=0.01"], "cannot be met"),
        ([*PLAN, "--epsilon=many"], "--epsilon must be a number, got 'many'"),
        (["--clients=1.5"], "--clients must be a whole number, got '1.5'"),
        ([*PLAN, "--json=perhaps"], "--json must be true or false, got 'perhaps'"),
        ([*PLAN, "--epsilon"], "epsilon"),
        ([*PLAN, "--epsilon=3", "--copula"], "copula=true is drawn in the space of representation=copula"),
        ([*PLAN, "--epsilom=3"], "unknown option --epsilom; did you mean --epsilon?"),
        ([*PLAN, "--epsilon=3", "more"], "unexpected argument 'more'"),
        ([*PLAN, "--epsilon=3", "--spent=nowhere.json"], "nowhere.json: No such file"),
    ],
)
def test_a_bad_value_is_one_sentence_and_exit_code_2(arguments, said, capsys):
    assert budget.main(["budget", *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ") and output.err.count("\n") == 1 and said in output.err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{,", "is not JSON"),
        ("[]", "no list of events"),
        ('{"events": [], "delta": null}', "had no guarantee"),
        ('{"events": [], "delta": 1e-5, "unit": "record"}', "protects one record"),
        ('{"events": [{"rounds": 3}], "delta": 1e-5, "unit": "client"}', "no event_fields"),
        (
            '{"events": [{"rounds": 3, "event_fields": {"type": "LaplaceDpEvent"}}], "delta": 1e-5, "unit": "client"}',
            "no event that is",
        ),
    ],
)
def test_a_bad_ledger_is_refused(content, said, tmp_path, capsys):
    path = tmp_path / "ledger.json"
    path.write_text(content)
    assert budget.main(["budget", *PLAN, "--epsilon=3", f"--spent={path}"]) == 2
    output = capsys.readouterr()
    assert output.out == "" and said in output.err and output.err.count("\n") == 1


def test_a_ledger_needs_a_target(ledger, capsys):
    assert budget.main(["budget", *PLAN, "--noise_multiplier=1", f"--spent={ledger}"]) == 2
    assert "depends on the target" in capsys.readouterr().err
    assert budget.main(["budget", *PLAN, "--epsilon=0.5", f"--spent={ledger}"]) == 2
    output = capsys.readouterr()
    assert output.out == "" and "already, which leaves nothing of 0.5" in output.err


def test_the_real_command_line():
    """A bad value before a good one: the exit code and the streams of the process."""
    results = [
        subprocess.run(
            [sys.executable, "-m", "launch.budget", *PLAN, *last], cwd=ROOT, capture_output=True, text=True, timeout=120
        )
        for last in (["--noise_multiplier=0"], ["--noise_multiplier=2", "--json"])
    ]
    assert (results[0].returncode, results[0].stdout) == (2, "") and results[0].stderr.startswith("error: ")
    assert results[1].returncode == 0 and 0.0 < json.loads(results[1].stdout)["epsilon_total"] < 6.0
