"""What a federation is made of, and its state: the vocabulary of rounds, whatever their scheme."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh

from fedjax_health import rng
from fedjax_health.data.population import Population
from fedjax_health.devices import clock
from fedjax_health.devices.clock import Clock
from fedjax_health.devices.round import DeviceLayer
from fedjax_health.federated.aggregate import Aggregator
from fedjax_health.federated.algorithms import Algorithm, Start
from fedjax_health.federated.client import RunClient
from fedjax_health.federated.cohort import CohortSampler
from fedjax_health.models.base import ModelParams, Trainable
from fedjax_health.privacy.correlated import Correlated
from fedjax_health.transforms.base import UpdateTransform
from fedjax_health.transforms.distributed import NoiseGrid
from fedjax_health.types import Array, Hyper, Metrics


class Memory(NamedTuple):
    """What a client remembers between rounds: the algorithm's slot and the transforms' memory."""

    slot: Any
    transform: Any


class Data(NamedTuple):
    """Traced, never donated.

    Attributes:
      population: what the population reads (a Store, or the simulated world's key).
      include: bool[K], which clients exist for this federation; the others are as if they had never been there.
    """

    population: Any
    include: Array


class Canaries(NamedTuple):
    """Virtual clients that audit a run; see `canaries.with_canaries`.

    Attributes:
      size: k > 0.
      key: typed key of their directions, which are public.
      length: norm of a canary's message in units of the bound of one client's contribution.
      knows_clients: whether the observer knows the real clients' messages, as differential privacy grants; else only what
        is published.
      undo: whether a sum of messages is no sum of updates until the server has undone a rotation or an encoding.
      words: u32[k, ceil(d / 32)], the signs of all directions where they are drawn already; None = drawn from `key` when used.
    """

    size: int
    key: Array
    length: float
    knows_clients: bool
    undo: bool
    words: Array | None = None


class Audit(NamedTuple):
    """What the observer of k canaries has added up; f32[k] each, scores in units of one client's bound.

    Attributes:
      inserted: 1 for a canary that belongs to the federation, 0 for one that is held out for the whole run.
      rounds: rounds for which the canary's own coin came up; only one that is inserted then sends anything.
      during: sum of its scores over those rounds.
      apart: sum of its scores over the other rounds.
      loss: sum over all rounds of the log-likelihood ratio of its score, inserted against held out, its coins unknown.
    """

    inserted: Array
    rounds: Array
    during: Array
    apart: Array
    loss: Array


class Watch(NamedTuple):
    """An attacker who watches the rounds; what it has added up is State.audit. See `attacks.updates`.

    Attributes:
      start: () -> its sums.
      see: (parts, state before the round, hyper, data, published mean message) -> its sums after the round.
    """

    start: Callable[[], Any]
    see: Callable[[Parts, State, Hyper, Data, Any], Any]


class State(NamedTuple):
    """Traced, donated, checkpointed whole.

    Attributes:
      round: i32[], rounds done.
      key: typed root key of the federation.
      params: the global model.
      server: state of the server's optimiser.
      average: exponential moving average of the released parameters (what is published).
      control: the algorithm's state on the server.
      memory: f32[K, D], the Memory of every client as one row (see `memory_row`); () where nothing is remembered.
      clock: simulated time.
      scheme: what the scheme itself keeps (institutions' models, updates in flight), or ().
      audit: the Audit of the canaries, or what a Watch has added up; () without any.
      noise: of the rounds before, where it is correlated over rounds, else ().
    """

    round: Array
    key: Array
    params: ModelParams
    server: Any
    average: Any
    control: Any
    memory: Any
    clock: Clock
    scheme: Any
    audit: Any = ()
    noise: Any = ()


class Costs(NamedTuple):
    """What a round asks of one device.

    Attributes:
      flops_per_step: floating-point operations of one local step.
      steps: count i32[] -> i32[], local steps of a client with that many records.
      bytes_up, bytes_down: exact size of a client's message and of the broadcast.
      model_bytes: uncompressed size of params.client.
      memory_bytes: that training needs on the device.
      operations: of a client beside its training, such as those of a secure sum, in FLOPs that take as long.
      calls: exchanges with the server.
    """

    flops_per_step: float
    steps: Callable[[Array], Array]
    bytes_up: float
    bytes_down: float
    model_bytes: float
    memory_bytes: float
    operations: float
    calls: int


class Parts(NamedTuple):
    """Everything a federation is made of; see the parts' own files. Without canaries nobody audits; without `correlated` the
    noise, if any, is the transform's, on a grid of its own if it is distributed."""

    model: Trainable
    population: Population
    algorithm: Algorithm
    run_client: RunClient
    sampler: CohortSampler
    devices: DeviceLayer
    costs: Costs
    download: Callable[[Any, Array], Any]
    transform: UpdateTransform
    aggregator: Aggregator
    server_optimizer: optax.GradientTransformation
    schedule: Callable[[Array, Hyper], Hyper]
    mesh: Mesh
    clients_per_chunk: int
    by_examples: bool
    ema_decay: float
    scheme: Scheme
    canaries: Canaries | None = None
    correlated: Correlated | None = None
    noise_grid: NoiseGrid | None = None
    watch: Watch | None = None


class Scheme(NamedTuple):
    """Who speaks to whom, and when: flat rounds, a hierarchy, or updates as they come.

    Attributes:
      init: (parts, params.client) -> State.scheme.
      make_round: parts -> round_fn(state, hyper, data) -> (state, metrics).
      audits: whether its rounds carry canaries.
    """

    init: Callable[[Parts, Any], Any]
    make_round: Callable[[Parts], RoundFn]
    audits: bool = False


RoundFn = Callable[[State, Hyper, Data], tuple[State, Metrics]]


def init_state(parts: Parts, key: Array) -> State:
    """State before the first round.

    Args:
      parts: the federation.
      key: typed root key; copied, since the state is donated.
    """
    params = parts.model.init(rng.stream_key(key, 0, rng.Stream.INIT))
    client = params.client
    row, _ = memory_row(parts, client)
    return State(
        round=jnp.int32(0),
        key=jnp.copy(key),
        params=params,
        server=parts.server_optimizer.init(client),
        average=jax.tree.map(jnp.copy, parts.model.release(params)),  # donated buffers may not be shared
        control=parts.algorithm.control(client),
        memory=jnp.broadcast_to(row, (parts.population.size, row.size)) if row.size else (),
        clock=clock.start(),
        scheme=parts.scheme.init(parts, client),
        audit=_start_audit(parts.canaries, key) if parts.canaries else parts.watch.start() if parts.watch else (),
        noise=parts.correlated.start(jax.eval_shape(lambda: message_like(parts.algorithm, client)))
        if parts.correlated
        else (),
    )


def _start_audit(canaries: Canaries, key: Array) -> Audit:
    # independent fair coins, not a half: the bounds for one run ask for them
    coin = jax.random.uniform(rng.stream_key(key, 0, rng.Stream.CANARY), (canaries.size,)) < 0.5
    zeros = [jnp.zeros((canaries.size,), jnp.float32) for _ in range(4)]  # donated buffers may not be shared
    return Audit(coin.astype(jnp.float32), *zeros)


def memory_row(parts: Parts, client: Any) -> tuple[Array, Callable[[Array], Memory]]:
    """What a client remembers before its first round, as one vector: a round moves each client's memory in one piece.

    Args:
      parts: the federation.
      client: params.client, of which shapes count and, where the algorithm says so, values.

    Returns:
      (f32[D], function that makes a Memory of such a vector).
    """
    message = jax.eval_shape(lambda: message_like(parts.algorithm, client))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), message)
    return ravel_pytree(Memory(parts.algorithm.slot(client), parts.transform.memory(zeros)))


def message_like(algorithm: Algorithm, client: Any) -> Any:
    """A message of the algorithm for parameters like these: what travels up, before any transform."""
    params = ModelParams(client, ())
    start = Start(params, algorithm.control(client), algorithm.slot(client))
    one = jnp.float32(1.0)
    numbers = {"client_learning_rate": one, "l2_clip_norm": one}
    return algorithm.final(start, algorithm.init(start), one, numbers)[0]
