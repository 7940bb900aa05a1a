"""Judges synthetic tables of any origin:

python -m launch.evaluate --real=train.csv --holdout=test.csv --synthetic=syn.csv --label=outcome --out=judged
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from absl import flags

from launch.command import run_command

_NEEDED = ("real", "holdout", "synthetic", "out")


def _flags() -> flags.FlagValues:
    """Options of their own, apart from absl's global ones, so that each call starts afresh."""
    own = flags.FlagValues()
    text, several = flags.DEFINE_string, flags.DEFINE_multi_string
    text("real", None, "CSV or Parquet file of the rows that the generator learned from.", flag_values=own)
    text("holdout", None, "File of real rows, drawn alike, that it never saw.", flag_values=own)
    several("synthetic", None, "File to judge, or NAME=FILE; repeat it to compare several.", flag_values=own)
    text("out", None, "Folder to make.", flag_values=own)
    text(
        "schema", "", "Schema of the columns (JSON); inferred and written to the folder if not given.", flag_values=own
    )
    text("label", "", "Column of the class; needed without a schema.", flag_values=own)
    text("client", "", "Column of whose row it is; without one each row is its own.", flag_values=own)
    several("group", [], "Column by which fairness is reported; may be repeated.", flag_values=own)
    text("encoding", "utf-8", "Of text files, such as cp1252.", flag_values=own)
    flags.DEFINE_integer("seed", 0, "Of every choice by chance.", lower_bound=0, flag_values=own)
    flags.DEFINE_bool("help", False, "Shows this.", flag_values=own)
    return own


def _judge(given: dict[str, Any]) -> str:
    from fedjax_health import judge

    given |= {"synthetic": judge.named(given["synthetic"]), "groups": tuple(given["group"])}
    return judge.judge(judge.Request(**{name: given[name] for name in judge.Request._fields}), given["out"])


def main(argv: list[str]) -> int:
    """The command; what the user can mend is one sentence on stderr and exit code 2.

    Args:
      argv: with the program's name in front.
    """
    return run_command(argv, _flags(), __doc__, _NEEDED, _judge)


if __name__ == "__main__":
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    own = logging.getLogger("fedjax_health")
    own.handlers, own.propagate = [handler], False
    own.setLevel(logging.INFO)
    sys.exit(main(sys.argv))
