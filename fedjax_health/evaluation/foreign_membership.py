"""What the synthetic table, and classifiers that learned from it, tell about who is among the real rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from sklearn.metrics import roc_auc_score

from fedjax_health.attacks.base import Attack, Published
from fedjax_health.data.split import take_clients
from fedjax_health.evaluation import curves
from fedjax_health.evaluation.foreign import Case, some_rows
from fedjax_health.evaluation.foreign_utility import Fits
from fedjax_health.evaluation.half_samples import FEWEST, HALVES, spread_interval
from fedjax_health.evaluation.membership import FPRS, SUCCESS, client_scores, membership_figures, tpr_interval
from fedjax_health.evaluation.utility import NAN, balanced_threshold
from fedjax_health.types import Row, Table

SETTING = "synthetic-table"
REFERENCE = 0.2  # of the held-out clients: the attacker's own records
MOST_TARGETS = 10_000  # members, and as many non-members: a false-positive rate of 0.1 % is then resolved
MOST_TARGET_ROWS = 50_000  # a side
MOST_SEEN = 100_000  # synthetic rows that an attacker looks at


def _balanced(member: np.ndarray, outsider: np.ndarray, generator: np.random.Generator) -> float:
    """Balanced accuracy of thresholds chosen on one half of the targets and measured on the other, both ways."""
    sides = [np.array_split(generator.permutation(side), 2) for side in (member, outsider)]
    found = []
    for chosen, measured in ((0, 1), (1, 0)):
        m, o = sides[0][chosen], sides[1][chosen]
        threshold = balanced_threshold(np.repeat([True, False], [len(m), len(o)]), np.concatenate([m, o]))
        found.append((np.mean(sides[0][measured] >= threshold) + np.mean(sides[1][measured] < threshold)) / 2)
    return float(np.mean(found))


def attack_rows(
    domain: str, model: str, row: str, member: np.ndarray, outsider: np.ndarray, generator: np.random.Generator
) -> list[Row]:
    """Figures of one attack on one table.

    Args:
      domain, model, row: as in `Row`; `row` is "<what is attacked>:<attack>".
      member, outsider: f64[n1], f64[n0], scores of clients that were and were not among the real ones.
      generator: splits the targets.

    Returns:
      auc; balanced_accuracy and "success (%)" with thresholds chosen on the other half of the targets; both with intervals by
      halves of the targets, n = n1 + n0. tpr_at_1pct_fpr and tpr_at_0p1pct_fpr with intervals by `tpr_interval`, n = n1; NaN
      with fewer than 1,000 and 10,000 non-members. All NaN where a side has fewer than 10, or a score is not finite.
    """
    few = min(len(member), len(outsider)) < FEWEST or not np.isfinite([*member, *outsider]).all()

    def averages(m: np.ndarray, o: np.ndarray) -> tuple[float, float]:
        auc = roc_auc_score(np.repeat([1, 0], [len(m), len(o)]), np.concatenate([m, o]))
        return float(auc), _balanced(m, o, generator)

    def half(side: np.ndarray) -> np.ndarray:
        return generator.permutation(side)[: len(side) // 2]

    whole = (NAN, NAN) if few else averages(member, outsider)
    halves = [] if few else [averages(half(member), half(outsider)) for _ in range(HALVES)]
    n, rows = len(member) + len(outsider), []
    for metric, i, unit in (("auc", 0, 1.0), ("balanced_accuracy", 1, 1.0), (SUCCESS, 1, 100.0)):
        value, several = unit * whole[i], [unit * h[i] for h in halves]
        rows.append(Row(domain, model, row, metric, value, *spread_interval(value, several), n))
    found = membership_figures(row, member, outsider)
    for metric in FPRS:
        rate = NAN if few else found[row, metric]
        interval = (NAN, NAN) if np.isnan(rate) else tpr_interval(member, outsider, FPRS[metric])
        rows.append(Row(domain, model, row, metric, rate, *interval, len(member)))
    return rows


def membership_tables(
    case: Case, fits: Fits, attacks: Mapping[str, Attack]
) -> tuple[list[Row], list[tuple[str, str, str, float, float]]]:
    """Table 3: members are clients of the real rows, non-members held-out ones, the attacker's own records other held-out ones.

    Means something only where both were drawn alike; `foreign.warnings` tests that.

    Args:
      case: the tables.
      fits: classifiers; those of trees are attacked by their loss.
      attacks: by name; "loss-threshold" attacks the classifiers, the others the synthetic table.

    Returns:
      (rows, curves as (domain, model, row, fpr, tpr)); none with one held-out client.
    """
    held = case.tables.holdout
    order = case.generator("reference").permutation(int(held.client.max()) + 1)
    kept = max(1, round(REFERENCE * len(order)))
    reference = take_clients(held, np.sort(order[:kept]))
    outside = order[kept:]
    if not len(outside):
        return [], []

    def targets(table: Table, clients: np.ndarray, *names: str) -> Table:
        chosen = case.generator("targets", *names).permutation(clients)[: min(len(outside), MOST_TARGETS)]
        return some_rows(take_clients(table, np.sort(chosen)), MOST_TARGET_ROWS, case.generator("rows", *names))

    outsider = targets(held, outside, "outsider")
    rows: list[Row] = []
    points: list[tuple[str, str, str, float, float]] = []

    def add(model: str, row: str, members: Table, score: Callable[[Table], np.ndarray]) -> None:
        target = targets(members, np.arange(int(members.client.max()) + 1), "member")
        pair = [client_scores(score(t), t.client) for t in (target, outsider)]
        rows.extend(attack_rows(case.domain, model, row, pair[0], pair[1], case.generator("attack", model, row)))
        points.extend(
            (case.domain, model, row, float(f), float(t)) for f, t in zip(*curves.roc_points(*pair), strict=True)
        )

    def run(attack: Attack, published: Published, *names: str) -> Callable[[Table], np.ndarray]:
        return lambda table: attack.score(published, table, case.schema, case.generator(attack.name, *names))

    loss = attacks["loss-threshold"]
    alone = fits.by_row["-", "real"]
    add("-", f"model-on-real:{loss.name}", alone.trained, run(loss, Published(None, reference, alone.loss)))
    for name, table in case.tables.synthetic.items():
        fitted = fits.by_row[name, "synthetic"]
        learned = run(loss, Published(None, reference, fitted.loss))
        add(name, f"model-on-synthetic:{loss.name}", case.tables.real, learned)
        seen = some_rows(table, MOST_SEEN, case.generator("seen", name))
        for attack in attacks.values():
            if attack is not loss:
                score = run(attack, Published(seen, reference, None), name)
                add(name, f"{SETTING}:{attack.name}", case.tables.real, score)
    return rows, points
