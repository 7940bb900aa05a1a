"""Who masks with whom: a random ring in which everyone's neighbours are the next k / 2 on either side.

Bell, Bonawitz, Gascon, Lepoint and Raykova 2020, "Secure single-server aggregation with (poly)logarithmic overhead", CCS,
eprint 2020/704: k = O(log n) neighbours are enough, where Bonawitz et al. 2017 have all n - 1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import scipy.stats

from fedjax_health.types import Array, UserError


class Ring(NamedTuple):
    """A ring over those who take part, in a random order.

    Attributes:
      member: bool[n], who takes part.
      slot: i32[n], the slot at each position; members first.
      position: i32[n], its inverse; below `size` for members.
      size: i32[], number of members.
    """

    member: Array
    slot: Array
    position: Array
    size: Array


def check_degree(degree: int, threshold: int, n: int) -> None:
    """Checks what is known before the round.

    Args:
      degree: k, neighbours of a client.
      threshold: t, shares that reveal a secret.
      n: most clients of a round.

    Raises:
      UserError: k odd or outside [2, n), or t outside [1, k].
    """
    if degree % 2 or not 2 <= degree < n:
        raise UserError(f"a ring graph of degree {degree} over {n} clients: give an even degree from 2 to {n - 1}")
    if not 1 <= threshold <= degree:
        raise UserError(f"a threshold of {threshold} shares among {degree} neighbours: give 1 to {degree}")


def default_degree(clients: float) -> int:
    """k = 2 ceil(log2 n), at most about n / 2, even and at least 2: O(log n), as Bell et al. 2020 have it.

    With `least_threshold`, where a tenth of the clients is lost after masking, a round of 24 aborts with chance .04 at most,
    one of 100 with .02 and one of 1,000 with .008 (`abort_probability`); where more are lost give a larger degree.

    Args:
      clients: n, expected in a round.
    """
    few = 2 * math.ceil(math.log2(max(clients, 2.0)))
    return max(2, min(few, 2 * int(clients / 4)))


def least_threshold(degree: int) -> int:
    """t = k / 2 + 1, the least that withstands a server which lies: then most clients may be lost.

    Fewer than 2t - k = 2 clients of a neighbourhood may collude with the server (see `protocol`).

    Args:
      degree: k, even.
    """
    return degree // 2 + 1


def make_ring(member: Array, key: Array) -> Ring:
    """A uniformly random cyclic order of the members (but for ties of 32-bit words).

    Args:
      member: bool[n].
      key: typed key of the round.
    """
    n = member.shape[0]
    # a word a slot, whose first ones are the same for any n: empty slots behind the members do not change the order
    words = jax.random.bits(key, (n,), jnp.uint32)
    slot = jnp.lexsort((words, ~member)).astype(jnp.int32)
    position = jnp.zeros(n, jnp.int32).at[slot].set(jnp.arange(n, dtype=jnp.int32))
    return Ring(member, slot, position, jnp.sum(member, dtype=jnp.int32))


def neighbour(ring: Ring, offset: Array | int) -> Array:
    """Slot of the member `offset` positions ahead of each (behind, if negative).

    Args:
      ring: of `make_ring`.
      offset: i32[].

    Returns:
      i32[n]; a slot that is no member is its own neighbour.
    """
    n = ring.member.shape[0]
    ahead = ring.slot[jnp.mod(ring.position + offset, jnp.maximum(ring.size, 1))]
    return jnp.where(ring.member, ahead, jnp.arange(n, dtype=jnp.int32))


class Survey(NamedTuple):
    """Whether the round can be unmasked, and whether it hides single clients.

    Attributes:
      alive_neighbours: i32[n].
      least: i32[], the fewest alive neighbours of anyone whose secret is needed (degree if nobody's is).
      components: i32[], parts into which the graph of the alive falls; the server can learn the sum of each.
    """

    alive_neighbours: Array
    least: Array
    components: Array


def survey(ring: Ring, alive: Array, degree: int) -> Survey:
    """Counts alive neighbours and connected components.

    A secret is needed of every alive member (its self mask) and of every dead one that has an alive neighbour (its
    pairwise masks). Two alive members in a row are connected if they are at most k / 2 positions apart, so that the
    components are the gaps that are longer, or one where there is at most one such gap.

    Args:
      ring: of more than `degree` members; with fewer, neighbours coincide and the counts are too large.
      alive: bool[n], of members.
      degree: even.
    """
    count = jnp.zeros(alive.shape, jnp.int32)
    ahead = jnp.zeros(alive.shape, bool)
    for offset in range(1, degree // 2 + 1):
        before, after = alive[neighbour(ring, -offset)], alive[neighbour(ring, offset)]
        count += before.astype(jnp.int32) + after.astype(jnp.int32)
        ahead |= after
    needed = ring.member & (alive | (count > 0))
    gaps = jnp.sum(alive & ~ahead, dtype=jnp.int32)
    components = jnp.maximum(gaps, jnp.any(alive).astype(jnp.int32))
    return Survey(count, jnp.min(jnp.where(needed, count, degree)), components)


def abort_probability(clients: int, degree: int, threshold: int, dropout: float) -> float:
    """Bound on the chance that a round aborts: n P[Bin(k, 1 - dropout) < t], every client dropping out independently.

    Args:
      clients: n, members of the round.
      degree: k.
      threshold: t.
      dropout: chance that a member is lost after masking, in [0, 1].

    Returns:
      The union bound, at most 1.
    """
    return min(1.0, clients * float(scipy.stats.binom.cdf(threshold - 1, degree, 1.0 - dropout)))
