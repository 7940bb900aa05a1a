"""How a system among peers is asked and answers: its command line, and one JSON line; NumPy alone, as `benchmarks.work`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import NamedTuple

from benchmarks import work


class Line(NamedTuple):
    """What one process of one system measured; printed as one JSON line, the last of its output.

    Attributes:
      system: its name.
      work: "A1" or "A2".
      rounds: training rounds of a repeat.
      rates: client updates a second of each repeat, after a first run that is not counted (or a first round, where a
        run costs too much).
      first_s: seconds of that first run or round, compilation included.
      accuracy: on the test set after `rounds` rounds, in [0, 1].
      memory_mb: peak resident memory, child processes included.
      versions: version of each package that matters.
    """

    system: str
    work: str
    rounds: int
    rates: list[float]
    first_s: float
    accuracy: float
    memory_mb: float
    versions: dict[str, str]


def print_line(line: Line) -> None:
    """Prints the line as JSON.

    Args:
      line: to be printed.
    """
    print(json.dumps(line._asdict()), flush=True)


def parse_line(output: str) -> Line:
    """Line from what a process printed.

    Args:
      output: its standard output.

    Raises:
      ValueError: the last line is not such a JSON object, or its rates are not positive.
    """
    last = output.strip().rsplit("\n", 1)[-1]
    try:
        line = Line(**json.loads(last))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{last!r} is no JSON object with the fields {', '.join(Line._fields)}") from error
    if not line.rates or min(line.rates) <= 0:
        raise ValueError(f"the rates of {line.system} are {line.rates}: give at least one, all above 0")
    return line


def parse_arguments(
    description: str | None, rounds: int = work.ROUNDS, repeats: int = 3, threads: int = 0
) -> argparse.Namespace:
    """Command line of a peer: --work, --rounds, and --repeats and --threads where their defaults are not 0.

    Args:
      description: shown by --help.
      rounds, repeats, threads: defaults; what is given must be at least 1.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--work", choices=sorted(work.COHORT), default="A1")
    numbers = {
        "rounds": (rounds, "training rounds of a repeat"),
        "repeats": (repeats, "timed repeats in this process"),
        "threads": (threads, "of PyTorch"),
    }
    for name, (default, text) in numbers.items():
        if default:
            parser.add_argument(f"--{name}", type=int, default=default, help=text)
    args = parser.parse_args()
    if low := [name for name in numbers if getattr(args, name, 1) < 1]:
        parser.error(f"--{low[0]} is {getattr(args, low[0])}: give at least 1")
    return args


def measure(system: str, args: argparse.Namespace, run: Callable[[], work.Layers], versions: dict[str, str]) -> Line:
    """Runs a system once uncounted and then `args.repeats` times: what most peers do.

    Args:
      system: its name.
      args: of `parse_arguments`.
      run: all rounds from the initial parameters; waits for its result and gives the final layers.
      versions: of its packages.
    """
    with work.peak_memory() as peak:
        first, params = work.timed(run)
        seconds = []
        for _ in range(args.repeats):
            elapsed, params = work.timed(run)
            seconds.append(elapsed)
        updates = work.COHORT[args.work] * args.rounds
        rates = [updates / elapsed for elapsed in seconds]
        score = work.accuracy(params, work.make_data())
        return Line(system, args.work, args.rounds, rates, first, score, peak(), versions)
