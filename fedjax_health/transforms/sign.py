"""One bit a value: the sign, and one scale a client."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fedjax_health import tree
from fedjax_health.transforms.base import UpdateTransform, Wire
from fedjax_health.transforms.coder import SCALE_BITS, Coder, make_coded, only
from fedjax_health.types import Array, Update


def _total(values: Any) -> Array:
    return sum((jnp.sum(leaf, dtype=jnp.float32) for leaf in jax.tree.leaves(values)), jnp.float32(0.0))


def _code(update: Update, kept: Any, key: Array) -> Update:
    del key
    count = jnp.float32(tree.size(update)) if kept is None else _total(kept)
    scale = _total(only(kept, jax.tree.map(jnp.abs, update))) / count
    return only(kept, jax.tree.map(lambda u: jnp.where(u < 0, -scale, scale), update))


def _wire(wire: Wire) -> Wire:
    return wire._replace(bits_per_value=1, side=wire.side + SCALE_BITS)


SIGN = Coder(_code, _wire)


def make_sign() -> UpdateTransform:
    """u <- s sign(u), s = mean|u| over the whole update; sign(0) = 1, since one bit has no third value.

    Biased, but ||out - u||^2 = ||u||^2 - ||u||_1^2/d < ||u||^2: with error feedback it converges (Karimireddy et al.
    2019, arXiv 1901.09847). An update that is not finite decodes to one that is not.
    """
    return make_coded(SIGN)
