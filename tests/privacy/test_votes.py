"""Teachers that vote keep their contracts, the ledger is another accountant's, and bugs put into the code turn them red."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import dp_accounting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from dp_accounting.pld import PLDAccountant
from privacy import votes as contracts
from privacy.contracts import seeds_of
from privacy.laws import ContractError, require

from fedjax_health import build_federation, build_secure, prepare, rng, tree
from fedjax_health.config import PrivacyConfig
from fedjax_health.federated import cohort, teachers, votes
from fedjax_health.federated.federation import Parts
from fedjax_health.models.base import ModelParams
from fedjax_health.prepared import Prepared
from fedjax_health.types import Batch, UserError

pytestmark = pytest.mark.quick_compile
PRIVACY = PrivacyConfig("central_gaussian", epsilon=6.0, delta=0.0, noise_multiplier=0.0, prior_noise_multiplier=5.0)
K, T = 24, 6


def plan_of(parts: Parts) -> Any:
    """The plan that a run with one domain and this model would make."""
    section = types.SimpleNamespace(train=toy.train_config(rounds=T))
    config: Any = types.SimpleNamespace(privacy=PRIVACY, pategan=section, representation="public")
    none: Any = None
    return prepare.plan_privacy(config, [Prepared(toy.domain(), none, none, {"pategan": parts})])


def accounting(parts: Parts, seed: int) -> dict[str, float]:
    """Epsilon is that of T Gaussians whose deviation is what runs and whose sensitivity is sqrt(n), by dp-accounting alone."""
    plan = plan_of(parts)
    ledger = plan.ledger({"toy/pategan": T})
    seen = contracts.observe(
        parts, seeds_of(seed, contracts.N), toy.hyper(contracts.N, noise_multiplier=plan.noise_multiplier), True
    )
    n = seen.votes.shape[-1]
    ran = float(seen.metrics["public/noise_std"][0, 0]) / np.sqrt(n)
    accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=1e-3)
    accountant.compose(dp_accounting.GaussianDpEvent(PRIVACY.prior_noise_multiplier))
    accountant.compose(dp_accounting.GaussianDpEvent(ran), T)
    wanted, total = accountant.get_epsilon(plan.delta), ledger["epsilon_total"]
    require(abs(total / wanted - 1) < 2e-3, "accounting", f"epsilon = {total:.4g}, by another accountant {wanted:.4g}")
    require(total <= PRIVACY.epsilon, "accounting", f"epsilon = {total:.4g} of a run planned for {PRIVACY.epsilon}")
    require(ledger["epsilon_rdp"] >= total, "accounting", "RDP is below PLD")
    names = [event["name"] for event in ledger["events"]]
    require(names == ["class shares toy", "train toy/pategan"], "accounting", f"events {names}")
    trained = ledger["events"][1]
    require(trained["event"] == "GaussianDpEvent" and trained["times"] == T, "accounting", trained["detail"])
    require(trained["sampling_probability"] == 1.0, "accounting", "amplification by sampling is claimed")
    require(abs(trained["l2_clip_norm"] - np.sqrt(n)) < 1e-9, "accounting", f"bound {trained['l2_clip_norm']}")
    require(ledger["teachers"] == {"toy/pategan": 4}, "accounting", "the ledger does not say who holds the teachers")
    return {"epsilon": total, "epsilon of another accountant": wanted, "noise multiplier": plan.noise_multiplier}


ROUND = (contracts.sensitivity, contracts.post_processing, contracts.noise, contracts.majority)
CONTRACTS = {f.__name__: f for f in (*ROUND, accounting)}


@functools.lru_cache(maxsize=1)
def parts_of(devices: int = 1) -> Parts:
    return contracts.make(devices=devices)


def test_every_contract_holds():
    found = {name: contract(parts_of(), 0) for name, contract in CONTRACTS.items()}
    assert found["sensitivity"]["pairs"] >= 200 and found["sensitivity"]["moved"] > 0.1
    assert found["sensitivity"]["most of sqrt(n)"] > 0.5  # votes of one teacher on several records at once
    assert found["post_processing"]["teachers moved"] > 0.2 and found["post_processing"]["finite"]
    assert 0.95 < found["noise"]["ratio"] < 1.05 and found["noise"]["p of a wrong scale"] < 1e-6
    assert 0.2 < found["majority"]["called real"] < 0.8 and found["majority"]["flipped"] > 0.1
    assert 5.5 < found["accounting"]["epsilon"] <= 6


@pytest.mark.slow
def test_every_contract_of_the_round_holds_on_two_devices_and_for_other_seeds():
    for contract in ROUND:
        contract(parts_of(2), 1)


def test_without_a_mechanism_the_verdicts_are_those_of_the_votes():
    parts = contracts.make(mechanism="none")
    seen = contracts.observe(parts, seeds_of(0, contracts.N), toy.hyper(contracts.N), True)
    np.testing.assert_array_equal(seen.votes, seen.noisy)
    np.testing.assert_array_equal(seen.verdict, seen.votes > 2)
    assert "public/noise_std" not in seen.metrics


def test_a_teacher_of_numbers_that_are_not_finite_casts_no_vote():
    ballot = contracts.ballot_of(parts_of().model)
    assert ballot is not None
    start = parts_of().model.init(jax.random.key(0)).client
    broken = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), start)
    x, label = jnp.ones((6, toy.encoder().layout.dim)), jnp.zeros((6,), jnp.int32)
    assert not np.asarray(ballot.vote(broken, x, label)).any()


class Bug(NamedTuple):
    """A mutation and the contract that must turn red."""

    name: str
    catch: str
    apply: Callable[[pytest.MonkeyPatch], Any]


def put(module: Any, name: str, value: Any) -> Callable[[pytest.MonkeyPatch], Any]:
    return lambda patch: patch.setattr(module, name, value)


def dealt(change: Callable[[Any], dict[str, Any]]) -> Callable[[pytest.MonkeyPatch], Any]:
    def make(*given: Any) -> Any:
        real = teachers.make_dealt(*given)
        return real._replace(**change(real))

    return put(build_federation, "make_dealt", make)


def a_cohort_for_all(real: Any) -> dict[str, Any]:
    """Every teacher draws from all clients."""
    return {"sample": cohort.make_fixed(real.size, real.slots, 1).sample}


def amplified(real: Any) -> dict[str, Any]:
    q = real.slots / real.size
    return {"account": lambda z: dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(z))}


def pooled(parts: Any, shared: Any, lane: Any) -> Any:
    """Teachers read the records of other teachers' clients, too: those of the next number."""
    taught, totals = TEACH(parts, shared, lane)
    beside, _ = TEACH(parts, shared, lane._replace(client=(lane.client + 1) % parts.population.size))
    return jax.tree.map(lambda a, b: 0.5 * (a + b), taught, beside), totals


def student_of(change: Callable[[Any, Any], Any]) -> Callable[[pytest.MonkeyPatch], Any]:
    """What server_step sees of the state, changed: (state, hyper) -> state."""
    real = votes.server_step
    return put(votes, "server_step", lambda parts, state, hyper, m: real(parts, change(state, hyper), hyper, m))


def a_teacher(state: Any, _: Any) -> Any:
    """The student is a teacher: it starts its step where one of them stands."""
    one = jax.tree.map(lambda leaf: leaf[1], state.scheme)
    return state._replace(params=ModelParams(one, state.params.server))


def real_records(patch: pytest.MonkeyPatch) -> None:
    """The student's direction is of real records as well."""
    share, step, held = votes.share, votes.server_step, {}

    def shared(state: Any, hyper: Any, data: Any, models: Any) -> Any:
        held["x"] = data.population.x[:8]
        return share(state, hyper, data, models)

    def stepped(parts: Any, state: Any, hyper: Any, direction: Any) -> Any:
        batch = Batch(held["x"], jnp.zeros((8,), jnp.int32), jnp.ones((8,), jnp.bool_))
        beside, _ = parts.model.field(state.params, batch, hyper, state.key)
        return step(parts, state, hyper, tree.add(direction, beside))

    patch.setattr(votes, "share", shared)
    patch.setattr(votes, "server_step", stepped)


def released_teacher(patch: pytest.MonkeyPatch) -> None:
    """A teacher's weights are what is published in the student's place."""
    step = votes.server_step

    def stepped(parts: Any, state: Any, hyper: Any, direction: Any) -> Any:
        new, metrics = step(parts, state, hyper, direction)
        return new._replace(
            params=ModelParams(jax.tree.map(lambda leaf: leaf[0], state.scheme), new.params.server)
        ), metrics

    patch.setattr(votes, "server_step", stepped)


def noise_key(address: Callable[[Any], tuple[Any, Any, rng.Stream]]) -> Callable[[pytest.MonkeyPatch], Any]:
    real, own = votes.stream, rng.Stream.NOISE
    return put(votes, "stream", lambda s, name: rng.stream_key(*address(s)) if name == own else real(s, name))


def scaled_noise(factor: float) -> Callable[[pytest.MonkeyPatch], Any]:
    real = tree.normal_like
    return put(tree, "normal_like", lambda key, like: tree.scale(jnp.float32(factor), real(key, like)))


def root_forgotten(patch: pytest.MonkeyPatch) -> None:
    for module in (votes, build_secure):
        patch.setattr(module, "sensitivity", lambda ballot: 1.0)


def logits(ballot: Any, lanes: Any, x: Any, label: Any) -> Any:
    """A teacher's vote is how sure it is."""
    score = jax.vmap(lambda t: x @ t["critic"]["params"]["Dense_0"]["kernel"][: x.shape[1], 0])(lanes.teacher)
    return jnp.sum(jnp.where(lanes.votes[:, None], score, 0.0), 0)


TEACH, TALLY, TRANSFORM = votes.teach, votes.tally, votes.make_vote_transform
BUGS = (
    Bug("teachers draw from all clients", "sensitivity", dealt(a_cohort_for_all)),
    Bug("teachers share records", "sensitivity", put(votes, "teach", pooled)),
    Bug("a teacher votes twice", "sensitivity", put(votes, "tally", lambda *given: 2.0 * TALLY(*given))),
    Bug("votes that are no bits", "sensitivity", put(votes, "tally", logits)),
    Bug("student sees real records", "post_processing", real_records),
    Bug("student and generator start from a teacher", "post_processing", student_of(a_teacher)),
    Bug("a teacher is released", "post_processing", released_teacher),
    Bug("no noise", "noise", put(build_federation, "make_vote_transform", lambda b, private: TRANSFORM(b, False))),
    Bug("half the noise", "noise", scaled_noise(0.5)),
    Bug("noise reused across rounds", "noise", noise_key(lambda s: (s.key, 1, rng.Stream.NOISE))),
    Bug("noise key of the records", "noise", noise_key(lambda s: (s.key, s.round + 1, rng.Stream.BALLOT))),
    Bug("votes not thresholded", "majority", put(votes, "majority", lambda ballot, v: v / ballot.teachers)),
    Bug("majority of those asked", "majority", put(votes, "majority", lambda ballot, v: v > jnp.mean(v))),
    Bug("sqrt(n) forgotten", "accounting", root_forgotten),
    Bug("amplification claimed", "accounting", dealt(amplified)),
)  # fmt: skip
QUICK = ("teachers draw from all clients", "student sees real records", "sqrt(n) forgotten")


def test_names_are_different_and_every_contract_has_a_bug():
    assert len({bug.name for bug in BUGS}) == len(BUGS)
    assert {bug.catch for bug in BUGS} == set(CONTRACTS)


@pytest.mark.parametrize("bug", [
    pytest.param(b, id=b.name, marks=[] if b.name in QUICK else pytest.mark.slow) for b in BUGS
])  # fmt: skip
def test_a_bug_turns_its_contract_red(bug, monkeypatch):
    bug.apply(monkeypatch)
    with pytest.raises(ContractError) as error:
        CONTRACTS[bug.catch](contracts.make(), 0)
    assert error.value.contract == bug.catch


REFUSED = [
    ({"mechanism": "local_gaussian"}, "mechanism='local_gaussian' does not go with teachers that vote"),
    ({"mechanism": "record_gaussian", "local": "epochs"}, "set it to 'central_gaussian' or 'none'"),
    ({"cohort": 7}, "cohort=7 must be a multiple of teachers=4"),
    ({"sampler": "poisson"}, "sampler='poisson' does not go with teachers that vote"),
    ({"algorithm": "fedbuff"}, "algorithm='fedbuff'"),
    ({"aggregation": {"rule": "median"}}, "aggregation.rule='median'"),
    ({"aggregation": {"secure": "ideal"}}, "the server holds the teachers"),
    ({"hierarchy": {"institutions": 2}}, "hierarchy.institutions=2"),
    ({"clip_quantile": 0.5}, "clip_quantile=0.5"),
    ({"compression": {"bits": 8}}, "compression.bits=8"),
    ({"compression": {"down_bits": 8}}, "compression.down_bits=8"),
    ({"cohort": 28}, "larger than the 24 training clients"),
]


@pytest.mark.parametrize(("changes", "says"), REFUSED)
def test_what_votes_do_not_cover_is_refused_by_the_build_as_well(changes, says):
    with pytest.raises(UserError, match=says):
        contracts.make(**changes)
