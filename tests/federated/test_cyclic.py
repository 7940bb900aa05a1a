"""Clients that take turns: fixed groups, one group a round, each of its clients with the probability accounted for."""

from __future__ import annotations

import functools

import dp_accounting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import toy
from dp_accounting import dp_event
from jax.extend.core import ClosedJaxpr, Jaxpr

from fedjax_health.federated.cohort import everyone, make_poisson
from fedjax_health.federated.cyclic import make_cyclic_poisson
from fedjax_health.federated.permutation import permute
from fedjax_health.threefry import root_key
from fedjax_health.types import UserError


def group_of(size, groups):
    """Group of every client, from the definition: position i of the public permutation is in group i mod b."""
    client = np.asarray(permute(jnp.arange(size, dtype=jnp.int32), size, root_key(0)))
    group = np.empty(size, int)
    group[client] = np.arange(size) % groups
    return group


@functools.lru_cache
def taken(size, expected, groups, rounds, seed=0, multiple=1):
    """How often each client is in the cohort of each round, int[rounds, K]; sampled counts."""
    sampler = make_cyclic_poisson(size, expected, groups, multiple)
    keys = jax.random.split(jax.random.key(seed), rounds)
    one = jax.jit(jax.vmap(lambda key, t: sampler.sample(everyone, key, t)))
    out, metrics = jax.device_get(one(keys, jnp.arange(rounds, dtype=jnp.int32)))
    found = np.zeros((rounds, size), int)
    rows, slots = np.nonzero(out.mask)
    np.add.at(found, (rows, out.client[rows, slots]), 1)
    return found, metrics


@pytest.mark.parametrize(("size", "expected", "groups"), [(60, 5.0, 4), (61, 5.0, 4), (63, 7.0, 7), (9, 1.0, 5)])
def test_a_client_takes_part_in_its_groups_rounds_alone(size, expected, groups):
    found, _ = taken(size, expected, groups, 2000)
    assert found.max() == 1
    rounds, client = np.nonzero(found)
    assert np.array_equal(rounds % groups, group_of(size, groups)[client])
    for k in range(size):
        gaps = np.diff(np.nonzero(found[:, k])[0])
        assert len(gaps) > 0 and gaps.min() >= groups and np.all(gaps % groups == 0)


def test_groups_hold_everybody_once_and_know_no_order():
    group = group_of(103, 4)
    assert np.bincount(group).tolist() == [26, 26, 26, 25]
    assert scipy.stats.kstest(np.nonzero(group == 0)[0], scipy.stats.randint(0, 103).cdf).pvalue > 1e-3
    assert not np.array_equal(group, np.arange(103) % 4)


@pytest.mark.parametrize(("size", "expected", "groups"), [(60, 5.0, 4), (61, 5.0, 4)])
def test_the_probability_is_the_one_accounted_for(size, expected, groups):
    rounds, p = 8000, groups * expected / size
    found, metrics = taken(size, expected, groups, rounds)
    turns = rounds // groups
    times = found.sum(0)
    square = (times - turns * p) ** 2 / (turns * p * (1 - p))
    assert 1e-3 < scipy.stats.chi2.sf(square.sum(), size) < 1 - 1e-3
    wrong = (times - turns * 1.1 * p) ** 2 / (turns * p * (1 - p))
    assert scipy.stats.chi2.sf(wrong.sum(), size) < 1e-6
    # independent of each other and from turn to turn: pairs of a group, and a client's own neighbouring turns
    group = group_of(size, groups)
    mine = found[0::groups][:, group == 0].astype(float) - p
    together = mine.T @ mine / (turns * p * (1 - p))
    off = together[np.triu_indices(len(together), 1)] * np.sqrt(turns)
    assert scipy.stats.kstest(off, "norm").pvalue > 1e-3
    own = np.mean(mine[1:] * mine[:-1], 0) / (p * (1 - p)) * np.sqrt(turns - 1)
    assert scipy.stats.kstest(own, "norm").pvalue > 1e-3
    assert np.all(found.sum(1) <= metrics["sim/sampled"])
    assert make_cyclic_poisson(size, expected, groups, 1).account(1.0).sampling_probability == pytest.approx(  # pyright: ignore[reportAttributeAccessIssue]
        p, rel=1e-12
    )


def test_one_group_is_poisson_sampling_of_the_same_size():
    found, _ = taken(50, 10.0, 1, 4000)
    assert scipy.stats.binomtest(int(found.sum()), 4000 * 50, 0.2).pvalue > 1e-3
    ours, plain = make_cyclic_poisson(50, 10.0, 1, 4), make_poisson(50, 10.0, 4)
    assert ours.account(1.3) == plain.account(1.3) and ours.slots == plain.slots and ours.separation == 1


def test_the_event_is_of_the_largest_group():
    whole = make_cyclic_poisson(21, 5.0, 4, 8)
    event = whole.account(2.0)
    assert isinstance(event, dp_event.PoissonSampledDpEvent) and event.event == dp_accounting.GaussianDpEvent(2.0)
    assert event.sampling_probability == pytest.approx(20 / 21, rel=1e-12)
    cut = make_cyclic_poisson(4001, 10.0, 4, 8).account(2.0)
    assert isinstance(cut, dp_event.TruncatedSubsampledGaussianDpEvent)
    assert (cut.dataset_size, cut.noise_multiplier) == (1001, 2.0)
    assert cut.sampling_probability == pytest.approx(40 / 4001) and cut.truncated_batch_size >= 10 + 5 * np.sqrt(10)


def test_rounds_are_counted_in_turns():
    sampler = make_cyclic_poisson(100, 5.0, 4, 1)
    assert [sampler.events(t) for t in (0, 1, 3, 4, 5, 8, 9)] == [0, 1, 1, 1, 2, 2, 3]
    assert [make_poisson(100, 5.0, 1).events(t) for t in (0, 1, 7)] == [0, 1, 7]


def test_cohorts_do_not_depend_on_the_slots():
    few, many = (make_cyclic_poisson(1000, 20.0, 3, m) for m in (1, 40))
    for t in range(3):
        a, b = (s.sample(everyone, jax.random.key(t), jnp.int32(t))[0] for s in (few, many))
        assert np.array_equal(a.client[a.mask], b.client[b.mask]) and many.slots > few.slots


def _sizes(program):
    for equation in program.eqns:
        yield from (v.aval.size for v in equation.outvars)
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda p: isinstance(p, (Jaxpr, ClosedJaxpr))
        ):
            if isinstance(inner, (Jaxpr, ClosedJaxpr)):
                yield from _sizes(getattr(inner, "jaxpr", inner))


def test_a_million_clients_cost_the_cohort():
    sampler = make_cyclic_poisson(1_000_003, 50.0, 4, 1)
    program = jax.make_jaxpr(lambda key, t: sampler.sample(everyone, key, t))(jax.random.key(0), jnp.int32(2))
    assert max(_sizes(program.jaxpr)) < 2000
    cohort, _ = sampler.sample(everyone, jax.random.key(0), jnp.int32(2))
    members = np.asarray(cohort.client)[np.asarray(cohort.mask)]
    assert len(set(members.tolist())) == len(members) > 20 and members.max() < 1_000_003


def refused(sentence, **settings):
    bands = settings.pop("bands", 4)
    settings.setdefault("cohort", 4)
    with pytest.raises(UserError, match=sentence) as error:
        toy.make_parts(toy.linear(), toy.train_config(**settings), bands=bands)
    assert "\n" not in str(error.value)


def test_what_is_not_accounted_for_is_refused():
    refused(r"cohort=7 with noise_bands=4 needs 28 clients.*there are 24", cohort=7)
    refused("must be at least 2; 1 is plain noise", bands=1)
    refused("between 1 and the 3 rounds", rounds=3)
    refused("set sampler='poisson'", sampler="full")
    refused("set sampler='poisson'", hierarchy={"institutions": 2})
    refused("set sampler='poisson'", algorithm="fedbuff")
    refused("needs one finite l2_clip_norm", l2_clip_norm=float("inf"))
    refused("a void round would shift the noise", aggregation={"secure": "ideal"})
