"""CTGAN and TVAE for `benchmarks.quality`, in an environment of their own that is built on first use."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import tempfile
from collections.abc import Sequence

import pandas as pd

from benchmarks import compare
from fedjax_health.types import UserError

ENVIRONMENT = "ctgan"
PEERS = ("ctgan", "tvae")
EPOCHS = 300  # their default
TIME_LIMIT = 7200  # seconds of one process


def fit_peer(
    name: str, frame: pd.DataFrame, discrete: Sequence[str], rows: int, seed: int, epochs: int = EPOCHS
) -> tuple[pd.DataFrame, float]:
    """Fits a peer to a frame in a process of its own, default settings, two threads.

    Args:
      name: of `PEERS`.
      frame: training rows.
      discrete: its columns of codes.
      rows: to sample.
      seed: of the peer.
      epochs: of its training.

    Returns:
      (the rows, seconds of the fit alone).

    Raises:
      UserError: its environment cannot be built, it takes too long, or it fails.
    """
    if not compare.installed(ENVIRONMENT):
        compare.build(ENVIRONMENT)
    dropped = ("PYTHONPATH", "XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")
    variables = {key: value for key, value in os.environ.items() if key not in dropped} | {"CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryDirectory() as folder:
        train, out = (str(pathlib.Path(folder) / f"{what}.csv") for what in ("train", "made"))
        frame.to_csv(train, index=False)
        command = [compare.python(ENVIRONMENT), "-m", "benchmarks.peers.ctgan_tables", "--model", name]
        command += ["--train", train, "--out", out, "--rows", str(rows), "--epochs", str(epochs), "--seed", str(seed)]
        command += ["--discrete", *discrete]
        try:
            done = subprocess.run(
                command, cwd=compare.ROOT, env=variables, capture_output=True, text=True, timeout=TIME_LIMIT
            )
        except subprocess.TimeoutExpired as error:
            raise UserError(
                f"{name} took over {TIME_LIMIT} s; give fewer --peer-epochs or leave --peers out"
            ) from error
        if done.returncode:
            raise UserError(f"{name} ended with status {done.returncode}; it said:\n{done.stderr[-2000:]}")
        seconds = float(json.loads(done.stdout.strip().rsplit("\n", 1)[-1])["seconds"])
        return pd.read_csv(out), seconds
