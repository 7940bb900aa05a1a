"""The engine of many machines: pieces go to the workers of a Ray cluster, one at a time to each device or host.

Needs the extra `sweep` (`pip install '.[sweep]'`); every host needs the same installation, config files and data. Results
come back as bytes and are written here, so that the hosts share no disk. A worker that dies loses one piece, which another
runs again; when this process dies the next start runs what has no file yet.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from fedjax_health.files import replacing
from fedjax_health.sweep.pieces import Engine, Piece, is_done, result_path
from fedjax_health.types import UserError

LOG = logging.getLogger("fedjax_health")
LOOPBACK = "127.0.0.1"
# off, Ray's own address is the loopback, as on a Mac; else it replaces a loopback that it is given by what others can reach,
# and listens on every interface. Read when Ray is imported.
CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
STORE_BYTES = 100 << 20  # of Ray's shared memory: a result is some hundred kilobytes
RETRIES = 3


def make_ray(cpus_a_worker: int = 0, address: str = "", retries: int = RETRIES) -> Engine:
    """An engine over a Ray cluster.

    A worker is a process that runs one piece, over one GPU where the cluster has any, else over the cores of a host.

    Args:
      cpus_a_worker: cores of each; 0 = all of a host, or its share for each GPU. More workers fit a host with fewer.
      address: of a cluster that runs already, host:port or "auto"; "" = one on this machine, for as long as the sweep
        takes, which listens on the loopback interface alone.
      retries: how often a piece whose worker dies is run again.

    Returns:
      engine(pieces, folder), which raises UserError: Ray is not installed, no such cluster, a piece that no worker
      survives, or a piece's own, after all others have ended.
    """

    def run(pieces: Sequence[Piece], folder: str) -> None:
        waiting = [piece for piece in pieces if not is_done(piece, folder)]
        if not waiting:
            return
        ray = _installed(alone=not address)
        with _cluster(ray, address):
            cpus, gpus = _share(ray, cpus_a_worker)
            work = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=retries, max_calls=1)(_work)
            LOG.info("%d pieces for workers of %d cores%s", len(waiting), cpus, " and a GPU" * gpus)
            _gather(ray, {work.remote(piece, cpus, _settings()): piece for piece in waiting}, folder)

    return run


def _gather(ray: ModuleType, running: dict[Any, Piece], folder: str) -> None:
    """Writes results as they come; the first failure is raised when nothing runs any more."""
    total, failures = len(running), []
    while running:
        (ready,), _ = ray.wait(list(running), num_returns=1)
        piece = running.pop(ready)
        try:
            result = ray.get(ready)
        except ray.exceptions.RayTaskError as error:
            if not isinstance(error.cause, UserError):
                raise
            failures.append(error.cause)
        except ray.exceptions.RayError as error:
            failures.append(
                UserError(
                    f"piece {piece.name} of {len(piece.points)} runs ended every worker that tried it "
                    f"({type(error).__name__}); lower points_per_piece, or give a worker more memory"
                )
            )
        else:
            with replacing(result_path(piece, folder)) as temporary:
                pathlib.Path(temporary).write_bytes(result)
            LOG.info("piece %s is done, %d of %d to go", piece.name, len(running), total)
    if failures:
        raise failures[0]


def _work(piece: Piece, cpus: int, settings: dict[str, Any]) -> bytes:
    """One piece in a worker's own process -> content of its result file."""
    import jax

    jax.config.update("jax_num_cpu_devices", cpus)
    for name, value in settings.items():
        jax.config.update(name, value)
    from fedjax_health.sweep.run_piece import run_piece  # after the devices are set

    with tempfile.TemporaryDirectory() as folder:
        return pathlib.Path(run_piece(piece, folder)).read_bytes()


def _settings() -> dict[str, Any]:
    """JAX settings that workers share with this process."""
    import jax

    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    return {name: getattr(jax.config, name) for name in names}


def _installed(alone: bool) -> ModuleType:
    """Ray; where it is to be alone on this machine, it is sure to keep to the loopback interface."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or it reports to its makers
    if alone:
        os.environ[CLUSTERS] = "0"  # before the import
    try:
        import ray  # pyright: ignore[reportMissingImports]
        import ray.exceptions  # pyright: ignore[reportMissingImports]
        import ray.util  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            "engine 'ray' needs Ray; install it with pip install '.[sweep]', or use --engine=local"
        ) from error
    own = ray.util.get_node_ip_address() if alone else LOOPBACK
    if own != LOOPBACK:
        raise UserError(
            f"Ray would listen on {own} and not on {LOOPBACK} alone; set {CLUSTERS}=0 before Python starts, or start a "
            "cluster yourself and give its address"
        )
    return ray


@contextlib.contextmanager
def _cluster(ray: ModuleType, address: str) -> Iterator[None]:
    """The connection to a cluster, or a cluster of this machine that lives as long as the context."""
    environment = {name: os.environ[name] for name in ("XLA_FLAGS",) if name in os.environ}
    common = {"runtime_env": {"env_vars": environment}, "logging_level": logging.WARNING}
    with tempfile.TemporaryDirectory(prefix="ray_", ignore_cleanup_errors=True) as folder:
        try:
            if address:
                ray.init(address=address, **common)
            else:
                cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
                ray.init(
                    address="local",
                    num_cpus=cores,
                    include_dashboard=False,
                    object_store_memory=STORE_BYTES,
                    _node_ip_address=LOOPBACK,
                    _temp_dir=folder,
                    **common,
                )
        except (ConnectionError, ValueError, RuntimeError) as error:
            where = f"at {address}" if address else "on this machine"
            line = str(error).strip().splitlines()[0]
            raise UserError(
                f"no Ray cluster {where} ({line}); start one with ray start, or leave the address out"
            ) from error
        try:
            yield
        finally:
            ray.shutdown()


def _share(ray: ModuleType, cpus_a_worker: int) -> tuple[int, int]:
    """(cores, GPUs) of a worker: what every host of the cluster can give."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    hosts = [host for host in alive if host.get("CPU", 0)]  # a head that only coordinates has none
    gpus = max(int(host.get("GPU", 0)) for host in hosts)
    able = [host for host in hosts if int(host.get("GPU", 0)) or not gpus]
    cores = min(int(host["CPU"]) // max(1, int(host.get("GPU", 0))) for host in able)
    if cpus_a_worker > max(int(host["CPU"]) for host in able):
        raise UserError(f"cpus_a_worker={cpus_a_worker} is more than any host of the cluster has; lower it")
    return cpus_a_worker or max(1, cores), min(1, gpus)
