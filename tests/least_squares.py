"""Least squares on a tiny store: a model whose federated training fits on a few lines of NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health.data.population import Store
from fedjax_health.models.base import Classifier, ModelParams, masked_mean, no_refine


def least_squares(start=(1.0, -2.0, 0.5)):
    """1/2 mean (x w - y)^2 from `start`; a batch holds all records of a client, so that nothing depends on their order."""

    def field(params, batch, hyper, key):
        error = jnp.sum(batch.x * params.client["w"][None, :], 1) - batch.y.astype(jnp.float32)
        slope = jax.vmap(masked_mean, (1, None))(batch.x * error[:, None], batch.mask)
        return {"w": slope}, {"sim/loss": masked_mean(error**2, batch.mask)}

    first = ModelParams({"w": jnp.asarray(start, jnp.float32)}, ())
    predict = lambda released, x: x @ released["w"]  # noqa: E731
    return Classifier(lambda key: first, field, no_refine, lambda params: params.client, predict)


def make_store(counts, dim) -> Store:
    """Records of len(counts) clients around centres of their own, labels 0, 1 or 2."""
    draw = np.random.default_rng(0)
    spread, centre = draw.normal(size=(sum(counts), dim)), draw.normal(size=(len(counts), dim))
    x = spread + centre[np.repeat(range(len(counts)), counts)]
    as_ints = [jnp.asarray(a, jnp.int32) for a in (draw.integers(0, 3, len(x)), np.cumsum([0, *counts[:-1]]), counts)]
    return Store(jnp.asarray(x, jnp.float32), *as_ints)
