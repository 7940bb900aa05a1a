"""One command from a config to a report: python -m launch.main --config=configs/iot.py [--workdir=DIR] [--config.key=value]."""

from __future__ import annotations

import logging as stdlib_logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from launch.machine import use_all_cores
from launch.messages import sentence

_CONFIG = config_flags.DEFINE_config_file("config", "configs/iot.py", "Run configuration.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run, by default runs/<name>; the same again goes on.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "Several processes: host:port of the first, where it listens.")
_PROCESSES = flags.DEFINE_integer("num_processes", None, "Several processes: how many.")
_PROCESS = flags.DEFINE_integer("process_id", None, "Several processes: which this is, from 0.")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Several processes of a cluster that JAX knows (Slurm, MPI, TPU)."
)
LOG = stdlib_logging.getLogger("fedjax_health")


def main(_: list[str]) -> None:
    """Sets up devices and runs the experiment, alone or together with other processes."""
    from fedjax_health.federated import distributed

    use_all_cores()
    address = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    several = _DISTRIBUTED.value or any(value is not None for value in address)
    with distributed.together(several):
        report = _run((lambda: distributed.connect(*address)) if several else lambda: None)
    if report is not None:
        print(report)


def _run(connect: Callable[[], None]) -> str | None:
    """The run; what the user can mend is one sentence and exit code 2."""
    from fedjax_health import config as configuration
    from fedjax_health.types import UserError

    try:
        config = configuration.from_config_dict(_CONFIG.value)
        if config.quick_compile:  # read when the first device is used, so not too late here
            os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
        connect()
        from fedjax_health import experiment, streams  # after the devices are set

        run = streams.run if streams.has_streams(config) else experiment.run
        return run(config, _WORKDIR.value or os.path.join("runs", config.name))
    except UserError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted; the same command goes on from the last checkpoint")


def _fail(sentence: str) -> NoReturn:
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)


def _parse(argv: list[str]) -> list[str]:
    """Parses flags, and with them the config file; a bad one is one sentence and exit code 2, too."""
    try:
        rest = flags.FLAGS(argv)
        _ = _CONFIG.value.name  # a file that cannot be loaded is reported at the first access
    except (flags.Error, AttributeError, KeyError, OSError, SyntaxError) as error:
        _fail(sentence(error, argv))
    if len(rest) > 1:
        _fail(f"unexpected argument {rest[1]!r}; options start with -- and take their value after =")
    return rest


def console() -> None:
    """Entry point: logging, flags, `main`."""
    logging.set_verbosity(logging.WARNING)  # orbax reports every rename at INFO
    handler = stdlib_logging.StreamHandler()
    handler.setFormatter(stdlib_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    LOG.handlers, LOG.propagate = [handler], False
    LOG.setLevel(stdlib_logging.INFO)
    app.run(main, flags_parser=_parse)


if __name__ == "__main__":
    console()
