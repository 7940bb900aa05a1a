"""A query of all records and of those of each class is one Gaussian mechanism of the stated multiplier."""

from __future__ import annotations

import numpy as np
import pytest
from privacy.test_histogram import Quiet, innovations, upper

from fedjax_health.data.schema import Column, Schema
from fedjax_health.privacy import fit

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
    weight = fit.client_weights(client)
    fit.fit_representation(values, label, weight, SCHEMA, "copula", Z, lambda query: Quiet(), np.random.default_rng(0))
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


def products(label, scores, weight):
    """Answers of the correlation query, of all records and of each class."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        ask = fit.noisy_products

        def noted(scores, weight, z, gaps, generator):
            whole, pairs, deviation = ask(scores, weight, z, gaps, Quiet())
            found.append((np.concatenate([upper(whole), upper(pairs)]), deviation))
            return whole, pairs, deviation

        patch.setattr(fit, "noisy_products", noted)
        fit._correlations(scores, label, weight, CLASSES, Z * fit.SPLIT, True, lambda query: Quiet())
    return found


def test_no_client_moves_the_correlations_of_all_and_of_classes_further_than_the_bound():
    found = []
    for seed in range(200):
        _, label, client = neighbours(seed)
        rng = np.random.default_rng([seed, 1])
        scores = rng.normal(size=(len(client), J)) * rng.choice([0.1, 1.0, 30.0])
        scores[rng.random(scores.shape) < 0.1] = np.nan
        weight, rest = fit.client_weights(client), client < 5
        found.append(moved(products(label[rest], scores[rest], weight[rest]), products(label, scores, weight)))
    assert 0.95 < max(found) <= 1 + 1e-6


def test_without_the_split_the_bound_breaks(monkeypatch):
    monkeypatch.setattr(fit, "SPLIT", 1.0)
    _, label, client = neighbours(0)
    scores, rest = np.full((len(client), J), 9.0), client < 5
    one = products(label[rest], scores[rest], fit.client_weights(client[rest]))
    assert moved(one, products(label, scores, fit.client_weights(client))) > 1.3
