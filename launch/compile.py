"""What a run will need, before there are data or devices: python -m launch.compile --config=configs/iot.py [--memory=16GB].

Compiles every training from shapes and prints its work, memory and least time on kinds of devices; the run then finds the
programs in the compilation cache. Evaluation, attacks and the classifiers are not in it, nor is the memory of the compiler.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from absl import flags
from ml_collections import config_flags

from launch.machine import use_all_cores
from launch.messages import option_sentence, sentence

DEVICES = ("local", "a100", "h100", "h200", "tpu_v5e")


def _flags() -> flags.FlagValues:
    """Options of their own, apart from absl's global ones, so that each call starts afresh."""
    own = flags.FlagValues()
    config_flags.DEFINE_config_file("config", "configs/iot.py", "Run configuration.", flag_values=own, lock_config=True)
    flags.DEFINE_string("memory", "", "Refuse what needs more, such as 16GB.", flag_values=own)
    flags.DEFINE_list("device", list(DEVICES), "Kinds of devices to predict times for.", flag_values=own)
    flags.DEFINE_integer("clients", 0, "Data without files: clients before the split.", flag_values=own)
    flags.DEFINE_integer("records", 0, "Data without files: mean records of a client.", flag_values=own)
    flags.DEFINE_integer("most", 0, "Data without files: records of the largest client.", flag_values=own)
    flags.DEFINE_bool("json", False, "One JSON object instead of lines.", flag_values=own)
    flags.DEFINE_bool("help", False, "Shows this.", flag_values=own)
    return own


def _compile(raw: Any, given: dict[str, Any]) -> str:
    from fedjax_health import config as configuration

    config = configuration.from_config_dict(raw)
    if config.quick_compile:  # read when the first device is used, so not too late here
        os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
    import jax

    from fedjax_health.ahead import peaks, predict, shapes, words  # after the devices are set

    limit = words.amount(given["memory"]) if given["memory"] else float("inf")
    kinds = peaks.peaks_of(tuple(given["device"]))
    lines, found = [], []
    for shaped, stages in predict.predict(config, shapes.Assumed(given["clients"], given["records"], given["most"])):
        lines.append(f"{shaped.domain.name}: {shaped.how}")
        found += stages
        lines += [words.describe(p, kinds) for p in stages]
    if found:
        predict.check_memory(found, limit, jax.default_backend() == "cpu")
    if given["json"]:
        return json.dumps([{**p._asdict(), "memory": p.memory._asdict(), "trips": p.trips._asdict()} for p in found])
    return "\n".join(lines or ["nothing is trained"])


def main(argv: list[str]) -> int:
    """The command; what the user can mend is one sentence on stderr and exit code 2.

    Args:
      argv: with the program's name in front.
    """
    from fedjax_health.types import UserError

    own = _flags()
    try:
        rest = own(argv)[1:]
        if own["help"].value:
            print(f"{__doc__}\n{own.get_help()}")
            return 0
        if rest:
            raise UserError(f"unexpected argument {rest[0]!r}; options start with --")
        raw: Any = own["config"].value
        _ = raw.name  # a file that cannot be loaded is reported at the first access
        print(_compile(raw, {name: own[name].value for name in own if not name.startswith("config")}))
        return 0
    except flags.Error as error:
        of_config = "--config" in str(error) or "'config." in str(error)
        message = sentence(error, argv, own) if of_config else option_sentence(error, own)
    except (AttributeError, KeyError, OSError, SyntaxError) as error:
        message = sentence(error, argv, own)
    except UserError as error:
        message = str(error)
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    use_all_cores()
    sys.exit(main(sys.argv))
