"""Similarity on tables whose answer is known: copies, redraws, noise, shifts, lost modes, permuted columns."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_health.data.schema import Column, Schema
from fedjax_health.evaluation.columns import client_values, equivalence, js_distance, quantile_counts
from fedjax_health.evaluation.manifold import coverage
from fedjax_health.evaluation.pairs import correlations
from fedjax_health.evaluation.similarity import c2st_auc, overall, similarity
from fedjax_health.types import Table, UserError

SCHEMA = Schema(
    "toy",
    (
        Column(name="a", low=-6, high=6, center=0, scale=1),
        Column(name="b", low=-6, high=6, center=0, scale=1, nullable=True),
        Column(name="sex", kind="binary", role="group"),
        Column(name="y", kind="binary", role="label"),
    ),
)


def draw(seed: int, clients: int = 200, per: int = 5) -> Table:
    r = np.random.default_rng(seed)
    m = clients * per
    a = np.repeat(r.normal(0, 0.6, clients), per) + r.normal(0, 0.8, m)
    b = 0.8 * a + r.normal(0, 0.6, m)
    b[r.random(m) < 0.2] = np.nan
    y = (a + r.normal(size=m) > 1).astype(np.int32)
    values = np.column_stack([a, b, r.random(m) < 0.3]).astype(np.float32)
    return Table(values, y, np.repeat(np.arange(clients), per).astype(np.int32))


def made(table: Table) -> Table:
    return table._replace(client=np.arange(len(table.label), dtype=np.int32))


def figures(synthetic: Table, seed: int = 0):
    return similarity(draw(0), synthetic, SCHEMA, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def redraw():
    return figures(made(draw(1)))


def test_exact_copy_is_perfect():
    f = figures(made(draw(0)))
    for key, value in [("ks_complement", 1), ("tv_complement", 1), ("wasserstein_sd", 0), ("correlation_error_max", 0)]:
        assert f["synthetic", key] == value
    assert f["synthetic", "coverage"] == 1
    assert f["synthetic", "label_rate_difference"] == 0
    assert f["synthetic", "c2st_auc"] <= 0.55
    assert f["a", "js_distance"] == 0
    assert f["b", "missing_rate_difference"] == 0


def test_independent_draw_is_close_to_every_ceiling(redraw):
    assert redraw["synthetic", "ks_complement"] > 0.94
    assert redraw["synthetic", "tv_complement"] > 0.94
    assert redraw["synthetic", "wasserstein_sd"] < 0.12
    assert redraw["synthetic", "correlation_error_max"] < 0.08
    assert redraw["synthetic", "coverage"] > 0.92
    assert 0.44 < redraw["synthetic", "c2st_auc"] < 0.56
    assert abs(redraw["b", "missing_rate_difference"]) < 0.06
    assert redraw["a", "tost_p"] < 0.05 < redraw["a", "welch_p"]


def test_noise_is_told_apart():
    r = np.random.default_rng(3)
    noise = np.column_stack([r.uniform(-6, 6, 1000), r.uniform(-6, 6, 1000), r.random(1000) < 0.5]).astype(np.float32)
    f = figures(Table(noise, r.integers(2, size=1000).astype(np.int32), np.arange(1000, dtype=np.int32)))
    assert f["synthetic", "c2st_auc"] > 0.9
    assert f["synthetic", "coverage"] < 0.5
    assert f["synthetic", "ks_complement"] < 0.75
    assert f["b", "missing_rate_difference"] == pytest.approx(-0.2, abs=0.05)


def test_shifted_mean_is_no_longer_equivalent(redraw):
    table = made(draw(1))
    shifted = table._replace(values=table.values + np.array([0.5, 0, 0], np.float32))
    f = figures(shifted)
    assert f["a", "tost_p"] > 0.5
    assert f["a", "welch_p"] < 0.01
    assert f["a", "wasserstein_sd"] == pytest.approx(0.5 / f["a", "real_sd"], abs=0.1)
    assert f["b", "ks_complement"] == redraw["b", "ks_complement"]


def test_lost_mode_lowers_coverage():
    r = np.random.default_rng(0)
    two = r.normal(size=(1000, 2)) * 0.3 + np.repeat([[-3, 0], [3, 0]], 500, 0)
    one = r.normal(size=(1000, 2)) * 0.3 + [-3, 0]
    again = r.normal(size=(1000, 2)) * 0.3 + np.repeat([[-3, 0], [3, 0]], 500, 0)
    assert coverage(two, again) > 0.93
    assert 0.45 < coverage(two, one) < 0.55


def test_coverage_counts_repeated_records_and_tiny_tables():
    same = np.zeros((20, 3))
    assert coverage(same, same) == 1.0
    assert np.isnan(coverage(same[:4], same))


def test_permuted_column_keeps_marginals_and_loses_correlation(redraw):
    table = made(draw(1))
    values = table.values.copy()
    values[:, 1] = np.random.default_rng(5).permutation(values[:, 1])
    f = figures(table._replace(values=values))
    for metric in ("ks_complement", "js_distance", "missing_rate_difference"):
        assert f["b", metric] == redraw["b", metric]
    assert f["synthetic", "correlation_error_max"] > 0.6
    assert f["synthetic", "c2st_auc"] > redraw["synthetic", "c2st_auc"] + 0.12


def test_js_distance_is_one_for_disjoint_columns_and_known_for_halves():
    r = np.random.default_rng(0)
    low, high = r.normal(size=5000), r.normal(size=5000) + 50
    assert js_distance(*quantile_counts(low, high)) > 0.99
    assert js_distance(np.array([50000, 0]), np.array([0, 50000])) == pytest.approx(1, abs=1e-3)
    # p = (1, 0), q = (1/2, 1/2): JS = H(3/4) - 1/2 = 0.311278 bits
    assert js_distance(np.array([10**8, 0]), np.array([10**8, 10**8])) == pytest.approx(0.311278**0.5, abs=1e-4)


def test_quantile_counts_lose_nobody_and_separate_ties():
    real, synthetic = np.repeat([1.0, 2.0, 3.0], [50, 30, 20]), np.array([0.0, 1.0, 2.5, 3.0, 9.0])
    p, q = quantile_counts(real, synthetic)
    assert p.sum() == 100
    assert q.sum() == 5
    assert p[0] == 0
    assert q[0] == 1
    assert q[-1] == 1
    p, q = quantile_counts(np.ones(10), np.array([0.0, 1.0, 2.0]))
    assert p.tolist() == [0, 10, 0]
    assert q.tolist() == [1, 1, 1]


def test_client_values_average_to_the_record_mean():
    values, client = np.array([1.0, 2.0, 3.0, 10.0]), np.array([0, 0, 0, 7])
    z = client_values(values, client)
    assert z.mean() == pytest.approx(4.0)
    assert len(z) == 2
    even = client_values(values, np.array([0, 0, 1, 1]))
    assert even == pytest.approx([1.5, 6.5])


def test_tests_count_clients_not_records():
    # 20 clients whose records agree: the records' p would reject at once, the clients' p must not.
    r = np.random.default_rng(2)
    client = np.repeat(np.arange(20), 100)
    real, other = np.repeat(r.normal(size=20), 100), np.repeat(r.normal(size=20) + 0.1, 100)
    rejected, _ = equivalence(real, np.arange(2000), other, np.arange(2000), r)
    kept, tost = equivalence(real, client, other, client, r)
    assert rejected < 0.01 < 0.05 < kept
    assert tost > 0.05


def test_p_values_do_not_sharpen_with_more_synthetic_rows():
    r = np.random.default_rng(0)
    real, client = r.normal(size=100), np.arange(100)
    few, many = r.normal(0.15, 1, 100), r.normal(0.15, 1, 100_000)
    p = [np.median([equivalence(real, client, s, np.arange(len(s)), r)[0] for _ in range(20)]) for s in (few, many)]
    assert p[1] > 0.05
    assert p[0] > 0.05


def test_equivalence_is_undefined_for_constants():
    one = np.ones(50)
    assert np.isnan(equivalence(one, np.arange(50), one, np.arange(50), np.random.default_rng(0))).all()
    collapsed = equivalence(np.arange(50.0), np.arange(50), one, np.arange(50), np.random.default_rng(0))
    assert collapsed[0] < 1e-6
    assert collapsed[1] > 0.9


def test_spearman_matches_ranks_and_takes_constants_as_uncorrelated():
    x = np.array([[1, 1, 5], [2, 8, 5], [3, 27, 5], [4, np.nan, 5]], np.float32)
    assert correlations(x, "spearman").tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_c2st_does_not_recognise_clients():
    # Clients differ much, laws are equal: folds that split clients give an AUC far above 0.5.
    def clustered(seed):
        r = np.random.default_rng(seed)
        centers = np.repeat(r.normal(size=(50, 2)), 20, 0) * 1.5
        values = np.column_stack([centers + 0.01 * r.normal(size=(1000, 2)), np.zeros(1000)]).astype(np.float32)
        return Table(values, np.zeros(1000, np.int32), np.repeat(np.arange(50), 20).astype(np.int32))

    by_client = c2st_auc(clustered(1), clustered(2), SCHEMA, np.random.default_rng(0))
    by_record = c2st_auc(made(clustered(1)), made(clustered(2)), SCHEMA, np.random.default_rng(0))
    assert by_client < 0.65
    assert by_record > 0.9


def test_c2st_of_a_column_without_a_value_sees_the_others():
    void = np.array([1, np.nan, 1], np.float32)  # b, missing on both sides
    same, other = (t._replace(values=t.values * void) for t in (draw(1), draw(2)))
    moved = other._replace(values=other.values + np.array([1, 0, 0], np.float32))
    aucs = [c2st_auc(same, t, SCHEMA, np.random.default_rng(0)) for t in (other, moved)]
    assert aucs[0] < 0.6 < 0.7 < aucs[1]


def test_collapsed_and_empty_columns_do_not_crash():
    table = made(draw(1, 40))
    values = table.values.copy()
    values[:, 0], values[:, 1] = 0.5, np.nan
    f = figures(table._replace(values=values))
    assert f["a", "synthetic_sd"] == 0
    assert f["a", "ks_complement"] < 0.75
    assert np.isnan(f["b", "ks_complement"])
    assert np.isnan(f["synthetic", "ks_complement"])
    assert f["b", "missing_rate_difference"] > 0.7


def test_column_constant_in_the_real_table_is_left_out_of_the_wasserstein_mean(redraw):
    flat = [t._replace(values=t.values * np.array([1, 0, 1], np.float32)) for t in (draw(0), made(draw(1)))]
    f = similarity(*flat, SCHEMA, np.random.default_rng(0))
    assert np.isnan(f["b", "wasserstein_sd"])
    assert f["synthetic", "wasserstein_sd"] == f["a", "wasserstein_sd"] == redraw["a", "wasserstein_sd"]


def test_deterministic_in_the_generator(redraw):
    again = figures(made(draw(1)))
    assert all(v == again[k] or (np.isnan(v) and np.isnan(again[k])) for k, v in redraw.items())


def test_overall_renames_and_drops_columns(redraw):
    ceiling = overall(redraw, "real-vs-real")
    assert {row for row, _ in ceiling} == {"real-vs-real"}
    assert len(ceiling) == 19
    assert ceiling["real-vs-real", "coverage"] == redraw["synthetic", "coverage"]


def test_empty_table_is_a_user_error():
    empty = Table(np.empty((0, 3), np.float32), np.empty(0, np.int32), np.empty(0, np.int32))
    with pytest.raises(UserError, match="synthetic table has no rows"):
        figures(empty)
