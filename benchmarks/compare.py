"""The same work in this project and in its peers, in turn, on the CPU.

`python -m benchmarks.compare [--quick] [--out FILE] [--work A1] [--passes 5] [--rounds 50] [--peers fedjax,flower]` builds
each peer's environment under benchmarks/peers/.envs on first use (minutes, 4 GB), then runs all systems one after the other,
five times over, each in a process of its own, so that the machine's noise hits all alike. A figure is the median of the
passes; a ratio is the median of the passes' ratios. Every system must reach the plain reference's accuracy after as many
rounds, to within a point, else nothing is reported. --quick takes the environments that exist, and one short pass.

Systems that take minutes for 50 rounds run fewer: a client update costs them the same in every round.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
from typing import NamedTuple

from benchmarks import report, work
from benchmarks.peers.line import Line, parse_line
from fedjax_health.types import UserError

ROOT = pathlib.Path(__file__).parents[1]
PEERS = ROOT / "benchmarks" / "peers"
TOLERANCE = 0.01  # of accuracy: one point
TIME_LIMIT = 900  # seconds of one process


class System(NamedTuple):
    """One system, as a process that prints a `Line`.

    Attributes:
      environment: of the peers' environments; "" is the interpreter that runs this.
      command: arguments of the interpreter, before --work and --rounds.
      updates: about how many client updates a repeat may take; None for the whole work.
    """

    environment: str
    command: tuple[str, ...]
    updates: int | None


def _reference(variant: str) -> System:
    return System("", ("-m", "benchmarks.reference", "--repeats", "5", "--peer-line", variant), None)


OURS, TUNED, PLAIN = "fedjax_health", "reference-tuned", "reference-plain"
SYSTEMS = {
    OURS: System("", ("-m", "benchmarks.throughput", "--peer-line"), None),
    PLAIN: _reference("plain"),
    TUNED: _reference("tuned"),
    "fedjax": System("fedjax", ("-m", "benchmarks.peers.fedjax", "--repeats", "1"), None),
    "torch_vmap": System("torch", ("-m", "benchmarks.peers.torch_vmap", "--repeats", "1"), None),
    "torch_loop": System("torch", ("-m", "benchmarks.peers.torch_loop", "--repeats", "1"), 10_000),
    "pfl": System("pfl", ("-m", "benchmarks.peers.pfl", "--repeats", "1"), 5_000),
    "flower": System("flower", ("-m", "benchmarks.peers.flower"), 400),
}


def python(environment: str) -> str:
    """Path of an environment's interpreter, whether it exists or not.

    Args:
      environment: as in `System`.
    """
    return str(PEERS / ".envs" / environment / "bin" / "python") if environment else sys.executable


def installed(environment: str) -> bool:
    """Whether an environment holds what its requirements file says now.

    Args:
      environment: as in `System`.
    """
    if not environment:
        return True
    built = PEERS / ".envs" / environment / "requirements.txt"
    return built.exists() and built.read_text() == (PEERS / "requirements" / f"{environment}.txt").read_text()


def build(environment: str) -> None:
    """Makes an environment anew with Python 3.11, and installs its requirements.

    Args:
      environment: as in `System`.

    Raises:
      UserError: there is no Python 3.11, or pip fails.
    """
    interpreter = sys.executable if sys.version_info[:2] == (3, 11) else shutil.which("python3.11")
    if interpreter is None:
        raise UserError(
            "the peers need python3.11, which is not on the PATH: install it, or leave them out with --peers="
        )
    print(f"building the environment {environment}", file=sys.stderr, flush=True)
    requirements = PEERS / "requirements" / f"{environment}.txt"
    folder = PEERS / ".envs" / environment
    for command in (
        [interpreter, "-m", "venv", "--clear", str(folder)],
        [python(environment), "-m", "pip", "install", "--quiet", "-r", str(requirements)],
    ):
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if result.returncode:
            raise UserError(
                f"{' '.join(command)} failed; mend what it says or leave the peer out:\n{result.stderr[-2000:]}"
            )
    # last, so that a build that broke off is not taken for a whole one
    shutil.copyfile(requirements, folder / "requirements.txt")


def run(name: str, system: System, name_of_work: str, rounds: int) -> Line:
    """One process of a system.

    Args:
      name: the system's.
      system: to be run.
      name_of_work: "A1" or "A2".
      rounds: training rounds of a repeat.

    Raises:
      UserError: the process fails, or its last line is none.
    """
    dropped = ("PYTHONPATH", "XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")
    environment = {key: value for key, value in os.environ.items() if key not in dropped}
    environment |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}  # the peers' builds are the CPU's
    command = [python(system.environment), *system.command, "--work", name_of_work]
    command += [] if rounds == work.ROUNDS else ["--rounds", str(rounds)]
    try:
        result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{name} took over {TIME_LIMIT} s: give fewer --rounds, or leave it out of --peers") from error
    try:
        if result.returncode:
            raise ValueError(f"it ended with status {result.returncode}")
        line = parse_line(result.stdout)
        if (line.work, line.rounds) != (name_of_work, rounds):
            raise ValueError(f"asked for {rounds} rounds of {name_of_work}, it did {line.rounds} of {line.work}")
    except ValueError as error:
        raise UserError(f"{name} gave no rate: {error}; it said:\n{result.stderr[-2000:]}") from error
    print(f"{name}: {statistics.median(line.rates):,.0f} updates/s, accuracy {line.accuracy:.4f}", file=sys.stderr)
    return line


def check_accuracy(name: str, line: Line, expected: float) -> None:
    """Checks that a system did the work.

    Args:
      name: the system's.
      line: what it gave.
      expected: accuracy of the plain reference after as many rounds.

    Raises:
      UserError: they differ by more than a point.
    """
    if not abs(line.accuracy - expected) <= TOLERANCE:
        raise UserError(
            f"{name} has accuracy {line.accuracy:.4f} after {line.rounds} rounds of {line.work}, and the plain reference "
            f"{expected:.4f}: it does other work, so that its rate compares with nothing; mend it or leave it out of --peers"
        )


def results(lines: dict[str, list[Line]], against: str) -> list[dict]:
    """Results of all systems: rate, first run, memory and accuracy.

    Args:
      lines: of each system, one a pass, in the order of the passes.
      against: the system with which the others' rates are compared.
    """
    rates = {name: [statistics.median(line.rates) for line in passes] for name, passes in lines.items()}
    found = []
    for name, passes in lines.items():
        base = {} if name == against else {"against": against, "baseline": rates[against]}
        found += [
            report.make_result(name, rates[name], "updates/s", **base),
            report.make_result(f"{name} first", [line.first_s for line in passes], "s"),
            report.make_result(f"{name} memory", [line.memory_mb for line in passes], "MB"),
            report.make_result(f"{name} accuracy", [line.accuracy for line in passes], "share"),
        ]
    return found


def table(found: list[dict]) -> str:
    """The results as a table in Markdown.

    Args:
      found: of `results`.
    """
    figures = {result["name"]: result for result in found}
    against = next((result["against"] for result in found if "against" in result), "-")
    rows = [
        f"| system | client updates/s | {against} ÷ it | start s | peak MB | accuracy |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in [result["name"] for result in found if result["unit"] == "updates/s"]:
        rate, first, memory, score = (figures[name + kind] for kind in ("", " first", " memory", " accuracy"))
        times = 1.0 / rate.get("ratio", 1.0)
        rows.append(
            f"| {name} | {rate['value']:,.0f} [{rate['low']:,.0f} – {rate['high']:,.0f}] | {times:,.2f} "
            f"| {first['value']:.1f} | {memory['value']:,.0f} | {score['value']:.4f} |"
        )
    return "\n".join(rows)


def parse() -> argparse.Namespace:
    """Command line."""
    peers = [
        name for name in SYSTEMS if name != OURS
    ]  # ours is always there, unless --against puts another in its place
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one pass, installed peers only, fewer rounds of the slow")
    parser.add_argument("--out", help="file for the JSON object")
    parser.add_argument("--work", choices=sorted(work.COHORT), default="A1")
    parser.add_argument("--passes", type=int, help="over all systems (default 5; 1 if quick)")
    parser.add_argument("--rounds", type=int, default=work.ROUNDS, help="most training rounds of a repeat")
    parser.add_argument("--peers", default=",".join(peers), help="which, such as fedjax,flower")
    parser.add_argument("--against", choices=(OURS, TUNED), default=OURS, help="the system to compare the others with")
    args = parser.parse_args()
    args.peers = [name for name in args.peers.split(",") if name]
    if unknown := set(args.peers) - set(peers):
        parser.error(f"--peers names {sorted(unknown)}; known are {', '.join(peers)}")
    if args.rounds < 2:
        parser.error(f"--rounds is {args.rounds}: give at least 2, since Flower's first round is not counted")
    args.passes = args.passes or (1 if args.quick else 5)
    return args


def compare(args: argparse.Namespace) -> dict:
    """The report of the whole comparison.

    Args:
      args: of `parse`.

    Raises:
      UserError: a build, a run or a system's accuracy fails.
    """
    chosen = {name: SYSTEMS[name] for name in dict.fromkeys([args.against, *args.peers])}
    if args.quick:
        chosen = {name: system for name, system in chosen.items() if installed(system.environment)}
    for environment in dict.fromkeys(system.environment for system in chosen.values()):
        if not installed(environment):
            build(environment)
    size, share = work.COHORT[args.work], 8 if args.quick else 1

    def rounds(system: System) -> int:
        return args.rounds if system.updates is None else min(args.rounds, max(2, system.updates // share // size))

    expected = {
        number: run(f"{PLAIN} for {number} rounds", SYSTEMS[PLAIN], args.work, number).accuracy
        for number in sorted({rounds(system) for system in chosen.values()})
    }
    lines: dict[str, list[Line]] = {name: [] for name in chosen}
    for _ in range(args.passes):
        for name, system in chosen.items():
            line = run(name, system, args.work, rounds(system))
            check_accuracy(name, line, expected[rounds(system)])
            lines[name].append(line)
    found = {f"{name}/{key}": value for name, passes in lines.items() for key, value in passes[0].versions.items()}
    return report.make_report(f"compare {args.work}", report.host(), found, results(lines, args.against))


def main() -> None:
    """Compares, prints the table, and the report as the last line."""
    args = parse()
    try:
        whole = compare(args)
    except UserError as error:
        sys.exit(f"error: {error}")
    print(table(whole["results"]))
    report.finish(whole, args.out)


if __name__ == "__main__":
    main()
