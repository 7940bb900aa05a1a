"""Codes of mixed types: relaxed and drawn ones have the probabilities of their logits, and surprise is a log-likelihood."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from fedjax_health.data.encode import Layout
from fedjax_health.models import mixed

pytestmark = pytest.mark.quick_compile

LAYOUT = Layout(numeric=2, bits=2, blocks=(3, 2), missing=(3, -1))
OUT = np.array([0.4, -1.2, 1.0, -2.0, 0.5, -0.5, 1.5, 0.0, 1.0], np.float32)
SHARES = np.concatenate([special.expit(OUT[2:4]), special.softmax(OUT[4:7]), special.softmax(OUT[7:])])
N = 40_000


def rows() -> jax.Array:
    return jnp.broadcast_to(jnp.asarray(OUT)[None, :], (N, 9))


def test_slices_cover_the_axis():
    assert mixed.bit_slice(LAYOUT) == slice(2, 4)
    assert list(mixed.block_slices(LAYOUT)) == [slice(4, 7), slice(7, 9)]
    assert list(mixed.block_slices(Layout(1, 0, (), (-1,)))) == []


def relaxed_then_hardened(out, key):
    return mixed.hardened(LAYOUT, mixed.relaxed(LAYOUT, out, key))


def drawn(out, key):
    keys = tuple(jax.random.split(key, 3))
    return mixed.drawn(LAYOUT, out, jnp.array([0.5, 2.0], jnp.float32), (keys[0], keys[1], keys[2]))


@pytest.mark.parametrize("sample", [relaxed_then_hardened, drawn])
def test_codes_have_the_probabilities_of_their_logits(sample):
    x = np.asarray(jax.jit(sample)(rows(), jax.random.key(0)))
    assert np.isin(x[:, 2:], (0.0, 1.0)).all()
    for block in mixed.block_slices(LAYOUT):
        np.testing.assert_array_equal(x[:, block].sum(1), 1)
    error = np.abs(x[:, 2:].mean(0) - SHARES) / np.sqrt(SHARES * (1 - SHARES) / N)
    assert error.max() < 5
    assert np.abs(np.roll(x[:, 2:].mean(0), 1) - SHARES).max() > 0.1  # a column off would be seen
    independent = np.corrcoef(x[:, [2, 3, 4, 7]].T) - np.eye(4)
    assert np.abs(independent).max() < 5 / np.sqrt(N)


def test_drawn_numbers_are_normal_and_relaxed_ones_as_they_are():
    x = np.asarray(jax.jit(drawn)(rows(), jax.random.key(1)))
    for k, scale in enumerate((0.5, 2.0)):
        assert stats.kstest((x[:, k] - OUT[k]) / scale, "norm").pvalue > 1e-4
    soft = np.asarray(jax.jit(lambda out, key: mixed.relaxed(LAYOUT, out, key))(rows(), jax.random.key(1)))
    assert (soft[:, :2] == OUT[:2]).all() and ((soft[:, 2:] >= 0) & (soft[:, 2:] <= 1)).all()


def test_expected_rows_are_probabilities():
    row = np.asarray(mixed.expected(LAYOUT, rows()[:1]))[0]
    np.testing.assert_allclose(row, np.concatenate([OUT[:2], SHARES]), rtol=1e-5)


def test_surprise_equals_scipys_log_likelihood():
    x = np.array([[0.7, -1.0, 1, 0, 0, 0, 1, 1, 0], [0.0, 2.0, 0, 1, 1, 0, 0, 0, 1]], np.float32)
    scale = np.array([[0.3, 1.7]], np.float32)
    found = mixed.surprise(LAYOUT, jnp.asarray(x), rows()[:2], jnp.asarray(scale))
    constant = 0.5 * np.log(2 * np.pi)
    wanted = [
        -stats.norm.logpdf(0.7, OUT[0], 0.3) - stats.norm.logpdf(-1.0, OUT[1], 1.7) - 2 * constant
        - np.log(SHARES[0] * (1 - SHARES[1]) * SHARES[4] * SHARES[5]),
        # the first number is missing: no likelihood on it
        -stats.norm.logpdf(2.0, OUT[1], 1.7) - constant - np.log((1 - SHARES[0]) * SHARES[1] * SHARES[2] * SHARES[6]),
    ]  # fmt: skip
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_missing_cells_are_blanked():
    x = jnp.asarray(np.tile(np.array([[3.0, 2.0, 1, 0, 1, 0, 0, 1, 0]], np.float32), (3, 1))).at[1, 3].set(1.0)
    x = x.at[2, 3].set(0.25)
    blanked = np.asarray(mixed.blank_missing(LAYOUT, x))
    np.testing.assert_allclose(blanked[:, 0], [3.0, 0.0, 2.25])
    np.testing.assert_array_equal(blanked[:, 1:], np.asarray(x)[:, 1:])
    np.testing.assert_allclose(mixed.present(LAYOUT, x), [[1, 1], [0, 1], [0.75, 1]])
