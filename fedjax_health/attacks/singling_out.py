"""Singling out: a condition met by one synthetic record alone isolates one real person, too."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np

from fedjax_health.attacks.disclosure import Counted, Disclosure, Outcome, People
from fedjax_health.data.schema import Schema
from fedjax_health.types import Table

TRIES = 2  # records looked at, for each condition wanted


class Term(NamedTuple):
    """A condition on one column: "<=", ">=", "==" a value, or "missing"."""

    column: int
    sign: str
    value: float


Condition: TypeAlias = tuple[Term, ...]


def _matrix(table: Table) -> np.ndarray:
    return np.column_stack([table.values, table.label]).T.copy()  # f32[F + 1, M]: a condition reads whole columns


def meets(values: np.ndarray, term: Term) -> np.ndarray:
    """Whether values of its column meet a term, bool[M].

    Args:
      values: f32[M], NaN = missing, which meets "missing" alone.
      term: its condition.
    """
    if term.sign == "missing":
        return np.isnan(values)
    compare = {"<=": np.less_equal, ">=": np.greater_equal, "==": np.equal}[term.sign]
    return compare(values, np.float32(term.value))


def matching(columns: np.ndarray, terms: Condition) -> np.ndarray:
    """Rows that meet all terms, i64[k], ascending.

    Args:
      columns: f32[F + 1, M].
      terms: one or more.
    """
    rows = np.flatnonzero(meets(columns[terms[0].column], terms[0]))
    for term in terms[1:]:
        rows = rows[meets(columns[term.column][rows], term)]
    return rows


def isolated(sides: list[tuple[np.ndarray, np.ndarray]], conditions: list[Condition]) -> list[Counted]:
    """People whom a condition isolates: who alone meets it, whatever the side; of how many conditions.

    Args:
      sides: (columns f32[F + 1, M], client i32[M]) of groups of people.
      conditions: of `matching`.

    Returns:
      A count a side, each person once. Conditions that isolate somebody anew are no further guesses: an outlier meets many.
    """
    found: list[set[int]] = [set() for _ in sides]
    repeats = 0
    for terms in conditions:
        met = [client[matching(columns, terms)] for columns, client in sides]
        at = [side for side, who in enumerate(met) if len(who)]
        if len(at) == 1 and (met[at[0]] == met[at[0]][0]).all():
            person = int(met[at[0]][0])
            repeats += person in found[at[0]]
            found[at[0]].add(person)
    return [Counted(len(people), len(conditions) - repeats) for people in found]


def _of_one_column(columns: np.ndarray, j: int, coded: bool) -> list[Condition]:
    values = columns[j]
    seen = values[~np.isnan(values)]
    found, count = np.unique(seen, return_counts=True)
    terms = [Term(j, "==", float(v)) for v in found[count == 1]]
    if len(seen) and not coded:  # its extremes isolate one record if they occur once
        terms = [Term(j, s, float(found[e])) for s, e in (("<=", 0), (">=", -1)) if count[e] == 1] + terms
    if len(values) - len(seen) == 1:
        terms.append(Term(j, "missing", 0.0))
    return [(term,) for term in terms]


def _univariate(columns: np.ndarray, coded: list[bool], queries: int, rng: np.random.Generator) -> list[Condition]:
    each = -(-queries // len(coded))  # as many a column, that no column stands for all
    chosen: list[Condition] = []
    for j in range(len(coded)):
        candidates = _of_one_column(columns, j, coded[j])
        chosen += [candidates[i] for i in rng.permutation(len(candidates))[:each]]
    return [chosen[i] for i in rng.permutation(len(chosen))[:queries]]


def _term(columns: np.ndarray, j: int, row: int, coded: bool, middle: float | None, rng: np.random.Generator) -> Term:
    """The condition of one column that a record meets: on its side of the middle, or (None) on either."""
    value = float(columns[j, row])
    if np.isnan(value):
        return Term(j, "missing", 0.0)
    if coded:
        return Term(j, "==", value)
    above = rng.random() < 0.5 if middle is None else value > middle
    return Term(j, ">=" if above else "<=", value)


def _multivariate(columns: np.ndarray, coded: list[bool], queries: int, rng: np.random.Generator) -> list[Condition]:
    middles = [float(np.median(c[~np.isnan(c)])) if not np.isnan(c).all() else 0.0 for c in columns]
    chosen: list[Condition] = []
    for _ in range(TRIES * queries):
        if len(chosen) == queries:
            break
        row, left, terms = int(rng.integers(columns.shape[1])), np.arange(columns.shape[1]), []
        for j in rng.permutation(len(coded)):
            terms.append(_term(columns, int(j), row, coded[j], middles[j], rng))
            left = left[meets(columns[j][left], terms[-1])]
            if len(left) == 1 and len(terms) > 1:
                chosen.append(tuple(terms))
                break
    return chosen


def _blind(columns: np.ndarray, like: list[Condition], coded: list[bool], rng: np.random.Generator) -> list[Condition]:
    """As many conditions on the same columns, each value from a random record of its own, on a random side."""
    total = columns.shape[1]
    return [
        tuple(_term(columns, t.column, int(rng.integers(total)), coded[t.column], None, rng) for t in terms)
        for terms in like
    ]


def _attempt(
    synthetic: Table, people: People, schema: Schema, queries: int, rng: np.random.Generator
) -> dict[str, Outcome]:
    made = _matrix(synthetic)
    coded = [*(c.kind != "numeric" for c in schema.inputs), True]
    sides = [(_matrix(side), side.client) for side in people]
    inside, outside = (len(np.unique(client)) for _, client in sides)
    scale = inside / outside if outside else 1.0  # of chances to be the one
    found = {}
    for name, make in {"univariate": _univariate, "multivariate": _multivariate}.items():
        conditions = make(made, coded, queries, rng)
        members, others = isolated(sides, conditions)
        blind = isolated(sides, _blind(made, conditions, coded, rng))[0]
        found[name] = Outcome(members, blind, others if outside else Counted(0, 0), scale)
    return found


def make_singling_out() -> Disclosure:
    """Conditions that exactly one synthetic record meets, and how many of them exactly one person's records meet.

    univariate: a value that occurs once, an extreme, a single gap; as many a column as there are, up to an equal share.
    multivariate: columns of a random synthetic record in random order, numbers on their side of the median from the record's
    on, categories equal; two or more, until no other synthetic record meets it. Blind guesses: the same columns with values of
    random records, each its own, on random sides.

    A condition is met by all records of a person or by one; it isolates if exactly one person of all, members and those who
    stayed out, meets it. If the table knew of none of them, that person would be a member k times as often as not, k members
    to each other: the control's rate is that of isolated others times k (the source has as many others, and lets each side
    isolate for itself). A person is counted once, and further conditions that isolate it are no guesses.

    Returns:
      Disclosure; outcomes "univariate" and "multivariate", of as many guesses as there were conditions to be found.

    Source: Giomi et al. (2023), arXiv 2211.10459, the singling-out attacks; counted by person.
    """
    return Disclosure("singling-out", "the synthetic table", _attempt)
