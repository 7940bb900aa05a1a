"""The peers' pinned requirements, the line they answer with, and the comparison made of such lines; no peer is needed."""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import subprocess
import sys

import pytest

from benchmarks import compare, dp_sgd, metric_oracles, quality_peers, report, work
from benchmarks.peers import line
from fedjax_health.types import UserError

ROOT = pathlib.Path(compare.__file__).parents[1]
REQUIREMENTS = sorted((ROOT / "benchmarks" / "peers" / "requirements").glob("*.txt"))
PEERS = [name for name, system in compare.SYSTEMS.items() if system.environment]


def _line(rate=100.0, accuracy=0.9, rounds=50, system="x"):
    return line.Line(system, "A1", rounds, [rate, rate], 1.0, accuracy, 300.0, {"python": "3.11.7"})


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.stem)
def test_requirements_pin_every_line(path):
    lines = [text for text in path.read_text().splitlines() if text and not text.startswith("#")]
    assert lines
    for text in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[0-9]+(\.[0-9]+)*", text), text


def test_each_peer_has_its_module_and_requirements():
    assert set(PEERS) == {"fedjax", "flower", "pfl", "torch_loop", "torch_vmap"}
    of_updates = {compare.SYSTEMS[name].environment for name in PEERS}
    of_records = {environment for environment, _, _ in dp_sgd.PEERS.values()}
    of_tables = {quality_peers.ENVIRONMENT}
    of_metrics = set(metric_oracles.ORACLES)
    assert of_updates | of_records | of_tables | of_metrics == {path.stem for path in REQUIREMENTS}
    assert not of_updates & of_records and not of_tables & (of_updates | of_records)
    assert "import ctgan" in (ROOT / "benchmarks" / "peers" / "ctgan_tables.py").read_text()
    for _, module, mode in dp_sgd.PEERS.values():
        text = (ROOT / "benchmarks" / "peers" / f"{module}.py").read_text()
        assert f'"{mode}"' in text
    for name in PEERS:
        assert (ROOT / "benchmarks" / "peers" / f"{name}.py").exists()
        assert compare.SYSTEMS[name].command[1] == f"benchmarks.peers.{name}"


def test_what_peers_import_needs_numpy_alone():
    code = (
        "import sys; from benchmarks import work; from benchmarks.peers import line; "
        "print(sorted({'jax', 'torch', 'fedjax_health', 'scipy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_printed_line_is_parsed_again_whatever_came_before(capsys):
    line.print_line(_line())
    assert line.parse_line("some log\n" + capsys.readouterr().out) == _line()


@pytest.mark.parametrize("output", ["", "no json", '{"system": "x"}', "[1, 2]", "3"])
def test_other_output_is_refused(output):
    with pytest.raises(ValueError, match="no JSON object with the fields system, work"):
        line.parse_line(output)


@pytest.mark.parametrize("rates", ["[]", "[0.0]", "[1.0, -1.0]"])
def test_rates_must_be_positive(rates, capsys):
    line.print_line(_line())
    with pytest.raises(ValueError, match="above 0"):
        line.parse_line(capsys.readouterr().out.replace("[100.0, 100.0]", rates))


def test_measure_times_the_repeats_and_not_the_first(monkeypatch):
    seconds = iter([10.0, 2.0, 4.0])
    monkeypatch.setattr(work, "timed", lambda call: (next(seconds), call()))
    args = argparse.Namespace(work="A1", rounds=4, repeats=2)
    found = line.measure("x", args, work.init_params, {})
    assert found.first_s == 10.0 and found.rates == [200.0, 100.0] and found.memory_mb > 10
    assert found.accuracy == work.accuracy(work.init_params(), work.make_data())


def test_a_peers_command_line_has_only_what_it_heeds(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["peer", "--work", "A2", "--rounds", "3"])
    assert vars(line.parse_arguments("text", repeats=0)) == {"work": "A2", "rounds": 3}
    monkeypatch.setattr(sys, "argv", ["peer", "--rounds", "0"])
    with pytest.raises(SystemExit):
        line.parse_arguments("text")
    assert "--rounds is 0: give at least 1" in capsys.readouterr().err


def test_accuracy_off_by_more_than_a_point_fails():
    compare.check_accuracy("x", _line(accuracy=0.895), 0.9)
    for wrong in (0.889, 0.911, float("nan")):
        with pytest.raises(UserError, match="other work"):
            compare.check_accuracy("x", _line(accuracy=wrong), 0.9)


def test_results_and_table_of_two_systems():
    passes = {"ours": [_line(200.0), _line(100.0), _line(400.0)], "peer": [_line(100.0), _line(25.0), _line(50.0)]}
    found = compare.results(passes, "ours")
    whole = report.make_report("compare", "cpu", {}, found)
    peer = next(result for result in whole["results"] if result["name"] == "peer")
    assert (peer["value"], peer["low"], peer["high"], peer["n"]) == (50.0, 25.0, 100.0, 3)
    assert peer["against"] == "ours" and peer["ratio"] == 0.25  # of 1/2, 1/4, 1/8
    text = compare.table(found)
    assert "| ours ÷ it |" in text and "| peer | 50 [25 – 100] | 4.00 | 1.0 | 300 | 0.9000 |" in text.splitlines()


def _args(**changes):
    return argparse.Namespace(
        **{
            "quick": False,
            "work": "A1",
            "passes": 2,
            "rounds": 50,
            "peers": ["flower"],
            "against": compare.TUNED,
            **changes,
        }
    )


def test_passes_take_the_systems_in_turn_and_slow_ones_fewer_rounds(monkeypatch):
    calls = []

    def run(name, system, name_of_work, rounds):
        calls.append((name, rounds))
        return _line(rounds=rounds, accuracy=0.5 + rounds / 1000)

    monkeypatch.setattr(compare, "run", run)
    monkeypatch.setattr(compare, "installed", lambda environment: True)
    whole = compare.compare(_args())
    one_pass = [(compare.TUNED, 50), ("flower", 4)]
    assert calls == [("reference-plain for 4 rounds", 4), ("reference-plain for 50 rounds", 50), *one_pass, *one_pass]
    assert {result["n"] for result in whole["results"]} == {2}


def test_quick_leaves_out_what_is_not_installed_and_builds_nothing(monkeypatch):
    monkeypatch.setattr(compare, "run", lambda name, system, name_of_work, rounds: _line(rounds=rounds))
    monkeypatch.setattr(compare, "installed", lambda environment: environment == "")
    monkeypatch.setattr(compare, "build", lambda environment: pytest.fail("built"))
    whole = compare.compare(_args(quick=True))
    assert not any(result["name"].startswith("flower") for result in whole["results"])


def test_changed_requirements_are_installed_anew(monkeypatch, tmp_path):
    monkeypatch.setattr(compare, "PEERS", tmp_path)
    for folder in ("requirements", ".envs/x"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "requirements" / "x.txt").write_text("a==1\n")
    assert not compare.installed("x")
    (tmp_path / ".envs/x/requirements.txt").write_text("a==1\n")
    assert compare.installed("x") and compare.installed("")
    (tmp_path / "requirements" / "x.txt").write_text("a==2\n")
    assert not compare.installed("x")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise SystemExit('oh dear')", "oh dear"),
        ("print('nothing')", "gave no rate"),
        ("", "gave no rate"),
        (f"print({json.dumps(_line(rounds=7)._asdict())!r})", "it did 7 of A1"),
    ],
)
def test_a_process_that_fails_is_told_by_name(code, said):
    with pytest.raises(UserError, match=said) as caught:
        compare.run("a peer", compare.System("", ("-c", code), None), "A1", 50)
    assert "a peer" in str(caught.value)


def test_reference_answers_as_a_peer():
    found = compare.run("plain", compare.SYSTEMS[compare.PLAIN], "A1", 2)
    assert found.system == "reference-plain" and found.rounds == 2 and len(found.rates) == 5
    assert set(found.versions) == {"python", "jax", "jaxlib", "numpy"} and found.memory_mb > 50
