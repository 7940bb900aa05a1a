"""The discrete Gaussian's table is exact in integers, and what is drawn from it follows its law."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from fedjax_health.threefry import root_key
from fedjax_health.transforms.discrete_gaussian import (
    BITS,
    REACH,
    TOTAL_VARIATION,
    alias_table,
    discrete_gaussian,
    probabilities,
)
from fedjax_health.types import UserError


@pytest.mark.parametrize("deviation", [1, 4, 1024])
def test_cells_and_aliases_add_up_to_the_law_in_whole_numbers(deviation):
    wanted, (table, k) = probabilities(deviation), alias_table(deviation)
    full, found = 1 << (BITS - k), [0] * (1 << k)
    for cell, (top, middle, low, alias) in enumerate(table.T.tolist()):
        threshold = (top << 64) + (middle << 32) + low
        assert threshold < full
        found[cell] += threshold
        found[alias] += full - threshold
    assert found == [*wanted, *[0] * (len(found) - len(wanted))] and sum(wanted) == 1 << BITS


@pytest.mark.parametrize("deviation", [1, 3, 64])
def test_the_law_is_the_discrete_gaussian(deviation):
    x = np.arange(-REACH * deviation, REACH * deviation + 1)
    weight = np.exp(-((x / deviation) ** 2) / 2)
    mine = np.asarray([float(p) for p in probabilities(deviation)]) / 2.0**BITS
    np.testing.assert_allclose(mine, weight / weight.sum(), rtol=1e-12, atol=1e-28)
    assert (mine == mine[::-1]).all() and len(x) * 2.0**-BITS < TOTAL_VARIATION


def test_draws_follow_the_law_and_no_other():
    draw = jax.jit(discrete_gaussian, static_argnums=(1, 2))
    found = np.asarray(draw(root_key(1), 400_000, 4))
    values, counts = np.unique(found, return_counts=True)
    law = np.asarray([float(p) for p in probabilities(4)]) / 2.0**BITS
    inside = np.abs(values) <= 16

    def fits(weight):
        expected = found.size * weight[values[inside] + REACH * 4]
        rest = found.size - expected.sum()
        return scipy.stats.chisquare([*counts[inside], counts[~inside].sum()], [*expected, rest]).pvalue

    assert fits(law) > 1e-3
    x = np.arange(-48, 49)
    for wrong in (4 * 2 / 3, 4 * 3 / 2, 4.05):
        weight = np.exp(-((x / wrong) ** 2) / 2)
        assert fits(weight / weight.sum()) < 1e-6
    large = np.asarray(draw(root_key(2), 400_000, 1024))
    assert (
        scipy.stats.kstest((large + np.random.default_rng(0).uniform(-0.5, 0.5, large.size)) / 1024, "norm").pvalue
        > 1e-3
    )


def test_a_threshold_is_compared_word_by_word(monkeypatch):
    """Bits just below a threshold keep the cell, the threshold itself gives the alias: in each of its words."""
    (table, k), deviation = alias_table(4), 4
    cell = int(np.argmax((table[0] > 0) & (table[1] > 0) & (table[2] > 0)))
    top, middle, low, alias = (int(word) for word in table[:, cell])
    rows = [(top, middle, low), (top, middle, low - 1), (top, middle - 1, low + 1), (top - 1, middle + 1, low + 1)]
    rows += [(top, middle + 1, low - 1), (top + 1, middle - 1, low - 1)]
    bits = jnp.asarray([[(cell << (32 - k)) + a, b, c] for a, b, c in rows], jnp.uint32).T
    monkeypatch.setattr(jax.random, "bits", lambda *_: bits)
    kept, other = cell - REACH * deviation, alias - REACH * deviation
    assert discrete_gaussian(root_key(0), len(rows), deviation).tolist() == [other, kept, kept, kept, other, other]


@pytest.mark.parametrize("deviation", [0, 1025])
def test_what_the_table_does_not_hold_is_refused(deviation):
    with pytest.raises(UserError, match=f"noise of {deviation} steps"):
        discrete_gaussian(root_key(0), 3, deviation)


def test_the_sum_of_draws_has_the_sum_of_variances():
    found = jax.vmap(lambda key: discrete_gaussian(key, 2000, 16))(jax.random.split(root_key(5), 50)).sum(0)
    assert abs(float(jnp.std(found)) / (16 * math.sqrt(50)) - 1) < 5 / math.sqrt(2 * 2000)
