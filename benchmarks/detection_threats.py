"""Detectors against attackers who evade them, on the device, and on a stream.

`python -m benchmarks.detection_threats [--quick] [--out FILE] [--parts evasion,nsl_kdd,device,stream] [--data FOLDER]`.

evasion   detection on held-out devices: as it is, under four attackers, after hardening, under new attacks on the hardened
          detector and under the old ones; false positives; how much the budget matters. n = worlds, Student-t intervals.
nsl_kdd   the same on NSL-KDD, whose training records are dealt to devices; tested on records of KDDTest+.
device    size, operations and time of the detector by flow, predicted time and energy by class of devices, and what int8 costs.
stream    alerts a device and day at three operating points, and time to detection of campaigns. n = devices, bootstrap.

Worlds are simulated logs with training, validation and test devices of their own, or seeds of how NSL-KDD is dealt
(`benchmarks.threat_worlds`).
"""

from __future__ import annotations

import argparse
import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import report, threat_worlds, work
from benchmarks.quality_figures import mean_of
from benchmarks.threat_worlds import Worlds, arena_of, generations_of
from fedjax_health.attacks.evasion import Evader, Target, make_random, make_white_box
from fedjax_health.attacks.evasion_flows import NSL_KDD_FUNCTIONAL, FlowSpace, column_space, threat_space
from fedjax_health.attacks.evasion_generator import make_generator
from fedjax_health.evaluation.alerts import alert_rows
from fedjax_health.evaluation.arena import Arena, rows_where
from fedjax_health.evaluation.detection import detection_threshold
from fedjax_health.evaluation.evasion_rows import BEFORE, evasion_figures
from fedjax_health.evaluation.hardening import harden_in_rounds, hardened, make_sender
from fedjax_health.evaluation.on_device import device_rows, quantised
from fedjax_health.evaluation.utility import positive_score
from fedjax_health.train.stage import federation_keys
from fedjax_health.types import Row, Table

BUDGET = 0.5  # public scales
BUDGETS = (0.25, 0.5, 1.0)
EACH_STEP, IN_ROUNDS = "hardened each step", "hardened in rounds"
STEPS, RATE = 5, 0.5  # of the attacker within, in each step of training
TRIES = 30  # of random search
OPERATING_POINTS = (0.05, 0.01, 0.001)  # false positives allowed on validation devices
RULES = ((1, 1), (2, 3))  # alarms needed of a device's last flows
PACKAGES = ("jax", "jaxlib", "numpy", "flax", "optax", "scipy")
KEYS = 17


@functools.lru_cache(maxsize=1)
def _ready(quick: bool) -> tuple[Worlds, Arena, Target]:
    """Worlds with their detectors, trained once for all parts."""
    worlds = threat_worlds.make_worlds(quick)
    arena = arena_of(worlds, worlds.classifier, generations_of(quick))
    return worlds, arena, arena.target(arena.fit(None, BEFORE))


def _means(prefix: str, per_seed: Sequence[dict[tuple[str, str], float]]) -> list[dict[str, Any]]:
    """Means over worlds, in the order in which figures appear; those not defined in every world are left out."""
    found = []
    for row, metric in dict.fromkeys(key for figures in per_seed for key in figures):
        values = [figures.get((row, metric), math.nan) for figures in per_seed]
        if np.isfinite(values).all():
            found.append(mean_of(f"{prefix}/{row}: {metric}", values, "figure"))
    return found


def _attackers(worlds: Worlds, space: FlowSpace) -> list[Evader]:
    log_benign, encoder = worlds.log_benign, worlds.domains[0].encoder
    return [
        make_random(space, log_benign),
        make_random(space, log_benign, TRIES),
        make_generator(space, log_benign, encoder),
        make_white_box(space, log_benign),
    ]


def _evaded(
    prefix: str, worlds: Worlds, arena: Arena, before: Target, space: FlowSpace, generations: int
) -> list[dict[str, Any]]:
    """Detectors hardened in each step, and in rounds where there are generations, against all attackers."""
    domains, keys = worlds.domains, federation_keys(KEYS, len(worlds.domains))
    within = make_white_box(space, worlds.log_benign, STEPS, RATE)
    strong = make_white_box(space, worlds.log_benign)
    began = time.perf_counter()
    other = arena_of(worlds, hardened(worlds.classifier, within, domains[0].encoder, BUDGET), 0)
    detectors = {BEFORE: before, EACH_STEP: other.target(other.fit(None, EACH_STEP))}
    print(f"{EACH_STEP}: {time.perf_counter() - began:.0f} s", flush=True)
    if generations:
        detectors[IN_ROUNDS] = harden_in_rounds(arena, strong, BUDGET, domains, before, keys, generations)
        print(f"{IN_ROUNDS}: {time.perf_counter() - began:.0f} s", flush=True)
    attackers = _attackers(worlds, space)
    longer = make_white_box(space, worlds.log_benign, 100, 0.05)._replace(name="white-box, 100 steps")
    figures = evasion_figures(arena, domains, space, BUDGET, detectors, [*attackers, longer], keys)
    print(f"attacked: {time.perf_counter() - began:.0f} s", flush=True)
    attacks = [rows_where(w.test, w.test.label > 0) for w in domains]
    send = make_sender(strong)
    for budget in BUDGETS:
        for name, target in detectors.items():
            made = send(target, attacks, attacks, budget, keys)
            for own, alarm in zip(figures, arena.alarms(target, made), strict=True):
                own[f"{name}, white-box at budget {budget:g}", "detection_rate"] = float(alarm.mean())
    asked = [
        report.make_result(f"{prefix}/{a.name}: {what}", [n], "answers")
        for a in attackers
        for what, n in zip(("queries beforehand", "queries a flow, at most"), a.queries, strict=True)
    ]
    return _means(prefix, figures) + asked


def evasion(quick: bool, folder: str) -> list[dict[str, Any]]:
    """Figures named `evasion/...`, on simulated logs.

    Args:
      quick: fewer and smaller worlds.
      folder: of the data; simulated logs need none.
    """
    del folder
    worlds, arena, before = _ready(quick)
    return _evaded("evasion", worlds, arena, before, threat_space(worlds.domains[0].schema), generations_of(quick))


def nsl_kdd(quick: bool, folder: str) -> list[dict[str, Any]]:
    """Figures named `evasion nsl_kdd/...`: hardening in each step alone.

    Args:
      quick: fewer seeds, rounds and test records.
      folder: with nsl_kdd/.
    """
    worlds = threat_worlds.nsl_kdd_worlds(quick, folder)
    arena = arena_of(worlds, worlds.classifier, 0)
    space = column_space(worlds.domains[0].schema, NSL_KDD_FUNCTIONAL)
    return _evaded("evasion nsl_kdd", worlds, arena, arena.target(arena.fit(None, BEFORE)), space, 0)


def device(quick: bool, folder: str) -> list[dict[str, Any]]:
    """Figures named `device/...`.

    Args:
      quick: fewer and smaller worlds, fewer timed calls.
      folder: of the data; simulated logs need none.
    """
    del folder
    worlds, arena, target = _ready(quick)
    first, test = worlds.domains[0], [w.test for w in worlds.domains]
    released = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), target.released)
    rows = device_rows("threats", worlds.classifier, released, first.encoder, first.test.values, 50 if quick else 500)
    small = target._replace(released=jax.vmap(quantised)(target.released))
    figures: list[dict[tuple[str, str], float]] = [{} for _ in test]
    alarms = {"f32": arena.alarms(target, test), "int8": arena.alarms(small, test)}
    for name, found in alarms.items():
        for own, table, alarm in zip(figures, test, found, strict=True):
            own[name, "detection_rate"] = float(alarm[table.label > 0].mean())
            own[name, "false_positive_rate"] = float(alarm[table.label == 0].mean())
    for own, a, b in zip(figures, *alarms.values(), strict=True):
        own["int8", "answers_changed"] = float((a != b).mean())
    return [_result("device", r) for r in rows] + _means("device", figures)


def _result(part: str, row: Row) -> dict[str, Any]:
    """A row as a result; a figure without an interval is its own."""
    low, high = (row.value if math.isnan(x) else x for x in (row.low, row.high))
    name = f"{part}/{row.row}: {row.metric}"
    return {"name": name, "value": row.value, "low": low, "high": high, "n": row.n, "unit": "figure"}


def pooled(tables: Sequence[Table]) -> Table:
    """Devices of several worlds as one table, ids renumbered.

    Args:
      tables: client-major, each of at least one row.
    """
    shifts = np.cumsum([0, *(int(t.client.max()) + 1 for t in tables[:-1])])
    shifted = [t._replace(client=t.client + shift) for t, shift in zip(tables, shifts, strict=True)]
    return Table(*(np.concatenate(columns) for columns in zip(*shifted, strict=True)))


def stream(quick: bool, folder: str) -> list[dict[str, Any]]:
    """Figures named `stream/...`; what is infinite (campaigns never seen) is left out.

    Args:
      quick: fewer and smaller worlds.
      folder: of the data; simulated logs need none.
    """
    del folder
    worlds, arena, target = _ready(quick)
    validation, test = ([getattr(w, part) for w in worlds.domains] for part in ("validation", "test"))
    scores, found = arena.scores(target.released, test), []
    chosen = list(zip(validation, arena.scores(target.released, validation), strict=True))
    table, schema = pooled(test), worlds.domains[0].schema
    for most in OPERATING_POINTS:
        thresholds = [detection_threshold(t.label, p, most) for t, p in chosen]
        alarm = np.concatenate([positive_score(p) >= at for p, at in zip(scores, thresholds, strict=True)])
        for need, window in RULES:
            row = f"{100 * most:g} % FPR, {need} of {window}"
            rng = np.random.default_rng(KEYS)
            rows = alert_rows("threats", row, schema, table, alarm, rng, need, window)
            found += [_result("stream", r) for r in rows if np.isfinite([r.value, r.low, r.high]).all()]
    return found


PARTS: dict[str, Callable[[bool, str], list[dict[str, Any]]]] = {
    "evasion": evasion,
    "nsl_kdd": nsl_kdd,
    "device": device,
    "stream": stream,
}


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller worlds")
    parser.add_argument("--out", help="file for the JSON object")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"which of {','.join(PARTS)}")
    parser.add_argument("--data", default="../shared/data", help="folder of the data")
    args = parser.parse_args()
    if unknown := set(args.parts.split(",")) - set(PARTS):
        parser.error(f"--parts names {sorted(unknown)}; known are {', '.join(PARTS)}")
    began, found = time.perf_counter(), []
    for part in args.parts.split(","):
        found += PARTS[part](args.quick, args.data)
        print(f"{part}: {time.perf_counter() - began:.0f} s", flush=True)
    report.finish(report.make_report("detection_threats", report.host(), work.versions(*PACKAGES), found), args.out)


if __name__ == "__main__":
    main()
