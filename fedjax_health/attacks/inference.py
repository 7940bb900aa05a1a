"""Inference risk: knowing all else of a person, the secret is that of the most similar synthetic record."""

from __future__ import annotations

import numpy as np

from fedjax_health.attacks.base import public_blocks
from fedjax_health.attacks.disclosure import Counted, Disclosure, Outcome, People, name_of, one_a_client, secrets
from fedjax_health.data.schema import Schema
from fedjax_health.neighbours import nearest
from fedjax_health.types import Table

MOST_SECRETS = 32
TOLERANCE = 0.25  # public scales


def close(truth: np.ndarray, guess: np.ndarray) -> int:
    """Guesses that are right: the same category, both missing, or numbers within a quarter of the column's public scale.

    Args:
      truth, guess: f64[n, d], a column's coordinates (`public_blocks`), in which categories and missingness differ by more.
    """
    return int(np.sum(np.max(np.abs(truth - guess), 1) <= TOLERANCE))


def _attempt(
    synthetic: Table, people: People, schema: Schema, queries: int, rng: np.random.Generator
) -> dict[str, Outcome]:
    made = public_blocks(synthetic, schema)
    sides = [public_blocks(one_a_client(side, queries, rng), schema) for side in people]
    found = {}
    for j in secrets(schema, MOST_SECRETS):
        known = np.concatenate(made[:j] + made[j + 1 :], 1)
        counts = []
        for side in sides:
            at = nearest(np.concatenate(side[:j] + side[j + 1 :], 1), known)[1][:, 0]
            counts.append(Counted(close(side[j], made[j][at]), len(at)))
        truth = sides[0][j]
        blind = made[j][rng.integers(len(known), size=len(truth))]
        found[name_of(schema, j)] = Outcome(counts[0], Counted(close(truth, blind), len(truth)), counts[1])
    return found


def make_inference() -> Disclosure:
    """For each column: the attacker knows all others of a person and guesses the value of the nearest synthetic record.

    Right is the same category, or a number within a quarter of the column's public scale (the source: within 5 % of the
    number, which any temperature is, and no zero). Blind guesses: the column of a random synthetic record. At most one record
    a client, and 32 columns: the label, groups, then the others.

    Returns:
      Disclosure; an outcome a column.

    Source: Giomi et al. (2023), arXiv 2211.10459, the inference attack.
    """
    return Disclosure("inference", "the synthetic table, and all other attributes of a person", _attempt)
