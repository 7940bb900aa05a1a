"""Linkability risk: two halves of a person's attributes are joined through synthetic records that are like both."""

from __future__ import annotations

import numpy as np

from fedjax_health.attacks.base import public_blocks
from fedjax_health.attacks.disclosure import Counted, Disclosure, Outcome, People, one_a_client
from fedjax_health.data.schema import Schema
from fedjax_health.neighbours import nearest
from fedjax_health.types import Table

NEIGHBOURS = 10


def _linked(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.sum([len(np.intersect1d(x, y)) > 0 for x, y in zip(a, b, strict=True)]))


def _attempt(
    synthetic: Table, people: People, schema: Schema, queries: int, rng: np.random.Generator
) -> dict[str, Outcome]:
    made = public_blocks(synthetic, schema)
    order = rng.permutation(len(made))
    halves = np.array_split(order, 2)
    spaces = [np.concatenate([made[j] for j in half], 1) for half in halves]
    counts = []
    for side in people:
        blocks = public_blocks(one_a_client(side, queries, rng), schema)
        sets = [
            nearest(np.concatenate([blocks[j] for j in half], 1), space, min(NEIGHBOURS, len(space)))[1]
            for half, space in zip(halves, spaces, strict=True)
        ]
        counts.append(Counted(_linked(*sets), len(blocks[0])))
    n, k, guesses = len(synthetic.label), min(NEIGHBOURS, len(synthetic.label)), counts[0].guesses
    blind = rng.hypergeometric(k, n - k, k, guesses) > 0  # two random sets of k of the n records meet
    return {"": Outcome(counts[0], Counted(int(blind.sum()), guesses), counts[1])}


def make_linkability() -> Disclosure:
    """Holders of two halves of a person's attributes each take the 10 nearest synthetic records; one in common is a link.

    The halves are random, the label among them. Blind guesses: ten random records each. At most one record a client.

    Returns:
      Disclosure; one outcome.

    Source: Giomi et al. (2023), arXiv 2211.10459, the linkability attack.
    """
    return Disclosure("linkability", "the synthetic table, and two disjoint sets of attributes of a person", _attempt)
