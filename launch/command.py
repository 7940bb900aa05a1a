"""What every command without a config does: options, help, what is missing, one sentence and exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from launch.messages import option_sentence


def run_command(
    argv: list[str],
    options: flags.FlagValues,
    about: str | None,
    needed: Sequence[str],
    work: Callable[[dict[str, Any]], str],
    also: str = "",
) -> int:
    """Reads the options, does the work and prints what it says; what the user can mend is one sentence on stderr.

    Args:
      argv: with the program's name in front.
      options: the command's own, "help" among them.
      about: the command's docstring, which --help shows.
      needed: names of options that must be given.
      work: values of all options by name -> text for stdout.
      also: end of the sentence about a missing option.

    Returns:
      Exit code, 0 or 2.
    """
    from fedjax_health.types import UserError

    try:
        rest = options(argv)[1:]
        if options["help"].value:
            print(f"{about}\n{options.get_help()}")
            return 0
        given: dict[str, Any] = {name: options[name].value for name in options}
        for name in needed:
            if given[name] in (None, "", []):
                raise UserError(f"--{name} is missing; give {also or '--' + ', --'.join(needed)}")
        if rest:
            raise UserError(f"unexpected argument {rest[0]!r}; options start with --")
        print(work(given))
    except flags.Error as error:
        print(f"error: {option_sentence(error, options)}", file=sys.stderr)
        return 2
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted; nothing was written", file=sys.stderr)
        return 2
    return 0
