"""Attacks where the answer is known: a table that is a copy of the members' records, and one of people who are neither.

`results(quick)` gives figures named `known/...`; `python -m benchmarks.attacks --parts known` prints them. 14,200 simulated
patients of six hours, two of which are kept; each seed deals them anew into 1,400 members, 10,000 who stayed out, 1,400 whose
records the attacker has, and 1,400 others.

known/copy/...    the table is the members' records: an attack must find them, at 0.1 % false alarms;
known/others/...  the table is the others' records: no attack may tell members from who stayed out, AUC 0.5.

Membership by client (the mean over its records) and by record. Loss threshold attacks a model that stores the records it was
trained on, its loss the distance to the nearest one. AUC: mean over seeds with Student-t interval; rates by client: pooled over
seeds, Clopper-Pearson. Disclosure: 1,400 members against 1,400 who stayed out, 1,000 guesses of each kind a seed, added up; a
risk that is not assessed (the attack is no better than blind guesses) has its rates, and no risk.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from fedjax_health.attacks.base import Published, public_space
from fedjax_health.attacks.disclosure import Outcome, People
from fedjax_health.build_attacks import make_attacks, make_disclosures
from fedjax_health.data.simulator import simulate_table
from fedjax_health.data.split import take_clients
from fedjax_health.data.vitals import VITALS, make_vitals
from fedjax_health.evaluation.disclosure import outcome_rows
from fedjax_health.evaluation.membership import client_scores, membership_rows, record_rows
from fedjax_health.neighbours import nearest_distance
from fedjax_health.types import Row, Table

MEMBERS, OUTSIDE, RECORDS = 1400, 10_000, 2
SEEDS, QUERIES = 10, 1000
METRICS = {
    "auc": "AUC",
    "tpr_at_1pct_fpr": "TPR at 1 % FPR",
    "tpr_at_0p1pct_fpr": "TPR at 0.1 % FPR",
    "record_auc": "AUC by record",
    "record_tpr_at_1pct_fpr": "TPR at 1 % FPR by record",
    "record_tpr_at_0p1pct_fpr": "TPR at 0.1 % FPR by record",
    "attack_rate": "right about members",
    "baseline_rate": "blind guesses right",
    "control_rate": "right about others",
    "risk": "risk",
}


class Dealt(NamedTuple):
    """Who is what in a seed."""

    member: Table
    outsider: Table
    reference: Table
    other: Table


def simulate() -> Table:
    """All patients, two random records of each."""
    table = simulate_table(make_vitals(360), 3 * MEMBERS + OUTSIDE, seed=0)
    order = np.random.default_rng(1).permutation(len(table.label))
    order = order[np.argsort(table.client[order], kind="stable")]  # by client, its records in random order
    kept = order[np.arange(len(order)) - np.searchsorted(table.client[order], table.client[order]) < RECORDS]
    return Table(*(column[kept] for column in table))


def deal(table: Table, seed: int) -> Dealt:
    """The patients in random roles.

    Args:
      table: of `simulate`.
      seed: of the roles.
    """
    order = np.random.default_rng([2, seed]).permutation(3 * MEMBERS + OUTSIDE)
    cuts = np.cumsum([MEMBERS, OUTSIDE, MEMBERS])
    return Dealt(*(take_clients(table, np.sort(part)) for part in np.split(order, cuts)))


def attacked(dealt: Dealt, copy: bool, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Record scores (of members, of who stayed out) by attack.

    Args:
      dealt: of `deal`.
      copy: whether the table is the members'.
      seed: of the attacks' own chance.
    """
    synthetic = dealt.member if copy else dealt.other
    stored = public_space(synthetic, VITALS)
    published = Published(synthetic, dealt.reference, lambda t: nearest_distance(public_space(t, VITALS), stored))
    both = Table(*(np.concatenate(pair) for pair in zip(dealt.member, dealt.outsider, strict=True)))
    found = {}
    for name, attack in make_attacks().items():
        scores = attack.score(published, both, VITALS, np.random.default_rng([3, seed]))
        member, outsider = np.split(scores, [len(dealt.member.label)])
        found[name] = (member, outsider)
    return found


def disclosed(dealt: Dealt, copy: bool, seed: int) -> dict[str, Outcome]:
    """Outcomes of the attacks on disclosure, by row.

    Args:
      dealt, copy, seed: as in `attacked`.
    """
    people = People(dealt.member, take_clients(dealt.outsider, np.arange(MEMBERS)))
    found = {}
    for name, attack in make_disclosures().items():
        generator = np.random.default_rng([4, seed])
        tried = attack.attempt(dealt.member if copy else dealt.other, people, VITALS, QUERIES, generator)
        found |= {f"{name}:{what}" if what else name: outcome for what, outcome in tried.items()}
    return found


def figures(rows: list[Row], case: str) -> list[dict[str, Any]]:
    """Rows as results of a benchmark; without those that are not defined, which a report cannot hold.

    Args:
      rows: of one attack.
      case: "copy" or "others".
    """
    found = []
    for r in rows:
        if r.metric in METRICS and not math.isnan(r.value):
            low, high = (r.value if math.isnan(x) else x for x in (r.low, r.high))
            name = f"known/{case}/{r.row}: {METRICS[r.metric]}"
            found.append({"name": name, "value": r.value, "low": low, "high": high, "n": r.n, "unit": r.metric})
    return found


def results(quick: bool) -> list[dict[str, Any]]:
    """All figures.

    Args:
      quick: two seeds.
    """
    table, found = simulate(), []
    for copy in (True, False):
        case, scored, tried = "copy" if copy else "others", [], []
        for seed in range(2 if quick else SEEDS):
            dealt = deal(table, seed)
            scored.append((dealt, attacked(dealt, copy, seed)))
            tried.append(disclosed(dealt, copy, seed))
            print(f"{case}, seed {seed}: done", flush=True)
        rows: list[Row] = []
        for name in scored[0][1]:
            records = [scores[name] for _, scores in scored]
            clients = [
                (client_scores(scores[name][0], dealt.member.client), client_scores(scores[name][1], dealt.outsider.client))
                for dealt, scores in scored
            ]  # fmt: skip
            rows += membership_rows("vitals", case, name, clients) + record_rows("vitals", case, name, records)
        for name in tried[0]:
            rows += outcome_rows("vitals", case, name, [outcomes[name] for outcomes in tried])
        found += figures(rows, case)
    return found
