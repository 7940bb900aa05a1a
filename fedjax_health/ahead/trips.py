"""How often the loops run whose length depends on who takes part: chunks of a cohort, and steps of its largest clients."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fedjax_health.federated.federation import Parts

ROUNDS = 200  # simulated cohorts behind a mean


class Trips(NamedTuple):
    """Means over rounds.

    Attributes:
      chunks: of clients that a device works through in a round (0 where a program has them outside a loop).
      steps: local steps of such a chunk, those of its largest client.
      live: clients that take part in a federation's round.
    """

    chunks: float
    steps: float
    live: float


def expected_trips(parts: Parts, counts: np.ndarray, federations: int, joining: float) -> Trips:
    """Draws cohorts on the host and deals them as `federated.work` does; federations side by side wait for the longest.

    A device that drops out or comes too late is not foreseen: what is predicted is then an upper bound.

    Args:
      parts: the federation.
      counts: i64[n], records of clients, of which cohorts are drawn.
      federations: N.
      joining: share of those asked that exist and have the memory to take part, in [0, 1].
    """
    draw = np.random.default_rng(0)
    sampler, devices, chunk = parts.sampler, parts.mesh.size, parts.clients_per_chunk
    asked = min(1.0, sampler.expected / sampler.size)
    chunks, steps, lives = [], [], []
    for _ in range(ROUNDS):
        most: list[np.ndarray] = []
        for _ in range(federations):
            live = min(sampler.slots, int(draw.binomial(sampler.size, asked * joining)))
            sizes = np.sort(draw.choice(counts, live))[::-1]
            lives.append(live)
            # rank k goes to device k % devices; a chunk takes as long as its first client
            most += [own[::chunk] for own in (sizes[d::devices] for d in range(devices))]
        length = np.asarray([len(own) for own in most]).reshape(federations, devices).max(0)
        padded = np.zeros((federations, devices, max(1, length.max())), np.int64)
        for i, own in enumerate(most):
            padded[i // devices, i % devices, : len(own)] = own
        longest = np.asarray(parts.costs.steps(padded.max(0)))  # pyright: ignore[reportArgumentType]
        ran = np.arange(longest.shape[1])[None, :] < length[:, None]
        chunks.append(length.mean())
        steps.append(longest[ran].mean() if ran.any() else 0.0)
    return Trips(float(np.mean(chunks)), float(np.mean(steps)), float(np.mean(lives)))
