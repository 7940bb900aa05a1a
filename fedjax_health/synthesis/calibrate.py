"""Takes a generator's own marginal distributions out of its representation, by rows that it draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health import rng
from fedjax_health.data.representation import Fitted, calibrated
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
