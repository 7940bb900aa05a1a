"""The shares of the label classes, by a differentially private histogram over clients, with central or local noise."""

from __future__ import annotations

import dp_accounting
import numpy as np

from fedjax_health.types import Normals, Table

SENSITIVITY = 1.0  # a client's vector of label shares has Euclidean norm at most its 1-norm, which is 1


def noisy_class_shares(
    table: Table,
    include: np.ndarray,
    num_classes: int,
    noise_multiplier: float,
    generator: Normals,
    local: bool = False,
    records: bool = False,
) -> np.ndarray:
    """Class shares, every client with the same weight: normalise(max(sum_k share_k + N(0, z^2 I), floor)).

    With local noise each of n clients sends share_k + N(0, z^2 I), whose sum is drawn at once: N(0, n z^2 I).

    Args:
      table: client-major records of the clients that hold any.
      include: bool[K], which clients exist.
      num_classes: L.
      noise_multiplier: z, in units of the sensitivity 1; 0 = exact (no guarantee).
      generator: source of the noise; one draw is taken.
      records: whether every record has the same weight instead, which has no such bound (noise_multiplier 0 only).
      local: whether each included client adds the noise itself, also one without records, instead of the server once.

    Returns:
      f32[L] that sums to 1, no class below 0.1 % (a class that noise hides can then still be sampled).
    """
    num_clients = include.shape[0]
    counts = np.zeros((num_clients, num_classes))
    np.add.at(counts, (table.client, table.label), 1.0)
    counts *= include[:, None]
    assert not (records and noise_multiplier)
    share = counts if records else counts / np.maximum(counts.sum(1, keepdims=True), 1.0)
    deviation = noise_multiplier * SENSITIVITY * (np.sqrt(include.sum()) if local else 1.0)
    total = share.sum(0) + deviation * generator.standard_normal(num_classes)
    total = np.maximum(total, 0.001 * max(float(total.sum()), 1.0))
    return (total / total.sum()).astype(np.float32)


def event(noise_multiplier: float) -> dp_accounting.DpEvent:
    """The histogram's event: of the sum with central noise, or of one client's own message with local noise.

    Each client sends its shares once, so nothing is sampled; a client whose data is emptied sends noise around 0.

    Args:
      noise_multiplier: z > 0.
    """
    return dp_accounting.GaussianDpEvent(noise_multiplier)
