"""Clients in fixed groups that take turns: nobody takes part twice within b rounds."""

from __future__ import annotations

import math

import jax.numpy as jnp

from fedjax_health.federated.cohort import Available, CohortSampler, make_poisson
from fedjax_health.federated.permutation import permute
from fedjax_health.federation_config import TrainConfig
from fedjax_health.threefry import root_key
from fedjax_health.types import Array, Cohort, Metrics, UserError

GROUPING = 0  # seed of the permutation that makes the groups: public, the same in every run


def make_cyclic_poisson(size: int, expected: float, groups: int, multiple: int) -> CohortSampler:
    """Round t samples from group t mod b alone, each of its clients independently with probability p = b expected / K.

    A public permutation that knows ids and no data splits the clients into b groups once: position i of it belongs to group
    i mod b, so that groups differ by one client at most, and the j-th of a group is found without a list: O(C) however
    many clients there are. The smaller groups are sampled as if they had one client more, who never comes; p, the capacity
    and the size accounted for are those of the largest. A client that is added or removed has its id, and with it its
    group, either way; the groups of the others do not move.

    The event is of one turn of a group: b consecutive rounds hold one, T rounds ceil(T / b). Truncation stays inside the turn
    (see `make_poisson`): a client that is cut for another belongs to the same group and the same round.

    Args:
      size: K, at most 2^30.
      expected: clients a round, in (0, K / b].
      groups: b >= 1.
      multiple: slots are rounded up to a multiple of this.

    Returns:
      CohortSampler with separation b.

    Raises:
      UserError: more clients expected a round than a group holds.

    Source: Choquette-Choo et al. 2023, arXiv 2306.08153 (cyclic sampling of a partition, for b bands).
    """
    if groups * expected > size:
        raise UserError(
            f"cohort={expected:g} with noise_bands={groups} needs {groups * expected:g} clients, for each takes part at most "
            f"once in {groups} rounds; there are {size}; lower cohort or noise_bands"
        )
    largest = -(-size // groups)
    group = make_poisson(largest, largest * (groups * expected / size), multiple)

    def sample(available: Available, key: Array, round_index: Array) -> tuple[Cohort, Metrics]:
        (member, mask), metrics = group.sample(available, key, round_index)
        place = round_index % groups + groups * member
        mask = mask & (place < size)
        client = permute(jnp.where(mask, place, 0), size, root_key(GROUPING))
        return Cohort(jnp.where(mask, client, 0), mask), metrics

    return CohortSampler(size, group.slots, expected, sample, group.account, separation=groups)


def check_turns(train: TrainConfig, noise_bands: int) -> None:
    """Correlated noise needs clients that take turns, and one flat sum a round with noise of one size.

    Args:
      train: how.
      noise_bands: b.

    Raises:
      UserError: anything else.
    """
    if noise_bands < 2:
        raise UserError(
            f"noise_bands={noise_bands} with mechanism='correlated_gaussian' must be at least 2; 1 is plain noise"
        )
    if train.sampler != "poisson" or train.algorithm == "fedbuff" or train.hierarchy.institutions:
        raise UserError(
            "mechanism='correlated_gaussian' is accounted for in flat rounds whose clients take turns; set sampler='poisson', "
            "institutions=0 and another algorithm than fedbuff"
        )
    if not math.isfinite(train.l2_clip_norm) or train.clip_quantile:
        raise UserError(
            "mechanism='correlated_gaussian' needs one finite l2_clip_norm for all rounds; set clip_quantile=0"
        )
    if train.aggregation.secure != "none":
        raise UserError(
            "mechanism='correlated_gaussian' with secure aggregation is not accounted for: a void round would shift the noise "
            "against the clients' turns; set secure='none'"
        )
