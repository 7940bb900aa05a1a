"""Which clients take part in a round, in fixed shapes, and how that choice amplifies privacy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import dp_accounting
import jax
import jax.numpy as jnp

from fedjax_health.federated.permutation import permute
from fedjax_health.types import Array, Cohort, Metrics, UserError

SMALL = 256  # clients up to which a whole permutation is drawn; above, a keyed one has mixed well and needs no sort
CANDIDATES = 4  # times the cohort: clients asked whether they are on before a round goes short
SURPRISE = 1e-30  # chance of a round in which the gaps drawn end before the last client
OVERFLOW_DEVIATIONS = 6.0  # slots = mean + 6 sd: truncation then costs nothing that PLD can see


Available = Callable[[Array], Array]  # client i32[n] -> bool[n], who is on at this moment


class CohortSampler(NamedTuple):
    """The sampler that runs is the sampler accounted for.

    Attributes:
      size: K.
      slots: C, the most clients a round can hold (static).
      expected: qK, the public expected cohort size.
      sample: (who is available, key, rounds done i32[]) -> (Cohort, metrics sim/sampled and sim/overflow). Only `make_fixed`
        looks for others in the place of clients that are off; elsewhere they are asked and do not answer.
      account: noise multiplier -> event of `separation` consecutive rounds, amplification and truncation included.
      separation: b; no client is drawn twice in b consecutive rounds (1 promises nothing).
    """

    size: int
    slots: int
    expected: float
    sample: Callable[[Available, Array, Array], tuple[Cohort, Metrics]]
    account: Callable[[float], dp_accounting.DpEvent]
    separation: int = 1

    def events(self, rounds: int) -> int:
        """Events that cover the first `rounds` rounds: ceil(rounds / separation), the most turns that a client has had."""
        return -(-rounds // self.separation)


def everyone(client: Array) -> Array:
    """Where devices are always on: bool like client."""
    return jnp.ones(client.shape, jnp.bool_)


def make_full(size: int, multiple: int) -> CohortSampler:
    """Every client in every round.

    Args:
      size: K.
      multiple: C is rounded up to a multiple of this.
    """
    slots = -(-size // multiple) * multiple

    def sample(available: Available, key: Array, round_index: Array) -> tuple[Cohort, Metrics]:
        del available, key, round_index
        client = jnp.arange(slots, dtype=jnp.int32)
        inside = client < size
        return Cohort(jnp.where(inside, client, 0), inside), {"sim/sampled": jnp.float32(size)}

    return CohortSampler(size, slots, float(size), sample, dp_accounting.GaussianDpEvent)


def make_fixed(size: int, cohort: int, multiple: int) -> CohortSampler:
    """Exactly `cohort` different clients of those that are on, each as likely as any other.

    The first entries of a random permutation that are available; a large population's permutation is a keyed one evaluated
    point by point, so that the cost is that of the cohort. If fewer than `cohort` of 4 x `cohort` candidates are on, the
    round goes short.

    Args:
      size: K, at most 2^30.
      cohort: clients wanted, in [1, K].
      multiple: C is rounded up to a multiple of this.
    """
    slots = -(-cohort // multiple) * multiple
    draws = min(size, CANDIDATES * cohort)

    def sample(available: Available, key: Array, round_index: Array) -> tuple[Cohort, Metrics]:
        del round_index
        if size <= SMALL:
            candidate = jax.random.permutation(key, size)[:draws].astype(jnp.int32)
        else:
            candidate = permute(jnp.arange(draws, dtype=jnp.int32), size, key)
        on = available(candidate)
        place = jnp.cumsum(on.astype(jnp.int32)) - 1
        taken = on & (place < cohort)
        client = jnp.zeros((slots,), jnp.int32).at[jnp.where(taken, place, slots)].set(candidate, mode="drop")
        mask = jnp.arange(slots) < jnp.sum(taken)
        return Cohort(client, mask), {"sim/sampled": jnp.sum(taken).astype(jnp.float32)}

    def account(noise_multiplier: float) -> dp_accounting.DpEvent:
        raise UserError(
            "sampler='fixed' has no accountant for adding or removing one client; use sampler='poisson' or 'full', or set "
            "privacy.mechanism='none'"
        )

    return CohortSampler(size, slots, float(cohort), sample, account)


def enough_gaps(expected: float, q: float) -> int:
    """Gaps that reach past the last client but for a chance of 1e-30: more are taken with that probability at most.

    Bernstein's inequality for a sum of independent Bernoulli(q) variables with mean m and variance v = m (1 - q):
    P(X >= m + t) <= exp(-t^2 / (2 (v + t / 3))).

    Args:
      expected: m > 0.
      q: sampling probability, in (0, 1].
    """
    spread = -math.log(SURPRISE)
    return math.ceil(expected + spread / 3 + math.sqrt(spread**2 / 9 + 2 * spread * expected * (1 - q))) + 1


def make_poisson(size: int, expected: float, multiple: int) -> CohortSampler:
    """Truncated Poisson sampling: each client takes part independently with probability q = expected / size.

    The gaps between taken clients in a Bernoulli(q) sequence are geometric, so positions are cumulative sums of
    1 + floor(log(u) / log(1 - q)): exact, and O(C) in time and memory however many clients there are. If more than C are
    drawn, a uniformly random C of them stay (the truncated event of dp-accounting; Chua et al. 2024, arXiv 2411.04205).
    A client that is off, or drops out, was drawn all the same: it takes part with at most the probability accounted for.
    float32 uniforms have 24 bits, which bounds a gap by about 17 / q.

    Args:
      size: K, at most 2^30.
      expected: qK, in (0, K].
      multiple: C is rounded up to a multiple of this (devices x clients a chunk).

    Returns:
      CohortSampler with C >= qK + 6 sqrt(qK), at most K rounded up.
    """
    q = expected / size
    # not rounded up: results and accounting must not depend on chunks and devices
    capacity = max(1, min(size, math.ceil(expected + OVERFLOW_DEVIATIONS * math.sqrt(expected * (1 - q)))))
    slots = -(-capacity // multiple) * multiple
    draws = min(size, enough_gaps(expected, q))

    def sample(available: Available, key: Array, round_index: Array) -> tuple[Cohort, Metrics]:
        del available, round_index
        key_gap, key_rank = jax.random.split(key)
        if q >= 1.0:
            position = jnp.arange(draws, dtype=jnp.int32)
        else:
            u = jax.random.uniform(key_gap, (draws,), minval=jnp.finfo(jnp.float32).tiny)
            gap = jnp.minimum(jnp.floor(jnp.log(u) / jnp.log1p(jnp.float32(-q))), jnp.float32(size)).astype(jnp.uint32)
            # stopped just beyond K at every step, so that the running sum cannot overflow
            beyond = jnp.uint32(size + 1)
            place = jax.lax.associative_scan(lambda a, b: jnp.minimum(a + b, beyond), gap + 1)
            position = place.astype(jnp.int32) - 1
        count = jnp.sum((position < size).astype(jnp.int32))

        def cut() -> Array:
            """A uniformly random `capacity` of those drawn, in id order."""
            rank = jnp.where(position < size, jax.random.uniform(key_rank, (draws,)), 2.0)
            return jnp.sort(position[jnp.argsort(rank)[:capacity]])

        # ids ascend already, so that nothing needs sorting in all but one round of a billion
        client = jax.lax.cond(count > capacity, cut, lambda: position[:capacity])
        client = jnp.pad(client, (0, slots - capacity), constant_values=size)
        mask = client < size
        overflow = jnp.maximum(count - capacity, 0)
        return Cohort(jnp.where(mask, client, 0), mask), {
            "sim/sampled": count.astype(jnp.float32),
            "sim/overflow": overflow.astype(jnp.float32),
        }

    def account(noise_multiplier: float) -> dp_accounting.DpEvent:
        if capacity == size:
            return dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(noise_multiplier))
        return dp_accounting.dp_event.TruncatedSubsampledGaussianDpEvent(size, q, capacity, noise_multiplier)

    return CohortSampler(size, slots, expected, sample, account)
