"""Bugs put into the real code, each with the contract or check that must turn red; the code as it is keeps them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import dp_accounting
import jax
import jax.numpy as jnp
import pytest
import test_checks
import toy
from privacy import test_contracts
from privacy.laws import ContractError
from privacy.test_contracts import CONTRACTS, PRIVACY

from fedjax_health import build_federation, prepare, rng, tree
from fedjax_health.data import domain as domains
from fedjax_health.federated import aggregate, cohort
from fedjax_health.federated import round as rounds
from fedjax_health.privacy.plan import PrivacyPlan
from fedjax_health.threefry import root_key
from fedjax_health.train import loop
from fedjax_health.transforms.base import UpdateTransform, client_identity, no_memory, same_wire
from fedjax_health.transforms.clip import make_clip
from fedjax_health.transforms.noise import make_gaussian_noise
from fedjax_health.types import UserError

pytestmark = pytest.mark.quick_compile
Apply = Callable[[pytest.MonkeyPatch], Any]
CHECK = "UserError"


class Bug(NamedTuple):
    """A mutation: `apply` puts it in, `catch` is the contract that turns red, or CHECK with part of what the refusal says."""

    name: str
    catch: str
    apply: Apply
    changes: dict[str, Any] = {}  # noqa: RUF012
    says: str = ""


def reds(parts: Any, names: tuple[str, ...], seed: int) -> dict[str, str]:
    """Name and message of the contracts, of those named, that turn red."""
    red = {}
    for name in names:
        try:
            CONTRACTS[name](parts, seed)
        except (ContractError, UserError) as error:
            red[getattr(error, "contract", CHECK)] = str(error)
    return red


def caught(bug: Bug, names: tuple[str, ...] = ()) -> dict[str, str]:
    """`reds` with the bug put in, by default of the contract that must; or CHECK where it cannot even be built."""
    with pytest.MonkeyPatch.context() as patch:
        try:
            bug.apply(patch)
            parts = toy.make_parts(toy.linear(), toy.train_config(**bug.changes))
        except UserError as error:
            return {CHECK: str(error)}
        return reds(parts, names or ("accounting" if bug.catch == CHECK else bug.catch,), 0)


def put(module: Any, name: str, value: Any) -> Apply:
    return lambda patch: patch.setattr(module, name, value)


def as_it_is(patch: pytest.MonkeyPatch) -> None:
    """No bug in the code."""


def noise_of(draw: Callable[[Any, Any, Any], Any]) -> Apply:
    """Noise drawn in another way: (update, deviation, key) -> noise."""

    def make(bound: Any) -> UpdateTransform:
        def server(update: Any, hyper: Any, keys: Any) -> Any:
            deviation = hyper["noise_multiplier"] * bound(hyper)
            return tree.add(update, draw(update, deviation, keys.own)), {"public/noise_std": deviation}

        return UpdateTransform(no_memory, client_identity, server, lambda bound, hyper: bound, same_wire)

    return put(build_federation, "make_gaussian_noise", make)


def gaussian(update: Any, deviation: Any, key: Any) -> Any:
    return tree.scale(deviation, tree.normal_like(key, update))


def leaves_alike(update: Any, deviation: Any, key: Any) -> Any:
    draw = deviation * jax.random.normal(key, (tree.size(update),))
    return jax.tree.map(lambda leaf: draw[: leaf.size].reshape(leaf.shape), update)


def noise_key(address: Callable[[Any], tuple[Any, Any, rng.Stream]]) -> Apply:
    """The noise's key from elsewhere: state -> (root, round, stream)."""
    real, own = rounds.stream, rng.Stream.NOISE
    return put(rounds, "stream", lambda s, name: rng.stream_key(*address(s)) if name == own else real(s, name))


def noise_on_the_mean(parts: Any, state: Any, hyper: Any, acc: Any) -> Any:
    keys = rounds.Keys(*(rounds.stream(state, name) for name in (rng.Stream.NOISE, rng.Stream.TRANSFORM)))
    total, denominator = parts.aggregator.total(acc, rounds.stream(state, rng.Stream.AGGREGATE))
    mean, metrics = parts.transform.server(tree.scale(1.0 / denominator, total), hyper, keys)
    return mean, state.noise, metrics


def behind_the_noise(published: bool) -> Apply:
    """The server's optimiser (published) or the average (not) sees the mean without noise."""
    real_message, real_step, held = rounds.mean_message, rounds.server_step, {}

    def message(parts: Any, state: Any, hyper: Any, acc: Any) -> Any:
        noisy, past, metrics = real_message(parts, state, hyper, acc)
        total, denominator = parts.aggregator.total(acc, rounds.stream(state, rng.Stream.AGGREGATE))
        held["clean"] = tree.scale(1.0 / denominator, total)
        return noisy, past, metrics

    def step(parts: Any, state: Any, hyper: Any, noisy: Any) -> Any:
        after, metrics = real_step(parts, state, hyper, noisy)
        clean, _ = real_step(parts, state, hyper, held["clean"])
        if not published:
            return after._replace(average=clean.average), metrics
        moved = tree.subtract(clean.params.client, tree.subtract(noisy, held["clean"]))
        return after._replace(params=after.params._replace(client=moved), server=clean.server), metrics

    def apply(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(rounds, "mean_message", message)
        patch.setattr(rounds, "server_step", step)

    return apply


def clip_of(client: Callable[[Any, Any], Any]) -> Apply:
    """Another clip, (update, bound) -> update, that states the same bound."""
    own = make_clip()._replace(
        client=lambda update, memory, hyper, keys: (client(update, hyper["l2_clip_norm"]), memory, {})
    )
    return put(build_federation, "make_clip", lambda: own)


def finite(update: Any) -> Any:
    return tree.where(jnp.isfinite(tree.global_norm(update)), update, tree.zeros_like(update))


def scaled(update: Any, bound: Any) -> Any:
    return tree.scale(bound / jnp.maximum(tree.global_norm(update), bound), update)


def sampler_of(change: Callable[[Any], dict[str, Any]]) -> Apply:
    """A Poisson sampler with some functions of another: real sampler -> its new fields."""

    def make(size: int, expected: float, multiple: int) -> Any:
        real = cohort.make_poisson(size, expected, multiple)
        return real._replace(**change(real))

    return put(build_federation, "make_poisson", make)


def short_accounting(real: Any) -> dict[str, Any]:
    event = dp_accounting.dp_event.TruncatedSubsampledGaussianDpEvent
    return {"account": lambda z: event(real.size, real.expected / real.size, int(real.expected), z)}


def substitutes(real: Any) -> dict[str, Any]:
    def sample(available: Any, key: Any, round_index: Any) -> Any:
        drawn, metrics = real.sample(available, key, round_index)
        client = jnp.where(available(drawn.client), drawn.client, (drawn.client + 1) % real.size)
        return drawn._replace(client=client), metrics

    return {"sample": sample}


def mean_of(**fields: Any) -> Apply:
    """The mean with other functions, each made of the real one."""
    real = aggregate.make_mean

    def make(expected: Any, unit: bool = False) -> Any:
        made = real(expected, unit)
        return made._replace(**{name: change(getattr(made, name)) for name, change in fields.items()})

    return put(build_federation, "make_mean", make)


def centred(add: Any) -> Any:
    return lambda acc, updates, members: add(acc, jax.tree.map(lambda u: u - jnp.mean(u, 0)[None], updates), members)


def batch_statistics(patch: pytest.MonkeyPatch) -> None:
    real = build_federation.make_run_client

    def make(*given: Any) -> Any:
        run = real(*given)
        return lambda start, data, *rest: run(start, data._replace(x=data.x - jnp.mean(data.x, 0)[None]), *rest)

    patch.setattr(build_federation, "make_run_client", make)


def fitted_scaler(patch: pytest.MonkeyPatch) -> None:
    real = domains.make_store

    def make(*given: Any) -> Any:
        store = real(*given)
        return store._replace(x=(store.x - jnp.mean(store.x, 0)[None]) / (jnp.std(store.x, 0)[None] + 0.1))

    patch.setattr(domains, "make_store", make)


def stop_on_the_loss(patch: pytest.MonkeyPatch) -> None:
    real = loop.run_rounds

    def run(train: Any, *given: Any, **named: Any) -> Any:
        def chunk(*inputs: Any) -> Any:
            state, metrics = train.run_chunk(*inputs)
            return state, metrics | {"public/update_norm": metrics["sim/loss"]}

        return real(train._replace(run_chunk=chunk), *given, **named)

    patch.setattr(loop, "run_rounds", run)


def spent_of(change: Callable[[Any, dict[str, int]], Any]) -> Apply:
    real = PrivacyPlan.spent
    return put(PrivacyPlan, "spent", lambda plan, done: change(lambda ran: real(plan, ran), done))


def refused(**changes: Any) -> Apply:
    return lambda patch: test_checks.convert(test_checks.train(**changes))


SHARES, PLAN, MEANS = prepare.noisy_class_shares, prepare.make_plan, rounds.means
BUGS = (
    Bug("no noise", "noise", noise_of(lambda update, s, key: tree.zeros_like(update))),
    Bug("half the noise", "noise", noise_of(lambda update, s, key: gaussian(update, 0.5 * s, key))),
    Bug("one noise for all rounds and runs", "noise", noise_of(lambda u, s, key: gaussian(u, s, jax.random.key(7)))),
    Bug("same noise on two leaves", "noise", noise_of(leaves_alike)),
    Bug("noise on the mean", "noise", put(rounds, "mean_message", noise_on_the_mean)),
    Bug("noise key without the round", "noise", noise_key(lambda s: (s.key, 1, rng.Stream.NOISE))),
    Bug("noise key without the seed", "noise", noise_key(lambda s: (root_key(0), s.round + 1, rng.Stream.NOISE))),
    Bug("noise key of the sampler", "noise", noise_key(lambda s: (s.key, s.round + 1, rng.Stream.COHORT))),
    Bug("noise of a bound typed twice", "noise", put(
        build_federation, "make_gaussian_noise", lambda bound: make_gaussian_noise(lambda hyper: jnp.float32(0.5))
    )),
    Bug("clip off", "sensitivity", clip_of(lambda update, bound: finite(update))),
    Bug("clip per leaf", "sensitivity", clip_of(lambda u, c: jax.tree.map(lambda leaf: scaled(leaf, c), finite(u)))),
    Bug("clip before the weights", CHECK, as_it_is, {"aggregation": {"weighting": "examples"}}, "weighting='equal'"),
    Bug("non-finite updates pass", "sensitivity", clip_of(scaled)),
    Bug("fixed cohorts accounted as Poisson", "sampler", sampler_of(lambda real: {
        "sample": cohort.make_fixed(real.size, int(real.expected), real.slots).sample
    })),
    Bug("more taken than accounted", "sampler", sampler_of(short_accounting)),
    Bug("drop-outs replaced", "sampler", sampler_of(substitutes)),
    Bug("empty slots counted", "sampler", put(aggregate, "weighted_sum", lambda leaf, w, live: jnp.sum(leaf, 0))),
    Bug("mean over the realised cohort", "denominator", mean_of(total=lambda real: aggregate.make_mean(None).total)),
    Bug("updates centred in a chunk", "independence", mean_of(add=centred)),
    Bug("batch statistics across clients", "independence", batch_statistics),
    Bug("optimiser before the noise", "post_processing", behind_the_noise(True), {"server_optimizer": "adam"}),
    Bug("average without the noise", "post_processing", behind_the_noise(False)),
    Bug("loss among the public metrics", "post_processing", put(rounds, "means", lambda result, live: {
        **MEANS(result, live), "public/loss": result.totals["sim/loss"]
    })),
    Bug("exact shares", "prior", put(prepare, "noisy_class_shares", lambda t, m, k, z, *rest: SHARES(t, m, k, 0, *rest))),
    Bug("scaler fitted on data", "encoding", fitted_scaler),
    Bug("early stop on the loss", "stopping", stop_on_the_loss),
    Bug("sampling rate of records, three a client", "accounting", sampler_of(lambda real: {
        "account": cohort.make_poisson(3 * real.size, real.expected, 1).account
    })),
    Bug("prior forgotten", "accounting", spent_of(lambda real, done: real(done)[1:])),
    Bug("a round not counted", "accounting", spent_of(lambda real, done: real({k: n - 1 for k, n in done.items()}))),
    Bug("delta above 1 / K", "accounting", put(prepare, "make_plan", lambda *a, **k: replace(PLAN(*a, **k), delta=0.5))),
    Bug("delta too large", CHECK, put(test_contracts, "PRIVACY", replace(PRIVACY, delta=0.5)), says="not below 1/K"),
    Bug("sampler without accountant", CHECK, as_it_is, {"sampler": "fixed"}, "no accountant"),
    Bug("robust rule", CHECK, as_it_is, {"aggregation": {"rule": "median"}}, "robust rule"),
    Bug("weights of the data", CHECK, refused(aggregation__weighting="examples"), says="may not depend on data"),
    Bug("message that is no bounded sum", CHECK, refused(
        algorithm="fednova", client_optimizer="sgd", step_clip_norm=0.0
    ), says="bounded sum"),
    Bug("no clip norm", CHECK, refused(l2_clip_norm=float("inf")), says="a finite bound"),
)  # fmt: skip
QUICK = ("half the noise", "noise key of the sampler", "clip per leaf", "drop-outs replaced", "scaler fitted on data")


def test_names_are_different_and_every_contract_has_a_bug():
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 24
    assert {bug.catch for bug in BUGS} == {*CONTRACTS, CHECK}


@pytest.mark.parametrize("bug", [
    pytest.param(b, id=b.name, marks=[] if b.name in QUICK or b.catch == CHECK else pytest.mark.slow) for b in BUGS
])  # fmt: skip
def test_a_bug_turns_its_contract_red(bug):
    red = caught(bug)
    assert list(red) == [bug.catch] and bug.says in red[bug.catch]
