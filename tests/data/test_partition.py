"""Dealing keeps every record once and every group whole, with the skew asked for; sites change features as they say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import toy

from fedjax_health.config import DataConfig
from fedjax_health.data.domain import domain_from_simulator, domain_from_source
from fedjax_health.data.feature_skew import Sites, apply_sites, draw_sites
from fedjax_health.data.partition import deal_dirichlet, deal_iid, deal_quantity, label_skew, partition_table
from fedjax_health.data.schema import Column, Schema
from fedjax_health.data.simulator import simulate_table
from fedjax_health.data.source import Source
from fedjax_health.data.split import split_clients
from fedjax_health.federation_config import PartitionConfig
from fedjax_health.types import Table, UserError

PRIOR = np.array([0.6, 0.3, 0.1])
NATURAL = PartitionConfig(
    scheme="natural", num_clients=1, alpha=1.0, sites=0, site_gain=0.0, site_offset=0.0, site_noise=0.0, site_keep=1.0
)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def config(**changes) -> PartitionConfig:
    return dataclasses.replace(NATURAL, **changes)


def patients(sizes, seed: int = 0) -> Table:
    """The values of a record are its own number and its patient's; classes as in PRIOR."""
    client = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    values = np.stack([np.arange(len(client)), client], 1).astype(np.float32)
    return Table(values, generator(seed).choice(3, len(client), p=PRIOR).astype(np.int32), client)


RECORDS = patients(np.ones(4000, int))
PATIENTS = patients(generator(1).integers(1, 9, 120))
DEALS = {
    "iid": lambda table, k, g, by=None: deal_iid(table, k, g, by),
    "dirichlet": lambda table, k, g, by=None: deal_dirichlet(table, k, 0.5, g, by),
    "quantity": lambda table, k, g, by=None: deal_quantity(table, k, 1.2, g, by),
}


def same_records(dealt: Table, table: Table) -> bool:
    order = np.argsort(dealt.values[:, 0])
    return np.array_equal(dealt.values[order], table.values) and np.array_equal(dealt.label[order], table.label)


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


# sites

SENSORS = Schema(
    "sensors",
    (
        Column(name="pressure", low=-1e6, high=1e6, center=0.0, scale=20.0),
        Column(name="rate", low=0.0, high=1e6, scale=0.5, center=5.0, transform="log1p"),
        Column(name="ward", kind="categorical", categories=("a", "b", "c")),
        Column(name="glucose", low=-1e6, high=1e6, center=0.0, scale=5.0, nullable=True),
        Column(name="sick", kind="binary", role="label"),
    ),
)
SKEWED = config(sites=3, site_gain=0.1, site_offset=0.5, site_noise=0.2)


def sensor_table(clients: int, each: int) -> Table:
    g, n = generator(8), clients * each
    values = np.stack(
        [g.normal(100, 30, n), np.expm1(g.normal(5, 0.5, n)), g.integers(0, 3, n), g.normal(90, 15, n)], 1
    ).astype(np.float32)
    values[g.random(n) < 0.2, 3] = np.nan
    return Table(values, g.integers(0, 2, n).astype(np.int32), np.repeat(np.arange(clients, dtype=np.int32), each))


def test_regression_recovers_gain_offset_and_noise_of_each_site():
    table = sensor_table(12, 2000)
    sites = draw_sites(12, 4, SKEWED, 0, "toy")
    skewed = apply_sites(table, SENSORS, sites, 0, "toy")
    np.testing.assert_array_equal(skewed.client, table.client)
    np.testing.assert_array_equal(skewed.label, table.label)
    np.testing.assert_array_equal(skewed.values[:, 2], table.values[:, 2])
    np.testing.assert_array_equal(np.isnan(skewed.values), np.isnan(table.values))
    for s in range(3):
        rows = (sites.site == s)[table.client]
        for column, scale in ((0, 20.0), (3, 5.0)):
            x, y = table.values[rows, column].astype(float), skewed.values[rows, column].astype(float)
            x, y = x[~np.isnan(x)], y[~np.isnan(y)]
            (slope, intercept), covariance = np.polyfit(x, y, 1, cov=True)
            error = np.sqrt(np.diag(covariance))
            assert abs(slope - 1 - sites.gain[s, column]) < 4 * error[0] < 0.02
            assert abs(intercept - sites.offset[s, column] * scale) < 4 * error[1] < 0.2 * scale
            residual = np.std(y - slope * x - intercept)
            assert residual == pytest.approx(sites.noise[s, column] * scale, rel=0.05)
        # a log column: the gain in units, offset and noise in the scale, which is after the transform
        after = np.log1p(np.float64(skewed.values[rows, 1])) - np.log1p(
            np.float64(table.values[rows, 1]) * (1 + sites.gain[s, 1])
        )
        assert abs(after.mean() - 0.5 * sites.offset[s, 1]) < 4 * after.std() / np.sqrt(len(after))
        assert after.std() == pytest.approx(0.5 * sites.noise[s, 1], rel=0.05)


def test_sites_are_drawn_with_the_deviations_asked_for():
    sites = draw_sites(
        5000, 4, config(sites=5000, site_gain=0.1, site_offset=2.0, site_noise=0.3, site_keep=0.4), 1, "a"
    )
    assert sites.gain.shape == sites.offset.shape == sites.noise.shape == (5000, 4)
    for draw, deviation in ((sites.gain, 0.1), (sites.offset, 2.0)):
        assert abs(draw.mean()) < 4 * deviation / np.sqrt(20000) and draw.std() == pytest.approx(deviation, rel=0.03)
    assert (sites.noise >= 0).all() and np.sqrt((sites.noise**2).mean()) == pytest.approx(0.3, rel=0.03)
    assert sites.keep.min() >= 0.4 and sites.keep.max() <= 1 and sites.keep.mean() == pytest.approx(0.7, abs=0.02)
    assert sorted(sites.site) == list(range(5000)) and not np.array_equal(sites.site, np.arange(5000))


def test_sites_are_equally_large():
    assert sorted(np.bincount(draw_sites(11, 1, config(sites=3), 0, "toy").site)) == [3, 4, 4]
    assert (draw_sites(11, 1, config(sites=3), 0, "toy").keep == 1).all()


def of_one_site(clients: int, columns: int, keep: float = 1.0, **fields: float) -> Sites:
    full = {name: np.full((1, columns), fields.get(name, 0.0)) for name in ("gain", "offset", "noise")}
    return Sites(site=np.zeros(clients, int), keep=np.array([keep]), **full)


TOY = simulate_table(toy.SIMULATOR, 200, seed=0)


def test_no_skew_changes_nothing():
    same = apply_sites(TOY, toy.SCHEMA, of_one_site(200, 5), 0, "toy")
    np.testing.assert_array_equal(same.client, TOY.client)
    np.testing.assert_array_equal(same.label, TOY.label)
    np.testing.assert_allclose(same.values, TOY.values, rtol=1e-6)


@pytest.mark.parametrize("skew", [{"noise": 3.0}, {"offset": 8.0}, {"gain": -2.0}, {"gain": 0.4, "noise": 100.0}])
def test_the_schema_holds_whatever_the_skew(skew):
    skewed = apply_sites(TOY, toy.SCHEMA, of_one_site(200, 5, **skew), 0, "toy").values
    ward, systolic, diastolic, lactate, sex = skewed.T
    np.testing.assert_array_equal(ward, TOY.values[:, 0])
    np.testing.assert_array_equal(sex, TOY.values[:, 4])
    np.testing.assert_array_equal(np.isnan(lactate), np.isnan(TOY.values[:, 3]))
    assert np.isnan(lactate).any() and np.isfinite(skewed[:, [0, 1, 2, 4]]).all()
    lactate = lactate[~np.isnan(lactate)]
    assert systolic.min() >= 60 and systolic.max() <= 260 and diastolic.min() >= 30 and diastolic.max() <= 160
    assert lactate.min() >= 0 and lactate.max() <= 20
    np.testing.assert_array_equal(systolic, np.round(systolic))
    np.testing.assert_array_equal(diastolic, np.round(diastolic))
    np.testing.assert_array_equal(lactate, np.round(lactate.astype(float), 1).astype(np.float32))
    assert (diastolic <= systolic).all()
    assert (systolic != TOY.values[:, 1]).mean() > 0.5


def test_at_most_holds_through_a_chain_and_where_values_are_missing():
    numeric = {"low": 0.0, "high": 10.0, "nullable": True}
    chain = Schema(
        "chain",
        (
            Column(name="a", at_most="b", **numeric),
            Column(name="b", at_most="c", **numeric),
            Column(name="c", **numeric),
            Column(name="sick", kind="binary", role="label"),
        ),
    )
    values = np.array([[5, 6, 7], [5, np.nan, 7], [np.nan, 6, 7], [5, 6, np.nan]], np.float32)
    table = Table(values, np.zeros(4, np.int32), np.zeros(4, np.int32))
    low_c = Sites(np.zeros(1, int), np.array([[0.0, 0.0, -0.9]]), *np.zeros((2, 1, 3)), np.ones(1))
    expected = [[0.7, 0.7, 0.7], [5, np.nan, 0.7], [np.nan, 0.7, 0.7], [5, 6, np.nan]]
    np.testing.assert_allclose(apply_sites(table, chain, low_c, 0, "toy").values, expected, rtol=1e-6)


def test_a_site_keeps_its_share_of_each_client_and_never_nothing():
    sizes = np.array([1, 2, 10, 0, 7, 100])
    table = patients(sizes)._replace(values=np.arange(120, dtype=np.float32)[:, None])
    schema = Schema("n", (Column(name="n", low=0, high=1e6), Column(name="y", kind="binary", role="label")))
    kept = apply_sites(table, schema, of_one_site(6, 1, keep=0.31), 0, "toy")
    np.testing.assert_array_equal(np.bincount(kept.client), [1, 1, 4, 0, 3, 31])
    row = kept.values[:, 0].astype(int)
    assert (np.diff(row) > 0).all()  # old order, and no record twice
    np.testing.assert_array_equal(table.label[row], kept.label)
    np.testing.assert_array_equal(table.client[row], kept.client)
    # any record may be kept: the mean of 31 of 100 is within 5 SD of the middle, over 100 seeds
    means = [
        apply_sites(table, schema, of_one_site(6, 1, keep=0.31), s, "toy").values[-31:, 0].mean() for s in range(100)
    ]
    assert abs(np.mean(means) - 69.5) < 5 * 28.9 / np.sqrt(3100) and np.std(means) > 2


# the whole partition


def test_natural_is_the_same_object():
    table, notes = partition_table(PATIENTS, SENSORS, NATURAL, 0, "toy")
    assert table is PATIENTS and notes == ()


@pytest.mark.parametrize("scheme", ["iid", "dirichlet", "quantity"])
def test_partition_deals_whole_natural_clients_and_says_so(scheme):
    table, (note,) = partition_table(PATIENTS, SENSORS, config(scheme=scheme, num_clients=10), 0, "toy")
    assert same_records(table, PATIENTS)
    assert max(len(set(table.client[table.values[:, 1] == p])) for p in range(120)) == 1
    assert f"{len(PATIENTS.label)} training records of 120 natural clients were dealt to 10 new clients" in note
    assert "the unit of privacy is the new client" in note and f"{label_skew(table):.3f} in total variation" in note


def test_partition_depends_on_seed_and_name_only():
    changes = config(scheme="dirichlet", num_clients=10, sites=2, site_noise=1.0, site_keep=0.5)
    table = sensor_table(30, 5)
    one, again, other, named = (
        partition_table(table, SENSORS, changes, seed, name)[0]
        for seed, name in ((0, "toy"), (0, "toy"), (1, "toy"), (0, "other"))
    )
    np.testing.assert_array_equal(one.values, again.values)
    np.testing.assert_array_equal(one.client, again.client)
    for different in (other, named):
        assert one.values.shape != different.values.shape or not np.array_equal(one.values, different.values)


def test_sites_of_natural_clients():
    changes = config(sites=4, site_gain=0.1, site_keep=0.5)
    table, (note,) = partition_table(TOY, toy.SCHEMA, changes, 0, "toy")
    assert set(table.client) == set(TOY.client) and len(table.label) < len(TOY.label)
    assert "4 sites" in note and "gain (SD 0.1)" in note and f"({len(table.label)} of {len(TOY.label)})" in note


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheme": "shards"}, "scheme='shards' is not one of natural, iid"),
        ({"sites": -1}, "sites=-1 must be 0"),
        ({"sites": 121}, "toy: config data.partition.sites=121 is more than the 120 training clients"),
        ({"sites": 2, "site_gain": -0.1}, "site_gain=-0.1 must be finite"),
        ({"sites": 2, "site_offset": np.inf}, "site_offset=inf must be finite"),
        ({"sites": 2, "site_noise": np.nan}, "site_noise=nan must be finite"),
        ({"sites": 2, "site_keep": 0.0}, "site_keep=0.0 must be in"),
        ({"sites": 2, "site_keep": 1.1}, "site_keep=1.1 must be in"),
        ({"scheme": "iid", "num_clients": 121}, "num_clients=121 must be from 2 to 120"),
    ],
)
def test_mistakes_are_told(changes, message):
    with pytest.raises(UserError, match=message):
        partition_table(PATIENTS, SENSORS, config(**changes), 0, "toy")


# domains


def data_config(partition: PartitionConfig, population: str = "stored") -> DataConfig:
    return DataConfig(
        domains=("toy",), path="", schema="", task="diagnosis", label="", features="all", population=population,
        num_clients=60, validation_fraction=0.2, test_fraction=0.2, audit_fraction=0.2, reference_clients=24,
        partition=partition,
    )  # fmt: skip


DEALT = config(scheme="dirichlet", num_clients=9, alpha=0.5)


def test_domain_of_a_source_deals_inside_the_training_split_only():
    source = Source(toy.SCHEMA, "diagnosis", TOY, ("Read.",))
    natural, dealt = (domain_from_source("toy", source, data_config(p), 0) for p in (NATURAL, DEALT))
    assert natural.notes == ("Read.",) and dealt.notes[0] == "Read." and "9 new clients" in dealt.notes[1]
    assert dealt.population.size == 9 and dealt.data.count.shape == (9,)
    assert dealt.population.max_count == int(dealt.data.count.max())
    assert sorted(map(tuple, np.nan_to_num(dealt.train.values, nan=-1.0))) == sorted(
        map(tuple, np.nan_to_num(natural.train.values, nan=-1.0))
    )
    train, *held_out = split_clients(TOY, 0.2, 0.2, 0, "toy")
    assert len(train.label) == len(dealt.train.label)
    for part, other in zip((dealt.validation, dealt.test), held_out, strict=True):
        np.testing.assert_array_equal(part.values, other.values)
        np.testing.assert_array_equal(part.client, other.client)


def test_domain_of_a_simulator():
    natural, dealt = (domain_from_simulator("toy", toy.SIMULATOR, data_config(p), 0) for p in (NATURAL, DEALT))
    assert natural.population.size == 60 and natural.notes == ()
    assert dealt.population.size == 9 and dealt.data.count.shape == (9,) and "9 new clients" in dealt.notes[0]
    assert int(dealt.data.count.sum()) == len(natural.train.label)
    np.testing.assert_array_equal(dealt.test.values, natural.test.values)
    # sites leave the number of clients alone, even where the last ones have no records
    sited = domain_from_simulator("toy", toy.SIMULATOR, data_config(config(sites=3, site_offset=0.5)), 0)
    assert sited.population.size == 60 and sited.data.count.shape == (60,) and "3 sites" in sited.notes[0]


@pytest.mark.parametrize("partition", [DEALT, config(sites=3)], ids=["dealt", "sites"])
def test_a_procedural_population_cannot_be_dealt(partition):
    with pytest.raises(UserError, match="cannot deal or skew"):
        domain_from_simulator("toy", toy.SIMULATOR, data_config(partition, "procedural"), 0)
    assert domain_from_simulator("toy", toy.SIMULATOR, data_config(NATURAL, "procedural"), 0).population.size == 60
