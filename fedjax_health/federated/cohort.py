"""Which clients take part in a round, in fixed shapes, and how that choice amplifies privacy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import dp_accounting
import jax
import jax.numpy as jnp

from fedjax_health.types import Array, Cohort, Metrics

OVERFLOW_DEVIATIONS = 6.0  # slots = mean + 6 sd: truncation then costs nothing that PLD can see


class CohortSampler(NamedTuple):
    """The sampler that runs is the sampler accounted for.

    Attributes:
      size: K.
      slots: C, the most clients a round can hold (static).
      expected: qK, the public expected cohort size.
      sample: key -> (Cohort, metrics sim/sampled and sim/overflow).
      account: noise multiplier -> event of one round, amplification and truncation included.
    """

    size: int
    slots: int
    expected: float
    sample: Callable[[Array], tuple[Cohort, Metrics]]
    account: Callable[[float], dp_accounting.DpEvent]


def make_poisson(size: int, expected: float, multiple: int) -> CohortSampler:
    """Truncated Poisson sampling: each client takes part independently with probability q = expected / size.

    The gaps between taken clients in a Bernoulli(q) sequence are geometric, so positions are cumulative sums of
    1 + floor(log(u) / log(1 - q)): exact, and O(C) in time and memory however many clients there are. If more than C are
    drawn, a uniformly random C of them stay (the truncated event of dp-accounting; Chua et al. 2024, arXiv 2411.04205).
    float32 uniforms have 24 bits, which bounds a gap by about 17 / q.

    Args:
      size: K.
      expected: qK, in (0, K].
      multiple: C is rounded up to a multiple of this (devices x clients a chunk).

    Returns:
      CohortSampler with C >= qK + 6 sqrt(qK), at most K rounded up.
    """
    q = expected / size
    wanted = min(size, math.ceil(expected + OVERFLOW_DEVIATIONS * math.sqrt(expected * (1 - q))))
    slots = -(-max(wanted, 1) // multiple) * multiple
    capacity = min(slots, size)
    draws = min(size, 2 * slots)  # more than twice the slots has probability below 1e-30

    def sample(key: Array) -> tuple[Cohort, Metrics]:
        key_gap, key_rank = jax.random.split(key)
        if q >= 1.0:
            position = jnp.arange(draws, dtype=jnp.int32)
        else:
            u = jax.random.uniform(key_gap, (draws,), minval=jnp.finfo(jnp.float32).tiny)
            gap = jnp.minimum(jnp.floor(jnp.log(u) / jnp.log1p(jnp.float32(-q))), jnp.float32(size)).astype(jnp.int32)
            # clipped at every step, so that the running sum cannot overflow int32
            position = jax.lax.associative_scan(lambda a, b: jnp.minimum(a + b, 2 * size), gap + 1) - 1
        taken = position < size
        count = jnp.sum(taken.astype(jnp.int32))
        rank = jnp.where(taken, jax.random.uniform(key_rank, (draws,)), 2.0)
        chosen = jnp.argsort(rank)[:slots]
        # back into id order: the sum of updates then does not depend on the ranks unless clients were cut
        inside = jnp.arange(chosen.shape[0]) < jnp.minimum(count, capacity)
        client = jnp.sort(jnp.where(inside, position[chosen], size))
        client = jnp.pad(client, (0, slots - client.shape[0]), constant_values=size)
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
