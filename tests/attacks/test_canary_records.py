"""Canary records: what they are, and generators of which it is known what they prove."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedjax_health.attacks.base import Published, public_space
from fedjax_health.attacks.canary_records import (
    draw_canaries,
    function_scores,
    lower_bounds,
    make_nearest_row,
    make_rare_values,
    with_canary_clients,
)
from fedjax_health.data.encode import public_scaling
from fedjax_health.data.vitals import make_vitals
from fedjax_health.neighbours import nearest_distance
from fedjax_health.privacy.fit import client_weights, fit_representation
from fedjax_health.types import Table, UserError

COUNT, DELTA, SEEDS = 200, 1e-5, 20
SCHEMA = make_vitals().schema
CANARIES = draw_canaries(SCHEMA, COUNT, np.random.default_rng(1))
ATTACKS = [make_nearest_row(), make_rare_values()]


def people(rows: int, seed: int) -> Table:
    """Records around the public centers, a client each."""
    rng, values = np.random.default_rng([8, seed]), np.empty((rows, len(SCHEMA.inputs)), np.float32)
    for j, c in enumerate(SCHEMA.inputs):
        if c.kind != "numeric":
            values[:, j] = rng.integers(len(c.categories), size=rows)
            continue
        center, scale = public_scaling(c)
        drawn = center + scale * rng.standard_normal(rows)
        values[:, j] = np.clip(
            np.round(np.expm1(drawn) if c.transform == "log1p" else drawn, c.decimals), c.low, c.high
        )
    for own, above in (("spo2_min", "spo2"), ("dbp", "sbp")):
        i, k = SCHEMA.index(own), SCHEMA.index(above)
        values[:, i] = np.minimum(values[:, i], values[:, k])
    return Table(values, rng.integers(0, 2, rows).astype(np.int32), np.arange(rows, dtype=np.int32))


def coins(seed: int) -> np.ndarray:
    return np.random.default_rng([7, seed]).random(COUNT) < 0.5


def scored(attack, seed: int, copies: bool) -> np.ndarray:
    """By a table of other people, and of the canaries that took part if the generator copies its members."""
    table = people(500, seed)
    if copies:
        rows = (np.concatenate(pair) for pair in zip(table, (c[coins(seed)] for c in CANARIES), strict=True))
        table = Table(*rows)
    return attack.score(Published(table, people(500, 99), None), CANARIES, SCHEMA, np.random.default_rng(seed))


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.name)
def test_a_generator_that_copies_its_members_is_caught(attack):
    for seed in range(3):
        scores = scored(attack, seed, True)
        bounds = lower_bounds(scores, coins(seed), DELTA, seed)
        assert min(bounds.values()) > 1.5, bounds
        # what 100 right guesses of 100 prove: p^100 = .05
        assert bounds["one run"] <= math.log(0.05**0.01 / (1 - 0.05**0.01)) + 1e-3
        wrong = lower_bounds(scores, np.random.default_rng(seed).permutation(coins(seed)), DELTA, seed)
        assert max(wrong.values()) < 1.0


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.name)
def test_of_one_that_never_saw_them_nothing_is_proven(attack):
    """A 95 % bound is above 0 in one run of 20 at most: four or more of 20 have a chance below 2 %."""
    bounds = [lower_bounds(scored(attack, seed, False), coins(seed), DELTA, seed) for seed in range(SEEDS)]
    for name in bounds[0]:
        assert sum(b[name] > 0 for b in bounds) <= 3, name


def test_canaries_are_public_points_far_from_people():
    again = draw_canaries(SCHEMA, COUNT, np.random.default_rng(1))
    np.testing.assert_array_equal(CANARIES.values, again.values)
    assert CANARIES.values.dtype == np.float32 and not np.isnan(CANARIES.values).any() and set(CANARIES.label) == {0, 1}
    for j, c in enumerate(SCHEMA.inputs):
        low, high = (c.low, c.high) if c.kind == "numeric" else (0, len(c.categories) - 1)
        found = CANARIES.values[:, j].astype(np.float64)
        assert found.min() >= low - 1e-4 and found.max() <= high + 1e-4
        assert np.ptp(found) > 0.8 * (high - low)
        if c.decimals is not None:
            np.testing.assert_allclose(found, np.round(found, c.decimals), atol=1e-4)
    for own, above in (("spo2_min", "spo2"), ("dbp", "sbp")):
        assert (CANARIES.values[:, SCHEMA.index(own)] <= CANARIES.values[:, SCHEMA.index(above)]).all()
    crowd = public_space(people(500, 1), SCHEMA)
    usual = nearest_distance(public_space(people(500, 2), SCHEMA), crowd)
    assert nearest_distance(public_space(CANARIES, SCHEMA), crowd).min() > 1.5 * np.quantile(usual, 0.99)


def test_they_are_clients_of_their_own_whose_records_are_alike():
    real = people(30, 0)
    whole = with_canary_clients(real, CANARIES, 4)
    first = int(real.client.max()) + 1
    np.testing.assert_array_equal(whole.values[: len(real.label)], real.values)
    assert (np.bincount(whole.client)[first:] == 4).all() and len(np.unique(whole.client)) >= COUNT
    for k in (0, 7, COUNT - 1):
        mine = whole.client == first + k
        np.testing.assert_array_equal(whole.values[mine], np.tile(CANARIES.values[k], (4, 1)))
        assert set(whole.label[mine]) == {CANARIES.label[k]}
    with pytest.raises(UserError, match="records=0 of a canary"):
        with_canary_clients(real, CANARIES, 0)


def test_exact_distribution_functions_give_their_members_away_and_noisy_ones_do_not():
    real, found = people(300, 0), {}
    for noise in (0.0, 30.0):
        own = coins(0)
        some = with_canary_clients(real, Table(*(c[own] for c in CANARIES))._replace(client=np.arange(own.sum())), 4)
        normals = np.random.default_rng(3)
        fitted = fit_representation(
            some.values, some.label, client_weights(some.client), some.client, SCHEMA, "copula", noise, lambda _, n=normals: n,
            np.random.default_rng(4),
        )  # fmt: skip
        found[noise] = lower_bounds(function_scores(fitted, SCHEMA, CANARIES), own, DELTA, 0)["one run"]
    assert found[0.0] > 0.5 and found[30.0] == 0.0
