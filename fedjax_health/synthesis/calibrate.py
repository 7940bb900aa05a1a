"""Takes what a generator has of its own out of its representation, correlations and margins, by rows that it draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtr

from fedjax_health import rng
from fedjax_health.data.representation import Fitted, calibrated, normal_knots, uncorrelated
from fedjax_health.types import Array

ROWS = 1 << 14
CALLS = 8
STREAM_AT = 1 << 30  # place in the synthesis stream: the rows that are published come from its beginning


def calibrated_by(
    draw: Callable[[Any, Array, Array], Array],
    network: Any,
    shares: np.ndarray,
    key: Array,
    kind: str,
    missing: tuple[int, ...],
    fitted: Fitted,
) -> Fitted:
    """`representation.calibrated` by 131,072 rows; in the given class shares where all classes share one function.

    Args:
      draw: `GenerativeModel.sample`, compiled.
      network: what the model releases.
      shares: f32[L], class shares.
      key: typed key of the seed's synthesis.
      kind: "scores" or "copula".
      missing: of the layout of `kind`.
      fitted: before.
    """
    weights = shares if kind == "scores" else np.ones(len(shares))
    rows, labels = [], []
    for call in range(CALLS):
        key_y, key_x = jax.random.split(rng.stream_key(key, STREAM_AT + call, rng.Stream.SYNTHESIS))
        label = jax.random.categorical(key_y, jnp.log(jnp.asarray(weights, jnp.float32)), shape=(ROWS,)).astype(
            jnp.int32
        )
        rows.append(np.asarray(draw(network, label, key_x)))
        labels.append(np.asarray(label))
    return calibrated(fitted, kind, np.concatenate(rows), np.concatenate(labels), missing)


def make_calibrate(
    draw: Callable[[Any, Array, Array], Array], kind: str, missing: tuple[int, ...]
) -> Callable[[Any, Array, Array, Any], Any]:
    """`calibrated_by` inside a compiled program, by 16,384 rows (of each class, with "copula"): one shadow's own part of it.

    Args:
      draw: `GenerativeModel.sample`.
      kind: "scores" or "copula".
      missing: of the layout of `kind`.

    Returns:
      calibrate(network, class shares f32[L], typed key, Fitted) -> Fitted.
    """
    levels = jnp.asarray(ndtr(normal_knots()), jnp.float32)

    def quantiles(x: Array, factor: Array) -> Array:
        scores = x[:, : factor.shape[0]] @ factor.T
        own = []
        for j, bit in enumerate(missing):
            score = scores[:, j] if bit < 0 else jnp.where(x[:, bit] < 0.5, scores[:, j], jnp.nan)
            found = jnp.nanquantile(score, levels)
            # of a column that is always missing nothing is decoded
            own.append(jnp.where(jnp.isnan(found), jnp.asarray(normal_knots(), jnp.float32), found))
        return jnp.stack(own) + jnp.float32(1e-6) * jnp.arange(len(levels), dtype=jnp.float32)[None, :]

    def of_class(x: Array, factor: Array) -> tuple[Array, Array]:
        numeric = x[:, : factor.shape[0]]
        centred = numeric - jnp.mean(numeric, 0, keepdims=True)
        factor = factor @ uncorrelated(centred.T @ centred / jnp.float32(len(x)))
        return factor, quantiles(x, factor)

    def calibrate(network: Any, shares: Array, key: Array, fitted: Any) -> Any:
        key_y, key_x = jax.random.split(rng.stream_key(key, STREAM_AT, rng.Stream.SYNTHESIS))
        classes = shares.shape[0]
        if kind == "scores":
            label = jax.random.categorical(key_y, jnp.log(shares), shape=(ROWS,)).astype(jnp.int32)
            own = quantiles(draw(network, label, key_x), fitted.factor[0])
            return fitted._replace(own=jnp.broadcast_to(own[None], (classes, *own.shape)))
        keys = jax.random.split(key_x, classes)
        factors, own = zip(
            *(
                of_class(draw(network, jnp.full((ROWS,), c, jnp.int32), keys[c]), fitted.factor[c])
                for c in range(classes)
            ),
            strict=True,
        )
        return fitted._replace(factor=jnp.stack(factors), own=jnp.stack(own))

    return calibrate
