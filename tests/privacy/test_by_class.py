"""A query of all records and of those of each class is one Gaussian mechanism of the stated multiplier."""

from __future__ import annotations

import numpy as np
import pytest
from privacy.test_histogram import Quiet, innovations
from privacy.test_moments import sent

from fedjax_health.data.schema import Column, Schema
from fedjax_health.privacy import fit
from fedjax_health.privacy.fit import client_weights
from fedjax_health.privacy.moments import bound_of, bounded_weights

Z, J, CLASSES = 1.7, 2, 3
SCHEMA = Schema(
    "toy",
    (
        *(Column(name=f"x{j}", low=0, high=40, center=20, scale=8, decimals=0, nullable=True) for j in range(J)),
        Column(name="y", kind="categorical", role="label", categories=("a", "b", "c")),
    ),
)


def neighbours(seed):
    """Records of a few clients, and of the same with one more, whose records are anything and of any class."""
    rng = np.random.default_rng(seed)
    count = rng.integers(1, 5, 6)
    client = np.repeat(np.arange(6), count)
    values = rng.integers(0, 41, (len(client), J)).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = np.nan
    if seed % 3 == 0:
        values[client == 5] = 0.0  # all in the first cell, which moves prefix sums most
    label = rng.integers(0, CLASSES, len(client)).astype(np.int32)
    if seed % 2 == 0:
        label[client == 5] = 1
    return values, label, client


def asked(monkeypatch, values, label, client):
    """What each histogram query answers without its noise, and the deviation that the noise would have."""
    found, ask = [], fit.noisy_cumulative

    def noted(masses, z, columns, generator):
        found.append((innovations(masses), ask(masses, z, columns, Quiet())[1]))
        return ask(masses, z, columns, Quiet())

    monkeypatch.setattr(fit, "noisy_cumulative", noted)
    weight = client_weights(client)
    fit.fit_representation(
        values, label, weight, client, SCHEMA, "copula", Z, lambda query: Quiet(), np.random.default_rng(0)
    )
    monkeypatch.undo()
    return found


def moved(one, two):
    """Distance of two answers in units of the noise, over all queries of an event together, times the multiplier."""
    assert len(one) == len(two) and all(a[1] == b[1] for a, b in zip(one, two, strict=True))
    return Z * np.sqrt(sum(np.sum((a[0] - b[0]) ** 2) / a[1] ** 2 for a, b in zip(one, two, strict=True)))


def test_no_client_moves_the_distribution_functions_of_all_and_of_classes_further_than_the_bound(monkeypatch):
    found = []
    for seed in range(200):
        values, label, client = neighbours(seed)
        rest = client < 5
        found.append(
            moved(
                asked(monkeypatch, values[rest], label[rest], client[rest]), asked(monkeypatch, values, label, client)
            )
        )
        assert len(asked(monkeypatch, values, label, client)) == J * (1 + CLASSES)
    assert 0.99 < max(found) <= 1 + 1e-6  # attained by a client of one class whose records lie in the first cell


BOUND = 2.5


def products(label, scores, client, who):
    """What the correlation query sends of some clients, for all records and for each class, in units of its noise."""
    weight = bounded_weights(scores, label, client_weights(client), client, CLASSES, True, BOUND)
    rows = [who, *(who & (label == c) for c in range(CLASSES))]
    return [(sent(scores[r], weight[r], True), Z * fit.SPLIT * BOUND) for r in rows]


def test_no_client_moves_the_correlations_of_all_and_of_classes_further_than_the_bound():
    found = []
    for seed in range(200):
        _, label, client = neighbours(seed)
        rng = np.random.default_rng([seed, 1])
        scores = rng.normal(size=(len(client), J)) * rng.choice([0.1, 1.0, 30.0])
        scores[rng.random(scores.shape) < 0.1] = np.nan
        found.append(moved(products(label, scores, client, client < 5), products(label, scores, client, client < 9)))
    assert 0.95 < max(found) <= 1 + 1e-6


def test_without_the_split_the_bound_breaks(monkeypatch):
    monkeypatch.setattr(fit, "SPLIT", 1.0)
    _, label, client = neighbours(0)
    scores = np.full((len(client), J), 9.0)
    assert moved(products(label, scores, client, client < 5), products(label, scores, client, client < 9)) > 1.3


def test_the_query_of_a_run_has_this_noise_and_these_weights(monkeypatch):
    """`fit_representation` asks with SPLIT times the noise of its bound, and with bounded weights."""
    asked = []
    ask = fit.noisy_products

    def noted(scores, weight, deviation, gaps, generator):
        asked.append((np.linalg.norm(sent(scores, weight, gaps)), deviation))
        return ask(scores, weight, deviation, gaps, generator)

    monkeypatch.setattr(fit, "noisy_products", noted)
    values, label, client = neighbours(1)
    mine = client == 5
    arguments = values[mine], label[mine], client_weights(client[mine]), client[mine], SCHEMA, "copula", Z
    fit.fit_representation(*arguments, lambda query: Quiet(), np.random.default_rng(0))
    bound = bound_of(Z, J, 1.0)
    assert len(asked) == 1 + CLASSES and all(d == pytest.approx(Z * fit.SPLIT * bound) for _, d in asked)
    assert asked[0][0] <= bound * (1 + 1e-9) and np.linalg.norm([a for a, _ in asked[1:]]) <= bound * (1 + 1e-9)
