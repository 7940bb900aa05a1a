"""Contracts of the noise and of the bound for every mechanism, on the round that `build_federation` makes of it.

Gradients of `make_slope` do not depend on the model, so that two runs under the same keys, one of them without noise or without
a neighbour, differ by exactly that, round after round. What is published is brought to units of the bound, in which the noise
of one draw is z N(0, 1) and one neighbour moves it by 1 at most:

    central, secure    expected u_t / bound,  u_t = w_t - w_t+1, bound = `l2_bound` of the transforms
    correlated         C of that, over the rounds: the innovations
    local              m u_t / C, m the clients that came: the sum of a draw each
    record             m B u_t / (rate C): the sum of a draw for every local step of each
    distributed        m u_t / bound, bound that of what is encoded: the sum of a draw each, of which `least` make up the whole
    adaptive           expected u_t / (s C_t), and the bit as the clip norm shows it,
                       expected (kappa / s) (quantile - 1/2 - log(C_t+1 / C_t) / rate);  s = sqrt(1 + kappa^2 / 4)
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import toy
from jax.flatten_util import ravel_pytree
from least_squares import make_store
from privacy.contracts import HOSTILE, seeds_of
from privacy.laws import correlation_p, require, standard_normal

from fedjax_health.build_federation import build_federation
from fedjax_health.data.population import Population, Store, stored_population
from fedjax_health.devices.round import make_ideal
from fedjax_health.federated import sharding
from fedjax_health.federated.adaptive_clip import BIT_SCALE
from fedjax_health.federated.federation import Data, Parts, init_state
from fedjax_health.models.base import Classifier, ModelParams, masked_mean, no_refine
from fedjax_health.privacy.correlated import coefficients

DIM, CLASSES, BATCH = 5, 3, 3
COUNTS = (5, 6, 4)  # records of the clients in turn: two steps an epoch
ROUNDS, BANDS, RATE, QUANTILE = 4, 2, 0.05, 0.5
SCALE = np.sqrt(1.0 + BIT_SCALE**2 / 4.0)
N = 350  # federations side by side; three times as many pairs of neighbours


class Mechanism(NamedTuple):
    """One of them.

    Attributes:
      name: of the mechanism, or of what is built on the central one.
      privacy: privacy.mechanism.
      hides: "client" (it is in the population or not), "data" (a client's, emptied in place) or "record" (likewise).
      train: what differs in the training.
      bands: of its noise.
    """

    name: str
    privacy: str
    hides: str
    train: dict[str, Any]
    bands: int = 1


SUMMED = {"aggregation": {"secure": "ideal", "secure_degree": 8}}
MECHANISMS = {
    m.name: m
    for m in (
        Mechanism("local", "local_gaussian", "data", {}),
        Mechanism("record", "record_gaussian", "record", {"local": "epochs"}),
        Mechanism("correlated", "correlated_gaussian", "client", {}, BANDS),
        Mechanism("adaptive", "central_gaussian", "client", {"clip_quantile": QUANTILE, "clip_learning_rate": RATE}),
        Mechanism("secure", "central_gaussian", "client", SUMMED),
        Mechanism("distributed", "distributed_gaussian", "data", SUMMED),
    )
}


class Changed(NamedTuple):
    """What a population reads: the records `record` (-1 = all) of one client hold `bad` unless it is 0, or are gone."""

    store: Store
    client: Any
    record: Any
    bad: Any
    gone: Any


class Ran(NamedTuple):
    """Published changes f64[N, ROUNDS, P], metrics f64[N, ROUNDS], and the traced numbers f32[N]."""

    change: np.ndarray
    metrics: dict[str, np.ndarray]
    hyper: dict[str, np.ndarray]


def make_slope() -> Classifier:
    """Loss x . w[:, y] + b[y]: the gradient of a record is (x, 1) in the column of its label, whatever the parameters."""

    def losses(client: Any, batch: Any, affine: Any) -> Any:
        out = affine(batch.x, client["w"], client["b"])
        return jnp.sum(out * jax.nn.one_hot(batch.y, CLASSES, dtype=jnp.float32), -1)

    def plain(x: Any, w: Any, b: Any) -> Any:
        return x @ w + b[None, :]

    def field(params: Any, batch: Any, hyper: Any, key: Any) -> Any:
        mean = lambda client: masked_mean(losses(client, batch, plain), batch.mask)  # noqa: E731
        loss, slope = jax.value_and_grad(mean)(params.client)
        return slope, {"sim/loss": loss}

    def record_loss(client: Any, batch: Any, hyper: Any, key: Any, ops: Any) -> Any:
        return losses(client, batch, ops.affine or plain)

    start = {"w": jnp.zeros((DIM, CLASSES), jnp.float32), "b": jnp.zeros((CLASSES,), jnp.float32)}
    predict = lambda released, x: plain(x, released["w"], released["b"])  # noqa: E731
    return Classifier(lambda key: ModelParams(start, ()), field, no_refine, lambda p: p.client, predict, record_loss)


def changed_population(size: int) -> Population:
    """A stored population whose data is a `Changed`."""
    real = stored_population(size, max(COUNTS))

    def hit(data: Changed, client: Any, index: Any) -> Any:
        return (client == data.client) & ((data.record < 0) | (index == data.record))

    def count(data: Changed, client: Any) -> Any:
        whole = data.gone & (data.record < 0) & (client == data.client)
        return jnp.where(whole, 0, real.count(data.store, client))

    def batch(data: Changed, client: Any, index: Any) -> Any:
        found, own = real.batch(data.store, client, index), hit(data, client, index)
        mask = found.mask & ~(own & data.gone)
        x = jnp.where((own & (data.bad != 0))[:, None], data.bad, found.x)
        return found._replace(x=jnp.where(mask[:, None], x, 0.0), mask=mask)

    return Population(size, max(COUNTS), 0, True, count, batch)


def build(mechanism: Mechanism, cohort: int, clients: int, devices: int = 1) -> Parts:
    config = toy.train_config(
        cohort=cohort, rounds=ROUNDS, batch_size=BATCH, local_steps=1, clients_per_chunk=4, **mechanism.train
    )
    return build_federation(
        make_slope(), changed_population(clients), DIM, CLASSES, config, sharding.make_mesh(devices),
        lambda asked: make_ideal(), 1.0, mechanism.privacy, mechanism.bands,
    )  # fmt: skip


@functools.lru_cache(maxsize=2)
def program(parts: Parts) -> Callable[..., Any]:
    """ROUNDS rounds of N federations with records of their own, of one client or record in particular."""
    size = parts.population.size
    store = make_store(tuple(COUNTS[k % len(COUNTS)] for k in range(size)), DIM)
    round_fn = parts.scheme.make_round(parts)

    def one(key: Any, hyper: Any, include: Any, client: Any, record: Any, bad: Any, gone: Any) -> Any:
        size_of = jnp.exp(1.5 * jax.random.normal(jax.random.fold_in(key, 2**20), (store.x.shape[0], 1)))
        data = Data(Changed(store._replace(x=store.x * size_of), client, record, bad, gone), include)

        def step(state: Any, _: Any) -> Any:
            state, metrics = round_fn(state, hyper, data)
            return state, (ravel_pytree(state.params.client)[0], metrics)

        return jax.lax.scan(step, init_state(parts, key), None, length=ROUNDS)[1]

    return jax.jit(jax.vmap(one))


def run(parts: Parts, seeds: np.ndarray, hyper: Any, include: Any = True, *change: Any) -> Ran:
    """Runs federations; `change`: client i32[N], record i32[N], bad f32[N] and gone, as in `Changed`."""
    n = len(seeds)
    mask = np.broadcast_to(include, (n, parts.population.size))
    given = change or (np.int32(0), np.int32(-1), np.float32(0), False)
    kinds = (np.int32, np.int32, np.float32, bool)
    given = [np.broadcast_to(np.asarray(v, kind), n) for v, kind in zip(given, kinds, strict=True)]
    params, metrics = jax.device_get(program(parts)(toy.keys(*seeds.tolist()), hyper, mask, *given))
    params = np.asarray(params, np.float64)
    change_of = -np.diff(np.concatenate([np.zeros_like(params[:, :1]), params], 1), axis=1)
    return Ran(
        change_of,
        {k: np.asarray(v, np.float64) for k, v in metrics.items()},
        {k: np.asarray(v, np.float64) for k, v in hyper.items()},
    )


def units(mechanism: Mechanism, parts: Parts, ran: Ran) -> np.ndarray:
    """What is published in units of the bound (see above), f64[N, rounds, P]; of the adaptive clip norm one round less."""

    def wide(values: Any) -> np.ndarray:
        return np.asarray(values, np.float64).reshape(len(ran.change), -1, 1)

    numbers = {name: jnp.asarray(value, jnp.float32) for name, value in ran.hyper.items()}
    stated, clip, came = parts.transform.l2_bound(None, numbers), ran.hyper["l2_clip_norm"], ran.metrics["sim/cohort"]
    expected = parts.sampler.expected
    if mechanism.name == "local":
        return ran.change * wide(came) / wide(clip)
    if mechanism.name == "record":
        return ran.change * wide(came) * BATCH / wide(clip * ran.hyper["client_learning_rate"])
    assert stated is not None
    if mechanism.name == "distributed":
        return ran.change * wide(came) / wide(stated)
    if mechanism.name == "adaptive":
        norm = ran.metrics["public/clip_norm"]
        bit = expected * BIT_SCALE / SCALE * (QUANTILE - 0.5 - np.diff(np.log(norm), axis=1) / RATE)
        return np.concatenate([ran.change * expected / (SCALE * wide(norm)), wide(np.pad(bit, ((0, 0), (0, 1))))], 2)[
            :, :-1
        ]
    sums = ran.change * expected / wide(stated)
    if mechanism.name == "correlated":
        column = np.pad(coefficients(ROUNDS, BANDS), (0, ROUNDS - BANDS))
        return np.einsum("ts,nsp->ntp", scipy.linalg.toeplitz(column, np.zeros(ROUNDS)), sums)
    return sums


def noise(mechanism: Mechanism, parts: Parts, seed: int, n: int) -> dict[str, float]:
    """The published noise is N(0, z^2) in units of the bound, of its own in every draw; see `laws.standard_normal`.

    Correlated noise must fail that before C is undone, or its rounds would not be correlated at all.
    """
    half, seeds = np.arange(n) % 2 == 0, seeds_of(seed, n)
    z, clip = np.where(half, 1.0, 1.7).astype(np.float32), np.where(half, 0.5, 0.3).astype(np.float32)
    # updates of 0 where their clipping or the grid that they are rounded to would follow the noise
    rate = 0.0 if mechanism.name in ("adaptive", "distributed") else 0.1
    hyper = toy.hyper(n, client_learning_rate=rate) | {"l2_clip_norm": clip}
    loud, quiet = (run(parts, seeds, hyper | {"noise_multiplier": of}) for of in (z, np.zeros_like(z)))
    came = loud.metrics["sim/cohort"]
    require(np.array_equal(came, quiet.metrics["sim/cohort"]), "noise", "the noise decides who takes part")
    drawn = {"local": came, "record": 2 * came}.get(mechanism.name, np.ones_like(came))  # two steps a client
    if parts.noise_grid is not None:
        drawn = np.where(loud.metrics["public/secure_aborted"] > 0, 0.0, came / parts.noise_grid.least)
    with np.errstate(invalid="ignore"):
        found = (units(mechanism, parts, loud) - units(mechanism, parts, quiet)) / z[:, None, None]
        found = found / np.sqrt(drawn)[:, : found.shape[1], None]
    there = drawn[:, : found.shape[1]] > 0
    figures = standard_normal(
        np.where(there[:, :, None], found, 0.0), there, loud.metrics["sim/sampled"][:, : found.shape[1]]
    )
    if mechanism.name == "correlated":
        raw = loud.change - quiet.change
        figures["p of rounds as published"] = p = correlation_p(raw[:, :-1], raw[:, 1:])
        require(p < 1e-6, "noise", f"p = {p:.2g} of rounds that should be correlated as they are published")
    return figures


def sensitivity(mechanism: Mechanism, parts: Parts, seed: int, n: int = N) -> dict[str, float]:
    """Neighbouring populations, hostile or not, under the same keys: what is published moves by one bound at most.

    The adaptive clip norm may follow the first round, so that only this one is compared; in the others every round is.
    Correlated, the blocks of a client's turns move by sqrt(turns) bounds at most, and the turns are `BANDS` rounds apart.
    """
    generator, size, moved = np.random.default_rng(seed), parts.population.size, []
    # without noise distributed noise has no grid, and its own is the same for both
    hyper = toy.hyper(n, noise_multiplier=float(parts.noise_grid is not None)) | {
        "client_learning_rate": generator.choice([0.05, 5.0], n).astype(np.float32),
        "l2_clip_norm": generator.choice([0.3, 0.5], n).astype(np.float32),
    }
    for part in range(3):
        seeds, client, bad = seeds_of(3 * seed + part, n), generator.integers(0, size, n), generator.choice(HOSTILE, n)
        record = generator.integers(0, min(COUNTS), n) if mechanism.hides == "record" else np.full(n, -1)
        itself = np.arange(size)[None] == client[:, None]
        include = (generator.random((n, size)) < 0.8) | itself
        without = include & ~itself if mechanism.hides == "client" else include
        a, b = (
            run(parts, seeds, hyper, mask, client, record, bad, gone)
            for mask, gone in ((include, False), (without, mechanism.hides != "client"))
        )
        same = np.array_equal(a.metrics["sim/cohort"], b.metrics["sim/cohort"])
        require(same or mechanism.hides == "client", "sensitivity", "emptied data change how many clients take part")
        difference = units(mechanism, parts, a) - units(mechanism, parts, b)
        if mechanism.name == "correlated":
            turns = np.linalg.norm(a.change - b.change, axis=2) * parts.sampler.expected > 1e-4
            close = int(np.sum(turns[:, 1:] & turns[:, :-1]))
            require(close == 0, "sensitivity", f"{close} clients take part twice in {BANDS} rounds")
            difference = difference.reshape(n, 1, -1) / np.sqrt(np.maximum(turns.sum(1), 1))[:, None, None]
        moved.append(np.linalg.norm(difference[:, :1] if mechanism.name == "adaptive" else difference, axis=2).max(1))
    distance = np.concatenate(moved)
    broken = ~(
        distance <= 1.0 + 1e-3
    )  # NaN breaks it too; the rest is float32's rounding of models as large as their steps
    most = f"{broken.sum()} of {len(distance)} neighbours move what is published by up to {distance.max():.4g} bounds"
    require(not broken.any(), "sensitivity", most)
    return {"ratio": float(distance.max()), "neighbours": len(distance), "moved": float(np.mean(distance > 0.01))}
