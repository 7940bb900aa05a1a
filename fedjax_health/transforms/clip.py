"""Bounds the Euclidean norm of a client's whole update: the sensitivity of the sum."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fedjax_health import tree
from fedjax_health.transforms.base import Keys, UpdateTransform, no_memory, same_wire, server_identity
from fedjax_health.types import Array, Hyper, Metrics, Update


def make_clip() -> UpdateTransform:
    """u <- u * min(1, C / ||u||_2), C = hyper["l2_clip_norm"]; all layers as one vector.

    A non-finite update becomes zero, so that the bound holds whatever a client sends; it is counted in
    sim/nonfinite_clients. C = inf leaves finite updates as they are. After a compressor it is the server that clips
    what it decoded from one client, which bounds the sum just as well: the simulation does it beside the client.
    """

    def client(update: Update, memory: Any, hyper: Hyper, keys: Keys) -> tuple[Update, Any, Metrics]:
        del keys
        norm = tree.global_norm(update)
        finite = jnp.isfinite(norm)
        bound = hyper["l2_clip_norm"]
        factor = jnp.where(norm > bound, bound / jnp.maximum(norm, jnp.finfo(jnp.float32).tiny), 1.0)
        metrics = {
            "sim/update_norm": jnp.where(finite, norm, 0.0),
            "sim/clip_fraction": (norm > bound).astype(jnp.float32),
            "sim/nonfinite_clients": 1.0 - finite.astype(jnp.float32),
        }
        # one product and one selection an element: this runs for every client
        clipped = jax.tree.map(lambda leaf: jnp.where(finite, factor * leaf, 0.0), update)
        return clipped, memory, metrics

    def l2_bound(bound: Array | None, hyper: Hyper) -> Array | None:
        del bound
        return hyper["l2_clip_norm"]

    return UpdateTransform(no_memory, client, server_identity, l2_bound, same_wire)
