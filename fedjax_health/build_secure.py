"""From a training's config to its secure aggregation: the grid, the graph, the costs, and what privacy asks of them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import scipy.stats

from fedjax_health.checks_training import check_secure
from fedjax_health.federated.aggregate import Aggregator
from fedjax_health.federated.cohort import CohortSampler
from fedjax_health.federated.federation import Parts
from fedjax_health.federated.secure_sum import Graph, make_masked_sum, make_ring_sum
from fedjax_health.federated.votes import sensitivity
from fedjax_health.federation_config import AggregationConfig, TrainConfig
from fedjax_health.models.base import ballot_of
from fedjax_health.secure.graph import check_degree, default_degree, least_threshold
from fedjax_health.secure.protocol_messages import message_bytes
from fedjax_health.transforms.base import UpdateTransform, full_wire
from fedjax_health.transforms.distributed import NoiseGrid, make_distributed_noise, make_noise_grid
from fedjax_health.transforms.ring import make_ring_code
from fedjax_health.types import UserError

MOST_ABORT_CHANCE = 1e-17  # of a round of a private training: 10^4 rounds at epsilon 8 add 3e-10 to delta
CALLS = 5  # of the protocol, its stages: the model comes with the first, and four more wait for the latency
# A client's own time in the protocol, measured on one core of an AMD EPYC (benchmarks.secagg: 11.5 ms at k = 40 and d = 1,000,
# 12.6 ms at d = 50,000). Most of it is curve arithmetic, which that core does 400 times as fast as the wearable of
# devices.profile (X25519: 35 us against 907,000 cycles at 64 MHz, Fujii and Aranha 2017), which trains at 32 MFLOP/s.
SECONDS_A_NEIGHBOUR, SECONDS_A_PARAMETER = 2.87e-4, 2.2e-8
OPERATIONS_PER_SECOND = 400 * 32e6
MOST_ROWS_BYTES = 8 << 30  # of all updates of a round, and their copy in the order of the ring


class Secure(NamedTuple):
    """Secure aggregation of a training.

    Attributes:
      code: the last transform of the client's chain, the first on the server.
      aggregator: of what it sends.
      graph: who masks with whom.
      bytes_down: of the protocol, for a client that stays.
      grid: of distributed noise; None without.
    """

    code: UpdateTransform
    aggregator: Aggregator
    graph: Graph
    bytes_down: float
    grid: NoiseGrid | None


def make_secure(
    train: TrainConfig,
    sampler: CohortSampler,
    compression: UpdateTransform,
    message: Any,
    mechanism: str,
    least_share: float,
) -> Secure | None:
    """Secure aggregation as configured; None for secure='none'.

    Args:
      train: how the model is trained.
      sampler: draws the cohorts; its slots may not depend on chunks and devices, since grid and bound do not.
      compression: what comes before the clip (a rotation, or nothing).
      message: tree of a message's shapes, f32.
      mechanism: privacy.mechanism; "central_gaussian" divides the sum by the public expected cohort, and with
        "distributed_gaussian" the clients' code adds noise.
      least_share: of "distributed_gaussian", share of the expected cohort whose noise is the whole of it.

    Raises:
      UserError: parts that do not go with it, a grid or a graph that cannot be, or more to keep than fits.
    """
    config, distributed = train.aggregation, mechanism == "distributed_gaussian"
    if config.secure == "none":
        if distributed:
            raise UserError(
                "mechanism='distributed_gaussian' hides a client in a secure sum only; set aggregation.secure to "
                "'ideal' or 'masked'"
            )
        return None
    check_secure(train, "train", mechanism)
    size = compression.wire(full_wire(message)).size
    template = jax.ShapeDtypeStruct((size,), jnp.float32) if train.compression.rotate else message
    rows = 2 * 4 * sampler.slots * size
    if config.secure == "masked" and rows > MOST_ROWS_BYTES:
        raise UserError(
            f"aggregation.secure='masked' would keep {sampler.slots} updates of {size} numbers in {rows / 2**30:.1f} GiB a "
            f"seed (limit {MOST_ROWS_BYTES >> 30}); use secure='ideal', whose sums are the same, or a smaller cohort"
        )
    graph = ring_graph(config, sampler)
    up, down = protocol_bytes(size, graph, sampler.expected)
    make = make_masked_sum if config.secure == "masked" else make_ring_sum
    if distributed:
        grid = make_noise_grid(size, sampler.slots, math.ceil(least_share * sampler.expected))
        return Secure(make_distributed_noise(template, grid, 8 * up), make(None, graph, grid.least), graph, down, grid)
    code = make_ring_code(template, train.l2_clip_norm, sampler.slots, config.secure_bits, 8 * up)
    expected = sampler.expected if mechanism == "central_gaussian" else None
    return Secure(code, make(expected, graph), graph, down, None)


def ring_graph(config: AggregationConfig, sampler: CohortSampler) -> Graph:
    """The graph that a configuration asks for.

    Args:
      config: secure_degree, 0 = `graph.default_degree` of the expected cohort.
      sampler: draws the cohorts.

    Raises:
      UserError: a degree that the largest cohort cannot have.
    """
    degree = config.secure_degree or default_degree(sampler.expected)
    check_degree(degree, least_threshold(degree), sampler.slots)
    return Graph(degree, least_threshold(degree))


def protocol_bytes(size: int, graph: Graph, clients: float) -> tuple[int, float]:
    """Bytes of the protocol for a client that stays, beside its 4 d of update, if nobody is lost.

    Args:
      size: d.
      graph: k and t.
      clients: that the list of survivors names (4 bytes each, down); the expected ones.

    Returns:
      (up, down).
    """
    k = graph.degree
    sent = message_bytes(size, k, k, k, clients)
    return round(sent["up"]) - 4 * size, sent["down"]


def protocol_operations(size: int, graph: Graph) -> float:
    """A client's own work in the protocol, in floating-point operations of training that take as long: a k + b d.

    Args:
      size: d.
      graph: k.
    """
    return OPERATIONS_PER_SECOND * (SECONDS_A_NEIGHBOUR * graph.degree + SECONDS_A_PARAMETER * size)


def check_private_secure(parts: Parts, graph: Graph, clients: int, able: float = 1.0) -> None:
    """Refuses a private training whose rounds might be void.

    A void round shows, and whether it is void depends on who takes part: one client more may make the quorum, which noise on
    a sum does not cover. Where nobody who joins is lost, a round is void exactly if k clients or fewer join. If that happens
    with chance p at most, whoever is in the data, the guarantee holds with delta + T p (1 + e^epsilon).

    Args:
      parts: the federation; its sampler draws each client with the same chance.
      graph: k and t.
      clients: that are in the federation.
      able: chance that a client's device has the memory, and so begins to work when asked, in (0, 1].

    Raises:
      UserError: devices that may be lost after joining, or p above 1e-17.
    """
    if not parts.devices.loses_nobody:
        raise UserError(
            "privacy with aggregation.secure and devices that may be lost in a round is not accounted for: whether a round "
            "is void shows who took part; set devices.failures_per_hour=0 and deadline_seconds=0, or secure='none'"
        )
    joins = able * min(1.0, parts.sampler.expected / parts.sampler.size)
    # a neighbouring population has one client less
    chance = float(scipy.stats.binom.cdf(graph.degree, clients - 1, joins))
    if chance > MOST_ABORT_CHANCE:
        raise UserError(
            f"aggregation.secure_degree={graph.degree} (0 = chosen) with a mean cohort of {joins * clients:.3g} leaves a round "
            f"void with chance {chance:.1e}, which shows who takes part and which the accountant does not cover; raise "
            "cohort, lower secure_degree, or set sampler='full'"
        )


def seen_by_server(train: TrainConfig, parts: Parts) -> tuple[float, int]:
    """What the ledger says of the sums of a training.

    Args:
      train: how.
      parts: the federation.

    Returns:
      (most by which one client moves a sum: with secure aggregation the bound of what is encoded, to which the noise is
      relative, but of distributed noise, whose grid follows the noise, that of the clip; of teachers, that of a round's
      votes; fewest clients in a sum, 1 where the server sees single updates).
    """
    if (ballot := ballot_of(parts.model)) is not None:
        return sensitivity(ballot), 1
    if train.aggregation.secure == "none":
        return train.l2_clip_norm, 1
    graph = ring_graph(train.aggregation, parts.sampler)
    if parts.noise_grid is not None:
        return train.l2_clip_norm, max(parts.noise_grid.least, graph.threshold + 1)
    bound = parts.transform.l2_bound(None, {"l2_clip_norm": jnp.float32(train.l2_clip_norm)})
    assert bound is not None
    # every survivor has t surviving neighbours
    return float(bound), graph.threshold + 1
