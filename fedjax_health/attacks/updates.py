"""Attacks on the rounds: who sees every model and every mean update that the server publishes, and knows a target's records."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from fedjax_health.federated.algorithms import Start
from fedjax_health.federated.federation import Data, Parts, State, Watch
from fedjax_health.threefry import root_key
from fedjax_health.types import Array, Hyper, UserError

THREAT_MODEL = "per-round published updates, and the target's own records"
LOSS, INNER, ATTRIBUTION = "update-loss", "update-inner-product", "update-attribution"
RIDGE = 0.1  # of the candidates' mean squared length: what their updates do not explain, noise and other clients
TOGETHER = 8  # targets whose updates are made at a time


def watched(parts: Parts, targets: np.ndarray, every: int = 1) -> Parts:
    """The same federation, watched by an attacker; State.audit then holds its sums f32[n] by name.

    In a round that is looked at, the attacker trains the published model on each target's records, as a client would, with
    coins of its own (the same in every shadow, so that shadows differ by who took part), and adds up

        update-loss            - loss of the target under the published model
        update-inner-product   <u, m - mean of the other targets' u> / |u|
        update-attribution     the target's coefficient where m - mean u is explained by all targets' u together (ridge)

    u being the target's update and m the published mean update, noise included. The second is the statistic of a mean shift
    along u, as in the canary audit, whose directions are made up: here they are real clients', which have much in common, and
    what they have in common is taken off by the other candidates. The third also takes off what it shares with each of them.

    Args:
      parts: flat rounds, without canaries.
      targets: i[n], clients.
      every: looks at rounds every, 2 every, ...; 1 = at all of them, each at the cost of training n clients and the memory
        of their n updates.

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
        return {name: jnp.zeros((len(who),), jnp.float32) for name in (LOSS, INNER, ATTRIBUTION)}

    def see(parts: Parts, state: State, hyper: Hyper, data: Data, message: Any) -> dict[str, Array]:
        key = jax.random.fold_in(root_key(0), state.round)
        begin = Start(state.params, state.control, parts.algorithm.slot(state.params.client))

        seen, _ = ravel_pytree(message)

        def one(client: Array) -> tuple[Array, Array]:
            own = jax.random.fold_in(key, client.astype(jnp.uint32))
            update, _, metrics = parts.run_client(begin, data.population, client, hyper, own)
            return -metrics["sim/loss"], ravel_pytree(update)[0]

        def look() -> dict[str, Array]:
            loss, update = jax.lax.map(lambda group: jax.vmap(one)(group), jnp.asarray(groups))
            loss, update = (leaf.reshape(-1, *leaf.shape[2:])[: len(who)] for leaf in (loss, update))
            products, along = update @ update.T, update @ seen
            squared, total = jnp.diagonal(products), jnp.sum(products, 1)
            others = (total - squared) / max(len(who) - 1, 1)
            inner = (along - others) / jnp.maximum(jnp.sqrt(squared), 1e-12)
            ridge = jnp.diag(jnp.full((len(who),), RIDGE * jnp.mean(squared) + 1e-12))
            share = jax.scipy.linalg.solve(products + ridge, along - total / len(who), assume_a="pos")
            found = {LOSS: loss, INNER: inner, ATTRIBUTION: share}
            return {name: state.audit[name] + value for name, value in found.items()}

        return jax.lax.cond((state.round + 1) % every == 0, look, lambda: state.audit)

    return parts._replace(watch=Watch(start, see))
