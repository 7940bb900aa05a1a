"""Whether an attack tells members from non-members better in one subgroup than in another: the rare are memorised first."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TypeAlias

import numpy as np
from sklearn.metrics import roc_auc_score

from fedjax_health import rng
from fedjax_health.data.schema import Schema
from fedjax_health.evaluation.bootstrap import client_intervals, rows_with_intervals
from fedjax_health.evaluation.fairness import FEWEST_CLIENTS, subgroups
from fedjax_health.evaluation.rows import Figures
from fedjax_health.evaluation.setting import Setting
from fedjax_health.evaluation.suite import Pairs, make_targets
from fedjax_health.types import Row, Table

NAN = float("nan")
Groups: TypeAlias = dict[str, dict[str, np.ndarray]]  # column -> subgroup -> bool[clients]


def client_groups(table: Table, schema: Schema) -> Groups:
    """Clients of each subgroup: a client is of the category that most of its records have, the first of equally frequent ones.

    Args:
      table: records.
      schema: its group columns.

    Returns:
      Column -> "<column>=<category>" -> bool[number of clients], clients in ascending order of their ids. One whose values are
      all missing is in none.
    """
    _, index = np.unique(table.client, return_inverse=True)
    found = {}
    for column in schema.groups:
        members = subgroups(column, table.values[:, schema.index(column.name)])
        count = np.stack([np.bincount(index, weights=m.astype(np.float64)) for m in members.values()])
        mine = np.where(count.max(0) > 0, np.argmax(count, 0), -1)
        found[column.name] = {f"{column.name}={name}": mine == g for g, name in enumerate(members)}
    return found


def large_groups(of_member: Groups, of_outsider: Groups) -> set[str]:
    """Subgroups with 20 members and 20 non-members or more; others are too small to judge.

    Args:
      of_member, of_outsider: of `client_groups`.
    """
    return {
        name
        for column, groups in of_member.items()
        for name, here in groups.items()
        if min(here.sum(), of_outsider[column][name].sum()) >= FEWEST_CLIENTS
    }


def risk_figures(
    row: str,
    member: np.ndarray,
    outsider: np.ndarray,
    of_member: Groups,
    of_outsider: Groups,
    judged: Container[str],
) -> Figures:
    """AUC of one attack within each subgroup, members of the subgroup against non-members of the same one.

    Args:
      row: the attack.
      member, outsider: f64[n1], f64[n0], scores of clients.
      of_member, of_outsider: their subgroups (`client_groups`).
      judged: those to read an AUC of (`large_groups`).

    Returns:
      membership_auc [<column>=<category>], 0.5 = guessing; targets [<column>=<category>], members and non-members attacked;
      membership_auc_gap [<column>], max - min, above 0 by chance alone. AUC is NaN for other subgroups than
      `judged`, without members or non-members in it, and for scores that are not finite.
    """
    figures: Figures = {}
    finite = bool(np.isfinite(member).all() and np.isfinite(outsider).all())
    for column, groups in of_member.items():
        areas = []
        for name, here in groups.items():
            inside, outside = member[here], outsider[of_outsider[column][name]]
            area = NAN
            if finite and name in judged and min(len(inside), len(outside)):
                truth = np.repeat([True, False], [len(inside), len(outside)])
                area = float(roc_auc_score(truth, np.concatenate([inside, outside])))
            figures[row, f"membership_auc[{name}]"] = area
            figures[row, f"targets[{name}]"] = float(len(inside) + len(outside))
            areas.append(area)
        known = [area for area in areas if not np.isnan(area)]
        figures[row, f"membership_auc_gap[{column}]"] = max(known) - min(known) if len(known) > 1 else NAN
    return figures


def risk_rows(setting: Setting, attacked: Sequence[tuple[str, str, Pairs]]) -> list[Row]:
    """Membership risk by subgroup of every attack of the membership table.

    Args:
      setting: the domain.
      attacked: (model, attack row, scores of each seed's targets, as `suite.make_targets` orders them).

    Returns:
      Rows of fairness.csv, the row being the attack; none without group columns. Intervals over seeds, with one over targets.
    """
    schema, seeds = setting.domain.schema, range(setting.include.shape[0])
    if not schema.groups:
        return []
    sides = [[client_groups(side, schema) for side in make_targets(setting, s)] for s in seeds]
    judged = [large_groups(*side) for side in sides]
    rows: list[Row] = []
    for model, row, pairs in attacked:
        generator = setting.generator(rng.Stream.ATTACK, "subgroups", model, row)
        per_seed = [risk_figures(row, pairs[s][0], pairs[s][1], sides[s][0], sides[s][1], judged[s]) for s in seeds]

        def again(some: np.ndarray, row: str = row, pairs: Pairs = pairs) -> Figures:
            n = len(pairs[0][0])
            inside, outside = some[some < n], some[some >= n] - n
            groups = [
                {column: {name: mask[rows] for name, mask in masks.items()} for column, masks in side.items()}
                for side, rows in zip(sides[0], (inside, outside), strict=True)
            ]
            return risk_figures(row, pairs[0][0][inside], pairs[0][1][outside], groups[0], groups[1], judged[0])

        units = np.arange(sum(len(scores) for scores in pairs[0]))
        rows += rows_with_intervals(
            setting.domain.name, model, per_seed,
            lambda again=again, units=units, generator=generator: client_intervals(again, units, generator),
        )  # fmt: skip
    return rows
