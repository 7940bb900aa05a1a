"""What a classifier of the downstream task reads: its views, shares of the clients, rows dealt; nothing beyond its spans."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from fedjax_health.evaluation.downstream import make_downstream, make_programs, view_population
from fedjax_health.evaluation.mixtures import (
    Mixture,
    dealt_mixture,
    fraction_mixture,
    held,
    kept,
    make_spans,
    spans_population,
    view_mixture,
)
from fedjax_health.models.classifier import make_classifier
from fedjax_health.types import Table

pytestmark = pytest.mark.quick_compile

COUNTS = np.array([2, 0, 3, 1])
TOTAL = int(COUNTS.sum())
EVERYONE = np.ones(4, bool)


def _train() -> Table:
    client = np.repeat(np.arange(4), COUNTS).astype(np.int32)
    return Table(np.arange(TOTAL, dtype=np.float32)[:, None], (client % 2).astype(np.int32), client)


def _made(rows: int = TOTAL) -> Table:
    return Table(100 + np.arange(rows, dtype=np.float32)[:, None], np.zeros(rows, np.int32), np.arange(rows))


def read(mixture: Mixture) -> list[list[float]]:
    """Values that each client reads."""
    train = _train()
    spans = make_spans([mixture], train.values, train.label, lambda values: values)
    one = jax.tree.map(lambda leaf: leaf[0], spans)
    population = view_population(train, 4)
    assert population.size == 4 and population.max_count == 6
    found = []
    for k in range(4):
        batch = population.batch(one, jnp.int32(k), jnp.arange(population.max_count, dtype=jnp.int32))
        assert int(population.count(one, jnp.int32(k))) == int(batch.mask.sum())
        assert not np.asarray(batch.x)[~np.asarray(batch.mask)].any()
        found.append(np.asarray(batch.x)[np.asarray(batch.mask), 0].tolist())
    return found


def test_held_known_answer_and_clients_without_rows_at_the_end():
    at = held(_train(), 6)
    assert at.first.tolist() == [0, 2, 2, 5, 6, 6] and at.count.tolist() == [2, 0, 3, 1, 0, 0] and at.most == 3


@pytest.mark.parametrize("view", ["real", "synthetic", "real+synthetic"])
def test_a_view_reads_its_own_rows_only(view):
    train = _train()
    for k, values in enumerate(read(view_mixture(view, _made(), held(train, 4)))):
        real = np.flatnonzero(train.client == k)
        own = {"real": real, "synthetic": 100 + real, "real+synthetic": np.concatenate([real, 100 + real])}[view]
        assert values == own.tolist()


def test_a_share_of_the_clients_stands_in_for_the_others():
    train, at = _train(), held(_train(), 4)
    own = [[0.0, 1.0], [], [2.0, 3.0, 4.0], [5.0]]
    for seed in range(5):
        found = read(fraction_mixture(_made(0), at, EVERYONE, 0.34, False, np.random.default_rng(seed)))
        assert found[1] == []  # a client without records stays one
        assert found[0] == found[2] == found[3] and found[0] in own and found[0]  # one of three is kept
        both = read(fraction_mixture(_made(), at, EVERYONE, 0.34, True, np.random.default_rng(seed)))
        for alone, values in zip(found, both, strict=True):
            assert values[: len(alone)] == alone
            beside = values[len(alone) :]
            assert len(beside) == len(alone) and all(
                v >= 100 for v in beside
            )  # as many rows, and different ones a client
        assert both[0][len(found[0]) :] != both[2][len(found[2]) :]
    assert (
        read(fraction_mixture(_made(0), at, EVERYONE, 1.0, False, np.random.default_rng(0))) != []
        and len(train.label) == 6
    )


def test_the_smaller_share_is_part_of_the_larger_and_excluded_clients_are_never_kept():
    counts = np.random.default_rng(0).integers(0, 5, 60)
    client = np.repeat(np.arange(60), counts).astype(np.int32)
    at = held(Table(np.zeros((len(client), 1), np.float32), client, client), 60)
    include = np.arange(60) % 3 > 0

    def sources(fraction: float) -> set[int]:
        mixture = fraction_mixture(_made(0), at, include, fraction, False, np.random.default_rng(7))
        there = include & (counts > 0)
        assert (mixture.real_count[~there] == at.count[~there]).all()
        return {int(np.flatnonzero((at.first == f) & (counts > 0))[0]) for f in mixture.real_first[there]}

    half, fifth = sources(0.5), sources(0.2)
    there = set(np.flatnonzero(include & (counts > 0)).tolist())
    assert fifth < half < there and len(half) == round(0.5 * len(there)) and len(fifth) == round(0.2 * len(there))
    assert sources(1.0) == there


def test_dealt_rows_have_the_amounts_asked_for_and_go_to_included_clients_by_their_records():
    counts = np.random.default_rng(1).integers(0, 9, 50)
    client = np.repeat(np.arange(50), counts).astype(np.int32)
    at, include = held(Table(np.zeros((len(client), 1), np.float32), client, client), 50), np.arange(50) % 4 > 0
    pool = Table(np.arange(30, dtype=np.float32)[:, None], np.repeat([0, 1], [20, 10]).astype(np.int32), np.arange(30))
    total = int(counts[include].sum())
    amounts = np.array([12, total // 2, 5])
    mixture = dealt_mixture(pool, amounts, at, include, np.random.default_rng(2))
    assert np.bincount(mixture.made.label, minlength=3).tolist() == [
        12,
        total // 2,
        0,
    ]  # of the third class it has none
    assert mixture.made_count.sum() == 12 + total // 2 and not mixture.made_count[~include].any()
    share = len(mixture.made.label) / total
    assert np.abs(mixture.made_count - share * counts * include).max() < 1
    assert (mixture.made_count <= counts).all()  # so that no client outgrows the population's bound
    taken = mixture.made.values[mixture.made.label == 0, 0]
    assert sorted(taken) == list(range(12))  # from the top, each once
    again = np.bincount(mixture.made.values[mixture.made.label == 1, 0].astype(int), minlength=30)[20:]
    assert again.max() - again.min() <= 1  # all ten, as equally often as can be
    spans = [(f, f + c) for f, c in zip(mixture.made_first, mixture.made_count, strict=True) if c]
    assert spans[0][0] == 0 and all(a[1] == b[0] for a, b in itertools.pairwise(spans))


def test_nothing_to_deal_leaves_the_real_records():
    mixture = dealt_mixture(_made(), np.zeros(2, np.int64), held(_train(), 4), EVERYONE, np.random.default_rng(0))
    assert read(mixture) == read(view_mixture("real", _made(), held(_train(), 4)))


def test_records_that_are_left_out_are_read_by_nobody():
    train, at = _train(), held(_train(), 4)
    keep = np.array([False, True, True, False, True, False])
    order, left = kept(train, at, keep)
    assert left.count.tolist() == [1, 0, 2, 0] and left.first.tolist() == at.first.tolist()
    assert read(view_mixture("real", _made(), left)._replace(order=order)) == [[1.0], [], [2.0, 4.0], []]
    dealt = dealt_mixture(_made(), np.array([2, 0]), left, EVERYONE, np.random.default_rng(0))._replace(order=order)
    found = read(dealt)
    assert [values[:c] for values, c in zip(found, left.count, strict=True)] == [[1.0], [], [2.0, 4.0], []]
    assert sum(len(values) for values in found) == 3 + 2 and not found[3]


def test_one_program_serves_every_mixture_and_equal_mixtures_give_equal_classifiers():
    domain = toy.domain()
    train, clients = domain.train, domain.population.size
    config = toy.train_config(rounds=4, rounds_per_chunk=2, server_learning_rate=1.0)
    classifier = make_classifier(toy.encoder().layout.dim, 2, (4,))
    population = spans_population(clients, 2 * held(train, clients).most)
    parts = toy.make_parts(classifier, config, private=False, population=population)
    include = np.ones((2, clients), bool)
    include[0, 3] = include[1, 5] = False
    programs = make_programs(parts, config, domain.encoder, classifier)
    downstream = make_downstream(programs, config, train, domain.encoder, include, toy.keys(0, 1))
    made = [train._replace(label=1 - train.label)] * 2
    real = downstream.fit("real", made, "a")
    both = list(zip(made, include, strict=True))
    whole = [fraction_mixture(t, downstream.at, m, 1.0, False, np.random.default_rng(0)) for t, m in both]
    none = [dealt_mixture(t, np.zeros(2, np.int64), downstream.at, m, np.random.default_rng(0)) for t, m in both]
    for s in range(2):
        p = real.probabilities(domain.test, s)
        np.testing.assert_array_equal(p, downstream.fit_mixtures(none, "b").probabilities(domain.test, s))
        assert np.abs(p - downstream.fit("synthetic", made, "c").probabilities(domain.test, s)).max() > 1e-3
        # with all clients kept everyone is read, each in the place of another
        assert np.abs(p - downstream.fit_mixtures(whole, "d").probabilities(domain.test, s)).max() < 0.2
    assert downstream.traces() == 1
