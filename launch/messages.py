"""What absl and ml_collections mean when they refuse a command line, in one sentence for its author."""

from __future__ import annotations

import difflib
import re

from absl import flags

from configs import base  # every scenario has its keys


def sentence(error: Exception, argv: list[str], known: flags.FlagValues = flags.FLAGS) -> str:
    """The mistake behind an exception of flag parsing or of loading a config file.

    Args:
      error: what absl, ml_collections or the config file raised.
      argv: the command line.
      known: the command's options, "config" among them.

    Returns:
      One sentence that names the option or key, its value and the remedy.
    """

    for path in (a.lstrip("-").split("=")[0].split(".")[1:] for a in argv if re.match("--?config[.]", a)):
        node = base.get_config()
        for depth, key in enumerate(path, 1):
            if key not in node:
                near = difflib.get_close_matches(key, list(node), 1, 0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(node) or 'no keys'}"
                return f"unknown config key {'.'.join(path[:depth])!r}; {hint}"
            node = node[key] if isinstance(node[key], type(node)) else {}
        if node:
            return f"config key {'.'.join(path)!r} is a section; set one of its keys: {', '.join(node)}"
    text = " ".join(str(error).split())  # the message may be a whole traceback
    if isinstance(error, (OSError, SyntaxError)):
        file = re.search(r"--?config[= ](\S+)", " ".join(argv) + " --config configs/iot.py")
        fault = f"no Python in line {error.lineno}" if isinstance(error, SyntaxError) else "no file that can be read"
        return f"config file {file and file[1]!r} is {fault}; give one such as configs/iot.py"
    if isinstance(error, flags.UnrecognizedFlagError):
        return f"unknown option --{error.flagname}; the options are --config, --config.<key> and --workdir"
    if value := re.match(r"flag --config[.]([\w.]+)=(.*?): ", text):
        kind = type(known[f"config.{value[1]}"].default).__name__
        return f"config key {value[1]!r} must be {kind}, got {value[2]!r}"
    if "positional argument" in text:
        return f"{text.split(': ')[0]} names a variant, but that file has none; leave it out"
    return text.split(" ValueError: ")[-1] if " ValueError: " in text else str(error)  # a config refuses a variant so


def option_sentence(error: flags.Error, known: flags.FlagValues) -> str:
    """The mistake behind an exception of flag parsing, for a command without a config.

    Args:
      error: what absl raised.
      known: the command's options.

    Returns:
      One sentence that names the option, its value and the remedy.
    """
    if isinstance(error, flags.UnrecognizedFlagError):
        near = difflib.get_close_matches(error.flagname, list(known), 1, 0.5)
        hint = f"did you mean --{near[0]}?" if near else f"the options are --{', --'.join(known)}"
        return f"unknown option --{error.flagname}; {hint}"
    if value := re.match(r"flag --(\w+)=(.*?): ", str(error)):
        kind = {"int": "a whole number", "float": "a number", "bool": "true or false"}
        return f"--{value[1]} must be {kind[known[value[1]].flag_type()]}, got {value[2]!r}"
    return str(error)
