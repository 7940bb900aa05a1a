"""Every metric on clouds whose answer is known: copy, independent draw, noise, shifted mean, lost mode, permuted column."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_health.data.schema import Column, Schema
from fedjax_health.evaluation import manifold
from fedjax_health.evaluation.columns import category_figures, numeric_figures
from fedjax_health.evaluation.copying import adversarial_accuracy, authentic, nearer
from fedjax_health.evaluation.distances import mmd, mmd2, sliced_wasserstein
from fedjax_health.evaluation.pairs import contingency_similarities, contingency_similarity, correlation_similarity
from fedjax_health.evaluation.plausibility import rule_violations, tail_coverage
from fedjax_health.types import Table

N, K = 1000, manifold.NEIGHBOURS
KINDS = ("copy", "independent", "noise", "shifted", "lost mode", "permuted")


def cloud(seed, modes=(-3.0, 3.0)):
    """Four columns: the second follows the first, the last has modes."""
    r = np.random.default_rng(seed)
    x = r.normal(size=(N, 4))
    x[:, 1] = 0.8 * x[:, 0] + 0.6 * x[:, 1]
    x[:, 3] += np.repeat(modes, N // len(modes))
    return x


def permuted(x):
    x = x.copy()
    x[:, 1] = np.random.default_rng(5).permutation(x[:, 1])
    return x


REAL, HOLDOUT = cloud(0), cloud(100)
MADE = {
    "copy": REAL.copy(),
    "independent": cloud(1),
    "noise": np.random.default_rng(5).uniform(-6, 6, (N, 4)),
    "shifted": cloud(1) + np.array([1.0, 0, 0, 0]),
    "lost mode": cloud(2, modes=(-3.0,)),
    "permuted": permuted(cloud(1)),
}


def table(x):
    return Table(x.astype(np.float32), (x[:, 0] > 0).astype(np.int32), np.arange(len(x), dtype=np.int32))


def accuracy(real, synthetic):
    return float(np.mean([side.mean() for side in adversarial_accuracy(real, synthetic)]))


def _first(metric):
    def of(s, j):
        return numeric_figures(table(REAL), table(s), j, np.random.default_rng(0))[metric]

    return of


def _worst(metric, worst):
    return lambda s: worst(_first(metric)(s, j) for j in range(4))


METRICS = {
    "ks_complement": _worst("ks_complement", min),
    "wasserstein_sd": _worst("wasserstein_sd", max),
    "js_distance": _worst("js_distance", max),
    "tost_p": _worst("tost_p", max),
    "tail_coverage": lambda s: min(tail_coverage(REAL[:, j], s[:, j]) for j in range(4)),
    "correlation_similarity": lambda s: correlation_similarity(REAL, s),
    "coverage": lambda s: manifold.coverage(REAL, s),
    "density": lambda s: manifold.density(REAL, s),
    "alpha_precision": lambda s: manifold.alpha_precision(REAL, s),
    "beta_recall": lambda s: manifold.beta_recall(REAL, s),
    "sliced_wasserstein": lambda s: sliced_wasserstein(REAL, s, np.random.default_rng(0)),
    "mmd": lambda s: mmd(REAL, s, np.random.default_rng(0)),
    "authenticity": lambda s: float(authentic(REAL, s).mean()),
    "nnaa": lambda s: accuracy(HOLDOUT, s),
    "privacy_loss": lambda s: accuracy(HOLDOUT, s) - accuracy(REAL, s),
    "nearer_to_training": lambda s: float(nearer(s, REAL, HOLDOUT).mean()),
}
# what each must say: (low, high) for each of KINDS; where low = high it is exact
EXPECTED = {
    "ks_complement": [(1, 1), (0.93, 1), (0, 0.72), (0.5, 0.7), (0.45, 0.55), (0.93, 1)],
    "wasserstein_sd": [(0, 0), (0, 0.12), (1, 9), (0.9, 1.1), (0.85, 1.05), (0, 0.12)],
    "js_distance": [(0, 0), (0, 0.1), (0.4, 1), (0.3, 0.7), (0.5, 0.7), (0, 0.1)],
    "tost_p": [(0, 0.001), (0, 0.1), (0.1, 1), (0.99, 1), (0.99, 1), (0, 0.1)],
    "tail_coverage": [(1, 1), (0.3, 1), (0, 1), (0, 0.2), (0, 0), (0.3, 1)],
    "correlation_similarity": [(1, 1), (0.97, 1), (0.9, 0.94), (0.97, 1), (0.97, 1), (0.9, 0.93)],
    "coverage": [(1, 1), (0.95, 0.99), (0, 0.2), (0.6, 0.85), (0.47, 0.53), (0.8, 0.95)],
    "density": [(1 + 1 / K, 1 + 1 / K), (0.93, 1.07), (0, 0.1), (0.5, 0.8), (0.9, 1.1), (0.6, 0.8)],
    "alpha_precision": [(1, 1), (0.95, 1), (0, 0.25), (0.8, 0.95), (0.88, 1), (0.95, 1)],
    "beta_recall": [(1, 1), (0.95, 1), (0, 0.35), (0.6, 0.85), (0.45, 0.6), (0.9, 0.97)],
    "sliced_wasserstein": [(0, 0), (0, 0.1), (1, 2), (0.35, 0.55), (1.1, 1.6), (0.07, 0.2)],
    "mmd": [(-0.003, 0), (-0.003, 0.002), (0.08, 0.2), (0.015, 0.05), (0.15, 0.3), (0.0002, 0.005)],
    "authenticity": [(0, 0), (0.44, 0.56), (0.9, 1), (0.5, 0.75), (0.4, 0.55), (0.55, 0.7)],
    "nnaa": [(0.46, 0.56), (0.46, 0.56), (0.9, 1), (0.62, 0.8), (0.55, 0.75), (0.54, 0.65)],
    "privacy_loss": [(0.46, 0.56), (-0.04, 0.04), (-0.04, 0.04), (-0.04, 0.04), (-0.04, 0.04), (-0.04, 0.04)],
    "nearer_to_training": [(1, 1), (0.46, 0.54), (0.46, 0.56), (0.46, 0.56), (0.45, 0.55), (0.45, 0.55)],
}


def test_every_metric_is_expected_to_say_something_of_every_kind():
    assert set(METRICS) == set(EXPECTED) and tuple(MADE) == KINDS
    assert all(len(bounds) == len(KINDS) for bounds in EXPECTED.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
def test_known_answer(metric, kind):
    low, high = EXPECTED[metric][KINDS.index(kind)]
    assert low - 1e-9 <= METRICS[metric](MADE[kind]) <= high + 1e-9


def test_tv_complement_by_hand():
    real, more = np.repeat([0.0, 1.0], [50, 50]), np.repeat([0.0, 1.0, np.nan], [75, 25, 10])
    assert category_figures(real, real, 2)["tv_complement"] == 1
    assert category_figures(real, more, 2)["tv_complement"] == pytest.approx(0.75)
    assert category_figures(real, np.full(9, 2.0), 3)["tv_complement"] == 0


def test_contingency_sees_a_relation_that_margins_do_not():
    together, apart = np.repeat([[0, 0], [1, 1]], 50, 0), np.repeat([[0, 1], [1, 0]], 50, 0)
    mixed = np.repeat([[0, 0], [0, 1], [1, 0], [1, 1]], 25, 0)
    assert contingency_similarity(together, together) == 1
    assert contingency_similarity(together, mixed) == pytest.approx(0.5)
    assert contingency_similarity(together, apart) == 0
    assert np.isnan(contingency_similarity(together, together[:0]))


SCHEMA = Schema(
    "toy",
    (
        Column(name="high", low=-6, high=6, nullable=True),
        Column(name="low", low=-6, high=6, at_most="high"),
        Column(name="sex", kind="binary", role="group"),
        Column(name="y", kind="binary", role="label"),
    ),
)


def mixed(seed, permute=False):
    r = np.random.default_rng(seed)
    sex, high = r.integers(2, size=N), r.normal(size=N)
    values = np.column_stack([high + 2 * sex, high + 2 * sex - 1, sex]).astype(np.float32)
    values[r.random(N) < 0.1, 0] = np.nan
    label = r.permutation(sex) if permute else sex
    return Table(values, label.astype(np.int32), np.arange(N, dtype=np.int32))


def test_contingency_similarities_take_every_pair_with_a_category():
    again = contingency_similarities(mixed(0), mixed(1), SCHEMA)
    assert len(again) == 5  # of six pairs, high and low are both numbers
    assert contingency_similarities(mixed(0), mixed(0), SCHEMA).tolist() == [1.0] * 5
    broken = contingency_similarities(mixed(0), mixed(1, permute=True), SCHEMA)
    assert broken.min() == pytest.approx(0.5, abs=0.05) and again.min() > 0.9


def test_rules_are_ranges_and_at_most_and_a_missing_value_breaks_none():
    assert rule_violations(mixed(0), SCHEMA) == 0
    values = np.array([[0, 1, 0], [7, 0, 0], [np.nan, 5, 1], [0, -6, 1], [0, 0, 1]], np.float32)
    rows = Table(values, np.zeros(5, np.int32), np.arange(5, dtype=np.int32))
    assert rule_violations(rows, SCHEMA) == pytest.approx(2 / 5)
    assert np.isnan(rule_violations(Table(*(c[:0] for c in rows)), SCHEMA))


def test_tail_with_an_atom_and_missing_values():
    capped = np.minimum(np.random.default_rng(0).normal(97, 3, 5000), 100)  # as oxygen saturation is
    assert tail_coverage(capped, np.append(capped, np.nan)) == 1
    assert tail_coverage(capped, np.minimum(capped, 99.9)) == 0
    assert np.isnan(tail_coverage(capped, np.full(3, np.nan)))


def test_sliced_wasserstein_of_a_shift_is_its_mean_projection():
    shift = np.array([3.0, 4.0, 0, 0])
    theta = np.random.default_rng(1).normal(size=(4, 100_000))
    expected = np.mean(np.abs(shift @ (theta / np.linalg.norm(theta, axis=0))))
    found = sliced_wasserstein(REAL, REAL + shift, np.random.default_rng(0), 2000)
    assert found == pytest.approx(expected, rel=0.03)
    assert np.isnan(sliced_wasserstein(REAL, REAL[:0], np.random.default_rng(0)))


def test_mmd_by_hand_and_where_it_is_not_defined():
    x, y = np.array([[0.0], [1.0]]), np.array([[0.0], [3.0]])
    k = np.exp(-np.array([1, 9, 0, 9, 1, 4]) / 2)  # among x, among y, then across
    assert mmd2(x, y, np.ones(1)) == pytest.approx(k[0] + k[1] - k[2:].sum() / 2)
    assert np.isnan(mmd2(x, y[:1], np.ones(1)))
    assert mmd(np.zeros((5, 2)), np.zeros((4, 2)), np.random.default_rng(0)) == 0.0


def test_ties_count_half_and_low_cardinality_copies_do_not_pass():
    # all records are one of two points: a copy of the training side must not look safe, and cannot look worse than a tie
    points = np.repeat([[0.0], [1.0]], 50, 0)
    assert nearer(points, points, points).tolist() == [0.5] * 100
    assert authentic(points, points).mean() == 0


@pytest.mark.parametrize("metric", [manifold.coverage, manifold.density, manifold.beta_recall])
def test_fewer_records_than_neighbours_leave_it_undefined(metric):
    assert np.isnan(metric(REAL[:K], REAL)) and not np.isnan(metric(REAL[: K + 1], REAL))
    assert np.isnan(metric(REAL, REAL[:0])) and np.isnan(manifold.alpha_precision(REAL, REAL[:0]))
