"""Contracts of rounds in which teachers vote, on a federation that `build_federation` makes; each raises ContractError.

Two worlds that differ in one client are compared under the same keys and, where it says "frozen", under the same published
verdicts: those then follow from the generated records alone, as an adaptive composition has it (what was published before is
the same in both worlds, what a round adds is what moves).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import toy
from jax.flatten_util import ravel_pytree
from privacy.contracts import HOSTILE, seeds_of
from privacy.laws import require, standard_normal

from fedjax_health import build
from fedjax_health.federated import votes as rounds
from fedjax_health.federated.federation import Data, Parts, init_state
from fedjax_health.models.base import ballot_of

N, ROUNDS = 120, 3  # federations side by side
PARTS = 3  # times as many pairs of neighbours


class Seen(NamedTuple):
    """What N federations did; leading axes [N, ROUNDS].

    Attributes:
      votes, noisy: f64[..., n], before and after the server's side of the transform.
      verdict: bool[..., n], what the student is told unless it is frozen.
      keys: u32[..., 2, 2], key data of the noise and of the generated records.
      teachers: f32[..., k, P].
      published: f32[..., P], student, generator with its optimiser, and average.
      metrics: by name.
    """

    votes: np.ndarray
    noisy: np.ndarray
    verdict: np.ndarray
    keys: np.ndarray
    teachers: np.ndarray
    published: np.ndarray
    metrics: dict[str, np.ndarray]


def make(**changes: Any) -> Parts:
    """24 clients, four teachers, two clients of each a round, six votes."""
    given = dict(changes)
    devices, mechanism = given.pop("devices", 1), given.pop("mechanism", "central_gaussian")
    section: Any = toy.model_config("pategan", local_steps=1, client_learning_rate=2.0, **given)
    model = build.MODELS["pategan"](toy.encoder().layout, 2, section)
    return toy.make_parts(model, section.train, mechanism=mechanism, devices=devices)


def flat(tree: Any) -> Any:
    """All numbers of a tree but whole ones (an optimiser's counter)."""
    return ravel_pytree([leaf for leaf in jax.tree.leaves(tree) if leaf.dtype == jnp.float32])[0]


@functools.lru_cache(maxsize=2)
def program(parts: Parts) -> Callable[..., Any]:
    """ROUNDS rounds of federations with data of their own, in which transform and ballot also report what they see."""
    store, ballot = toy.domain(num_clients=parts.population.size).data, ballot_of(parts.model)
    assert ballot is not None
    owner = jnp.asarray(np.repeat(np.arange(parts.population.size), np.asarray(store.count)), jnp.int32)

    def server(votes: Any, hyper: Any, keys: Any) -> Any:
        noisy, metrics = parts.transform.server(votes, hyper, keys)
        return noisy, {
            **metrics,
            "probe/votes": votes,
            "probe/noisy": noisy,
            "probe/noise": jax.random.key_data(keys.own),
        }

    def one(key: Any, hyper: Any, include: Any, client: Any, bad: Any, frozen: Any) -> Any:
        held: list[Any] = []

        def draw(params: Any, numbers: Any, own: Any) -> Any:
            held.append(jax.random.key_data(own))
            return ballot.draw(params, numbers, own)

        def study(params: Any, x: Any, label: Any, verdict: Any) -> Any:
            require(
                verdict.dtype == jnp.bool_, "majority", f"the student is told {verdict.dtype}, not one bit a record"
            )
            told = jnp.where(frozen, x[:, 0] > jnp.median(x[:, 0]), verdict)
            direction, metrics = ballot.study(params, x, label, told)
            return direction, {**metrics, "probe/verdict": verdict, "probe/draw": held.pop()}

        probed = parts._replace(
            transform=parts.transform._replace(server=server),
            model=parts.model._replace(ballot=ballot._replace(draw=draw, study=study)),  # pyright: ignore[reportCallIssue]
        )
        probed = probed._replace(scheme=rebuilt(probed))
        round_fn = probed.scheme.make_round(probed)
        x = jnp.where(((owner == client) & (bad != 0))[:, None], bad, store.x)

        def step(state: Any, _: Any) -> Any:
            state, metrics = round_fn(state, hyper, Data(store._replace(x=x), include))
            teachers = jax.vmap(flat)(state.scheme)
            return state, (teachers, flat((state.params, state.server, state.average)), metrics)

        return jax.lax.scan(step, init_state(probed, key), None, length=ROUNDS)[1]

    return jax.jit(jax.vmap(one))


def rebuilt(parts: Parts) -> Any:
    """The scheme again, with the ballot that reports."""
    ballot = ballot_of(parts.model)
    assert ballot is not None
    return rounds.make_votes(ballot)  # by the module: a bug may have been put in


def observe(
    parts: Parts, seeds: Any, hyper: Any, include: Any, client: Any = 0, bad: Any = 0.0, frozen: Any = False
) -> Seen:
    """Runs N federations; `bad` f32[N] replaces the features of `client` i32[N] unless it is 0."""
    n = len(seeds)
    mask = np.broadcast_to(include, (n, parts.population.size))
    rest = np.broadcast_to(np.int32(client), n), np.broadcast_to(np.float32(bad), n), np.broadcast_to(frozen, n)
    teachers, published, found = jax.device_get(program(parts)(toy.keys(*seeds.tolist()), hyper, mask, *rest))
    require("probe/noisy" in found, "noise", "the noise was passed by")
    keys = np.stack([found["probe/noise"], found["probe/draw"]], 2)
    votes, noisy = (np.asarray(found[f"probe/{name}"], np.float64) for name in ("votes", "noisy"))
    metrics = {name: value for name, value in found.items() if not name.startswith("probe/")}
    return Seen(votes, noisy, found["probe/verdict"], keys, teachers, published, metrics)


def same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Bit for bit along the last axis; a NaN equals itself."""
    return np.all((a == b) | (np.isnan(a) & np.isnan(b)), -1)


def neighbours(parts: Parts, seed: int) -> Any:
    """Pairs of worlds with and without one client, hostile or not, and with other records of it, under frozen verdicts."""
    generator, size = np.random.default_rng(seed), parts.population.size
    hyper = toy.hyper(N, noise_multiplier=0.5, client_learning_rate=2.0, l2_clip_norm=50.0)
    for part in range(PARTS):
        client, bad = generator.integers(0, size, N), generator.choice(HOSTILE, N)
        others, itself = generator.random((N, size)) < 0.8, np.arange(size)[None] == client[:, None]
        seeds = seeds_of(PARTS * seed + part, N)
        with_it = observe(parts, seeds, hyper, others | itself, client, bad, True)
        if part:
            yield with_it, observe(parts, seeds, hyper, others & ~itself, client, bad, True)
        else:
            yield with_it, observe(parts, seeds, hyper, others | itself, client, 0.5, True)


def sensitivity(parts: Parts, seed: int) -> dict[str, float]:
    """One client moves one teacher, and each of a round's votes by one at most; no other teacher changes in any bit."""
    moved, most = [], 0.0
    for a, b in neighbours(parts, seed):
        other = ~same(a.teachers, b.teachers)  # [N, ROUNDS, k]
        ever = other.any(1).sum(1)
        require(ever.max() <= 1, "sensitivity", f"one client moves up to {ever.max()} teachers")
        distance = np.abs(a.votes - b.votes)
        require(np.all(distance <= 1), "sensitivity", f"one client moves the votes on a record by {distance.max():.3g}")
        whole = np.all(a.votes == np.round(a.votes)) and a.votes.min() >= 0
        require(whole, "sensitivity", "the votes are not counts")
        moved.append(distance.any((1, 2)))
        most = max(most, float(np.square(distance).sum(2).max()))
    share = float(np.mean(np.concatenate(moved)))
    return {"pairs": float(PARTS * N), "moved": share, "most of sqrt(n)": float(np.sqrt(most / a.votes.shape[-1]))}


def post_processing(parts: Parts, seed: int) -> dict[str, float]:
    """Student, generator, average and public metrics follow from the verdicts: where those are frozen, data change nothing."""
    moved = 0.0
    for a, b in neighbours(parts, seed):
        require(same(a.published, b.published).all(), "post_processing", "what is published depends on real records")
        for name in a.metrics:
            if (
                name.startswith("public/") and name != "public/called_real"
            ):  # of the verdicts themselves, which are not frozen
                require(
                    np.array_equal(a.metrics[name], b.metrics[name]),
                    "post_processing",
                    f"{name} depends on real records",
                )
        moved += float(np.mean(~same(a.teachers, b.teachers).all(2)))
    return {"teachers moved": moved / PARTS, "finite": float(np.isfinite(a.published).all())}


def noise(parts: Parts, seed: int) -> dict[str, float]:
    """The noise on a record's votes is N(0, (z sqrt(n))^2), of its own in every seed, round and record; keys are used once."""
    z = np.where(np.arange(N) % 2 == 0, 1.0, 1.7).astype(np.float32)
    seen = observe(parts, seeds_of(seed, N), toy.hyper(N) | {"noise_multiplier": z}, True)
    scaled = (seen.noisy - seen.votes) / (z[:, None, None] * np.sqrt(seen.votes.shape[-1]))
    keys = seen.keys.reshape(-1, seen.keys.shape[-1])
    shared = len(keys) - len(np.unique(keys, axis=0))
    require(shared == 0, "noise", f"{shared} of {len(keys)} keys of the noise and the records were used before")
    return standard_normal(scaled, np.ones(scaled.shape[:2], bool), seen.metrics["sim/sampled"])


def majority(parts: Parts, seed: int) -> dict[str, float]:
    """The student is told one bit a record: whether its noisy votes are more than half of the teachers'."""
    seen = observe(parts, seeds_of(seed, N), toy.hyper(N), True)
    k = seen.teachers.shape[2]
    wrong = int(np.sum(seen.verdict != (seen.noisy > k / 2)))
    require(wrong == 0, "majority", f"{wrong} verdicts are not the majority of the noisy votes")
    return {"called real": float(seen.verdict.mean()), "flipped": float(np.mean(seen.verdict != (seen.votes > k / 2)))}
