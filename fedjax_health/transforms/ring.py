"""Updates on the integer grid that secure aggregation adds up: encoded by each client, decoded once from the sum."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from fedjax_health import tree
from fedjax_health.secure import ring
from fedjax_health.transforms.base import Keys, UpdateTransform, Wire, no_memory
from fedjax_health.types import Array, Hyper, Metrics, Update

EXACT_BITS = 24  # float32 holds every integer of so many bits
CLIP_SLACK = 2.0**-12  # relative; half the rounding of a float32 sum of squares over a depth of 8,000 additions


def rounding_bound(size: int, bound: float, slots: int, bits: int) -> float:
    """Most by which encoding and decoding move the l2 norm of one client's share of the sum: sqrt(d) step (1 + g).

    g = 0 where float32 holds every sum that can occur. Above 2^24 the decoded sum is itself rounded, to g grid steps, and the
    sums with and without a client differ by at most g more in a coordinate.

    Args:
      size: d, coordinates.
      bound, slots, bits: as in `make_ring_code`.

    Returns:
      In the update's unit, rounded up.

    Raises:
      UserError: see `ring.ring_step`.
    """
    step = ring.ring_step(bound, slots, bits)
    largest = math.ceil(slots * (bound / step + 1))
    grain = 2 ** (largest.bit_length() - EXACT_BITS) if largest > 2**EXACT_BITS else 0
    return ring.encoded_l2_bound(0.0, size, step * (1 + grain))


def make_ring_code(template: Update, bound: float, slots: int, bits: int, side: int) -> UpdateTransform:
    """q = round(u / step) by a coin, modulo 2^32, on the client; step * sum q once on the server: unbiased.

    The grid is static, made from the clip norm of the config: a clip that moves with the rounds would need another grid.
    l2_bound adds to the incoming bound C what rounding can do, surely (`rounding_bound`), and the clip's own rounding.

    Args:
      template: tree of the update's shapes (arrays or ShapeDtypeStructs), f32; what comes out on the client is u32[d].
      bound: largest |coordinate| of an update, in its unit; the l2 clip norm is one.
      slots: most clients that are ever summed.
      bits: of one client's coordinate, 2 to 24.
      side: bits of a message beside the 32 a coordinate: keys, shares and signatures.

    Returns:
      Transform whose metric sim/saturated counts coordinates that were cut to the bound, or no number.

    Raises:
      UserError: see `ring.ring_step`.
    """
    step = ring.ring_step(bound, slots, bits)
    size = tree.size(template)
    # to float32 upwards
    slack = np.nextafter(np.float32(rounding_bound(size, bound, slots, bits)), np.float32(np.inf))
    unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), template))[1]

    def client(update: Update, memory: Any, hyper: Hyper, keys: Keys) -> tuple[Update, Any, Metrics]:
        del hyper
        encoded = ring.encode(ravel_pytree(update)[0], bound, step, keys.own)
        return encoded.q, memory, {"sim/saturated": encoded.saturated.astype(jnp.float32)}

    def server(update: Update, hyper: Hyper, keys: Keys) -> tuple[Update, Metrics]:
        del hyper, keys
        return unravel(ring.decode(update, step)), {}

    def l2_bound(incoming: Array | None, hyper: Hyper) -> Array | None:
        del hyper
        if incoming is None:
            return None
        total = incoming * jnp.float32(1.0 + CLIP_SLACK) + jnp.float32(slack)
        return jnp.nextafter(total, jnp.float32(jnp.inf))

    def wire(wire: Wire) -> Wire:
        return Wire(wire.size, wire.size, ring.MODULUS_BITS, side)

    return UpdateTransform(no_memory, client, server, l2_bound, wire)
