"""One command from a config to a report: python -m launch.main --config=configs/iot.py [--workdir=DIR] [--config.key=value]."""

from __future__ import annotations

import logging as stdlib_logging
import os
import sys

from absl import app, flags, logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", "configs/iot.py", "Run configuration.", lock_config=True)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; runs/<name> by default. An interrupted run goes on."
)


LOG = stdlib_logging.getLogger("fedjax_health")


def main(argv: list[str]) -> None:
    """Sets up devices and runs the experiment; what the user can mend is one sentence and exit code 2."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; options start with --")
    import jax

    from fedjax_health import config as configuration
    from fedjax_health.types import UserError

    # one XLA device a core: a single CPU device hardly uses the second core
    jax.config.update(
        "jax_num_cpu_devices", len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR") or os.path.join(
        os.path.expanduser("~"), ".cache", "fedjax_health", "xla"
    )
    jax.config.update("jax_compilation_cache_dir", cache)
    try:
        config = configuration.from_config_dict(_CONFIG.value)
        from fedjax_health import experiment

        report = experiment.run(config, _WORKDIR.value or os.path.join("runs", config.name))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(report)


def console() -> None:
    """Parses flags and runs `main`; a bad flag is one sentence and exit code 2, too."""
    logging.set_verbosity(logging.WARNING)  # orbax reports every rename at INFO
    handler = stdlib_logging.StreamHandler()
    handler.setFormatter(stdlib_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    LOG.addHandler(handler)
    LOG.setLevel(stdlib_logging.INFO)
    LOG.propagate = False
    try:
        app.run(main)
    except (AttributeError, TypeError, ValueError, KeyError) as error:
        if flags.FLAGS.is_parsed():
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    console()
