"""Contracts of the private round: each measures a built federation and raises ContractError where a promise is broken.

All run the real round, compiled once a federation. What the host promises (ledger, class shares, encoder, stop rule) is in
`test_contracts.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import dp_accounting
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
import toy
from jax.flatten_util import ravel_pytree
from privacy.laws import REJECT, correlation_p, require, standard_normal

from fedjax_health.federated import round as rounds
from fedjax_health.federated.algorithms import apply_rule
from fedjax_health.federated.federation import Data, Parts, init_state

N = 400  # federations of every contract, so that they share one program
ROUNDS = 2
HOSTILE = np.asarray([0.0, 3.0, -40.0, 1e4, 1e30, np.nan], np.float32)  # 0 = the client's own records
DRAWS = 4000


class Seen(NamedTuple):
    """What N federations published, and what crossed the interfaces; f64[N, ROUNDS, P] unless said.

    Attributes:
      start: f64[N, P], first parameters.
      params, average: published parameters and their average.
      summed, noisy: what goes into the server side of the transforms, and what comes out.
      keys: u32[N, ROUNDS, 2, 2], key data given to the sampler and to the server side of the transforms.
      metrics: f64[N, ROUNDS] by name.
    """

    start: np.ndarray
    params: np.ndarray
    average: np.ndarray
    summed: np.ndarray
    noisy: np.ndarray
    keys: np.ndarray
    metrics: dict[str, np.ndarray]

    @property
    def change(self) -> np.ndarray:
        return -np.diff(np.concatenate([self.start[:, None], self.params], 1), axis=1)


def flat(tree: Any) -> jax.Array:
    return ravel_pytree(tree)[0]


@functools.lru_cache(maxsize=2)
def program(parts: Parts) -> Callable[..., Any]:
    """The round, ROUNDS times, of federations with data of their own; sampler and transforms also report what they see."""
    store = toy.domain(num_clients=parts.population.size).data
    owner = jnp.asarray(np.repeat(np.arange(parts.population.size), np.asarray(store.count)), jnp.int32)

    def sample(available: Any, key: Any, round_index: Any) -> Any:
        drawn, metrics = parts.sampler.sample(available, key, round_index)
        return drawn, {**metrics, "probe/sampler_key": jax.random.key_data(key)}

    def server(update: Any, hyper: Any, keys: Any) -> Any:
        noisy, metrics = parts.transform.server(update, hyper, keys)
        seen = {"probe/summed": flat(update), "probe/noisy": flat(noisy)}
        return noisy, {**metrics, **seen, "probe/noise_key": jax.random.key_data(keys.own)}

    probed = parts._replace(
        sampler=parts.sampler._replace(sample=sample), transform=parts.transform._replace(server=server)
    )
    round_fn = parts.scheme.make_round(probed)

    def one(key: Any, hyper: Any, include: Any, client: Any, bad: Any) -> Any:
        x = jnp.where(((owner == client) & (bad != 0))[:, None], bad, store.x)

        def step(state: Any, _: Any) -> Any:
            state, metrics = round_fn(state, hyper, Data(store._replace(x=x), include))
            return state, (flat(state.params.client), flat(state.average), metrics)

        state = init_state(probed, key)
        return flat(state.params.client), jax.lax.scan(step, state, None, length=ROUNDS)[1]

    return jax.jit(jax.vmap(one))


def observe(parts: Parts, seeds: np.ndarray, hyper: Any, include: Any, client: Any = 0, bad: Any = 0.0) -> Seen:
    """Runs federations on the toy domain, i[N] seeds; `bad` f32[N] replaces the features of `client` i32[N] unless it is 0."""
    n = len(seeds)
    mask = np.broadcast_to(include, (n, parts.population.size))
    who, what = np.broadcast_to(np.int32(client), n), np.broadcast_to(np.float32(bad), n)
    start, (params, average, found) = jax.device_get(program(parts)(toy.keys(*seeds.tolist()), hyper, mask, who, what))
    require("probe/noisy" in found, "post_processing", "the server side of the transforms was passed by")
    keys = np.stack([found["probe/sampler_key"], found["probe/noise_key"]], 2)
    arrays = [np.asarray(a, np.float64) for a in (start, params, average, found["probe/summed"], found["probe/noisy"])]
    metrics = {k: np.asarray(v, np.float64) for k, v in found.items() if not k.startswith("probe/")}
    return Seen(*arrays, keys=keys, metrics=metrics)


def seeds_of(seed: int, n: int) -> np.ndarray:
    return 10_000 * seed + np.arange(n)


def noise(parts: Parts, seed: int, n: int = N) -> dict[str, float]:
    """The noise on the sum is N(0, (sigma C)^2), of its own in every seed, round and coordinate, and not the sampler's chance.

    A learning rate of 0 on the clients forces their updates to 0: with plain SGD on the server the published change times
    the public expected cohort is the noise. Half of the federations have another sigma and another C.
    """
    half = np.arange(n) % 2 == 0
    sigma, bound = np.where(half, 1.0, 1.7).astype(np.float32), np.where(half, 0.5, 1.2).astype(np.float32)
    hyper = toy.hyper(n, client_learning_rate=0.0) | {"noise_multiplier": sigma, "l2_clip_norm": bound}
    seen = observe(parts, seeds_of(seed, n), hyper, True)
    z = seen.change * parts.sampler.expected / (sigma * bound)[:, None, None]
    keys = seen.keys.reshape(-1, seen.keys.shape[-1])
    shared = len(keys) - len(np.unique(keys, axis=0))
    require(shared == 0, "noise", f"{shared} of {len(keys)} keys of the sampler and the noise were used before")
    return standard_normal(z, np.ones(z.shape[:2], bool), seen.metrics["sim/sampled"])


def sensitivity(parts: Parts, seed: int) -> dict[str, float]:
    """With and without one client, hostile or not, under the same keys: the un-noised sum moves by at most `l2_bound`.

    Replacing a client's data moves it by at most twice that, through the population without it. Of the neighbours those
    whose client was sampled can move anything.
    """
    generator, size, moved = np.random.default_rng(seed), parts.population.size, []
    hyper = toy.hyper(N, noise_multiplier=0.0, client_learning_rate=5.0)
    bound = float(np.asarray(parts.transform.l2_bound(None, hyper))[0])
    for part in range(3):
        client, bad = generator.integers(0, size, N), generator.choice(HOSTILE, N)
        others, itself = generator.random((N, size)) < 0.8, np.arange(size)[None] == client[:, None]
        seeds = seeds_of(3 * seed + part, N)
        a, b = (observe(parts, seeds, hyper, mask, client, bad) for mask in (others | itself, others & ~itself))
        moved.append(np.linalg.norm((a.change - b.change)[:, 0] * parts.sampler.expected, axis=1))
    distance = np.concatenate(moved)
    broken = ~(distance <= bound * (1 + 1e-4))  # NaN breaks it too
    most = f"{broken.sum()} of {len(distance)} neighbours move the sum by up to {distance.max():.3g}, not {bound:.3g}"
    require(not broken.any(), "sensitivity", most)
    return {"ratio": float(distance.max() / bound), "neighbours": len(distance), "moved": float(np.mean(distance > 0))}


def drawn(parts: Parts, seeds: np.ndarray) -> np.ndarray:
    """Who is asked in the first round, i[N, K]: how often."""
    state = init_state(parts, toy.keys(0)[0])
    ask = jax.jit(jax.vmap(lambda key: rounds.sample_cohort(parts, state._replace(key=key))[0]))
    cohort = jax.device_get(ask(toy.keys(*seeds.tolist())))
    taken = np.zeros((len(seeds), parts.population.size), int)
    row, slot = np.nonzero(cohort.mask)
    np.add.at(taken, (row, cohort.client[row, slot]), 1)
    return taken


def accounted(parts: Parts) -> tuple[float, int]:
    """The sampling probability and the most clients a round that the sampler's own event stands for."""
    event: Any = parts.sampler.account(1.0)
    q = 1.0 if isinstance(event, dp_accounting.GaussianDpEvent) else event.sampling_probability
    return q, getattr(event, "truncated_batch_size", parts.population.size)


def sampler(parts: Parts, seed: int) -> dict[str, float]:
    """Participation is that of the event: min(Binomial(K, q), capacity), nobody favoured, twice in a round, or replaced."""
    size, (q, capacity), figures = parts.population.size, accounted(parts), {}
    taken = drawn(parts, seeds_of(seed, DRAWS))
    sizes = taken.sum(1)
    require(taken.max() == 1, "sampler", "a client is in a cohort twice")
    require(sizes.max() <= capacity, "sampler", f"{sizes.max()} clients in a round are accounted for as {capacity}")
    if q < 1:
        law = scipy.stats.binom.pmf(np.arange(size + 1), size, q)
        law = np.append(law[:capacity], law[capacity:].sum())
        often = DRAWS * law >= 5
        wanted = DRAWS * np.append(law[often], law[~often].sum() + 1e-12)
        counts = np.bincount(sizes, minlength=len(law))
        found, rate = np.append(counts[often], counts[~often].sum()), law @ np.arange(len(law)) / size
        favour = np.square(taken.sum(0) - DRAWS * rate).sum() / (DRAWS * rate * (1 - rate))
        lump = wanted > 1e-3
        figures = {
            "p of sizes": float(scipy.stats.chi2.sf(np.sum(((found - wanted) ** 2 / wanted)[lump]), lump.sum() - 1)),
            "p of clients": float(scipy.stats.chi2.sf(favour, size)),
            "p of rounds": correlation_p(taken[:-1], taken[1:]),
        }
        for name, value in figures.items():
            require(value > REJECT, "sampler", f"{name} = {value:.2g} at q = {q:.3g}")
    off = parts._replace(devices=parts.devices._replace(available=lambda world, client, clock: client % 2 == 0))
    same = np.array_equal(drawn(off, seeds_of(seed, N)), taken[:N])
    require(same, "sampler", "others are asked in the place of clients that are off")
    # and what is published shows it: a client that is left out moves it exactly where it had been drawn
    client = np.random.default_rng(seed).integers(0, size, N)
    without = np.arange(size)[None] != client[:, None]
    a, b = (observe(parts, seeds_of(seed, N), toy.hyper(N, noise_multiplier=0.0), mask) for mask in (True, without))
    moved = np.any(a.change[:, 0] != b.change[:, 0], 1)
    holds = np.asarray(toy.domain(num_clients=size).data.count)[client] > 0
    wrong = int(np.sum(moved != ((taken[np.arange(N), client] > 0) & holds)))
    require(wrong == 0, "sampler", f"{wrong} of {N} clients took part undrawn, or were drawn and did not")
    return {**figures, "moved": float(moved.mean())}


def denominator(parts: Parts, seed: int) -> dict[str, float]:
    """The mean divides by the public expected cohort, however many came (plain SGD on the server, at rate 1)."""
    came = np.random.default_rng(seed).random((N, parts.population.size)) < np.linspace(0, 1, N)[:, None]
    quiet = observe(parts, seeds_of(seed, N), toy.hyper(N, noise_multiplier=0.0), came)
    error = np.abs(quiet.change * parts.sampler.expected - quiet.summed).max()
    require(error < 1e-4, "denominator", f"the mean is off by {error:.3g} from the sum over the expected cohort")
    still = toy.hyper(N, client_learning_rate=0.0)
    a, b = (observe(parts, seeds_of(seed, N), still, mask) for mask in (True, False))
    require(np.array_equal(a.change, b.change), "denominator", "the noise that is published depends on who came")
    return {
        "error": float(error),
        "fewest": quiet.metrics["sim/cohort"].min(),
        "most": quiet.metrics["sim/cohort"].max(),
    }


def independence(parts: Parts, seed: int) -> dict[str, float]:
    """A client's update is its own: sums over disjoint groups add up, and records of those left out change nothing."""
    group = np.random.default_rng(seed).integers(0, 3, (N, parts.population.size))
    group[:, -1] = 2
    hyper, seeds = toy.hyper(N, noise_multiplier=0.0), seeds_of(seed, N)
    a, b, both = (observe(parts, seeds, hyper, np.isin(group, g)).summed[:, 0] for g in ([0], [1], [0, 1]))
    error = np.abs(a + b - both).max()
    require(error < 1e-5, "independence", f"sums over disjoint groups miss their union's by {error:.3g}")
    absent = np.argmax(group == 2, 1)
    other = observe(parts, seeds, hyper, group == 0, absent, 1e4).summed[:, 0]
    require(np.array_equal(a, other), "independence", "records of a client left out change the others' updates")
    return {"error": float(error), "size": float(np.abs(both).max())}


def post_processing(parts: Parts, seed: int) -> dict[str, float]:
    """Everything published is a function of the noisy sums alone: parameters, average and public metrics, made again here."""
    seen, rule, rate = observe(parts, seeds_of(seed, N), toy.hyper(N), True), parts.server_optimizer, np.float32(1.0)
    message = jnp.asarray(seen.noisy / parts.sampler.expected, jnp.float32)
    w = average = jnp.asarray(seen.start, jnp.float32)
    state, worst = rule.init(w), 0.0
    for t in range(ROUNDS):
        update, state = apply_rule(rule, message[:, t], state, w)
        w, decay = w - rate * update, np.float32(min(parts.ema_decay, t / (t + 1)))
        average = decay * average + (1 - decay) * w
        pairs = {
            "parameters": (w, seen.params[:, t]),
            "average": (average, seen.average[:, t]),
            "update_norm": (np.linalg.norm(message[:, t], axis=1), seen.metrics["public/update_norm"][:, t]),
            "parameter_norm": (np.linalg.norm(w, axis=1), seen.metrics["public/parameter_norm"][:, t]),
        }
        for name, (made, published) in pairs.items():
            error = float(np.max(np.abs(np.asarray(made) - published)))
            require(
                error < 1e-3, "post_processing", f"{name} of round {t + 1} differ by {error:.3g} from the noisy sums'"
            )
            worst = max(worst, error)
    known = {"public/update_norm", "public/parameter_norm", "public/noise_std"}
    extra = {name for name in seen.metrics if not name.startswith("sim/")} - known
    require(not extra, "post_processing", f"metrics {sorted(extra)} are published and not known to be public")
    return {"error": worst}
