"""Attribute inference: a classifier trained on the synthetic table tells a person's category from all else."""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from fedjax_health.attacks.base import at_most
from fedjax_health.attacks.disclosure import Counted, Disclosure, Outcome, People, name_of, one_a_client, secrets
from fedjax_health.data.schema import Schema
from fedjax_health.types import Table

MOST_SECRETS = 4
MAX_ROWS = 5000


def _matrix(table: Table) -> np.ndarray:
    return np.column_stack([table.values, table.label]).astype(np.float64)


@threadpool_limits.wrap(limits=1, user_api="openmp")
def _guesses(known: np.ndarray, secret: np.ndarray, categorical: list[bool], at: np.ndarray, seed: int) -> np.ndarray:
    """What trees fitted on f64[n, F], f64[n] say at f64[m, F]; one category where there is no other, or nothing known."""
    said = ~np.isnan(known).all(0)  # scikit-learn's bins need a value
    if len(np.unique(secret)) < 2 or not said.any():
        return np.full(len(at), secret[0])
    trees = HistGradientBoostingClassifier(
        max_iter=40,
        early_stopping=False,  # pyright: ignore[reportArgumentType]
        categorical_features=np.asarray(categorical)[said],  # pyright: ignore[reportArgumentType]
        random_state=seed,
    )
    return trees.fit(known[:, said], secret).predict(at[:, said])


def _attempt(
    synthetic: Table, people: People, schema: Schema, queries: int, rng: np.random.Generator
) -> dict[str, Outcome]:
    made = at_most(_matrix(synthetic), MAX_ROWS, rng)
    sides = [_matrix(one_a_client(side, queries, rng)) for side in people]
    coded = [*(c.kind != "numeric" for c in schema.inputs), True]
    found = {}
    for j in [j for j in secrets(schema, len(coded)) if coded[j]][:MOST_SECRETS]:
        others = [i for i in range(len(coded)) if i != j]
        at, secret = np.concatenate([side[:, others] for side in sides]), made[:, j]
        seed = int(rng.integers(2**31))
        guess = np.split(_guesses(made[:, others], secret, [coded[i] for i in others], at, seed), [len(sides[0])])
        counts = [Counted(int(np.sum(g == side[:, j])), len(g)) for g, side in zip(guess, sides, strict=True)]
        blind = secret[rng.integers(len(secret), size=len(guess[0]))]
        found[name_of(schema, j)] = Outcome(
            counts[0], Counted(int(np.sum(blind == sides[0][:, j])), len(blind)), counts[1]
        )
    return found


def make_attribute_inference() -> Disclosure:
    """For each category worth guessing (the label, then groups): boosted trees learn it from all else of synthetic records.

    Blind guesses: the category of a random synthetic record. At most one record a client, 5,000 synthetic rows, 4 columns.
    Stronger than `inference` where the population has a rule, weaker where single records were copied.

    Returns:
      Disclosure; an outcome a column.

    Source: Stadler, Oprisanu, Troncoso (2022), Synthetic Data – Anonymisation Groundhog Day, arXiv 2011.07018.
    """
    return Disclosure("attribute-inference", "the synthetic table, and all other attributes of a person", _attempt)
