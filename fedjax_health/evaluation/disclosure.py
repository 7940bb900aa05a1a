"""Singling out, linkability and inference: rates of right guesses, and the risk that is left over a control group."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import scipy.stats
from threadpoolctl import threadpool_limits

from fedjax_health import rng
from fedjax_health.attacks.disclosure import Counted, Disclosure, Outcome, People
from fedjax_health.data.split import take_clients
from fedjax_health.evaluation.setting import Setting, Subject, included
from fedjax_health.types import Row, Table

NAN = float("nan")
QUERIES = 600  # guesses of an attack on a generator, over all seeds
COPY = "real"  # the model of rows about a table that is the members' own


class Rate(NamedTuple):
    """A proportion with its interval."""

    value: float
    low: float
    high: float


def wilson(counted: Counted, level: float = 0.95) -> Rate:
    """A proportion s / n with Wilson's interval, (s + z²/2) / (n + z²) ± z / (n + z²) √(s (n - s) / n + z² / 4).

    Args:
      counted: s right of n guesses.
      level: coverage of the interval.

    Returns:
      All NaN for n = 0. (Giomi et al. report the middle of the interval, which a factor on a small rate would exaggerate.)

    Source: Wilson (1927), JASA 22(158).
    """
    s, n = counted
    if not n:
        return Rate(NAN, NAN, NAN)
    interval = scipy.stats.binomtest(s, n).proportion_ci(level, method="wilson")
    return Rate(s / n, float(interval.low), float(interval.high))


def residual_risk(attack: Rate, control: Rate) -> Rate:
    """(a - c) / (1 - c) = 1 - (1 - a) / (1 - c): how much of what guesses about others leave open the attack finds.

    The interval is MOVER's for a ratio, from the intervals of 1 - a and 1 - c: with estimates p, q, limits l_p, u_p, l_q, u_q,

        L, U = (p q ∓ √((p q)² - x (2 p - x) y (2 q - y))) / (y (2 q - y)),   x, y = l_p, u_q for L and u_p, l_q for U.

    Args:
      attack, control: rates of right guesses about members and about others, of independent guesses.

    Returns:
      In [-1, 1], cut at -1; NaN where the control's rate is 1 or more, which leaves nothing to find.

    Source: Giomi et al. (2023), arXiv 2211.10459; Donner and Zou (2012), Stat. Methods Med. Res. 21(4).
    """
    if any(map(math.isnan, (*attack, *control))) or control.value >= 1:
        return Rate(NAN, NAN, NAN)
    p, low_p, high_p = 1 - attack.value, 1 - attack.high, 1 - attack.low
    q, low_q, high_q = 1 - control.value, max(1 - control.high, 0.0), 1 - control.low

    def limit(x: float, y: float, sign: float) -> float:
        below = y * (2 * q - y)
        root = math.sqrt(max((p * q) ** 2 - x * (2 * p - x) * below, 0.0))
        return (p * q + sign * root) / below if below > 0 else math.inf

    low, high = 1 - limit(high_p, low_q, 1.0), 1 - max(limit(low_p, high_q, -1.0), 0.0)
    return Rate(*(max(x, -1.0) for x in (1 - p / q, low, high)))


def outcome_rows(domain: str, model: str, row: str, outcomes: Sequence[Outcome]) -> list[Row]:
    """Rows of one attack over the federations of several seeds, whose guesses are added up.

    Args:
      domain, model, row: where the rows stand.
      outcomes: one a seed.

    Returns:
      attack_rate, baseline_rate, control_rate (by `wilson`, n = guesses; intervals take guesses for independent) and risk
      (`residual_risk`, n = the attack's guesses). The risk is NaN, not assessed, where the attack is no better than blind
      guesses, nothing could be guessed, or the control leaves nothing to find: that is no risk of zero.
    """
    sums = [Counted(*map(sum, zip(*side, strict=True))) for side in list(zip(*outcomes, strict=True))[:3]]
    attack, baseline, control = map(wilson, sums)
    factor = float(np.mean([outcome.scale for outcome in outcomes]))
    control = Rate(*(factor * x for x in control))
    rates = {"attack_rate": attack, "baseline_rate": baseline, "control_rate": control}
    assessed = attack.value > baseline.value
    risk = residual_risk(attack, control) if assessed else Rate(NAN, NAN, NAN)
    rows = [Row(domain, model, row, m, *rate, c.guesses) for (m, rate), c in zip(rates.items(), sums, strict=True)]
    return [*rows, Row(domain, model, row, "risk", *risk, sums[0].guesses)]


def disclosure_rows(setting: Setting, subjects: Sequence[Subject], attacks: Mapping[str, Disclosure]) -> list[Row]:
    """What each published table tells of the people in it beyond what it tells of others; and a copy of their records.

    Args:
      setting: the domain.
      subjects: generators.
      attacks: by name.

    Returns:
      Rows "<attack>" or "<attack>:<what>"; model "real" is the ceiling: what the members' own records would have told.
    """
    domain, seeds = setting.domain, setting.include.shape[0]
    sides = [
        [take_clients(domain.train, included(setting, s, member)) for member in (True, False)] for s in range(seeds)
    ]
    people = [People(*pair) for pair in sides]
    tables: dict[str, list[Table]] = {
        g.name: [Table(*(column[: g.published] for column in t)) for t in g.tables] for g in subjects
    }
    tables[COPY] = [people[0].member]  # its interval needs no seeds: it is the members' own
    queries = -(-QUERIES // seeds)

    def attempt(model: str, attack: Disclosure, s: int) -> dict[str, Outcome]:
        generator = setting.generator(rng.Stream.ATTACK, attack.name, model, str(s))
        return attack.attempt(tables[model][s], people[s], domain.schema, queries, generator)

    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
        tried = {
            (model, attack.name): [pool.submit(attempt, model, attack, s) for s in range(len(made))]
            for model, made in tables.items()
            for attack in attacks.values()
        }
    rows: list[Row] = []
    for (model, name), futures in tried.items():
        outcomes = [future.result() for future in futures]
        for what in outcomes[0]:
            row = f"{name}:{what}" if what else name
            rows += outcome_rows(domain.name, model, row, [outcome[what] for outcome in outcomes])
    return rows
