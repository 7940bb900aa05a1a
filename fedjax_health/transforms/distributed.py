"""Distributed noise: each client adds its share on the integer grid before the secure sum, so that nobody sees less of it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from fedjax_health.secure import ring
from fedjax_health.transforms.base import Keys, UpdateTransform, Wire, no_memory
from fedjax_health.transforms.discrete_gaussian import LARGEST, REACH, discrete_gaussian
from fedjax_health.transforms.ring import CLIP_SLACK
from fedjax_health.types import Array, Hyper, Metrics, Update, UserError

LEAST_STEPS = 4  # below, a sum of discrete Gaussians is too far from being one
LEAST_NOISE = 0.3  # noise multiplier for which the ring is sized
MOST_SLACK = 1e-9  # by which 1 / noise multiplier may differ from that of one discrete Gaussian
ROUNDING = 2.0**-18  # relative, upwards, for the grid in float32


class NoiseGrid(NamedTuple):
    """A grid as fine as the noise asks.

    Attributes:
      deviation: s, of each client's noise in grid steps.
      least: n, clients whose noise is the whole of it; a sum of fewer is not given out.
      size: d, coordinates.
      slots: most clients that are ever summed.
    """

    deviation: int
    least: int
    size: int
    slots: int

    @property
    def reach(self) -> float:
        """s sqrt(n), deviation of the least noise of a sum, in grid steps."""
        return self.deviation * math.sqrt(self.least)

    @property
    def most_noise(self) -> float:
        """Noise multiplier at which rounding to the grid moves a sum as much as a client does: s sqrt(n) / (2 sqrt(d))."""
        return self.reach / (2.0 * math.sqrt(self.size))


def make_noise_grid(size: int, slots: int, least: int) -> NoiseGrid:
    """The finest grid with s a power of two at which no sum wraps modulo 2^32 for noise multipliers of .3 or more.

    At noise multiplier z an update of norm C is s sqrt(n) / z steps long, and no client's noise exceeds 12 s steps.

    Args:
      size: d, coordinates of what is encoded, a rotation's padding included.
      slots: most clients that are ever summed.
      least: n >= 1, clients whose noise is the whole of it.

    Raises:
      UserError: a cohort so large that even four steps of noise a client could wrap.
    """
    deviation = LARGEST
    while deviation >= LEAST_STEPS:
        grid = NoiseGrid(deviation, least, size, slots)
        if slots * (grid.reach / LEAST_NOISE + REACH * deviation + 1) < ring.HALF:
            return grid
        deviation //= 2
    raise UserError(
        f"distributed noise of {slots} clients a round: their sum could wrap modulo 2^32 even on the coarsest grid; use a "
        "smaller cohort"
    )


def slack(grid: NoiseGrid) -> float:
    """What a sum of discrete Gaussians costs beside one: tau sqrt(d), tau = 10 sum_(k < m) exp(-2 pi^2 s^2 k / (k + 1)).

    For m clients in the sum, at most the slots; each term is at most that of k = 1.

    Args:
      grid: where it is.

    Source: Kairouz, Liu & Steinke 2021, "The distributed discrete Gaussian mechanism for federated learning with secure
    aggregation", arXiv 2102.06387, Theorem 1 (their sigma is in steps).
    """
    tau = 10.0 * grid.slots * math.exp(-((math.pi * grid.deviation) ** 2))
    return tau * math.sqrt(grid.size)


def grid_step(noise_multiplier: Array, bound: Array, grid: NoiseGrid) -> Array:
    """Width of the grid at which n clients' noise is z times what one client moves: z C / (s sqrt(n) - z sqrt(d)).

    A client moves the sum by C / step + sqrt(d) steps at most, whatever the rounding.

    Args:
      noise_multiplier: z, f32[], below twice `NoiseGrid.most_noise`.
      bound: C, f32[], of what is encoded, in its unit.
      grid: where it is.

    Returns:
      f32[], in the update's unit, rounded up; not a number where z is too large, so that nothing is sent.
    """
    room = grid.reach - noise_multiplier * math.sqrt(grid.size)
    return jnp.where(room > 0, noise_multiplier * bound * (1.0 + ROUNDING) / room, jnp.nan)


def make_distributed_noise(template: Update, grid: NoiseGrid, side: int) -> UpdateTransform:
    """q = round(u / step) + N_Z(0, s^2), modulo 2^32, on the client; step * sum q once on the server, which adds nothing.

    A sum of n clients or more then hides each one's data as discrete Gaussian noise of multiplier z does, also from the
    server: what drop-outs do not bring is in the others' shares already (each is 1 / n of the whole, not 1 / cohort). A sum of
    m clients has sqrt(m / n) times that noise. Clients that tell the server their noise take it out of the sum.
    Rounding is by a coin. The aggregator must void rounds of fewer than n (see `secure_sum`).

    Args:
      template: tree of the update's shapes (arrays or ShapeDtypeStructs), f32; what comes out on the client is u32[d].
      grid: of `make_noise_grid`.
      side: bits of a message beside the 32 a coordinate: keys, shares and signatures.

    Returns:
      Transform whose l2_bound is that of what is encoded, C (1 + 2^-12) + sqrt(d) step, to which the noise is relative.

    Source: Kairouz, Liu & Steinke 2021, arXiv 2102.06387 (theirs conditions on the rounding for a smaller bound).
    """
    unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), template))[1]

    def clipped(hyper: Hyper) -> Array:
        # the clip's own rounding, and that of the division by the step
        return hyper["l2_clip_norm"] * jnp.float32(1.0 + 2.0 * CLIP_SLACK)

    def step_of(hyper: Hyper) -> Array:
        return grid_step(hyper["noise_multiplier"], clipped(hyper), grid)

    def client(update: Update, memory: Any, hyper: Hyper, keys: Keys) -> tuple[Update, Any, Metrics]:
        step = step_of(hyper)
        rounding, own = jax.random.split(keys.own)
        encoded = ring.encode(ravel_pytree(update)[0], clipped(hyper), step, rounding)
        noise = discrete_gaussian(own, grid.size, grid.deviation)
        sent = encoded.q + jax.lax.bitcast_convert_type(noise, jnp.uint32)
        metrics = {
            "sim/saturated": encoded.saturated.astype(jnp.float32),
            "sim/local_noise_std": step * grid.deviation,
        }
        return jnp.where(step > 0, sent, 0), memory, metrics

    def server(update: Update, hyper: Hyper, keys: Keys) -> tuple[Update, Metrics]:
        del keys
        step = step_of(hyper)
        return unravel(ring.decode(update, step)), {"public/noise_std": step * grid.reach}

    def l2_bound(incoming: Array | None, hyper: Hyper) -> Array | None:
        if incoming is None:
            return None
        return clipped(hyper) + math.sqrt(grid.size) * step_of(hyper)

    def wire(wire: Wire) -> Wire:
        return Wire(wire.size, wire.size, ring.MODULUS_BITS, side)

    return UpdateTransform(no_memory, client, server, l2_bound, wire)
