"""Device -> institution -> server: institutions run rounds of their own and meet at the server every few of them.

HierFAVG (Liu et al. 2020, arXiv 1905.06641) with any server optimiser. Client k belongs to institution k mod I.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_health import tree
from fedjax_health.devices.clock import advance
from fedjax_health.federated.aggregate import Aggregator, Members, Sum, merge_sums
from fedjax_health.federated.federation import Data, Parts, RoundFn, Scheme, State
from fedjax_health.federated.round import means, play, remember, sample_cohort, server_step, share
from fedjax_health.federated.work import Tasks, make_work
from fedjax_health.models.base import ModelParams
from fedjax_health.transforms.base import Keys
from fedjax_health.types import Array, Hyper, Metrics, Update


class Institutions(NamedTuple):
    """What the institutions hold between two meetings.

    Attributes:
      params: params.client of each, leading axis I.
      updates: f32[I], client updates (or records, weighted by examples) each took in since the last meeting.
    """

    params: Any
    updates: Array


def make_institution_sums(institutions: int) -> Aggregator:
    """Weighted sums of updates by institution: a monoid with a leading axis I.

    Args:
      institutions: I.
    """

    def init(update: Update, slots: int) -> Sum:
        del slots
        sums = jax.tree.map(lambda leaf: jnp.zeros((institutions, *leaf.shape), leaf.dtype), update)
        return Sum(sums, jnp.zeros((institutions,), jnp.float32))

    def add(acc: Sum, updates: Update, members: Members) -> Sum:
        mine = members.source[:, None] == jnp.arange(institutions)[None, :]
        weight = jnp.where(members.live[:, None] & mine, members.weight[:, None], 0.0)

        def total(leaf: Array) -> Array:
            live = members.live.reshape((-1,) + (1,) * (leaf.ndim - 1))
            return jnp.tensordot(weight, jnp.where(live, leaf, 0.0), ((0,), (0,)))

        return Sum(tree.add(acc.update, jax.tree.map(total, updates)), acc.weight + jnp.sum(weight, 0))

    def total(acc: Sum, key: Array) -> tuple[Update, Array]:
        del key
        return acc.update, jnp.maximum(acc.weight, 1.0)

    return Aggregator(init, add, merge_sums, total, False)


def make_hierarchy(institutions: int, period: int) -> Scheme:
    """Institutions average their own clients' updates every round; every `period` rounds the server averages institutions.

        each round:  v_i <- v_i - mean of the updates of institution i's clients
        meeting:     direction = sum_i n_i (w - v_i) / sum_i n_i,  w <- server step,  v_i <- w

    n_i counts the client updates (or records) of institution i since the last meeting; one that saw none has no say.

    Args:
      institutions: I > 0.
      period: rounds between two meetings, > 0.
    """

    def init(parts: Parts, client: Any) -> Institutions:
        del parts
        copies = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (institutions, *leaf.shape)), client)
        return Institutions(copies, jnp.zeros((institutions,), jnp.float32))

    def make_round(parts: Parts) -> RoundFn:
        def pick(models: tuple[Any, Any, Any], source: Array) -> tuple[ModelParams, Any]:
            copies, server, control = models
            return ModelParams(jax.tree.map(lambda leaf: leaf[source], copies), server), control

        sums = make_institution_sums(institutions)
        work = make_work(parts._replace(aggregator=sums), pick)
        # a meeting moves one model up and one down for each institution
        traffic = 2.0 * institutions * parts.costs.model_bytes

        def round_fn(state: State, hyper: Hyper, data: Data) -> tuple[State, Metrics]:
            own: Institutions = state.scheme
            cohort, sampled = sample_cohort(parts, state)
            outcome = play(parts, state, data, cohort.client, cohort.mask)
            shared = share(state, hyper, data, (own.params, state.params.server, state.control))
            ones = jnp.ones(cohort.client.shape, jnp.float32)
            result = work(shared, Tasks(cohort.client, outcome.alive, cohort.client % institutions, ones))
            total, weight = sums.total(result.acc, shared.common)
            keys = Keys(shared.common, shared.common)
            total, _ = jax.vmap(lambda one: parts.transform.server(one, hyper, keys))(total)

            def step(v: Array, u: Array) -> Array:
                return v - u / weight.reshape((-1,) + (1,) * (u.ndim - 1))

            copies = jax.tree.map(step, own.params, total)
            updates = own.updates + result.acc.weight
            share_of = updates / jnp.maximum(jnp.sum(updates), 1.0)
            drift = jax.tree.map(
                lambda w, v: jnp.sum(share_of) * w - jnp.tensordot(share_of, v, 1), state.params.client, copies
            )
            # the server has seen meetings, not rounds: its average starts with the first of them
            meetings = state._replace(round=state.round // period)
            met, server_metrics = server_step(parts, meetings, hyper, drift)
            meeting = (state.round + 1) % period == 0
            fresh = jax.tree.map(lambda w, v: jnp.broadcast_to(w, v.shape), met.params.client, copies)
            new = tree.where(meeting, met, state)._replace(
                round=state.round + 1,
                memory=remember(state, result),
                clock=advance(state.clock, outcome.seconds),
                scheme=Institutions(tree.where(meeting, fresh, copies), jnp.where(meeting, 0.0, updates)),
            )
            metrics = {
                **sampled,
                **outcome.metrics,
                **means(result, outcome.alive),
                **server_metrics,
                "sim/bytes_institutions": jnp.where(meeting, jnp.float32(traffic), 0.0),
            }
            return new, metrics

        return round_fn

    return Scheme(init, make_round)
