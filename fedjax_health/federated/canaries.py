"""Canaries: virtual clients that send a known direction through the whole pipeline, so that a run can audit itself.

Half of them, by coins of their own, are held out for the whole run: what an observer scores for those is the null. The clip
norm is C, the noise multiplier z, a client's chance to take part in a round q, and M_t the sum of round t's messages with
its noise, which is what is published times the public denominator. Canary j has the unit direction c_j, scored by

    s_jt = <c_j, M_t> / C = x_j b_jt + interference + z g,   g ~ N(0, 1),

x_j ~ Bernoulli(1/2) being whether it is inserted and b_jt ~ Bernoulli(q) whether its coin came up in round t. The
interference of messages with other directions has about the variance (their squared norm) / (d C^2): it makes an audit
weaker, never wrong. An observer who knows the real clients' messages takes them off first and is left with that of the
other canaries, k q / (2 d). The directions are random signs / sqrt(d): exactly of unit norm, and a word of chance gives 32.

What two groups can be compared, inserted against held out:

* Taking part is known. Over canary j's T_j = sum_t b_jt rounds, sum_t b_jt s_jt ~ N(x_j T_j, T_j z^2): T_j Gaussian
  mechanisms without amplification. The coins of those held out are flipped too, so that both groups are scored alike.
* Taking part is secret, which is what the accountant of a sampled round grants. The best score is the logarithm of the
  likelihood ratio, the sum over all rounds of

      log(1 - q + q exp((2 s_jt - 1) / (2 z^2))),

  whose two distributions are the privacy loss of the composed sampled Gaussian itself, but for the interference. The plain
  sum over all rounds has mean x_j q T and variance T z^2 + x_j T q (1 - q). Both suit bounds on the accounted epsilon.

For an estimate of that epsilon the first comparison measures z, and the accountant's own event at this z does the rest: see
`privacy.audit_estimate.estimate_composed`, and there why two Gaussians fitted to the second do badly.

Andrew et al. 2023, "One-shot empirical privacy estimation for federated learning", arXiv 2302.03098. Canaries depend on no
client's data, so that the clients' own guarantee stays as it is; they cost accuracy, about like as many random clients.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from fedjax_health import rng, tree
from fedjax_health.federated.aggregate import Members
from fedjax_health.federated.federation import Audit, Canaries, Parts, State, message_like
from fedjax_health.federated.work import live_first
from fedjax_health.models.base import abstract_params
from fedjax_health.transforms.base import Keys
from fedjax_health.types import Array, Hyper, UserError

CHUNK = 16  # canaries whose directions are held at a time
MOST_WORDS = 1 << 24  # of all signs (64 MiB) that a chunk of rounds keeps; above, each round draws them anew
LEAST_NOISE = 0.05  # noise multiplier that the likelihood ratio takes for none: it only ranks


def with_canaries(
    parts: Parts, k: int, key: Array, length: float = 1.0, knows_clients: bool = False, rotated: bool = False
) -> Parts:
    """The same federation, audited by k canaries; State.audit then holds an Audit.

    A canary sends length * C * c_j, C the bound of one client's contribution, through `parts.transform.client` into
    `parts.aggregator`. It takes no slot of the cohort: a sampler that cuts its cohort never cuts a canary. (An integer grid
    is made for the slots alone: its sum could overflow if nearly all of them sent C along the same single coordinate.)

    Args:
      parts: the federation.
      k: canaries, >= 2; as many as a tenth of the clients cost accuracy.
      key: typed key of their directions, public.
      length: norm of what they send, in units of C (> 0). Above 1 it is the clip that brings it to C: without one the audit
        sees the difference.
      knows_clients: whether the observer takes the real clients' messages off what is published. Differential privacy holds
        against that observer too; without it large cohorts drown the canaries. The scores then give away, beside what is
        published, the clients' sum without its noise: they must never be published, and an epsilon from them is no release
        that the accountant covers.
      rotated: whether the transform rotates updates, so that their sum has to be turned back before it is known.

    Raises:
      UserError: k or length out of range, or a federation that has no bound, carries no canaries in its scheme, remembers
        compression errors, weighs by records, or aggregates by anything but a sum.
    """
    if k < 2:
        raise UserError(f"canaries={k}: an audit compares two groups and needs at least 2; use 100 or more")
    if not (math.isfinite(length) and length > 0):
        raise UserError(f"canary length={length} must be positive and finite; use 1, or more to audit the clip too")
    if not parts.scheme.audits:
        raise UserError(f"canaries={k}: only flat synchronous rounds carry canaries; use no hierarchy and no fedbuff")
    if not parts.aggregator.bounded:
        raise UserError(f"canaries={k} need a sum with a bounded share of each client; use aggregation.rule='mean'")
    if not parts.aggregator.takes_more:
        raise UserError(
            f"canaries={k} have no slots among masked updates; use aggregation.secure='ideal', whose sums are the same"
        )
    if parts.correlated is not None:
        raise UserError(
            f"canaries={k} are scored by noise that is independent from round to round; use central_gaussian"
        )
    if parts.by_examples:
        raise UserError(f"canaries={k} hold no records to be weighted by; use aggregation.weighting='equal'")
    like = _message(parts)
    if jax.tree.leaves(jax.eval_shape(parts.transform.memory, like)):
        raise UserError(f"canaries={k} remember no compression errors between rounds; turn error_feedback off")
    numbers: Hyper = {"l2_clip_norm": jnp.float32(1.0), "noise_multiplier": jnp.float32(1.0)}
    if parts.transform.l2_bound(None, numbers) is None:
        raise UserError(f"canaries={k} send messages as long as one client's may be; set a finite l2_clip_norm")
    return parts._replace(
        canaries=Canaries(k, key, length, knows_clients, rotated or parts.aggregator.unmask is not None)
    )


def with_directions(parts: Parts) -> Parts:
    """The same federation with its canaries' signs drawn, k d / 8 bytes: once for all rounds of a program, not in each.

    To be called inside the program: as a constant they would be part of the compiled file.

    Args:
      parts: a federation, with canaries or without.

    Returns:
      `parts` itself without canaries, or where the signs would take more than `MOST_WORDS`.
    """
    size = tree.size(_message(parts)) if parts.canaries else 0
    if parts.canaries is None or parts.canaries.size * -(-size // 32) > MOST_WORDS:
        return parts
    index = jnp.arange(parts.canaries.size, dtype=jnp.int32)
    words = jax.vmap(lambda j: _signs(_canaries(parts), j, size))(index)
    return parts._replace(canaries=parts.canaries._replace(words=words))


def insert(parts: Parts, state: State, hyper: Hyper, acc: Any) -> Any:
    """The merged accumulator with the messages of the canaries that take part in the round about to run.

    Args:
      parts: a federation with canaries.
      state: before the round.
      hyper: traced numbers.
      acc: what `work` merged; it stays as it was.

    Returns:
      An accumulator of the same kind.
    """
    canaries, like = _canaries(parts), _message(parts)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), like)
    flat, unravel = ravel_pytree(zeros)
    memory = parts.transform.memory(zeros)
    own = jax.random.fold_in(rng.stream_key(state.key, state.round + 1, rng.Stream.CANARY), 1)
    shared = rng.stream_key(state.key, state.round + 1, rng.Stream.TRANSFORM)
    norm = jnp.float32(canaries.length) * _bound(parts, hyper)
    live = took_part(parts, state) & (state.audit.inserted > 0)
    order = live_first(live)

    def message(index: Array) -> Any:
        sent = unravel(norm * direction(canaries, index, flat.size))
        return parts.transform.client(sent, memory, hyper, Keys(rng.client_key(own, index), shared))[0]

    def chunk(i: Array, acc: Any) -> Any:
        place = i * CHUNK + jnp.arange(CHUNK, dtype=jnp.int32)
        index = order[jnp.minimum(place, canaries.size - 1)]
        here = live[index] & (place < canaries.size)
        ones, nobody = jnp.ones((CHUNK,), jnp.float32), jnp.zeros_like(index)
        members = Members(parts.population.size + index, here, ones, nobody)  # ids that no client has
        return parts.aggregator.add(acc, jax.vmap(message)(index), members)

    # those that take part come first: chunks without any are not run
    return jax.lax.fori_loop(0, -(-jnp.sum(live.astype(jnp.int32)) // CHUNK), chunk, acc)


def observe(parts: Parts, state: State, hyper: Hyper, clients: Any, acc: Any, message: Any) -> Audit:
    """The audit after one more round: scores every canary against what is published.

    Args:
      parts: a federation with canaries.
      state: before the round.
      hyper: traced numbers.
      clients: accumulator of the real clients alone.
      acc: the same with the canaries, as `insert` left it.
      message: the mean message that is published, with its noise.
    """
    canaries, audit = _canaries(parts), state.audit
    key = rng.stream_key(state.key, state.round + 1, rng.Stream.AGGREGATE)
    denominator = parts.aggregator.total(acc, key)[1]
    seen, _ = ravel_pytree(tree.scale(denominator, message))
    if canaries.knows_clients:
        alone = parts.aggregator.total(clients, key)[0]
        if canaries.undo:
            # noise of multiplier 0 leaves the server's other steps
            quiet = {**hyper, "noise_multiplier": jnp.float32(0.0)}
            shared = rng.stream_key(state.key, state.round + 1, rng.Stream.TRANSFORM)
            alone = parts.transform.server(alone, quiet, Keys(key, shared))[0]
        seen = seen - ravel_pytree(alone)[0]
    seen = seen / _bound(parts, hyper)
    chunks = -(-canaries.size // CHUNK)
    index = jnp.minimum(jnp.arange(chunks * CHUNK, dtype=jnp.int32), canaries.size - 1).reshape(chunks, CHUNK)
    every = jax.lax.map(lambda c: jax.vmap(lambda j: jnp.vdot(direction(canaries, j, seen.size), seen))(c), index)
    score = every.reshape(-1)[: canaries.size]
    coin = took_part(parts, state)
    return Audit(
        audit.inserted,
        audit.rounds + coin.astype(jnp.float32),
        audit.during + jnp.where(coin, score, 0.0),
        audit.apart + jnp.where(coin, 0.0, score),
        audit.loss + _log_ratio(score, hyper["noise_multiplier"], participation(parts)),
    )


def participation(parts: Parts) -> float:
    """q, the chance that a client is drawn for a round, and so a canary's."""
    return parts.sampler.expected / parts.sampler.size


def took_part(parts: Parts, state: State) -> Array:
    """bool[k], whose coin comes up in the round about to run, held out or not."""
    return _coins(parts, state.key, state.round)


def together(parts: Parts, key: Array, rounds: int) -> Array:
    """Q_ij = <c_i, c_j> times the rounds in which the coins of canaries i and j both came up, as the auditor knows it.

    The scores of a run with the participation known have the covariance z^2 Q, and the mean Q x; see
    `audit_estimate.estimate_noise_multiplier`.

    Args:
      parts: a federation with canaries.
      key: typed root key of the run.
      rounds: that ran.

    Returns:
      f32[k, k]; inner products are counted and exact, signs being d bits.
    """
    canaries, size = _canaries(parts), tree.size(_message(parts))
    came = jax.vmap(lambda t: _coins(parts, key, t))(jnp.arange(rounds, dtype=jnp.int32)).astype(jnp.float32)
    index = jnp.arange(canaries.size, dtype=jnp.int32)
    words = jax.vmap(lambda j: _signs(canaries, j, size))(index)
    past = 32 * words.shape[1] - size  # bits of the last word that no coordinate has
    words = words.at[:, -1].set((words[:, -1] << past) if past else words[:, -1])
    differ = jax.lax.map(lambda own: jnp.sum(jax.lax.population_count(own[None] ^ words), 1, dtype=jnp.uint32), words)
    return (1.0 - 2.0 * differ.astype(jnp.float32) / jnp.float32(size)) * (came.T @ came)


def direction(canaries: Canaries, index: Array, size: int) -> Array:
    """Unit direction of one canary: random signs over sqrt(d).

    Args:
      canaries: gives the key.
      index: i32[], j.
      size: d, coordinates of a message.

    Returns:
      f32[d].
    """
    bits = _signs(canaries, index, size)
    ones = (bits[:, None] >> jnp.arange(32, dtype=jnp.uint32)[None, :]) & jnp.uint32(1)
    scale = jnp.float32(1.0 / math.sqrt(size))
    return jnp.where(ones.reshape(-1)[:size] > 0, scale, -scale)


def _signs(canaries: Canaries, index: Array, size: int) -> Array:
    if canaries.words is not None:
        return canaries.words[index]
    # the barrier keeps the compiler from working out k * d constants
    words = jax.lax.optimization_barrier(jax.random.key_data(canaries.key))
    key = jax.random.wrap_key_data(words, impl=jax.random.key_impl(canaries.key))
    return jax.random.bits(rng.client_key(key, index), (-(-size // 32),))


def _coins(parts: Parts, key: Array, round_index: Array) -> Array:
    own = jax.random.fold_in(rng.stream_key(key, round_index + 1, rng.Stream.CANARY), 0)
    return jax.random.uniform(own, (_canaries(parts).size,)) < participation(parts)


def _log_ratio(score: Array, noise: Array, q: float) -> Array:
    exponent = (score - 0.5) / jnp.square(jnp.maximum(noise, LEAST_NOISE))
    if q >= 1.0:
        return exponent
    return jnp.logaddexp(jnp.float32(math.log1p(-q)), jnp.float32(math.log(q)) + exponent)


def _canaries(parts: Parts) -> Canaries:
    assert parts.canaries is not None
    return parts.canaries


def _bound(parts: Parts, hyper: Hyper) -> Array:
    bound = parts.transform.l2_bound(None, hyper)
    assert bound is not None
    return bound


def _message(parts: Parts) -> Any:
    client = abstract_params(parts.model.init).client
    return jax.eval_shape(lambda p: message_like(parts.algorithm, p), client)
