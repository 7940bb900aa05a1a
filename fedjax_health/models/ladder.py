"""How many discriminator rounds a generator update waits for: more where noise keeps the discriminator from telling fakes.

The rule reads the discriminator's accuracy on fakes alone, which a server computes from what it has published and its own
noise: it costs no privacy (Bie et al. 2023, arXiv 2302.02936).
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from fedjax_health.types import Array

RUNGS = (1, 2, 5, 10, 20, 50)  # rounds a generator update
LEAST_ACCURACY = 0.6  # on fakes, below or at which the generator would learn from noise
# Bie et al. average over 100 updates, of some 10^5; a run here has some 10^2 rounds, of which the first must leave time to act
DECAY = 0.9
GRACE = 10  # updates on a rung before it may be left


class Ladder(NamedTuple):
    """The server's counters.

    Attributes:
      rung: i32[], place in RUNGS.
      waited: i32[], rounds since the last generator update.
      updates: i32[], generator updates on this rung.
      accuracy: f32[], average over those updates of the accuracy on fakes.
    """

    rung: Array
    waited: Array
    updates: Array
    accuracy: Array


def start() -> Ladder:
    """The lowest rung, nothing seen."""
    return Ladder(jnp.int32(0), jnp.int32(0), jnp.int32(0), jnp.float32(0.0))


def rounds_an_update(ladder: Ladder) -> Array:
    """Discriminator rounds that a generator update waits for; i32[]."""
    return jnp.asarray(np.array(RUNGS, np.int32))[ladder.rung]


def climb(ladder: Ladder, accuracy: Array) -> tuple[Ladder, Array]:
    """One discriminator round.

        a <- d a + (1 - d) accuracy, d = min(0.9, (k - 1) / k) at the rung's k-th update;   up a rung if k >= 10 and a <= 0.6

    Args:
      ladder: before the round.
      accuracy: f32[], share of fresh fakes that the discriminator calls fake after the round.

    Returns:
      (after the round, whether the generator is updated bool[]).
    """
    waited = ladder.waited + 1
    due = waited >= rounds_an_update(ladder)
    updates = jnp.where(due, ladder.updates + 1, ladder.updates)
    count = jnp.maximum(updates, 1).astype(jnp.float32)
    decay = jnp.minimum(jnp.float32(DECAY), (count - 1.0) / count)
    average = jnp.where(due, decay * ladder.accuracy + (1.0 - decay) * accuracy, ladder.accuracy)
    up = due & (updates >= GRACE) & (average <= LEAST_ACCURACY) & (ladder.rung < len(RUNGS) - 1)
    moved = Ladder(
        jnp.where(up, ladder.rung + 1, ladder.rung),
        jnp.where(due, 0, waited),
        jnp.where(up, 0, updates),
        jnp.where(up, 0.0, average),
    )
    return moved, due
