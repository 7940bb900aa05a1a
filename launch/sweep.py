"""Many runs of neighbouring configs, those that differ in numbers alone by one compiled program:

python -m launch.sweep --config=configs/sweeps/frontier.py:smoke
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from launch.command import run_command
from launch.machine import use_all_cores

ENGINES = ("local", "ray")


def _flags() -> flags.FlagValues:
    """Options of their own, apart from absl's global ones, so that each call starts afresh."""
    own = flags.FlagValues()
    flags.DEFINE_string("config", None, "Sweep configuration, FILE or FILE:VARIANT.", flag_values=own)
    flags.DEFINE_string(
        "workdir", None, "Folder, by default runs/sweeps/<name>; the same again goes on.", flag_values=own
    )
    flags.DEFINE_string("engine", "local", f"Who runs the pieces: {', '.join(ENGINES)}.", flag_values=own)
    flags.DEFINE_integer("cpus_a_worker", 0, "Ray: cores of a worker; 0 = all of a host.", flag_values=own)
    flags.DEFINE_string("address", "", "Ray: a running cluster, HOST:PORT or auto; none = here.", flag_values=own)
    flags.DEFINE_bool("list", False, "Shows the pieces, and runs none.", flag_values=own)
    flags.DEFINE_integer("piece", None, "Runs this piece of the list alone, from 0; no table.", flag_values=own)
    flags.DEFINE_bool("help", False, "Shows this.", flag_values=own)
    return own


def _sweep(given: dict[str, Any]) -> str:
    from fedjax_health.sweep import design, pieces
    from fedjax_health.types import UserError

    sweep = pieces.load_file(given["config"])
    if not isinstance(sweep, design.Sweep):
        raise UserError(
            f"--config={given['config']} is no sweep; give one of configs/sweeps, or use launch.main for a run"
        )
    design.check(sweep)
    if given["engine"] not in ENGINES:
        raise UserError(f"--engine={given['engine']} is not one of {', '.join(ENGINES)}; give one of them")
    if pieces.load_file(sweep.config).quick_compile:  # read when the first device is used, so not too late here
        os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
    from fedjax_health.sweep import run_sweep  # after the devices are set
    from fedjax_health.sweep.engines.local import run_local

    folder = given["workdir"] or os.path.join("runs", "sweeps", sweep.name)
    engine = run_local
    if given["engine"] == "ray":
        from fedjax_health.sweep.engines.ray import make_ray

        engine = make_ray(given["cpus_a_worker"], given["address"])
    if not given["list"] and given["piece"] is None:
        return run_sweep.run_sweep(sweep, folder, engine)
    run_sweep.open_folder(sweep, folder)
    found = run_sweep.first_pieces(sweep, folder)
    if given["list"]:
        return _listed(found, folder)
    if not 0 <= given["piece"] < len(found):
        raise UserError(f"--piece={given['piece']} is not one of the {len(found)} pieces; give 0 to {len(found) - 1}")
    engine([found[given["piece"]]], folder)
    return pieces.result_path(found[given["piece"]], folder)


def _listed(found: Sequence[Any], folder: str) -> str:
    """A line a piece: number, name, runs, whether it is done."""
    from fedjax_health.sweep.pieces import is_done

    return "\n".join(
        f"{k}  {piece.name}  {len(piece.points)} points{'  done' if is_done(piece, folder) else ''}"
        for k, piece in enumerate(found)
    )


def main(argv: list[str]) -> int:
    """The command; what the user can mend is one sentence on stderr and exit code 2.

    Args:
      argv: with the program's name in front.
    """
    return run_command(argv, _flags(), __doc__, ("config",), _sweep)


if __name__ == "__main__":
    use_all_cores()
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    own = logging.getLogger("fedjax_health")
    own.handlers, own.propagate = [handler], False
    own.setLevel(logging.INFO)
    sys.exit(main(sys.argv))
