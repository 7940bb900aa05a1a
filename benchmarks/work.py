"""The work that every system does, with NumPy alone, so that it can be imported in each peer's environment.

1,000 clients of 64 rows of 16 features; a perceptron 16-64-64-1 with relu and logistic loss; a client's update is one
epoch of shuffled SGD (batch 16, rate 0.05) from the global parameters; the server takes the plain average; 50 rounds.
A1 has cohorts of 100 clients, A2 of all 1,000. The clients' features and labels are shifted, each client in its own way.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import platform
import resource
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

CLIENTS, ROWS, FEATURES, HIDDEN = 1000, 64, 16, 64
BATCH, RATE, ROUNDS = 16, 0.05, 50
COHORT = {"A1": 100, "A2": 1000}
LAYERS = (FEATURES, HIDDEN, HIDDEN, 1)

Layers = list[tuple[np.ndarray, np.ndarray]]


class Data(NamedTuple):
    """All clients' records, and the test set (10 further rows of each client).

    Attributes:
      x: f32[1000, 64, 16].
      y: f32[1000, 64], 0 or 1.
      x_test: f32[10000, 16].
      y_test: f32[10000], 0 or 1.
    """

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def make_data(seed: int = 0) -> Data:
    """Records: x ~ N(mu_k, 1), mu_k ~ N(0, 0.3^2); y ~ Bernoulli(sigmoid(x.w + b_k)), |w| = 6, b_k ~ N(0, 0.5^2).

    Args:
      seed: of NumPy's default generator.
    """
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=FEATURES)
    weight = 6.0 * weight / np.linalg.norm(weight)
    feature_shift = rng.normal(size=(CLIENTS, 1, FEATURES)) * 0.3
    label_shift = rng.normal(size=(CLIENTS, 1)) * 0.5

    def draw(rows: int) -> tuple[np.ndarray, np.ndarray]:
        x = rng.normal(size=(CLIENTS, rows, FEATURES)) + feature_shift
        chance = 1.0 / (1.0 + np.exp(-(x @ weight + label_shift)))
        y = rng.random(chance.shape) < chance
        return x.astype(np.float32), y.astype(np.float32)

    x, y = draw(ROWS)
    x_test, y_test = draw(10)
    return Data(x, y, x_test.reshape(-1, FEATURES), y_test.reshape(-1))


def init_params(seed: int = 1) -> Layers:
    """Initial parameters ~ U(-1/sqrt(in), 1/sqrt(in)), PyTorch's default for a dense layer.

    Returns:
      (weight f32[in, out], bias f32[out]) of each layer: a layer is x @ weight + bias.
    """
    rng = np.random.default_rng(seed)
    params = []
    for rows, columns in itertools.pairwise(LAYERS):
        bound = 1.0 / np.sqrt(rows)
        weight = rng.uniform(-bound, bound, (rows, columns)).astype(np.float32)
        params.append((weight, rng.uniform(-bound, bound, (columns,)).astype(np.float32)))
    return params


def cohorts(cohort: int, rounds: int = ROUNDS, seed: int = 2) -> np.ndarray:
    """Clients of each round, drawn without replacement: i32[rounds, cohort]; a shorter run is a prefix of a longer one.

    Args:
      cohort: clients a round, 1 to 1,000.
      rounds: training rounds.
      seed: of NumPy's default generator.
    """
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(CLIENTS)[:cohort] for _ in range(rounds)]).astype(np.int32)


def accuracy(params: Sequence[tuple[Any, Any]], data: Data) -> float:
    """Share of the test set whose label is right, in [0, 1].

    Args:
      params: layers as `init_params` gives them.
      data: of which the test set is used.
    """
    hidden = data.x_test
    for weight, bias in params[:-1]:
        hidden = np.maximum(hidden @ np.asarray(weight) + np.asarray(bias), 0.0)
    weight, bias = params[-1]
    logit = (hidden @ np.asarray(weight) + np.asarray(bias))[:, 0]
    return float(np.mean((logit > 0) == (data.y_test > 0.5)))


def update_flops() -> int:
    """Multiplications and additions in the matrix products of one client's update: 1,859,584.

    A layer costs 2 in.out a row forwards, as much for its weights' gradient, and as much again for its input's gradient,
    which the first layer does not need.
    """
    products = [rows * columns for rows, columns in itertools.pairwise(LAYERS)]
    return ROWS * 2 * (3 * sum(products) - products[0])


def use_host_devices(count: int) -> None:
    """Makes the CPU appear to JAX as `count` devices; to be called before JAX is imported. A count already set stays.

    Args:
      count: devices, at least 1; no GPU is affected.

    Raises:
      RuntimeError: JAX has been imported.
    """
    if "jax" in sys.modules:
        raise RuntimeError("use_host_devices came after `import jax`, which reads the setting: call it before")
    flag = "--xla_force_host_platform_device_count"
    if flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}={count}".strip()


def _tree_memory(root: int) -> int:
    """Resident bytes of a process and all below it, from Linux's /proc; a process that ends meanwhile counts 0."""
    parents, pages = {}, {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                with open(f"/proc/{name}/stat") as file:
                    parents[int(name)] = int(file.read().rsplit(")", 1)[1].split()[1])
                with open(f"/proc/{name}/statm") as file:
                    pages[int(name)] = int(file.read().split()[1])
    family = {root}
    while grown := {process for process, parent in parents.items() if parent in family} - family:
        family |= grown
    return sum(pages.get(process, 0) for process in family) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def peak_memory(children: bool = False) -> Iterator[Callable[[], float]]:
    """Context manager that gives a function: the peak resident memory so far, in MB (1e6 bytes).

    Without children it is the kernel's own record of this process. With them (Linux), it is the largest sum over the tree of
    processes, looked at once a second: pages that processes share count once for each.

    Args:
      children: whether the work is done in further processes.
    """
    highest, done = [0], threading.Event()

    def own() -> int:
        if os.path.exists("/proc/self/status"):  # getrusage would count the process that started this one
            with open("/proc/self/status") as file:
                return next(1024 * int(text.split()[1]) for text in file if text.startswith("VmHWM"))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def watch() -> None:
        while not done.wait(1.0):
            highest[0] = max(highest[0], _tree_memory(os.getpid()))

    watcher = threading.Thread(target=watch, daemon=True)
    if children:
        watcher.start()
    try:
        yield lambda: max(highest[0], own()) / 1e6
    finally:
        done.set()


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python and of installed packages.

    Args:
      packages: distribution names; one that is not installed is left out.
    """
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Wall time of a call in seconds, and what it gave.

    Args:
      call: to be timed; it must wait for its own asynchronous work.
    """
    start = time.perf_counter()
    value = call()
    return time.perf_counter() - start, value


def names(known: Collection[str], text: str) -> list[str]:
    """A list of names as a command line gives it, "a,b".

    Raises:
      ArgumentTypeError: one that is not known.
    """
    if set(text.split(",")) <= set(known):
        return text.split(",")
    raise argparse.ArgumentTypeError(f"{text}: known are {', '.join(known)}")


def numbers(text: str) -> list[int]:
    """A list of numbers as a command line gives it, "1,4"."""
    return [int(number) for number in text.split(",")]
