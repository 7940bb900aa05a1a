"""A run's folder: whose it is, what state it is in, and what made it."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import subprocess
import sys
from typing import Any

import jax

from fedjax_health.config import Config, to_json
from fedjax_health.files import write_text
from fedjax_health.sections import first_difference
from fedjax_health.types import UserError

PACKAGES = (
    "fedjax_health",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "dp-accounting",
    "numpy",
    "scikit-learn",
)


def open_workdir(path: str, config: Config) -> None:
    """Makes the folder, or checks that the run in it has the same config, so that it can go on.

    Args:
      path: the run's folder.
      config: this run.

    Raises:
      UserError: the folder holds another config (says where they first differ), or cannot be written.
    """
    identity = to_json(config)
    saved = os.path.join(path, "config.json")
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise UserError(f"workdir {path!r} cannot be made ({error.strerror}); give another with --workdir") from error
    if os.path.exists(saved):
        with open(saved, encoding="utf-8") as file:
            try:
                old = json.load(file)
            except json.JSONDecodeError as error:
                raise UserError(
                    f"{saved!r} is not JSON ({error.msg}); remove the folder or give another --workdir"
                ) from error
        difference = first_difference(old, json.loads(identity))
        if difference:
            raise UserError(
                f"workdir {path!r} holds a run of another config ({difference}); give another --workdir or remove it"
            )
    elif os.listdir(path):
        raise UserError(f"workdir {path!r} is not empty and holds no run; give another with --workdir")
    else:
        write_text(saved, identity)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"  # run from a checkout that was not pip-installed


def _commit() -> str:
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    try:
        answer = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return answer.stdout.strip() if answer.returncode == 0 else "unknown"


def manifest(config: Config) -> dict[str, Any]:
    """What made this run, with its seeds.

    Args:
      config: the run.
    """
    return provenance(list(range(config.seeds)), config.seed)


def provenance(seeds: list[int], seed: int) -> dict[str, Any]:
    """Versions, commit, device, seeds, start time, and places for what comes later.

    Args:
      seeds: repeats side by side.
      seed: that all of them are derived from.
    """
    from fedjax_health import __version__

    versions = {package: _version(package) for package in PACKAGES} | {"python": sys.version.split()[0]}
    versions["fedjax_health"] = __version__
    device = jax.devices()[0]
    return {
        "status": "running",
        "versions": versions,
        "commit": _commit(),
        "device": f"{jax.device_count()} x {device.platform} ({device.device_kind}), {os.cpu_count()} cores",
        "seeds": seeds,
        "seed": seed,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": {},
        "notes": {},
    }


def write_manifest(path: str, content: dict[str, Any]) -> None:
    """Writes manifest.json whole.

    Args:
      path: the run's folder.
      content: the manifest.
    """
    write_text(os.path.join(path, "manifest.json"), json.dumps(content, indent=2) + "\n")
