"""Updates as integers modulo 2^32: what secure aggregation adds up, and the ideal sum that the other fidelities must equal."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_health.types import Array, UserError

MODULUS_BITS = 32
HALF = 2 ** (MODULUS_BITS - 1)
MAX_BITS = 24  # a finer grid than float32 itself resolves


class Encoded(NamedTuple):
    """One client's contribution.

    Attributes:
      q: u32[d], grid steps in two's complement.
      saturated: i32[], coordinates that were cut to the bound or were not a number.
    """

    q: Array
    saturated: Array


def ring_step(bound: float, slots: int, bits: int) -> float:
    """Width of the grid: the smallest power of two with bound / step <= 2^(bits - 1) - 1; no sum of `slots` clients wraps.

    A power of two, since dividing by it is exact in float32. Stochastic rounding moves a coordinate by less than one step,
    so that |q| <= bound / step + 1, and the sum stays in two's complement if slots (bound / step + 1) < 2^31.

    Args:
      bound: largest |coordinate| of an update, in its unit; the l2 clip norm is one.
      slots: most clients that are ever summed.
      bits: of one client's coordinate, sign included, 2 to 24.

    Returns:
      Step in the update's unit.

    Raises:
      UserError: an argument out of range, a step that float32 cannot hold, or a sum that could wrap.
    """
    if not (math.isfinite(bound) and bound > 0):
        raise UserError(f"secure aggregation with bound = {bound}: the grid needs a finite l2_clip_norm > 0")
    if slots < 1:
        raise UserError(f"secure aggregation of {slots} clients: give at least 1")
    if not 2 <= bits <= MAX_BITS:
        raise UserError(f"secure aggregation with {bits} bits a coordinate: give 2 to {MAX_BITS}")
    fraction, exponent = math.frexp(bound / (2 ** (bits - 1) - 1))
    exponent -= fraction == 0.5
    if not -126 <= exponent <= 126:
        raise UserError(
            f"secure aggregation with bound = {bound}: its grid step 2^{exponent} is no float32; rescale it"
        )
    step = math.ldexp(1.0, exponent)
    if not slots * (bound / step + 1) < HALF:
        raise UserError(
            f"secure aggregation of {slots} clients with {bits} bits a coordinate: the sum could wrap modulo 2^32; "
            "use fewer bits or a smaller cohort"
        )
    return step


def encoded_l2_bound(bound: float, d: int, step: float) -> float:
    """L2 sensitivity of one client's encoded contribution: ||q||_2 step <= C + sqrt(d) step, whatever the rounding.

    Every coordinate moves by at most one step, so that the difference has norm at most sqrt(d) step, and the triangle
    inequality does the rest; cutting a coordinate to [-bound, bound] only shortens the vector. It holds surely, not with a
    probability. Kairouz et al. 2021, arXiv 2102.06387, condition on the rounding for a smaller bound; this does not.

    Args:
      bound: C, proven l2 bound of the float32 vector that is encoded, in its unit (a clip's own rounding included).
      d: coordinates, padding of a rotation included.
      step: of the grid, same unit.

    Returns:
      The bound in the same unit, rounded up.
    """
    return math.nextafter(bound + math.sqrt(d) * step, math.inf)


def encode(update: Array, bound: float | Array, step: float | Array, key: Array) -> Encoded:
    """q = floor(x / step) + [U < frac(x / step)], x = clip(update, -bound, bound), modulo 2^32: E[q step] = x.

    The clip to l2 norm and a rotation are the caller's, and come first. The mean is exact to 2^-24 step.

    Args:
      update: f32[d]. NaN counts as 0 and as saturated.
      bound: largest |coordinate|.
      step: of `ring_step`, or another that rounds as little.
      key: typed key of this client.
    """
    finite = jnp.where(jnp.isnan(update), 0.0, update)
    inside = jnp.clip(finite, -bound, bound)
    level = inside / step
    low = jnp.floor(level)
    dither = (jax.random.bits(key, update.shape) >> 8).astype(jnp.float32) * jnp.float32(2.0**-24)
    up = (dither < level - low).astype(jnp.int32)
    saturated = jnp.isnan(update) | (inside != finite)
    signed = low.astype(jnp.int32) + up
    return Encoded(jax.lax.bitcast_convert_type(signed, jnp.uint32), jnp.sum(saturated, dtype=jnp.int32))


def ring_sum(q: Array, live: Array) -> Array:
    """Sum of the live clients' rows modulo 2^32.

    Args:
      q: u32[n, d].
      live: bool[n].

    Returns:
      u32[d]; zero if nobody is live.
    """
    return jnp.sum(jnp.where(live[:, None], q, 0), 0, dtype=jnp.uint32)


def decode(total: Array, step: float | Array) -> Array:
    """step * total, total read as two's complement; exact to float32's rounding of the product.

    Args:
      total: u32[d].
      step: of `ring_step`.

    Returns:
      f32[d], in the update's unit.
    """
    return jax.lax.bitcast_convert_type(total, jnp.int32).astype(jnp.float32) * step
