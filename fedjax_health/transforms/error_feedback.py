"""Error feedback: what compression lost in one round is added to the client's next update."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fedjax_health import tree
from fedjax_health.transforms.base import Keys, UpdateTransform
from fedjax_health.types import Array, Hyper, Metrics, Update, UserError


def make_error_feedback(inner: UpdateTransform) -> UpdateTransform:
    """u' = u + e; sent = inner(u'); e <- u' - decode(sent), e the client's memory, of the update's shapes.

    Karimireddy et al. 2019, arXiv 1901.09847. It needs an inner compressor that loses less than it is given,
    E||decode(inner(u)) - u||^2 < ||u||^2; otherwise the memory grows without bound. decode is inner's server side applied
    to this client alone, so a rotation inside is undone with this round's signs and the memory stays in the update's own
    coordinates. inner must therefore be compressors only: a clip or noise belongs after error feedback, not in it.

    A client whose update is not finite sends it so (the clip counts and drops it) and keeps its old memory. What the clip
    cuts off afterwards is not fed back.

    Args:
      inner: one compressor or a chain of them, without memory of its own.

    Returns:
      Transform with memory; no bound on the norm of what comes out.

    Raises:
      UserError: (when its memory is made) inner has a memory of its own.
    """

    def memory(update: Update) -> Update:
        if jax.tree.leaves(inner.memory(update)):
            raise UserError(
                "error feedback inside error feedback: give it compressors that have no memory of their own"
            )
        return tree.zeros_like(update)

    def client(update: Update, memory: Any, hyper: Hyper, keys: Keys) -> tuple[Update, Any, Metrics]:
        wanted = tree.add(update, memory)
        sent, _, metrics = inner.client(wanted, inner.memory(wanted), hyper, keys)
        decoded, _ = inner.server(sent, hyper, keys)
        left = tree.subtract(wanted, decoded)
        norm = tree.global_norm(left)
        kept = tree.where(jnp.isfinite(norm), left, memory)
        return sent, kept, metrics | {"sim/feedback_norm": tree.global_norm(kept)}

    def l2_bound(bound: Array | None, hyper: Hyper) -> None:
        del bound, hyper

    return UpdateTransform(memory, client, inner.server, l2_bound, inner.wire)
