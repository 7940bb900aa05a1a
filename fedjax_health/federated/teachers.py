"""Clients dealt to teachers: a client's number fixes its teacher, and each round asks as many clients of every teacher."""

from __future__ import annotations

import dp_accounting
import jax
import jax.numpy as jnp

from fedjax_health import rng
from fedjax_health.federated.cohort import Available, CohortSampler, everyone, make_fixed
from fedjax_health.federated.permutation import permute
from fedjax_health.threefry import root_key
from fedjax_health.types import Array, Cohort, Metrics

DEALING = 0  # seed of the permutation that deals the clients: public, the same in every run


def make_dealt(size: int, teachers: int, each: int) -> CohortSampler:
    """Each round asks `each` different clients of every teacher, all clients of a teacher equally likely.

    A public permutation that knows numbers and no data deals the clients once: position i of it goes to teacher i mod k, so
    that teachers differ by one client at most; the smaller ones draw as if they had one more, who never comes. A client that
    is added or removed has its number, and with it its teacher and its slot, either way: who else is drawn does not change.
    Clients that are off do not answer, and nobody is asked in their place.

    All teachers vote in every round, whoever was asked, so that drawing clients amplifies nothing: the event is one Gaussian.

    Args:
      size: K, at most 2^30.
      teachers: k, at most K.
      each: clients of a teacher a round, at most K / k.

    Returns:
      CohortSampler of k `each` slots, those of a teacher side by side.
    """
    group = make_fixed(-(-size // teachers), each, 1)

    def sample(available: Available, key: Array, round_index: Array) -> tuple[Cohort, Metrics]:
        del available
        draw = jax.vmap(lambda own: group.sample(everyone, own, round_index)[0])
        member, mask = draw(rng.numbered_keys(key, teachers))
        place = (jnp.arange(teachers, dtype=jnp.int32)[:, None] + teachers * member).reshape(-1)
        mask = mask.reshape(-1) & (place < size)
        client = permute(jnp.where(mask, place, 0), size, root_key(DEALING))
        sampled = {"sim/sampled": jnp.sum(mask).astype(jnp.float32)}
        return Cohort(jnp.where(mask, client, 0), mask), sampled

    slots = teachers * each
    return CohortSampler(size, slots, float(slots), sample, dp_accounting.GaussianDpEvent)
