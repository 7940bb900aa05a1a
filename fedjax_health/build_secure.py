"""From a training's config to its secure aggregation: the grid, the graph, the costs, and what privacy asks of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import scipy.stats

from fedjax_health.checks_training import check_secure
from fedjax_health.federated.aggregate import Aggregator
from fedjax_health.federated.cohort import CohortSampler
from fedjax_health.federated.federation import Parts
from fedjax_health.federated.secure_sum import Graph, make_masked_sum, make_ring_sum
from fedjax_health.federation_config import AggregationConfig, TrainConfig
from fedjax_health.secure.graph import check_degree, default_degree, least_threshold
from fedjax_health.secure.protocol_messages import message_bytes
from fedjax_health.transforms.base import UpdateTransform, full_wire
from fedjax_health.transforms.ring import make_ring_code
from fedjax_health.types import UserError

MOST_ABORT_CHANCE = 1e-17  # of a round of a private training: 10^4 rounds at epsilon 8 add 3e-10 to delta
MOST_ROWS_BYTES = 8 << 30  # of all updates of a round, and their copy in the order of the ring


class Secure(NamedTuple):
    """Secure aggregation of a training.

    Attributes:
      code: the last transform of the client's chain, the first on the server.
      aggregator: of what it sends.
      graph: who masks with whom.
      bytes_down: of the protocol, for a client that stays.
    """

    code: UpdateTransform
    aggregator: Aggregator
    graph: Graph
    bytes_down: float


def make_secure(
    train: TrainConfig, sampler: CohortSampler, compression: UpdateTransform, message: Any, mechanism: str
) -> Secure | None:
    """Secure aggregation as configured; None for secure='none'.

    Args:
      train: how the model is trained.
      sampler: draws the cohorts; its slots may not depend on chunks and devices, since grid and bound do not.
      compression: what comes before the clip (a rotation, or nothing).
      message: tree of a message's shapes, f32.
      mechanism: privacy.mechanism; "central_gaussian" divides the sum by the public expected cohort.

    Raises:
      UserError: parts that do not go with it, a grid or a graph that cannot be, or more to keep than fits.
    """
    config = train.aggregation
    if config.secure == "none":
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
    code = make_ring_code(template, train.l2_clip_norm, sampler.slots, config.secure_bits, 8 * up)
    expected = sampler.expected if mechanism == "central_gaussian" else None
    return Secure(code, make(expected, graph), graph, down)


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
      relative; fewest clients in a sum, 1 where the server sees single updates).
    """
    if train.aggregation.secure == "none":
        return train.l2_clip_norm, 1
    bound = parts.transform.l2_bound(None, {"l2_clip_norm": jnp.float32(train.l2_clip_norm)})
    assert bound is not None
    # every survivor has t surviving neighbours
    return float(bound), ring_graph(train.aggregation, parts.sampler).threshold + 1
