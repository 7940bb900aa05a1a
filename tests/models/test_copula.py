"""The one-shot copula: standard normal, shares of the row's class, and its own density."""

from __future__ import annotations

import jax
import numpy as np
import scipy.stats

from fedjax_health.data.encode import Layout
from fedjax_health.models.copula import make_copula

LAYOUT = Layout(2, 2, (3,), (-1, -1))
SHARES = np.array([[0.1, 0.0, 0.5, 0.5, 0.0], [0.9, 1.0, 0.2, 0.3, 0.5]], np.float32)
MODEL = make_copula(LAYOUT, 2)
N = 40_000


def test_rows_have_the_shares_of_their_class_and_independent_normal_scores():
    label = np.arange(N, dtype=np.int32) % 2
    x = np.asarray(jax.jit(MODEL.sample)({"shares": SHARES}, label, jax.random.key(0)))
    assert x.shape == (N, LAYOUT.dim) and x.dtype == np.float32 and np.isin(x[:, 2:], (0.0, 1.0)).all()
    assert (x[:, 4:].sum(1) == 1).all()
    for c in (0, 1):
        np.testing.assert_allclose(x[label == c, 2:].mean(0), SHARES[c], atol=0.015)
    assert (x[label == 0, 6] == 0).all() and (x[label == 1, 3] == 1).all()  # what nobody has is never drawn
    assert min(scipy.stats.kstest(x[:, j], "norm").pvalue for j in (0, 1)) > 1e-3
    off = np.corrcoef(x[label == 1].T[[0, 1, 2, 4, 5]]) - np.eye(5)
    off[3:, 3:] = 0.0  # categories of one block
    assert np.abs(off).max() < 5 / np.sqrt(N / 2)


def test_the_score_is_the_log_density_up_to_a_constant():
    x = np.array([[1.0, -2.0, 1, 1, 0, 1, 0], [0.0, 0.5, 0, 1, 1, 0, 0]], np.float32)
    label = np.array([1, 1], np.int32)
    found = np.asarray(MODEL.score({"shares": SHARES}, x, label, jax.random.key(1)))
    chances = np.array([0.9 * 1.0 * 0.3, 0.1 * 1.0 * 0.2])
    expected = np.log(chances) + scipy.stats.norm.logpdf(x[:, :2]).sum(1)
    np.testing.assert_allclose(found[0] - found[1], expected[0] - expected[1], rtol=1e-5)


def test_what_is_released_has_the_stated_shapes():
    assert MODEL.shapes["shares"].shape == SHARES.shape and MODEL.shapes["shares"].dtype == SHARES.dtype
