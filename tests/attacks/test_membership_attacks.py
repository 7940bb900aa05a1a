"""Attacks find copied records, find nothing in independent ones, and say what they lack."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fedjax_health.attacks.base import Published, public_space
from fedjax_health.attacks.distances import remembered, to_nearest
from fedjax_health.attacks.domias import make_domias
from fedjax_health.attacks.gan_leaks import make_gan_leaks
from fedjax_health.attacks.logan import make_logan
from fedjax_health.attacks.loss_threshold import make_loss_threshold
from fedjax_health.attacks.monte_carlo import make_monte_carlo
from fedjax_health.attacks.nearest_synthetic import make_nearest_synthetic
from fedjax_health.data.schema import Column, Schema
from fedjax_health.types import Table, UserError

SCHEMA = Schema(
    "toy",
    (
        *(Column(name=f"x{j}", low=-6, high=6, center=0, scale=1, nullable=j == 0) for j in range(4)),
        Column(name="sex", kind="binary", role="group"),
        Column(name="y", kind="binary", role="label"),
    ),
)
TABLE_ATTACKS = [make_gan_leaks(), make_nearest_synthetic(), make_monte_carlo(), make_logan(), make_domias()]


def test_distances_are_computed_once_for_the_same_arrays_and_by_nobody_else():
    asked = []

    def count(records, table, schema):
        asked.append((len(records.label), len(table.label)))
        return to_nearest(records, table, schema)

    distance, records, first, second = remembered(count), draw(1), draw(2), draw(3, 300)
    attacks = [make(distance) for make in (make_gan_leaks, make_nearest_synthetic)]
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(attack.score, Published(table, second, None), records, SCHEMA, np.random.default_rng(0))
            for attack in attacks
            for table in (first, second)
        ]
        shared = [job.result() for job in jobs]
    assert sorted(asked) == [(400, 300), (400, 400)]  # the reference is the second table
    plain = [
        attack.score(Published(table, second, None), records, SCHEMA, np.random.default_rng(0))
        for attack in (make_gan_leaks(), make_nearest_synthetic())
        for table in (first, second)
    ]
    np.testing.assert_array_equal(shared, plain)
    equal = Table(*(column.copy() for column in records))
    distance(equal, first, SCHEMA)
    assert len(asked) == 3

    def fail(records, table, schema):
        raise ValueError("no distance")

    broken = remembered(fail)
    for _ in range(2):
        with pytest.raises(ValueError, match="no distance"):
            broken(records, first, SCHEMA)


def draw(seed: int, m: int = 400) -> Table:
    r = np.random.default_rng(seed)
    x = r.normal(size=(m, 4)) + 2 * r.integers(2, size=(m, 1))
    x[r.random(m) < 0.1, 0] = np.nan
    values = np.column_stack([x, r.integers(2, size=m)]).astype(np.float32)
    return Table(values, r.integers(2, size=m).astype(np.int32), np.arange(m, dtype=np.int32))


def auc(attack, synthetic: Table, seed: int = 0) -> float:
    published = Published(synthetic, draw(9), None)
    scores = [attack.score(published, t, SCHEMA, np.random.default_rng(seed)) for t in (draw(1), draw(2))]
    assert all(s.shape == (400,) and s.dtype == np.float64 and np.isfinite(s).all() for s in scores)
    return roc_auc_score(np.repeat([1, 0], 400), np.concatenate(scores))


@pytest.mark.parametrize("attack", TABLE_ATTACKS, ids=lambda a: a.name)
def test_exact_copy_is_found_and_a_shifted_one_hides(attack):
    # a copy scores above every other record, and the ranking needs nothing finer than that
    assert auc(attack, draw(1)) > 0.999
    noisy, far = draw(1), draw(1)
    noisy.values[:, :4] += np.random.default_rng(3).normal(0, 0.05, (400, 4))
    assert 0.65 < auc(attack, noisy) <= 1
    far.values[:, 1:4] += 3.0
    assert abs(auc(attack, far) - 0.5) < 0.1


@pytest.mark.parametrize("attack", TABLE_ATTACKS, ids=lambda a: a.name)
def test_independent_table_gives_nothing_away(attack):
    assert 0.44 < np.mean([auc(attack, draw(s)) for s in (5, 6)]) < 0.56


@pytest.mark.parametrize("attack", TABLE_ATTACKS, ids=lambda a: a.name)
def test_collapsed_and_one_row_tables_do_not_crash(attack):
    flat = draw(5)
    flat.values[:], flat.label[:] = 0.0, 0
    assert 0 <= auc(attack, flat) <= 1
    assert 0 <= auc(attack, Table(*(a[:1] for a in flat))) <= 1
    published = Published(flat, flat, None)
    score = attack.score(published, flat, SCHEMA, np.random.default_rng(0))
    assert np.isfinite(score).all()
    assert np.ptp(score) == 0


def test_domias_subsample_is_seeded():
    attack, published = make_domias(), Published(draw(3, 3300), draw(4, 300), None)
    one, same, other = (attack.score(published, draw(1), SCHEMA, np.random.default_rng(s)) for s in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_calibration_does_not_take_outliers_for_non_members():
    # A far-off member whose neighbour was published must outrank an ordinary non-member.
    reference, synthetic, records = draw(9), draw(5), draw(2)
    synthetic.values[0] = [5.9, 5.9, -5.9, 5.9, 0]
    synthetic.label[0] = 0
    records.values[0] = [5.5, 5.5, -5.5, 5.5, 0]
    records.label[0] = 0
    score = make_nearest_synthetic().score(
        Published(synthetic, reference, None), records, SCHEMA, np.random.default_rng(0)
    )
    assert score[0] == score.max()


def test_loss_attack_prefers_low_loss_and_needs_a_model():
    attack, records = make_loss_threshold(), draw(1)
    published = Published(None, draw(9), lambda t: t.values[:, 1] ** 2)
    score = attack.score(published, records, SCHEMA, np.random.default_rng(0))
    assert score.dtype == np.float64
    assert np.argmax(score) == np.argmin(np.abs(records.values[:, 1]))
    with pytest.raises(UserError, match="loss-threshold"):
        attack.score(Published(records, records, None), records, SCHEMA, np.random.default_rng(0))


@pytest.mark.parametrize("attack", TABLE_ATTACKS, ids=lambda a: a.name)
def test_missing_synthetic_table_is_a_user_error(attack):
    for synthetic in (None, draw(1, 0)):
        with pytest.raises(UserError, match=attack.name):
            attack.score(Published(synthetic, draw(9), None), draw(1), SCHEMA, np.random.default_rng(0))


def test_public_space_units_missing_and_categories():
    schema = Schema(
        "u",
        (
            Column(name="log", low=0, high=np.expm1(8), transform="log1p", nullable=True),
            Column(name="c", kind="categorical", categories=("x", "y", "z")),
            Column(name="y", kind="binary", role="label"),
        ),
    )
    values = np.array([[np.expm1(4), 0], [np.expm1(6), 1], [np.nan, 2], [1e9, 0]], np.float32)
    points = public_space(Table(values, np.array([0, 1, 0, 0], np.int32), np.arange(4)), schema)
    assert points.shape == (4, 1 + 1 + 3 + 2)
    assert points.dtype == np.float64
    assert points[:, 0] == pytest.approx([0, 1, 0, 2], abs=1e-5)  # center 4, scale 2; missing at the center; clipped
    assert points[:, 1].tolist() == [0, 0, 1, 0]
    assert np.linalg.norm(points[0, 2:5] - points[1, 2:5]) == pytest.approx(1)
    assert np.linalg.norm(points[0, 5:] - points[1, 5:]) == pytest.approx(1)
