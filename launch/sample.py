"""More rows of a run: python -m launch.sample --run=runs/iot --domain=vitals --model=vae --rows=1000000 --out=rows.csv."""

from __future__ import annotations

import difflib
import os
import sys
from typing import Any

from absl import flags

from launch.command import run_command
from launch.machine import use_all_cores

_NEEDED = ("run", "domain", "model", "rows", "out")


def _flags() -> flags.FlagValues:
    """Options of their own, apart from absl's global ones, so that each call starts afresh."""
    own = flags.FlagValues()
    text, whole = flags.DEFINE_string, flags.DEFINE_integer
    text("run", None, "Folder of a run, or its synthetic/ alone.", flag_values=own)
    text("domain", None, "Domain of the run, such as vitals.", flag_values=own)
    text("model", None, "Model of the run, such as vae.", flag_values=own)
    whole("rows", None, "How many to draw.", flag_values=own)
    text("out", None, "File to write, .parquet or .csv; one of that name is replaced.", flag_values=own)
    text("where", "", "What rows must be like: condition=stable,sex=female,heart_rate=60..100.", flag_values=own)
    whole("seed", 0, "Another seed, other rows.", flag_values=own)
    flags.DEFINE_bool("help", False, "Shows this.", flag_values=own)
    return own


def find(run: str, domain: str, model: str) -> str:
    """Path of a run's generator file.

    Args:
      run: the run's folder, or its synthetic/ alone.
      domain, model: which.

    Raises:
      UserError: there is none; says which there are.
    """
    from fedjax_health.synthesis.generator_file import ENDING
    from fedjax_health.types import UserError

    folder = next((f for f in (os.path.join(run, "synthetic"), run) if os.path.isdir(f)), None)
    if folder is None:
        raise UserError(f"--run={run}: no such folder; give the folder of a run")
    path = os.path.join(folder, f"{domain}_{model}{ENDING}")
    if not os.path.isfile(path):
        there = sorted(f.removesuffix(ENDING) for f in os.listdir(folder) if f.endswith(ENDING))
        if not there:
            raise UserError(f"{folder} holds no generator; repeat the run's command, which ends by publishing it")
        wanted = f"{domain}_{model}"
        near = difflib.get_close_matches(wanted, there, 1) or there[:1]
        raise UserError(
            f"{folder} holds no generator {wanted!r}; the nearest is {near[0]!r} (there: {', '.join(there)})"
        )
    return path


def _sample(given: dict[str, Any]) -> str:
    from fedjax_health.synthesis.generator import load_generator, sampling_key
    from fedjax_health.synthesis.write import check_target, write_tables

    check_target(given["out"])
    domain, model = given["domain"], given["model"]
    generator = load_generator(find(given["run"], domain, model))
    rows = generator.stream(given["rows"], sampling_key(given["seed"], domain, model), given["where"])
    write_tables(rows, generator.schema, given["out"])
    return given["out"]


def main(argv: list[str]) -> int:
    """The command; what the user can mend is one sentence on stderr and exit code 2.

    Args:
      argv: with the program's name in front.
    """
    return run_command(argv, _flags(), __doc__, _NEEDED, _sample)


if __name__ == "__main__":
    use_all_cores()
    sys.exit(main(sys.argv))
