"""Pairwise and self masks inside the compiled program: what the server sees, what it recovers, and when it must give up.

A simulation of the data flow, not security: every mask comes from threefry under one 64-bit key that the whole program
knows. `protocol` is the one with secrets. The sum equals `ring.ring_sum` of the survivors bit for bit, so that training
may use that and leave this to tests and to studies of what a server sees.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_health.secure.graph import Ring, check_degree, make_ring, neighbour, survey
from fedjax_health.threefry import threefry
from fedjax_health.types import Array, Metrics, UserError

CHUNK = 1024


class MaskedSum(NamedTuple):
    """Result of a round.

    Attributes:
      total: u32[d], sum of the alive rows; zero if not ok.
      ok: bool[]; False: too few shares or too few members, and the caller keeps its old parameters.
      metrics: secure/aborted, secure/dropped (members lost after masking), secure/least_quorum (fewest shares of a secret
        that is needed), secure/components (of the graph of the alive).
    """

    total: Array
    ok: Array
    metrics: Metrics


def _words(seed: Array, n: int, offset: Array | int, start: Array | int, width: int) -> Array:
    """u32[n, width]: mask between each slot and its neighbour at an offset; offset 0 is the self mask."""
    row = jax.lax.broadcasted_iota(jnp.uint32, (n, width), 0)
    column = jax.lax.broadcasted_iota(jnp.uint32, (n, width), 1)
    base = jnp.asarray(offset, jnp.uint32) * jnp.uint32(n)
    x, y = threefry(seed, row + base, column + jnp.asarray(start, jnp.uint32))
    return x ^ y


def mask_rows(q: Array, ring: Ring, degree: int, seed: Array, start: Array | int = 0) -> Array:
    """What each client sends: y_i = q_i + B_i + sum_o (E_o[i] - E_o[i - o]), o = 1 ... k / 2, modulo 2^32.

    Args:
      q: u32[n, w], columns start ... start + w - 1.
      ring: who takes part.
      degree: k, even.
      seed: u32[2], of all masks of the round.
      start: i32[], number of the first column: masks do not depend on how columns are cut.

    Returns:
      u32[n, w]; zero for those who take no part.
    """
    n, width = q.shape

    def body(offset: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        rows, words = state
        rows = rows + words - words[neighbour(ring, -offset)]
        # the next words are made one step before their use: XLA's CPU backend would make them once for each of two uses
        return rows, _words(seed, n, offset + 1, start, width)

    rows = q + _words(seed, n, 0, start, width)
    rows, _ = jax.lax.fori_loop(1, degree // 2 + 1, body, (rows, _words(seed, n, 1, start, width)))
    return jnp.where(ring.member[:, None], rows, 0)


def leftover(ring: Ring, alive: Array, degree: int, seed: Array, start: Array | int, width: int) -> Array:
    """What masks leave in the sum of the alive rows: sum_i a_i B_i + sum_(i, o) (a_i - a_(i + o)) E_o[i], modulo 2^32.

    The weight of a pairwise mask is zero unless exactly one end is alive, whose other end's key the server reconstructs.

    Args:
      ring, degree, seed, start: as in `mask_rows`.
      alive: bool[n], of members.
      width: columns.

    Returns:
      u32[width].
    """
    n = alive.shape[0]
    own = alive.astype(jnp.uint32)

    def body(offset: Array, total: Array) -> Array:
        weight = own - jnp.where(offset == 0, 0, own[neighbour(ring, offset)])
        return total + weight[:, None] * _words(seed, n, offset, start, width)

    by_row = jax.lax.fori_loop(0, degree // 2 + 1, body, jnp.zeros((n, width), jnp.uint32))
    return jnp.sum(by_row, 0, dtype=jnp.uint32)


def round_ring(member: Array, key: Array) -> Ring:
    """Who masks with whom in a round; `masked_sum` uses this ring.

    Args:
      member: bool[n].
      key: typed key of the round.
    """
    return make_ring(member, jax.random.fold_in(key, 0))


def check_quorum(ring: Ring, alive: Array, degree: int, threshold: int) -> tuple[Array, Metrics]:
    """Whether a round can be unmasked and hides single clients; no masks are needed to tell.

    Args:
      ring: who takes part.
      alive: bool[n], of members.
      degree: k, even.
      threshold: t.

    Returns:
      (ok bool[], metrics), as in `MaskedSum`.
    """
    found = survey(ring, alive, degree)
    ok = (ring.size > degree) & (found.least >= threshold) & (found.components == 1)
    return ok, {
        "secure/aborted": 1.0 - ok.astype(jnp.float32),
        "secure/dropped": jnp.sum(ring.member & ~alive, dtype=jnp.float32),
        "secure/least_quorum": found.least.astype(jnp.float32),
        "secure/components": found.components.astype(jnp.float32),
    }


def masked_sum(
    q: Array, member: Array, alive: Array, key: Array, degree: int, threshold: int, chunk: int = CHUNK
) -> MaskedSum:
    """Masks, loses those who drop out, reconstructs and sums: the server's view of one round.

    Dropping out before masking is not being a member: the ring is made of those who take part. Dropping out after it is
    being a member that is not alive. The round is ok if more than k take part, every secret that is needed has t alive
    neighbours, and the graph of the alive is connected (else the server would learn sums of parts).

    Args:
      q: u32[n, d], encoded updates; rows that are not alive are never used.
      member: bool[n], those who take part in masking.
      alive: bool[n], those whose masked row arrives.
      key: typed key of the round.
      degree: k, even, in [2, n).
      threshold: t, in [1, k]; see `graph.abort_probability`.
      chunk: columns at a time; memory beside q is O(n chunk). The result does not depend on it.

    Raises:
      UserError: degree, threshold or chunk out of range.
    """
    n, d = q.shape
    check_degree(degree, threshold, n)
    if chunk < 1:
        raise UserError(f"masking {chunk} columns at a time: give at least 1")
    alive = alive & member
    ring = round_ring(member, key)
    seed = jax.random.bits(jax.random.fold_in(key, 1), (2,), jnp.uint32)

    def part(start: Array | int, width: int) -> Array:
        columns = jax.lax.dynamic_slice_in_dim(q, start, width, 1)
        received = jnp.where(alive[:, None], mask_rows(columns, ring, degree, seed, start), 0)
        return jnp.sum(received, 0, dtype=jnp.uint32) - leftover(ring, alive, degree, seed, start, width)

    whole, rest = divmod(d, chunk)
    parts = []
    if whole:
        starts = chunk * jnp.arange(whole, dtype=jnp.int32)
        parts.append(jax.lax.map(lambda start: part(start, chunk), starts).reshape(-1))
    if rest:
        parts.append(part(whole * chunk, rest))
    ok, metrics = check_quorum(ring, alive, degree, threshold)
    total = jnp.concatenate(parts) if parts else jnp.zeros(0, jnp.uint32)
    return MaskedSum(jnp.where(ok, total, 0), ok, metrics)
