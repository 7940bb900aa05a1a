"""What evasion costs a detector and what hardening gives back: detection before, under attack, after, under a new attack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from fedjax_health.attacks.evasion import Evader, Target
from fedjax_health.attacks.evasion_flows import FlowSpace
from fedjax_health.data.domain import Domain
from fedjax_health.data.schema import Schema
from fedjax_health.evaluation.arena import Arena, rows_where
from fedjax_health.evaluation.hardening import make_sender
from fedjax_health.evaluation.rows import Figures
from fedjax_health.evaluation.utility import NAN, ratio
from fedjax_health.types import Array, Table

BEFORE = "detector"
TOLERANCE = 1e-4  # of f32, in public scales
STRONGEST = "white-box"  # by which loss and recovery are judged


def caught(row: str, schema: Schema, label: np.ndarray, alarm: np.ndarray) -> Figures:
    """Share of attack flows that raise an alarm, in all and by type; NaN for a type that does not occur.

    Args:
      row: where the figures stand.
      schema: its label categories name the attacks.
      label: i32[M] > 0.
      alarm: bool[M].
    """
    figures = {(row, "detection_rate"): ratio(int(alarm.sum()), len(alarm))}
    for c, name in enumerate(schema.label.categories[1:], start=1):
        figures[row, f"detection_rate[{name}]"] = ratio(int(alarm[label == c].sum()), int((label == c).sum()))
    return figures


def make_check(space: FlowSpace, schema: Schema) -> Callable[[Table, Table, float], float]:
    """Share of evasive flows that an attacker of the threat model may send; checked on the host, apart from what made them.

    A flow is valid where its codes are as they were, numbers lie in their public ranges, and every free quantity moved by no
    more than the budget (functional ones: not at all) and what rounding adds.

    Args:
      space: of the flows.
      schema: columns.

    Returns:
      (flows before, the same after, budget in public scales) -> share of M >= 1 flows.
    """
    apart, rounding = jax.jit(jax.vmap(space.apart)), jax.jit(jax.vmap(space.rounding))

    def check(before: Table, after: Table, budget: float) -> float:
        moved = np.abs(np.asarray(apart(after.values), np.float64) - np.asarray(apart(before.values), np.float64))
        allowed = np.where(space.functional[before.label], 0.0, budget) + np.asarray(rounding(after.values), np.float64)
        fine = (moved <= allowed + TOLERANCE).all(1)
        for j, column in enumerate(schema.inputs):
            x = after.values[:, j]
            if column.kind == "numeric":
                fine &= np.isnan(x) | ((x >= column.low) & (x <= column.high))
            else:
                fine &= x == before.values[:, j]
        return float(fine.mean())

    return check


def evasion_figures(
    arena: Arena,
    worlds: Sequence[Domain],
    space: FlowSpace,
    budget: float,
    detectors: Mapping[str, Target],
    evaders: Sequence[Evader],
    keys: Array,
) -> list[Figures]:
    """All figures of N worlds, on held-out devices.

    Rows: `<detector>` (no attack), `<detector>, <attacker>` (who attacks that very detector), and `<hardened>, old <attacker>`
    (what was made against the first detector). Metrics: detection_rate in all and by type, false_positive_rate, and valid, the
    share of flows within the threat model; those of `recovery`. Attackers' own flows are those of validation devices.

    Args:
      arena: judges.
      worlds: of the arena.
      space: of the flows.
      budget: of the attackers.
      detectors: `BEFORE` first, then hardened ones.
      evaders: attackers, `STRONGEST` among them.
      keys: typed keys [N].

    Returns:
      Figures, one a world.
    """
    schema = worlds[0].schema
    attacks = [rows_where(w.test, w.test.label > 0) for w in worlds]
    benign = [rows_where(w.test, w.test.label == 0) for w in worlds]
    found: list[Figures] = [{} for _ in worlds]
    check = make_check(space, schema)

    def judge(row: str, target: Target, tables: list[Table]) -> None:
        for figures, table, alarm in zip(found, tables, arena.alarms(target, tables), strict=True):
            figures |= caught(row, schema, table.label, alarm)

    for name, target in detectors.items():
        judge(name, target, attacks)
        for figures, alarm in zip(found, arena.alarms(target, benign), strict=True):
            figures[name, "false_positive_rate"] = ratio(int(alarm.sum()), len(alarm))
    for evader in evaders:
        send, old = make_sender(evader), None
        for name, target in detectors.items():
            made = send(target, [w.validation for w in worlds], attacks, budget, keys)
            judge(f"{name}, {evader.name}", target, made)
            for figures, was, now in zip(found, attacks, made, strict=True):
                figures[f"{name}, {evader.name}", "valid"] = check(was, now, budget)
            if old is not None:
                judge(f"{name}, old {evader.name}", target, old)
            old = made if old is None else old
    for figures in found:
        figures |= recovery(figures, [name for name in detectors if name != BEFORE])
    return found


def recovery(figures: Figures, hardened: Sequence[str]) -> Figures:
    """What hardening gives back of what the white-box attacker took; NaN where it took nothing.

    Args:
      figures: of one world.
      hardened: names of detectors.
    """

    def rate(row: str) -> float:
        return figures[row, "detection_rate"]

    clean, under = rate(BEFORE), rate(f"{BEFORE}, {STRONGEST}")
    more: Figures = {(BEFORE, "detection_lost"): clean - under}
    for name in hardened:
        for metric, row in (("recovered", f"{name}, {STRONGEST}"), ("recovered_old", f"{name}, old {STRONGEST}")):
            more[name, metric] = (rate(row) - under) / (clean - under) if clean > under else NAN
        more[name, "false_positives_added"] = (
            figures[name, "false_positive_rate"] - figures[BEFORE, "false_positive_rate"]
        )
        more[name, "detection_given_up"] = clean - rate(name)
    return more
