"""What a detector costs the device that runs it, by flow: size, operations, measured time here, and time and energy there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from fedjax_health import tree
from fedjax_health.data.encode import Encoder
from fedjax_health.devices.profile import CLASSES, DeviceClass
from fedjax_health.evaluation.rows import exact_row
from fedjax_health.models.base import Classifier
from fedjax_health.types import Array, Params, Row

BATCHES = (1, 256)
ROW = "detector"
MACHINE = "machine"  # row of what the machine at hand took, which no repetition gives again


class Size(NamedTuple):
    """What is stored on the device.

    Attributes:
      parameters: numbers.
      bytes_f32: 4 each.
      bytes_int8: matrices at a byte a weight with a float a column, vectors as floats.
    """

    parameters: int
    bytes_f32: int
    bytes_int8: int


def quantised(released: Params) -> Params:
    """The parameters as an int8 device has them: s_j round(w_ij / s_j), s_j = max_i |w_ij| / 127 for each column of a matrix.

    Args:
      released: f32 leaves; those of fewer than two axes stay.
    """

    def leaf(w: Any) -> Array:
        w = jnp.asarray(w)
        if w.ndim < 2:
            return w
        step = jnp.maximum(jnp.max(jnp.abs(w), -2, keepdims=True), 1e-30) / 127.0
        return jnp.round(w / step) * step

    return jax.tree.map(leaf, released)


def size_of(released: Params) -> Size:
    """Parameters and bytes of a detector.

    Args:
      released: f32 leaves of one detector.
    """
    leaves = jax.tree.leaves(released)
    int8 = sum(w.size + 4 * w.shape[-1] if w.ndim == 2 else 4 * w.size for w in leaves)
    parameters = tree.size(released)
    return Size(parameters, 4 * parameters, int8)


def dense_flops(released: Params) -> int:
    """Operations of one flow through dense layers, by hand: 2 in out of each matrix and out of each bias.

    Args:
      released: kernels [in, out] and biases [out].
    """
    return sum(2 * w.size if w.ndim == 2 else w.size for w in jax.tree.leaves(released))


def counted_flops(compiled: Any, batch: int) -> float:
    """Operations a flow by XLA's own count of a compiled program; transcendental functions are not among them.

    Args:
      compiled: of `jax.jit(...).lower(...).compile()`.
      batch: flows of a call.

    Raises:
      RuntimeError: the backend does not count.
    """
    analysis = compiled.cost_analysis()
    if not analysis or "flops" not in analysis:
        raise RuntimeError(f"XLA's backend {jax.default_backend()!r} counts no operations; run this on a CPU")
    return float(analysis["flops"]) / batch


def median_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Median with the order statistics that hold the true one with the given probability.

    Args:
      values: f64[n], n >= 6 independent measurements.
      level: coverage, at least.
    """
    ordered = np.sort(values)
    k = int(scipy.stats.binom.ppf((1 - level) / 2, len(ordered), 0.5))
    return float(np.median(ordered)), float(ordered[max(k - 1, 0)]), float(ordered[len(ordered) - max(k, 1)])


def measured_seconds(call: Callable[[], Any], repeats: int) -> np.ndarray:
    """Wall time of a compiled call, f64[repeats]; a tenth more are run first and not counted.

    Args:
      call: starts the computation and gives its result.
      repeats: how many.
    """
    for _ in range(1 + repeats // 10):
        jax.block_until_ready(call())
    found = np.empty(repeats)
    for i in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        found[i] = time.perf_counter() - start
    return found


def device_rows(
    domain: str,
    classifier: Classifier,
    released: Params,
    encoder: Encoder,
    flows: np.ndarray,
    repeats: int = 300,
    classes: Sequence[DeviceClass] = CLASSES,
) -> list[Row]:
    """Rows of the efficiency table: model "detector", row "detector", "machine" (time here) or the class of devices.

    Operations are those of XLA's count for one flow at a time, from published values to probabilities; time here is that of the
    machine that runs this, compilation apart. There, time = operations / speed, and energy = operations x energy an operation,
    both of the class's median (`devices.profile`): speeds of floating-point training loops, which int8 arithmetic can beat.

    Args:
      domain: where the rows stand.
      classifier: the detector.
      released: its parameters, of one seed.
      encoder: of the records.
      flows: f32[m, F], at least 256 to be timed.
      repeats: timed calls of each batch.
      classes: of devices.
    """
    size, hand, nan = size_of(released), dense_flops(released), float("nan")
    rows = [
        exact_row(domain, ROW, ROW, "parameters", size.parameters),
        exact_row(domain, ROW, ROW, "bytes, f32", size.bytes_f32),
        exact_row(domain, ROW, ROW, "bytes, int8", size.bytes_int8),
        exact_row(domain, ROW, ROW, "FLOPs a flow, dense layers by hand", hand),
    ]
    flops = {}
    for batch in BATCHES:
        values = jnp.asarray(flows[:batch], jnp.float32)
        program = jax.jit(lambda p, v: classifier.predict(p, encoder.encode(v)))
        start = time.perf_counter()
        compiled = program.lower(released, values).compile()
        compile_seconds = time.perf_counter() - start
        flops[batch] = counted_flops(compiled, batch)
        # on the device for good: a call then copies nothing but its result
        held = jax.device_put(released)
        micro = (
            1e6 * measured_seconds(lambda compiled=compiled, held=held, v=values: compiled(held, v), repeats) / batch
        )
        rows += [
            exact_row(domain, ROW, ROW, f"FLOPs a flow, batch {batch}", flops[batch]),
            Row(domain, ROW, MACHINE, f"µs a flow, batch {batch}", *median_interval(micro), repeats),
            Row(domain, ROW, MACHINE, f"compile (s), batch {batch}", compile_seconds, nan, nan, 1),
        ]
    for kind in classes:
        seconds = flops[1] / kind.flops_per_second
        rows += [
            exact_row(domain, ROW, kind.name, "predicted µs a flow", 1e6 * seconds),
            exact_row(domain, ROW, kind.name, "predicted µJ a flow", 1e6 * flops[1] * kind.joules_per_flop),
            exact_row(domain, ROW, kind.name, "flows a second at most", 1.0 / seconds),
            exact_row(domain, ROW, kind.name, "share of memory, f32", size.bytes_f32 / kind.memory_bytes),
            exact_row(domain, ROW, kind.name, "share of memory, int8", size.bytes_int8 / kind.memory_bytes),
        ]
    return rows
