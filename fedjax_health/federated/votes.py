"""Rounds in which teachers vote: clients train their teacher, teachers vote on generated records, a student learns from that.

PATE (Papernot et al. 2017, arXiv 1610.05755; Gaussian noise: 2018, arXiv 1802.08908) as in PATE-GAN (Jordon, Yoon and van der
Schaar 2019, ICLR). Why one client moves the votes of a round by at most sqrt(n) in the Euclidean norm, also adaptively:

* a client trains the one teacher that its number says, and that teacher's votes are bits: n records, each by 1 at most;
* another teacher sees its own clients, and generated records that follow from noisy majorities alone (post-processing);
* a teacher is a lane of its own in the program, at the same place and with the same work whoever else is there, so that not
  even the last digit of the others depends on a client.

Nothing else of the teachers leaves: student, generator and public metrics are functions of the noisy majorities.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_health import rng, tree
from fedjax_health.devices.clock import advance
from fedjax_health.federated import sharding
from fedjax_health.federated.aggregate import Members
from fedjax_health.federated.algorithms import Start
from fedjax_health.federated.federation import Data, Parts, RoundFn, Scheme, State
from fedjax_health.federated.round import play, sample_cohort, server_step, share, stream
from fedjax_health.federated.work import Shared
from fedjax_health.models.base import Ballot, ModelParams
from fedjax_health.transforms.base import Keys, UpdateTransform, chain
from fedjax_health.transforms.clip import make_clip
from fedjax_health.transforms.noise import make_gaussian_noise
from fedjax_health.types import Array, Hyper, Metrics


class Lane(NamedTuple):
    """One teacher and its clients of a round.

    Attributes:
      teacher: its parameters, of the structure of params.client.
      client: i32[c].
      live: bool[c], whose update arrived.
      votes: bool[], False for a lane that only fills up a device.
    """

    teacher: Any
    client: Array
    live: Array
    votes: Array


def sensitivity(ballot: Ballot) -> float:
    """Most by which one client moves the vector of a round's votes, in the Euclidean norm: sqrt(n).

    Args:
      ballot: n records.
    """
    return math.sqrt(ballot.records)


def make_vote_transform(ballot: Ballot, private: bool) -> UpdateTransform:
    """A client's update is clipped, so that none throws its teacher far off; the server's side is for votes, not updates.

        votes <- votes + N(0, z^2 n I),   z = hyper["noise_multiplier"]

    Args:
      ballot: n records.
      private: whether there is noise.
    """
    bound = sensitivity(ballot)
    noise = (make_gaussian_noise(lambda hyper: jnp.float32(bound)),) if private else ()
    return chain(make_clip(), *noise)._replace(l2_bound=lambda _, hyper: jnp.float32(bound))


def teach(parts: Parts, shared: Shared, lane: Lane) -> tuple[Any, Metrics]:
    """A teacher after its clients' mean update, and sums of their metrics; without a live client it stays as it is.

    Args:
      parts: the federation.
      shared: what all clients are given; its models are (the server's parameters, the algorithm's control).
      lane: the teacher.
    """
    server, control = shared.models
    start = Start(ModelParams(lane.teacher, server), control, parts.algorithm.slot(lane.teacher))

    def one(client: Array) -> tuple[Any, Metrics]:
        own = rng.client_key(shared.clients, client)
        message, _, metrics = parts.run_client(start, shared.data, client, shared.hyper, jax.random.fold_in(own, 0))
        keys = Keys(jax.random.fold_in(own, 1), shared.common)
        message, _, more = parts.transform.client(message, parts.transform.memory(message), shared.hyper, keys)
        return message, {**metrics, **more}

    messages, metrics = jax.vmap(one)(lane.client)
    members = Members(lane.client, lane.live, jnp.ones(lane.client.shape, jnp.float32), lane.client)
    acc = parts.aggregator.init(lane.teacher, lane.client.shape[0])
    update, divisor = parts.aggregator.total(parts.aggregator.add(acc, messages, members), shared.common)
    totals = {name: jnp.sum(jnp.where(lane.live, value, 0.0)) for name, value in metrics.items()}
    return tree.subtract(lane.teacher, tree.scale(1.0 / divisor, update)), totals


def tally(ballot: Ballot, lanes: Lane, x: Array, label: Array) -> Array:
    """How many teachers call each record real: f32[n], whole numbers.

    Args:
      ballot: how one votes.
      lanes: teachers, leading axis k.
      x: f32[n, D], generated records.
      label: i32[n].
    """
    vote = jax.vmap(ballot.vote, (0, None, None))(lanes.teacher, x, label)
    # counted as integers: of booleans nothing but 0 and 1 can come, whatever a teacher's parameters are
    return jnp.sum((vote & lanes.votes[:, None]).astype(jnp.int32), 0).astype(jnp.float32)


def majority(ballot: Ballot, votes: Array) -> Array:
    """Which records more than half of the teachers call real: bool[n].

    Args:
      ballot: k teachers.
      votes: f32[n], with their noise.
    """
    return votes > 0.5 * ballot.teachers


def make_votes(ballot: Ballot) -> Scheme:
    """Rounds of k teachers, whose clients stand side by side in the cohort (`teachers.make_dealt`).

        teacher j:  w_j <- w_j - mean of the clipped updates of its clients,   real against generated records
        votes:      v_i = sum_j [teacher j calls generated record i real],     i = 1 ... n
        published:  b_i = [v_i + N(0, z^2 n) > k / 2]
        student:    one step of the server's optimiser on (record i, b_i);     then the generator's steps against the student

    Args:
      ballot: the model's; State.scheme holds the teachers, leading axis k.
    """

    def init(parts: Parts, client: Any) -> Any:
        del parts
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (ballot.teachers, *leaf.shape)), client)

    def make_round(parts: Parts) -> RoundFn:
        k, each = ballot.teachers, parts.sampler.slots // ballot.teachers
        beside = max(1, min(parts.clients_per_chunk // each, -(-k // parts.mesh.size)))
        spare = -k % (beside * parts.mesh.size)

        def on_device(shared: Shared, x: Array, label: Array, lanes: Lane) -> tuple[Any, Array, Metrics]:
            shared, x, label = sharding.varying((shared, x, label))
            taught, totals = jax.lax.map(lambda lane: teach(parts, shared, lane), lanes, batch_size=beside)
            votes = tally(ballot, lanes._replace(teacher=taught), x, label)
            votes, totals = sharding.all_sum((votes, jax.tree.map(lambda m: jnp.sum(m, 0), totals)))
            taught = jax.tree.map(
                lambda leaf: jax.lax.all_gather(leaf, sharding.AXIS, tiled=True, to="invarying"), taught
            )
            return taught, votes, totals

        def fill(leaf: Array) -> Array:
            """Lanes without a vote or a client behind the teachers', so that all devices have as many."""
            return jnp.pad(leaf, [(0, spare)] + [(0, 0)] * (leaf.ndim - 1))

        mapped = sharding.over_clients(parts.mesh, on_device)

        def round_fn(state: State, hyper: Hyper, data: Data) -> tuple[State, Metrics]:
            cohort, sampled = sample_cohort(parts, state)
            outcome = play(parts, state, data, cohort.client, cohort.mask)
            shared = share(state, hyper, data, (state.params.server, state.control))
            x, label = ballot.draw(state.params, hyper, stream(state, rng.Stream.BALLOT))
            lanes = Lane(
                state.scheme,
                cohort.client.reshape(k, each),
                outcome.alive.reshape(k, each),
                jnp.ones((k,), jnp.bool_),
            )
            taught, votes, totals = mapped(shared, x, label, jax.tree.map(fill, lanes))
            keys = Keys(stream(state, rng.Stream.NOISE), stream(state, rng.Stream.TRANSFORM))
            noisy, noise = parts.transform.server(votes, hyper, keys)
            verdict = majority(ballot, noisy)
            direction, studied = ballot.study(state.params, x, label, verdict)
            new, metrics = server_step(parts, state, hyper, direction)
            came = jnp.sum(outcome.alive.astype(jnp.float32))
            seen = {name: total / jnp.maximum(came, 1.0) for name, total in totals.items()}
            seen["sim/cohort"] = came
            seen["sim/votes"] = jnp.mean(votes) / k
            seen["sim/right"] = jnp.mean((verdict == majority(ballot, votes)).astype(jnp.float32))
            new = new._replace(
                round=state.round + 1,
                clock=advance(state.clock, outcome.seconds),
                scheme=jax.tree.map(lambda leaf: leaf[:k], taught),
            )
            public = {**noise, **studied, **metrics, "public/called_real": jnp.mean(verdict.astype(jnp.float32))}
            return new, {**sampled, **outcome.metrics, **seen, **public}

        return round_fn

    return Scheme(init, make_round)
