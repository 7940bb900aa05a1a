"""Many hosts: one run over the devices of several processes that meet through `jax.distributed`.

Every process runs the same program on the same data; the mesh's axis "clients" spans all of them. Process 0 ("main") alone
reads and writes the run's folder, and what it decides or restores the others hear from it, so they share no disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.extend import backend
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fedjax_health.threefry import is_key
from fedjax_health.types import UserError

HEARTBEAT_SECONDS = 30  # a host silent for so long is lost
MEET_SECONDS = 300  # for all processes to start
WAIT_SECONDS = 30 * 24 * 3600  # for process 0 to evaluate and report; that it lives is the heartbeat's matter
GRACE_SECONDS = 3.0  # process 0 carries the coordination: it lets the others speak before it leaves after an error
REMEDY = "start all processes again with the same workdir: the run goes on from the last checkpoint"


def is_main() -> bool:
    """Whether this is process 0, the one that reads and writes files; True where there is only one."""
    return jax.process_index() == 0


def check_address(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Checks what the user says about the processes.

    Args:
      coordinator: host:port of process 0.
      num_processes: how many there are, >= 1.
      process_id: which this is, in [0, num_processes).

    Raises:
      UserError: one is missing or out of range.
    """
    if coordinator is None or num_processes is None or process_id is None:
        given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
        missing = [f"--{name}" for name, value in given.items() if value is None]
        raise UserError(
            f"several processes need --coordinator, --num_processes and --process_id; give {' and '.join(missing)}, too"
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator={coordinator!r} must be host:port of process 0, such as 10.0.0.1:8476")
    if num_processes < 1:
        raise UserError(f"--num_processes={num_processes} must be at least 1")
    if not 0 <= process_id < num_processes:
        raise UserError(
            f"--process_id={process_id} must lie in [0, {num_processes}): processes are numbered from 0, see --num_processes"
        )


def connect(
    coordinator: str | None, num_processes: int | None, process_id: int | None, meet_seconds: int = MEET_SECONDS
) -> None:
    """Meets the other processes; call it before the first use of a device.

    Process 0 listens on the coordinator's address, and CPU collectives on the interface that leads there. With all three
    None, address and numbers are what JAX finds out about the cluster (Slurm, MPI, Kubernetes, TPU).

    Args:
      coordinator, num_processes, process_id: see `check_address`.
      meet_seconds: how long to wait for the others.

    Raises:
      UserError: bad arguments, no known cluster, the others did not come, or have other numbers of devices.
    """
    detected = coordinator is None and num_processes is None and process_id is None
    if not detected:
        check_address(coordinator, num_processes, process_id)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # nobody asks it, and it complains when the others end
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            cluster_detection_method=None if detected else "deactivate",
            initialization_timeout=meet_seconds,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
            coordinator_bind_address=coordinator,
        )
    except ValueError as error:
        raise UserError(
            f"--distributed found no cluster that JAX knows ({_first_line(error)}); give --coordinator, --num_processes and "
            "--process_id"
        ) from error
    except RuntimeError as error:
        raise UserError(
            f"process {process_id} cannot meet the others at {coordinator} ({_first_line(error)}); "
            "start all processes with the same --coordinator, on a free port that each host can reach"
        ) from error
    _collectives_on_the_route()
    counts = np.bincount([device.process_index for device in jax.devices()], minlength=jax.process_count())
    if len(set(counts.tolist())) > 1:
        raise UserError(
            f"the processes have {counts.tolist()} devices; give each as many (CUDA_VISIBLE_DEVICES, taskset)"
        )


def _collectives_on_the_route() -> None:
    """Has CPU collectives listen on the interface that leads to the coordinator, not on whatever the host's name means.

    JAX leaves the address to gloo, which looks up the host's name: often a public address, or a loopback that the other hosts
    cannot reach. The two private names are the only way to say it.
    """
    from jax._src import distributed, xla_bridge
    from jaxlib import _jax  # pyright: ignore[reportAttributeAccessIssue]

    state = distributed.global_state
    assert state.coordinator_address is not None
    host, _, port = state.coordinator_address.rpartition(":")
    family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as route:
        route.connect(address)  # a datagram socket sends nothing: it only picks the way
        own = route.getsockname()[0]
    backend.register_backend_factory(
        "cpu",
        lambda: xla_bridge.make_cpu_client(_jax.make_gloo_tcp_collectives(state.client, own)),
        priority=0,
        fail_quietly=False,
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


@contextlib.contextmanager
def together(several: bool) -> Iterator[None]:
    """The life of one of several processes: it ends with the others, or at once and with a sentence. Call `connect` inside.

    JAX aborts a process whose coordinator is gone, from a thread that no Python code can catch. So a shell waits at the
    other end of a pipe: if the pipe closes before a word has come, it says what happened.

    Args:
      several: False leaves everything as it is.
    """
    if not several:
        yield
        return
    sentence = f"error: this process was ended, most likely since another one was lost or never came; {REMEDY}"
    watch = ["sh", "-c", 'read -r word || echo "$0" >&2', sentence]
    with subprocess.Popen(watch, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as watcher:
        try:
            yield
            with guarded("at the end of the run"):
                _barrier("end")
                jax.distributed.shutdown()
            code = 0
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            code = 2
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except BaseException:
            traceback.print_exc()
            code = 1
        watcher.communicate("done\n")
        if code:
            sys.stdout.flush()
            sys.stderr.flush()
            if jax.distributed.is_initialized() and is_main():
                time.sleep(GRACE_SECONDS)
            os._exit(code)  # an ordinary exit would first wait for processes that may be gone


def _barrier(name: str) -> None:
    """Waits for all processes without a device: a collective would keep an accelerator busy."""
    from jax._src import distributed

    client = distributed.global_state.client
    assert client is not None
    client.wait_at_barrier(name, WAIT_SECONDS * 1000)


@contextlib.contextmanager
def guarded(where: str) -> Iterator[None]:
    """Turns the error of a collective whose other end is gone into one sentence; a single process keeps its errors.

    Args:
      where: such as "stage 'vitals/vae' after round 20".

    Raises:
      UserError: says where, and what to do.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if jax.process_count() == 1 or (isinstance(error, ValueError) and "Gloo" not in str(error)):
            raise
        raise UserError(
            f"{where}: process {jax.process_index()} could not go on, most likely since another one was lost "
            f"({_first_line(error)}); {REMEDY}"
        ) from error


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Host values that every process holds, as global arrays on all devices of the mesh.

    Args:
      tree: arrays and typed keys of this process; what is there already stays. Host devices share one array's memory.
      mesh: over the devices of all processes.
    """
    everywhere = NamedSharding(mesh, PartitionSpec())

    def place(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and leaf.sharding == everywhere:
            return leaf
        if is_key(leaf):
            return jax.random.wrap_key_data(place(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        if jax.process_count() == 1:
            return jax.device_put(np.asarray(leaf) if jax.default_backend() == "cpu" else leaf, everywhere)
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, everywhere, lambda index: host[index])

    return jax.tree.map(place, tree)


def local(tree: Any) -> Any:
    """Replicated global arrays as arrays of this process's first device, for what one process does alone.

    Args:
      tree: of arrays and typed keys; a single process gets them back as they are.
    """
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def from_main(tree: Any) -> Any:
    """What process 0 holds, bit for bit, in every process; all must call it.

    Args:
      tree: NumPy arrays or scalars; of the other processes only shapes and dtypes count (ShapeDtypeStructs will do).

    Returns:
      Tree of NumPy arrays; a single process gets its own tree back.

    Raises:
      UserError: another process was lost.
    """
    if jax.process_count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    likes = [np.asarray(leaf) if is_main() else np.zeros(leaf.shape, leaf.dtype) for leaf in leaves]
    # as bytes: the broadcast is a sum, in which -0.0 would turn into 0.0
    sent = np.frombuffer(b"".join(leaf.tobytes() for leaf in likes), np.uint8)
    with guarded("while process 0 told the others how to go on"):
        received = np.asarray(multihost_utils.broadcast_one_to_all(sent)).tobytes()
    ends = np.cumsum([leaf.nbytes for leaf in likes]).tolist()
    pieces = [received[end - like.nbytes : end] for like, end in zip(likes, ends, strict=True)]
    return structure.unflatten(
        [np.frombuffer(piece, like.dtype).reshape(like.shape) for piece, like in zip(pieces, likes, strict=True)]
    )


def check_same(what: str, tree: Any) -> None:
    """Checks that all processes hold the same, by a digest; all must call it.

    Args:
      what: names it, such as "config".
      tree: strings, arrays and typed keys.

    Raises:
      UserError: names the first process that differs from process 0.
    """
    if jax.process_count() == 1:
        return
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        value = np.asarray(jax.random.key_data(leaf) if not isinstance(leaf, str) and is_key(leaf) else leaf)
        digest.update(f"{path} {value.dtype} {value.shape} ".encode() + value.tobytes())
    with guarded(f"while the processes compared their {what}"):
        every = np.asarray(multihost_utils.process_allgather(np.frombuffer(digest.digest(), np.uint32)))
    differs = np.flatnonzero((every != every[0]).any(1))
    if differs.size:
        raise UserError(
            f"process {differs[0]} has another {what} than process 0; start all processes with the same command (but for "
            "--process_id), the same files and the same versions"
        )
