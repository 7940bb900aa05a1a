"""Judges synthetic tables of any origin:

python -m launch.evaluate --real=train.csv --holdout=test.csv --synthetic=syn.csv --label=outcome --out=judged
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from absl import flags

from launch.messages import option_sentence

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


def main(argv: list[str]) -> int:
    """The command; what the user can mend is one sentence on stderr and exit code 2.

    Args:
      argv: with the program's name in front.
    """
    options = _flags()
    from fedjax_health.types import UserError

    try:
        rest = options(argv)[1:]
        if options["help"].value:
            print(f"{__doc__}\n{options.get_help()}")
            return 0
        given: dict[str, Any] = {name: options[name].value for name in options}
        for name in _NEEDED:
            if not given[name]:
                raise UserError(f"--{name} is missing; give --{', --'.join(_NEEDED)}")
        if rest:
            raise UserError(f"unexpected argument {rest[0]!r}; options start with --")
        from fedjax_health import judge

        given |= {"synthetic": judge.named(given["synthetic"]), "groups": tuple(given["group"])}
        report = judge.judge(judge.Request(**{name: given[name] for name in judge.Request._fields}), given["out"])
    except flags.Error as error:
        print(f"error: {option_sentence(error, options)}", file=sys.stderr)
        return 2
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted; nothing was written", file=sys.stderr)
        return 2
    print(report)
    return 0


if __name__ == "__main__":
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    own = logging.getLogger("fedjax_health")
    own.handlers, own.propagate = [handler], False
    own.setLevel(logging.INFO)
    sys.exit(main(sys.argv))
