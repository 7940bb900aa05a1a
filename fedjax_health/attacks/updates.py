"""Attacks on the rounds: who sees every model and every mean update that the server publishes, and knows a target's records."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health import tree
from fedjax_health.federated.algorithms import Start
from fedjax_health.federated.federation import Data, Parts, State, Watch
from fedjax_health.threefry import root_key
from fedjax_health.types import Array, Hyper, UserError

THREAT_MODEL = "per-round published updates, and the target's own records"
LOSS, INNER = "update-loss", "update-inner-product"
TOGETHER = 8  # targets whose updates are made at a time


def watched(parts: Parts, targets: np.ndarray, every: int = 1) -> Parts:
    """The same federation, watched by an attacker; State.audit then holds its sums f32[n] by name.

    In a round that is looked at, the attacker trains the published model on each target's records, as a client would, with
    coins of its own (the same in every shadow, so that shadows differ by who took part), and adds up

        update-loss            - loss of the target under the published model
        update-inner-product   <u, m> / |u|,   u the target's update, m the published mean update, noise included

    The second is the likelihood-ratio statistic of a mean shift along u; in the canary audit the direction is made up, here it
    is a real client's. What a published mean owes to all clients alike is taken off by comparing shadows (`attacks.lira`).

    Args:
      parts: flat rounds, without canaries.
      targets: i[n], clients.
      every: looks at rounds every, 2 every, ...; 1 = at all of them, each at the cost of training n clients.

    Raises:
      UserError: another scheme of rounds, or canaries.
    """
    if not parts.scheme.audits or parts.canaries is not None:
        raise UserError(
            "attacks on published updates watch flat rounds without canaries; set attacks.update_rounds=0, or use no "
            "hierarchy, no fedbuff, no pategan and privacy.canaries=0"
        )
    who = np.asarray(targets, np.int32)
    spare = -len(who) % TOGETHER
    groups = np.concatenate([who, np.repeat(who[:1], spare)]).reshape(-1, TOGETHER)

    def start() -> dict[str, Array]:
        return {name: jnp.zeros((len(who),), jnp.float32) for name in (LOSS, INNER)}

    def see(parts: Parts, state: State, hyper: Hyper, data: Data, message: Any) -> dict[str, Array]:
        key = jax.random.fold_in(root_key(0), state.round)
        begin = Start(state.params, state.control, parts.algorithm.slot(state.params.client))

        def one(client: Array) -> tuple[Array, Array]:
            own = jax.random.fold_in(key, client.astype(jnp.uint32))
            update, _, metrics = parts.run_client(begin, data.population, client, hyper, own)
            along = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, update, message)), jnp.float32(0.0))
            return -metrics["sim/loss"], along / jnp.maximum(tree.global_norm(update), 1e-12)

        def look() -> dict[str, Array]:
            loss, inner = jax.lax.map(lambda group: jax.vmap(one)(group), jnp.asarray(groups))
            new = {LOSS: loss, INNER: inner}
            return {name: state.audit[name] + new[name].reshape(-1)[: len(who)] for name in new}

        return jax.lax.cond((state.round + 1) % every == 0, look, lambda: state.audit)

    return parts._replace(watch=Watch(start, see))
