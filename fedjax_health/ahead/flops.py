"""Floating-point operations of a traced program, loops multiplied by how often they run.

XLA's own cost analysis counts the body of a loop once, whatever its length, so that a scan of 25 rounds would seem 25 times
cheaper than it is. Here the program is walked before compilation: the same count on any backend.

    product of matrices   2 x numbers of the result x length contracted
    convolution           2 x numbers of the result x numbers of a kernel for one output channel
    element by element    1 for each number of the result that is a float
    sum, max, ...         1 for each number reduced

Moving data and arithmetic of integers (random bits) count nothing.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp

from fedjax_health.ahead.trips import Trips

# fmt: off
MOVES = frozenset((
    "all_gather", "all_gather_invarying", "argmax", "argmin", "axis_index", "bitcast_convert_type", "broadcast",
    "broadcast_in_dim", "concatenate", "convert_element_type", "copy", "copy_p", "device_put", "dynamic_slice",
    "dynamic_update_slice", "expand_dims", "gather", "iota", "mesh_cast", "optimization_barrier", "pad", "pcast", "pvary",
    "reshape", "rev", "select_n", "sharding_constraint", "slice", "sort", "split", "squeeze", "stop_gradient", "transpose",
))
REDUCTIONS = frozenset((
    "cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum", "pmax", "pmin", "psum", "psum_invariant", "reduce_max",
    "reduce_min", "reduce_prod", "reduce_sum",
))
# fmt: on


class Work(NamedTuple):
    """Operations.

    Attributes:
      everywhere: of what every device does alike, counted once.
      split: of what devices share, as one of them does it.
      once: loops of unknown length that were counted once.
    """

    everywhere: float
    split: float
    once: int

    def __add__(self, other: Work) -> Work:  # pyright: ignore[reportIncompatibleMethodOverride]
        return Work(self.everywhere + other.everywhere, self.split + other.split, self.once + other.once)

    def times(self, factor: float) -> Work:
        """Of a body that runs `factor` times."""
        return Work(self.everywhere * factor, self.split * factor, self.once)


def count_flops(jaxpr: Any, trips: Trips) -> Work:
    """Operations of a program.

    Args:
      jaxpr: ClosedJaxpr, such as `jax.jit(f).trace(...).jaxpr`.
      trips: of the loops over clients and steps.
    """
    return _walk(jaxpr.jaxpr, trips, False, 0)


def _walk(jaxpr: Any, trips: Trips, split: bool, depth: int) -> Work:
    total = Work(0.0, 0.0, 0)
    for eqn in jaxpr.eqns:
        total += _equation(eqn, trips, split, depth)
    return total


def _equation(eqn: Any, trips: Trips, split: bool, depth: int) -> Work:
    name, params = eqn.primitive.name, eqn.params
    if name == "scan":
        return _walk(params["jaxpr"].jaxpr, trips, split, depth).times(params["length"])
    if name == "while":
        floats = any(_floats(v.aval) for v in eqn.outvars)
        dealt = split and floats and depth < 2
        body = _walk(params["body_jaxpr"].jaxpr, trips, split, depth + dealt)
        if dealt:
            return body.times((trips.chunks, trips.steps)[depth])
        return body._replace(once=body.once + (floats and not split))
    if name == "cond":
        return max((_walk(b.jaxpr, trips, split, depth) for b in params["branches"]), key=lambda w: w[:2])
    if name == "shard_map":
        return _walk(params["jaxpr"], trips, True, depth)
    inner = [v for v in params.values() if hasattr(v, "eqns") or hasattr(v, "jaxpr")]
    if name not in REDUCTIONS and inner:  # a call: jit, custom derivative, checkpoint
        return _walk(getattr(inner[0], "jaxpr", inner[0]), trips, split, depth)
    flops = float(_leaf(eqn))
    return Work(0.0, flops, 0) if split else Work(flops, 0.0, 0)


def _leaf(eqn: Any) -> float:
    name, out = eqn.primitive.name, eqn.outvars[0].aval
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return 2 * out.size * math.prod(eqn.invars[0].aval.shape[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel = eqn.invars[1].aval
        channels = kernel.shape[eqn.params["dimension_numbers"].rhs_spec[0]]
        return 2 * out.size * kernel.size // channels
    if name in MOVES or not _floats(out):
        return 0
    if name in REDUCTIONS:
        return sum(v.aval.size for v in eqn.invars if _floats(v.aval))
    if name.startswith("scatter"):
        return eqn.invars[2].aval.size if name != "scatter" else 0
    return out.size


def _floats(aval: Any) -> bool:
    return hasattr(aval, "dtype") and jnp.issubdtype(aval.dtype, jnp.floating)
