"""Pieces on Ray workers give the table of one process: undisturbed, with a worker killed, with the driver killed and restarted.

Needs `pip install -e '.[dev,sweep]'`. Each part starts clusters of its own, which listen on the loopback interface alone.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pandas as pd
import pytest

from fedjax_health.sweep.pieces import make_pieces, result_path

ROOT = pathlib.Path(__file__).parents[2]
COMMON = (
    ("data.domains", ("vitals",)),
    ("models", ("vae",)),
    ("seeds", 1),
    ("data.num_clients", 80),
    ("vae.train.cohort", 20),
    ("vae.train.batch_size", 8),
    ("vae.train.rounds", 10),
    ("classifier.train.batch_size", 8),
    ("privacy.mechanism", "none"),
    ("attacks.generators", 0),
)
RATES = (0.01, 0.02, 0.03)
DRIVER = """
import logging, sys
import jax
jax.config.update("jax_num_cpu_devices", 1)
jax.config.update("jax_compilation_cache_dir", sys.argv[3])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
logging.basicConfig(level=logging.INFO)
from fedjax_health.sweep.engines.local import run_local
from fedjax_health.sweep.engines.ray import make_ray
from tests.sweep.test_ray import pieces
engine = run_local if sys.argv[1] == "local" else make_ray(1)
engine(pieces(), sys.argv[2])
"""
TIMES = r"\(s\)|memory"  # rows of the machine, not of the runs


def pieces():
    points = [(*COMMON, ("vae.train.client_learning_rate", rate)) for rate in RATES]
    return make_pieces("configs/iot.py:smoke", points, 1, "score")


@contextlib.contextmanager
def driver(engine, folder, cache):
    """A sweep in a process of its own, ended with the context."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", DRIVER, engine, str(folder), str(cache)]
    with open(f"{folder}.log", "a") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def finish(process, folder):
    assert process.wait(timeout=900) == 0, pathlib.Path(f"{folder}.log").read_text()[-3000:]


def family(root):
    """Processes below one, pid -> name."""
    parents, names = {}, {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                names[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
    found, grown = set(), {root}
    while grown - found:
        found |= grown
        grown = {pid for pid, parent in parents.items() if parent in found}
    return {pid: names.get(pid, "") for pid in found}


def at_work(process):
    return [pid for pid, name in family(process.pid).items() if name.startswith("ray::_work")]


def until(what, process, seconds=600):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert process.poll() is None and time.monotonic() < end, "the sweep ended, or took too long"
        time.sleep(0.1)
    return found


def done(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "pieces").glob("*.parquet")}


def table(folder):
    """The figures of a sweep's runs, without times."""
    whole = pd.concat([pd.read_parquet(result_path(piece, str(folder))) for piece in pieces()])
    keys = ["point", "seed", "domain", "model", "row", "metric"]
    return whole[~whole["metric"].str.contains(TIMES)].sort_values(keys, ignore_index=True)


def same(folder, other):
    ours, theirs = table(folder), table(other)
    text = [name for name in ours if not pd.api.types.is_float_dtype(ours[name])]
    pd.testing.assert_frame_equal(ours[text], theirs[text])
    assert len(ours) > len(RATES)
    for name in ("value", "low", "high"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6, atol=1e-7)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    root = tmp_path_factory.mktemp("sweeps")
    folder, cache = root / "local", jax.config.jax_compilation_cache_dir
    with driver("local", folder, cache) as process:
        finish(process, folder)
    assert len(done(folder)) == len(RATES)
    return folder, cache


def listening(pids):
    """Addresses on which processes accept connections, as hexadecimal numbers of /proc/net/tcp and tcp6."""
    inodes = set()
    for pid in pids:
        with contextlib.suppress(OSError):  # it may end meanwhile
            for link in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    inodes.add(os.readlink(f"/proc/{pid}/fd/{link}"))
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in pathlib.Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {line[1].split(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in inodes}


@pytest.mark.long
def test_a_killed_worker_changes_nothing_and_nobody_outside_can_connect(one_process):
    local, cache = one_process
    folder = local.with_name("worker")
    with driver("ray", folder, cache) as process:
        victim = until(lambda: at_work(process), process)[0]
        time.sleep(3.0)  # into its imports or its training
        addresses = listening(family(process.pid))
        os.kill(victim, signal.SIGKILL)
        assert addresses and addresses <= {
            "0100007F",
            "0000000000000000FFFF00000100007F",
            "00000000000000000000000001000000",
        }
        until(lambda: set(at_work(process)) - {victim}, process)
        finish(process, folder)
    same(folder, local)


@pytest.mark.long
def test_after_a_killed_driver_finished_pieces_are_not_run_again(one_process):
    local, cache = one_process
    folder = local.with_name("driver")
    with driver("ray", folder, cache) as process:
        until(lambda: done(folder), process)
        children = family(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        first = done(folder)
    assert 1 <= len(first) < len(RATES)
    end = time.monotonic() + 60
    while any(name.startswith("ray::_work") for pid, name in family(1).items() if pid in children):
        assert time.monotonic() < end, "workers outlived the driver"
        time.sleep(0.2)
    with driver("ray", folder, cache) as process:
        finish(process, folder)
    after = done(folder)
    assert len(after) == len(RATES) and {name: after[name] for name in first} == first
    assert pathlib.Path(f"{folder}.log").read_text().count(f"{len(RATES) - len(first)} pieces for workers") == 1
    same(folder, local)
