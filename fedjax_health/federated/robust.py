"""Aggregation that survives attackers: rules on the stack of a round's updates, and the aggregator that stacks them.

Every rule skips dead rows, and a row whose Euclidean norm is not finite in float32 (NaN, infinity, above about 1e19)
counts as dead whoever sent it. Nobody left gives the zero update.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from fedjax_health.federated import sharding
from fedjax_health.federated.aggregate import Aggregator, Members
from fedjax_health.registry import lookup
from fedjax_health.types import Array, Metrics, Update, UserError

Rule = Callable[[Array, Array, Array], Array]  # (updates f32[C, d], live bool[C], weight f32[C]) -> f32[d]
Attack = Callable[
    [Array, Array, Array, Array], Array
]  # (updates f32[C, d], client i32[C], live bool[C], key) -> updates

WEISZFELD_STEPS = 64
SMOOTHING = 1e-6  # of the geometric median, in the updates' unit; as in Pillutla et al. 2022
# slack for share * n: 0.42 * 150 is just below 63 in float32, and one attacker too few is the wrong way to round
COUNT_SLACK = 1e-3


def usable(updates: Array, live: Array) -> Array:
    """Rows that count, bool[C]: live, and of finite norm.

    Args: as `median`.
    """
    return live & jnp.isfinite(jnp.sum(jnp.square(updates), 1))


def _assumed(share: float, n: Array) -> Array:
    """floor(share n) i32[]."""
    return jnp.floor(share * n.astype(jnp.float32) + COUNT_SLACK).astype(jnp.int32)


def _sorted(updates: Array, ok: Array) -> Array:
    """f32[C, d], each column ascending, the rows that count first."""
    return jnp.sort(jnp.where(ok[:, None], updates, jnp.inf), 0)


def mean(updates: Array, live: Array, weight: Array) -> Array:
    """sum_i w_i u_i / sum_i w_i: no defence at all, one attacker moves it anywhere (McMahan et al. 2017, arXiv 1602.05629).

    Args:
      updates: f32[C, d].
      live: bool[C].
      weight: f32[C], >= 0.

    Returns:
      f32[d]; 0 where the weights sum to 0.
    """
    w = jnp.where(usable(updates, live), weight, 0.0)
    total = jnp.sum(w)
    summed = jnp.sum(jnp.where(w[:, None] > 0, w[:, None] * updates, 0.0), 0)
    return summed / jnp.where(total > 0, total, 1.0)


def median(updates: Array, live: Array) -> Array:
    """Median of each coordinate, the mean of the middle two for an even number (Yin et al. 2018, arXiv 1803.01498).

    Stays within the honest range of each coordinate while attackers are fewer than half.

    Args:
      updates: f32[C, d].
      live: bool[C].

    Returns:
      f32[d].
    """
    ok = usable(updates, live)
    n = jnp.sum(ok)
    ordered = _sorted(updates, ok)
    middle = 0.5 * ordered[jnp.maximum(n - 1, 0) // 2] + 0.5 * ordered[n // 2]
    return jnp.where(n > 0, middle, 0.0)


def trimmed_mean(updates: Array, live: Array, share: float) -> Array:
    """Mean of each coordinate without its floor(share n) smallest and as many largest values (Yin et al. 2018).

    Args:
      updates: f32[C, d].
      live: bool[C].
      share: attackers it is built for, in [0, 0.5); at least one value is kept of an odd number, two of an even one.

    Returns:
      f32[d].
    """
    ok = usable(updates, live)
    n = jnp.sum(ok)
    cut = jnp.minimum(_assumed(share, n), jnp.maximum(n - 1, 0) // 2)
    rank = jnp.arange(updates.shape[0])
    kept = (rank >= cut) & (rank < n - cut)
    summed = jnp.sum(jnp.where(kept[:, None], _sorted(updates, ok), 0.0), 0)
    return summed / jnp.maximum(n - 2 * cut, 1).astype(jnp.float32)


def norm_bound(updates: Array, live: Array, weight: Array) -> Array:
    """Weighted mean of u_i min(1, m / ||u_i||), m the median norm of the live updates (cf. Sun et al. 2019, arXiv 1911.07963).

    It bounds how far an attacker's update reaches, not where it points.

    Args:
      updates: f32[C, d].
      live: bool[C].
      weight: f32[C], >= 0; not bounded here, so that a weight a client states itself must be capped elsewhere.

    Returns:
      f32[d].
    """
    ok = usable(updates, live)
    norm = jnp.sqrt(jnp.sum(jnp.square(jnp.where(ok[:, None], updates, 0.0)), 1))
    bound = median(norm[:, None], ok)[0]
    factor = jnp.where(norm > bound, bound / jnp.where(norm > 0, norm, 1.0), 1.0)
    return mean(factor[:, None] * updates, ok, weight)


def krum_scores(updates: Array, live: Array, share: float) -> Array:
    """Sum of squared distances to the n - f - 2 nearest others, f = floor(share n) (Blanchard et al. 2017).

    Args:
      updates: f32[C, d].
      live: bool[C].
      share: attackers it is built for, in [0, 0.5); f is capped at (n - 3) / 2, the most that Krum can bear.

    Returns:
      f32[C], lower = better; infinity for rows that do not count, the largest float for a lone one and where it overflows.
    """
    ok = usable(updates, live)
    n = jnp.sum(ok)
    f = jnp.minimum(_assumed(share, n), jnp.maximum(n - 3, 0) // 2)
    # distances do not depend on the origin, but float32 does: |a|^2 + |b|^2 - 2ab cancels far from it
    center = norm_bound(updates, ok, jnp.ones(len(ok), jnp.float32))
    centred = jnp.where(ok[:, None], updates - center[None, :], 0.0)
    gram = jnp.matmul(centred, centred.T, precision="highest")
    square = jnp.diagonal(gram)
    distance = jnp.maximum(square[:, None] + square[None, :] - 2.0 * gram, 0.0)
    pair = ok[:, None] & ok[None, :] & ~jnp.eye(len(ok), dtype=bool)
    distance = jnp.sort(jnp.where(pair, distance, jnp.inf), 1)
    nearest = jnp.arange(len(ok)) < jnp.maximum(n - f - 2, 1)
    score = jnp.sum(jnp.where(nearest[None, :], distance, 0.0), 1)
    # fmin, not minimum: the distance of two attackers at the edge of float32 overflows to inf - inf
    return jnp.where(ok, jnp.fmin(score, jnp.finfo(jnp.float32).max), jnp.inf)


def krum(updates: Array, live: Array, share: float) -> Array:
    """The one update with the lowest `krum_scores` (Blanchard et al. 2017, NeurIPS); the first row of equals.

    Args and result: as `trimmed_mean`.
    """
    best = jnp.argmin(krum_scores(updates, live, share))
    return jnp.where(jnp.any(usable(updates, live)), updates[best], 0.0)


def multi_krum(updates: Array, live: Array, share: float) -> Array:
    """Mean of the n - floor(share n) updates with the lowest `krum_scores` (Blanchard et al. 2017, NeurIPS).

    Args and result: as `trimmed_mean`.
    """
    ok = usable(updates, live)
    n = jnp.sum(ok)
    order = jnp.argsort(krum_scores(updates, live, share))  # rows that do not count last
    chosen = jnp.zeros_like(ok).at[order].set(jnp.arange(len(ok)) < n - _assumed(share, n))
    return mean(updates, ok & chosen, jnp.ones(len(ok), jnp.float32))


def geometric_median(updates: Array, live: Array, weight: Array) -> Array:
    """argmin_v sum_i w_i ||u_i - v|| by smoothed Weiszfeld steps (RFA; Pillutla et al. 2022, arXiv 1912.13445).

    v <- sum_i b_i u_i / sum_i b_i, b_i = w_i / max(||u_i - v||, 1e-6), 64 times from `norm_bound`: attackers
    cannot drag that start far, as they could the mean, and it does not fall on an update, where the steps would stand still.

    Args:
      updates: f32[C, d].
      live: bool[C].
      weight: f32[C], >= 0; the rule breaks down when attackers hold half of the weight.

    Returns:
      f32[d].
    """
    ok = usable(updates, live) & (weight > 0)
    clean = jnp.where(ok[:, None], updates, 0.0)

    def step(_: int, v: Array) -> Array:
        distance = jnp.sqrt(jnp.sum(jnp.square(clean - v[None, :]), 1))
        pull = jnp.where(ok, weight / jnp.maximum(distance, SMOOTHING), 0.0)
        total = jnp.sum(pull)
        return jnp.sum(pull[:, None] * clean, 0) / jnp.where(total > 0, total, 1.0)

    return jax.lax.fori_loop(0, WEISZFELD_STEPS, step, norm_bound(updates, ok, weight))


# factories from the share of attackers that a rule is built for
RULES: dict[str, Callable[[float], Rule]] = {
    "mean": lambda share: mean,
    "norm_bound": lambda share: norm_bound,
    "median": lambda share: lambda updates, live, weight: median(updates, live),
    "trimmed_mean": lambda share: lambda updates, live, weight: trimmed_mean(updates, live, share),
    "krum": lambda share: lambda updates, live, weight: krum(updates, live, share),
    "multi_krum": lambda share: lambda updates, live, weight: multi_krum(updates, live, share),
    "geometric_median": lambda share: geometric_median,
}
# the others count every client once, whatever its weight
WEIGHTED_RULES = frozenset({"mean", "norm_bound", "geometric_median"})


def make_rule(name: str, assumed_attackers: float) -> Rule:
    """A rule by its name.

    Args:
      name: in RULES.
      assumed_attackers: share of attackers that trimmed_mean, krum and multi_krum are built for, in [0, 0.5).

    Returns:
      (updates f32[C, d], live bool[C], weight f32[C]) -> f32[d].

    Raises:
      UserError: unknown rule, or a share out of range.
    """
    make = lookup("aggregation rule", name, RULES)
    if not 0 <= assumed_attackers < 0.5:
        raise UserError(
            f"aggregation.assumed_attackers = {assumed_attackers}: no rule withstands a majority; set it in [0, 0.5)"
        )
    return make(assumed_attackers)


class Stack(NamedTuple):
    """Updates side by side.

    Attributes:
      update: tree of f32[slots, ...].
      members: of the slots, in the same order.
      filled: i32[], slots written so far.
    """

    update: Update
    members: Members
    filled: Array


def make_stacked(rule: Rule, attack: Attack | None) -> Aggregator:
    """Keeps every update of the round, [C, d] in memory, and combines them by a rule that has to see them all.

    The attack is on what the server receives, after the clients' transforms: an attacker is not bound by their clipping.
    A weight of 0 takes a client out of the round, for the rules that know no weights as well. Not bounded: one client may
    swing a median or decide which update Krum picks, which noise for the sum of clipped updates does not cover.

    Args:
      rule: from `make_rule`.
      attack: what the attackers make of the stack, knowing all of it; None = nobody attacks.

    Returns:
      Aggregator whose `total` is (the rule's update, 1.0) and whose `add` may not be given more clients than `init` has
      slots.
    """

    def init(update: Update, slots: int) -> Stack:
        rows = jax.tree.map(lambda leaf: jnp.zeros((slots, *leaf.shape), leaf.dtype), update)
        zeros = jnp.zeros(slots, jnp.int32)
        members = Members(zeros, jnp.zeros(slots, bool), jnp.zeros(slots, jnp.float32), zeros)
        return Stack(rows, members, jnp.int32(0))

    def add(acc: Stack, updates: Update, members: Members) -> Stack:
        def write(rows: Array, chunk: Array) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(rows, chunk, acc.filled, 0)

        members = members._replace(live=members.live & (members.weight > 0))
        update, written = jax.tree.map(write, (acc.update, acc.members), (updates, members))
        return Stack(update, written, acc.filled + len(members.live))

    def merge(acc: Stack, totals: Metrics, axis: str) -> tuple[Stack, Metrics]:
        def gather(rows: Array) -> Array:
            return jax.lax.all_gather(rows, axis, tiled=True, to="invarying")

        update, members = jax.tree.map(gather, (acc.update, acc.members))
        filled, totals = sharding.all_sum((acc.filled, totals), axis)
        return Stack(update, members, filled), totals

    def total(acc: Stack, key: Array) -> tuple[Update, Array]:
        flat = jax.vmap(lambda update: ravel_pytree(update)[0])(acc.update)
        _, unravel = ravel_pytree(jax.tree.map(lambda rows: rows[0], acc.update))
        # by id: the order in which clients are dealt over chunks and devices must not decide a tie or a rounding
        order = jnp.argsort(jnp.where(acc.members.live, acc.members.client, jnp.iinfo(jnp.int32).max), stable=True)
        flat, members = flat[order], jax.tree.map(lambda leaf: leaf[order], acc.members)
        if attack is not None:
            flat = attack(flat, members.client, members.live, key)
        return unravel(rule(flat, members.live, members.weight)), jnp.float32(1.0)

    return Aggregator(init, add, merge, total, False)
