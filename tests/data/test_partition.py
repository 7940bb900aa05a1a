"""Dealing keeps every record once and every group whole, with the skew asked for."""

from __future__ import annotations

import numpy as np
import pytest
from tables import (
    PATIENTS,
    PRIOR,
    RECORDS,
    generator,
    patients,
    same_records,
)

from fedjax_health.data.partition import deal_dirichlet, deal_iid, deal_quantity, label_skew
from fedjax_health.types import Table, UserError

DEALS = {
    "iid": lambda table, k, g, by=None: deal_iid(table, k, g, by),
    "dirichlet": lambda table, k, g, by=None: deal_dirichlet(table, k, 0.5, g, by),
    "quantity": lambda table, k, g, by=None: deal_quantity(table, k, 1.2, g, by),
}


@pytest.mark.parametrize("deal", DEALS.values(), ids=DEALS)
@pytest.mark.parametrize("grouped", [False, True])
def test_every_record_is_dealt_once_to_dense_clients_in_stable_order(deal, grouped):
    table = PATIENTS
    dealt = deal(table, 30, generator(), table.client if grouped else None)
    assert same_records(dealt, table)
    assert dealt.client.dtype == np.int32 and dealt.values.dtype == np.float32 and dealt.label.dtype == np.int32
    assert set(dealt.client) == set(range(30))
    # client-major, and the old order inside a client
    key = dealt.client.astype(np.int64) * len(table.label) + dealt.values[:, 0].astype(np.int64)
    assert (np.diff(key) > 0).all()


@pytest.mark.parametrize("deal", DEALS.values(), ids=DEALS)
def test_groups_stay_whole(deal):
    def most_clients_of_a_patient(by):
        dealt = deal(PATIENTS, 30, generator(), by)
        return max(len(set(dealt.client[dealt.values[:, 1] == p])) for p in range(120))

    assert most_clients_of_a_patient(PATIENTS.client) == 1
    assert most_clients_of_a_patient(PATIENTS.client.astype(str)) == 1  # a group column may hold anything
    assert most_clients_of_a_patient(None) > 1


@pytest.mark.parametrize("deal", DEALS.values(), ids=DEALS)
def test_as_many_clients_as_groups_leaves_nobody_empty(deal):
    table = patients([50, 1, 1, 1, 7, 1])
    dealt = deal(table, 6, generator(), table.client)
    assert sorted(np.bincount(dealt.client)) == [1, 1, 1, 1, 7, 50]


@pytest.mark.parametrize("deal", DEALS.values(), ids=DEALS)
def test_dealing_is_a_function_of_the_generator(deal):
    one, again, other = (deal(PATIENTS, 12, generator(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.values, again.values)
    np.testing.assert_array_equal(one.client, again.client)
    assert not np.array_equal(one.values, other.values)


def test_iid_sizes_and_shares():
    assert set(np.bincount(deal_iid(RECORDS, 30, generator()).client)) == {133, 134}
    together = [
        np.isin([0.0, 1.0], deal_iid(patients([1] * 10), 2, generator(s)).values[:5, 0]).sum() for s in range(400)
    ]
    # records 0 and 1 meet at client 0 with probability 5/10 * 4/9 = 2/9
    assert abs(np.mean(np.array(together) == 2) - 2 / 9) < 4 * np.sqrt(2 / 9 * 7 / 9 / 400)


def test_label_skew_by_hand():
    table = Table(np.zeros((8, 1), np.float32), np.array([0, 0, 0, 0, 1, 1, 0, 1], np.int32), np.repeat([0, 3], 4))
    # shares of class 1: 0 and 3/4, of all 3/8
    assert label_skew(table) == pytest.approx(3 / 8)


def expected_skew(alpha: float, clients: int) -> tuple[float, float]:
    """Mean total variation of Dirichlet(alpha * PRIOR) from PRIOR, and the SD of the mean over so many clients."""
    share = generator(9).dirichlet(alpha * PRIOR, 20000)
    distance = 0.5 * np.abs(share - PRIOR).sum(1)
    return distance.mean(), distance.std() / np.sqrt(clients)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 2.0, 10.0])
def test_dirichlet_has_the_skew_of_its_distribution_and_iid_has_not(alpha):
    table, clients = patients([1] * 20000), 400
    mean, deviation = expected_skew(alpha, clients)
    slack = 4 * deviation + 0.01  # sizes of 50 records round the shares

    def skew(of: float) -> float:
        return label_skew(deal_dirichlet(table, clients, of, generator(2)))

    assert abs(skew(alpha) - mean) < slack
    assert label_skew(deal_iid(table, clients, generator(2))) < mean - slack
    assert abs(skew(4 * alpha) - mean) > slack
    # below 0.1 the skew saturates: nearly every client has one class
    assert alpha < 0.5 or abs(skew(alpha / 4) - mean) > slack


def test_dirichlet_spreads_each_class_as_its_distribution_does():
    alpha, clients = 1.0, 200
    dealt = deal_dirichlet(patients([1] * 20000), clients, alpha, generator(5))
    count = np.zeros((clients, 3))
    np.add.at(count, (dealt.client, dealt.label), 1.0)
    share = count / count.sum(1, keepdims=True)
    # Var q_c = p (1 - p) / (alpha + 1); a symmetric Dirichlet(alpha), without the prior, has 2/9 / (3 alpha + 1) = 0.056
    np.testing.assert_allclose(share.var(0), PRIOR * (1 - PRIOR) / (alpha + 1), rtol=0.25)


def test_dirichlet_keeps_its_skew_with_few_clients():
    # what 10 clients draw is far from the class totals; dealing the surplus to whoever has room would level it out
    skews = [label_skew(deal_dirichlet(patients([1] * 1000), 10, 0.1, generator(s))) for s in range(20)]
    assert abs(np.mean(skews) - expected_skew(0.1, 10)[0]) < 0.05


def test_dirichlet_skew_falls_with_alpha_to_the_prior():
    skews = [label_skew(deal_dirichlet(RECORDS, 40, alpha, generator(7))) for alpha in (0.05, 0.3, 1.0, 5.0, 50.0, 1e6)]
    assert skews == sorted(skews, reverse=True) and skews[-1] < 0.01  # 1 record of 100 is what sizes can resolve


def test_dirichlet_of_whole_patients_is_skewed_and_balanced():
    sizes = generator(3).integers(6, 25, 300)
    table = patients(sizes)
    rate = generator(4).beta(0.4, 0.6, 300)
    table = table._replace(label=(generator(5).random(len(table.label)) < rate[table.client]).astype(np.int32))
    few, many = (deal_dirichlet(table, 20, alpha, generator(6), table.client) for alpha in (0.2, 100.0))
    assert label_skew(few) > 0.2 > 0.06 > label_skew(many)
    for dealt in (few, many):
        count = np.bincount(dealt.client)
        assert count.max() - count.min() <= 12  # half a patient; at random the range is about 100
    at_random = np.bincount(deal_iid(table, 20, generator(6), table.client).client)
    assert at_random.max() - at_random.min() > 40


@pytest.mark.parametrize("alpha", [1e-300, 1e-6, 1e300])
def test_extreme_concentrations(alpha):
    dealt = deal_dirichlet(RECORDS, 7, alpha, generator())
    assert same_records(dealt, RECORDS) and set(np.bincount(dealt.client)) == {571, 572}


def test_dirichlet_with_an_absent_class_and_with_one_class():
    gap = RECORDS._replace(label=np.where(RECORDS.label == 1, 0, RECORDS.label).astype(np.int32))
    assert same_records(deal_dirichlet(gap, 10, 1.0, generator()), gap)
    one = RECORDS._replace(label=np.zeros_like(RECORDS.label))
    assert same_records(deal_dirichlet(one, 10, 0.1, generator()), one)


def test_quantity_sizes():
    def sizes(alpha: float, clients: int, table: Table = RECORDS):
        return np.sort(np.bincount(deal_quantity(table, clients, alpha, generator()).client))[::-1]

    assert set(sizes(0.0, 30)) == {133, 134}
    # Zipf over 4 ranks: 12/25, 6/25, 4/25, 3/25 of 4000
    np.testing.assert_array_equal(sizes(1.0, 4), [1920, 960, 640, 480])
    # the tail has at least one each, and the rest keeps its proportions: 5 = 3 + 1 + 1 with shares 1, 1/16, 1/81
    np.testing.assert_array_equal(sizes(4.0, 3, patients([1] * 5)), [3, 1, 1])
    np.testing.assert_array_equal(sizes(1e308, 3), [3998, 1, 1])
    slope = np.polyfit(np.log(np.arange(1, 51)), np.log(sizes(1.3, 50)), 1)[0]
    assert slope == pytest.approx(-1.3, abs=0.02)


def test_quantity_ranks_are_shuffled_over_ids_and_labels_are_not_skewed():
    largest = {int(np.bincount(deal_quantity(RECORDS, 20, 1.0, generator(s)).client).argmax()) for s in range(20)}
    assert len(largest) > 5
    by_label = RECORDS._replace(label=np.sort(RECORDS.label))
    equal = deal_quantity(by_label, 40, 0.0, generator())
    assert label_skew(equal) < expected_skew(10.0, 40)[0] / 2


@pytest.mark.parametrize("deal", DEALS.values(), ids=DEALS)
@pytest.mark.parametrize("clients", [-1, 0, 1, 6])
def test_impossible_numbers_of_clients(deal, clients):
    with pytest.raises(UserError, match=rf"num_clients={clients} must be from 2 to 5"):
        deal(patients([3, 1, 1, 1, 1]), clients, generator(), patients([3, 1, 1, 1, 1]).client)


@pytest.mark.parametrize("alpha", [0.0, -1.0, np.nan, np.inf])
def test_impossible_exponents(alpha):
    with pytest.raises(UserError, match=r"partition\.alpha=.* above 0 for 'dirichlet'"):
        deal_dirichlet(RECORDS, 5, alpha, generator())
    if alpha:
        with pytest.raises(UserError, match=r"partition\.alpha=.* 0 or more for 'quantity'"):
            deal_quantity(RECORDS, 5, alpha, generator())
