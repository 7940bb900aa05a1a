"""How fast devices are: published peaks of accelerators, and what this machine reaches when it is asked."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from fedjax_health.federated import sharding
from fedjax_health.registry import lookup

REPEATS = 5
STEPS = 50
MATRIX = 256  # of the calibration: products as large as those of a cohort's networks
VECTOR = 1 << 16
KERNELS_A_STEP = 2  # its own, and the loop's counter


class Peak(NamedTuple):
    """One device.

    Attributes:
      name: for people.
      flops_per_second: of products of float32 as JAX does them by default (TF32 on NVIDIA, one bfloat16 pass on a TPU).
      bytes_per_second: of its memory.
      memory_bytes: that it has; 0 = the machine's own.
      kernel_seconds: to start one kernel in a program; 0 where a kernel's cost is in the other two.
    """

    name: str
    flops_per_second: float
    bytes_per_second: float
    memory_bytes: float
    kernel_seconds: float


GPU_KERNEL = 2e-6  # as CUDA graphs start them one after the other; 5e-6 alone
# NVIDIA data sheets, dense (without sparsity): A100 80GB SXM (2021), H100 SXM (2023), H200 SXM (2024), L4 (2023); the T4 (2018)
# has no TF32, so its float32 peak. Google Cloud TPU documents, "System architecture", pages of v4, v5e, v5p and v6e, a chip.
# A TPU runs a program as one: nothing starts kernels.
PEAKS = {
    "t4": Peak("NVIDIA T4", 8.1e12, 320e9, 16e9, GPU_KERNEL),
    "l4": Peak("NVIDIA L4", 60e12, 300e9, 24e9, GPU_KERNEL),
    "a100": Peak("NVIDIA A100 80GB", 156e12, 2.04e12, 80e9, GPU_KERNEL),
    "h100": Peak("NVIDIA H100 SXM", 494e12, 3.35e12, 80e9, GPU_KERNEL),
    "h200": Peak("NVIDIA H200 SXM", 494e12, 4.8e12, 141e9, GPU_KERNEL),
    "tpu_v4": Peak("TPU v4", 275e12, 1.2e12, 32e9, 0.0),
    "tpu_v5e": Peak("TPU v5e", 197e12, 0.82e12, 16e9, 0.0),
    "tpu_v5p": Peak("TPU v5p", 459e12, 2.77e12, 95e9, 0.0),
    "tpu_v6e": Peak("TPU v6e", 918e12, 1.64e12, 32e9, 0.0),
}
LOCAL = "local"


def peaks_of(names: tuple[str, ...]) -> list[Peak]:
    """Devices by name, "local" among them.

    Args:
      names: keys of PEAKS, or "local", which is measured.

    Raises:
      UserError: an unknown name.
    """
    makers: dict[str, Callable[[], Peak]] = {LOCAL: calibrate, **{key: (lambda p=p: p) for key, p in PEAKS.items()}}
    return [lookup("device", name, makers)() for name in names]


def calibrate() -> Peak:
    """What one of this machine's devices reaches while all of them work: products, sums over vectors, and tiny operations.

    The vectors are as large as a chunk's parameters, so that on a CPU they stay in its cache as these do.
    """
    mesh = sharding.make_mesh()
    spec = PartitionSpec(sharding.AXIS)

    def seconds(shape: tuple[int, ...], step: Callable[[jax.Array], jax.Array]) -> float:
        """Of one step, which the compiler cannot fuse with the next."""

        def work(x: jax.Array) -> jax.Array:
            return jax.lax.scan(lambda y, _: (step(y), None), x, None, length=STEPS)[0]

        call = jax.jit(jax.shard_map(work, mesh=mesh, in_specs=spec, out_specs=spec))
        x = jax.device_put(jnp.ones((mesh.size, *shape), jnp.float32), NamedSharding(mesh, spec))
        jax.block_until_ready(call(x))
        found = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            jax.block_until_ready(call(x))
            found.append((time.perf_counter() - start) / STEPS)
        return statistics.median(found)

    flops = 2 * MATRIX**3 / seconds((MATRIX, MATRIX), lambda x: x @ x)
    moved = 2 * 4 * VECTOR / seconds((VECTOR,), lambda x: x * jnp.float32(0.5))
    kind = jax.devices()[0].device_kind
    start = seconds((1,), lambda x: x * jnp.float32(0.5)) / KERNELS_A_STEP
    return Peak(f"this machine ({mesh.size} x {kind})", flops, moved, 0.0, start)
